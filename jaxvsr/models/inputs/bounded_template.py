"""Chat templates come with model folders of anybody: one that loops or grows without end is stopped in a line."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from jinja2.utils import Namespace

from jaxvsr.errors import InputError

MOST_LINES = 50_000  # of the compiled template, in one rendering; those of Qwen run some ten a message
MOST_CHARACTERS = 1 << 22
MOST_NUMBER = 999_999
_CODE = re.compile(r"\{[{%](.*?)[%}]\}", re.DOTALL)
_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_POWER = re.compile(r"[\w)\]]\s*\*\*")
_FILE = "<template>"  # what Jinja calls the code that it compiles


@contextlib.contextmanager
def bounded_template(template: str) -> Iterator[None]:
    """A template that Jinja renders inside, in this thread, is bounded in lines that run, in text and in numbers.

    Raises:
        InputError: a template passes a bound.
    """
    for code in _CODE.findall(template):  # Python computes these in one go, some of them before anything runs
        code = _STRING.sub("''", code)
        if _POWER.search(code) or re.search(r"\d{7,}", code):
            raise InputError(f"chat template: computes with powers, or with numbers above {MOST_NUMBER:,}")
    lines = characters = 0

    def line(frame: FrameType, event: str, value: Any) -> Any:
        nonlocal lines, characters
        lines += event == "line"
        if event == "return" and isinstance(value, str):  # a piece of the text, or of a macro's
            characters += len(value)
        if lines > MOST_LINES:
            raise InputError(f"chat template: runs more than {MOST_LINES:,} lines; does it loop without end?")
        if characters > MOST_CHARACTERS or any(map(_is_too_large, frame.f_locals.values())):
            raise InputError(f"chat template: makes more than {MOST_CHARACTERS:,} characters")
        return line

    def called(frame: FrameType, event: str, value: Any) -> Any:
        return line if frame.f_code.co_filename == _FILE else None

    before = sys.gettrace()
    sys.settrace(called)
    try:
        yield
    finally:
        sys.settrace(before)


def _is_too_large(value: Any) -> bool:
    if isinstance(value, Namespace):
        return any(map(_is_too_large, object.__getattribute__(value, "_Namespace__attrs").values()))
    if isinstance(value, str | list | tuple):
        return len(value) > MOST_CHARACTERS
    return isinstance(value, int) and abs(value) > MOST_NUMBER
