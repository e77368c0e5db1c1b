"""Chat templates of anybody's model folder: those that loop or grow without end are one line, others are as before."""

import sys

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from jaxvsr.errors import InputError
from jaxvsr.models.inputs.bounded_template import bounded_template

GROWS = "{%% set ns = namespace(t='ab') %%}{%% for i in range(60) %%}{%% set ns.t = ns.t %s ns.t %%}{%% endfor %%}"


def render(template: str) -> str:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with bounded_template(template):
        messages = [{"role": "user", "content": "2**3 chairs"}]
        return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "does it loop without end"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", "does it loop without end"),
        (GROWS % "~", "more than 4,194,304 characters"),
        (GROWS % "+", "more than 4,194,304 characters"),
        ("{{ 9 ** 9 ** 9 }}", "computes with powers"),
        ("{{ 'a' * 99999999999 }}", "or with numbers above 999,999"),
    ],
)
def test_a_template_without_end_is_stopped(template: str, says: str):
    before = sys.gettrace()
    with pytest.raises(InputError, match=says):
        render(template)
    assert sys.gettrace() is before


def test_an_ordinary_template_renders_as_without_bounds():
    template = "{{ '**bold**' }} **{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}{% endfor %}"
    assert render(template) == "**bold** **user: 2**3 chairs"
