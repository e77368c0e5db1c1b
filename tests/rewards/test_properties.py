"""Every reward is total and in its stated range, on 10,000 strings each and on hypothesis' worst."""

import itertools
import math
import random
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvsr.config.reward_terms import rewards_from
from jaxvsr.rewards.answers import extract_answer, normalise_word, tag_text
from jaxvsr.rewards.hacking import hack_shares, hacks
from jaxvsr.rewards.numerals import parse_length_cm, parse_number, parse_numbers
from jaxvsr.rewards.option_letter import choice_letter
from jaxvsr.rewards.registry import REWARDS
from jaxvsr.rewards.scoring import score_completions
from tests.support.answers import random_completion

OPTIONS = ("A. stove", "B. tv", "C. table", "D. sofa")
TRUTHS = [
    *[
        ("4", "number"),
        ("0", "number"),
        ("-3", "number"),
        ("0.0001", "number"),
        ("1e308", "number"),
        ("47.9", "number"),
    ],
    *[("not a number", "number"), ("nan", "number"), ("inf", "number"), ("C", "choice"), ("B. tv", "choice")],
    *[("left", "word"), ("trash can", "word"), ("...", "word"), ("a red chair", "text"), ("[1, 2, 3, 4]", "box")],
]

# What is cut off at both ends of a word.
MARKS = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u2018\u2019\u201c\u201d\u2026"
WORD_PIECES = ["the", "The ", "an ", "a ", "A", " ", "\t", "\u3000", "sofa", "SOFA", "ß", "ﬁ", ".", "…", "'", "-", "½"]

# name: (lowest, highest), None for "does not apply" allowed everywhere
RANGES = {
    "vsgrpo_accuracy": (0, 1),
    "vsgrpo_accuracy(numeric=negated)": (-10, 1),  # -10 to 0 for numbers, 0 or 1 for the rest
    "vsgrpo_accuracy(numeric=mra)": (0, 1),
    "vsgrpo_format_think": (0, 1),
    "vsgrpo_format_observe": (0, 1),
    "vsgrpo_length": (0, 1),
    "vsgrpo_length(characters=10)": (0, 1),
    "spatial_r1_nar": (0, 1),
    "spatial_r1_nar(thresholds=11)": (0, 1),
    "spatial_r1_nar(parsing=released)": (0, 1),
    "spatial_r1_mar": (0, 1),
    "spatial_r1_mar(parsing=released)": (0, 1),
    "spatial_r1_format": (0, 1),
    "svqa_format": (0, 1),
    "vsi_bench": (0, 1),
    "robust_format": (0, 1),
    "robust_format(tag=observe)": (0, 1),
}


def columns_for(truths):
    return {
        "id": [str(index) for index in range(len(truths))],
        "question": ["Is the 4 m wide table closer than 2 m?"] * len(truths),
        "question_type": ["object_counting"] * len(truths),
        "answer": [truth for truth, _ in truths],
        "answer_kind": [kind for _, kind in truths],
        "options": [OPTIONS if kind == "choice" else None for _, kind in truths],
    }


def check_range(term, completions, truths):
    low, high = RANGES[term]
    (values,) = score_completions(rewards_from(term), completions, columns_for(truths))
    for value, completion, truth in zip(values, completions, truths, strict=True):
        assert math.isnan(value) or low <= value <= high, (term, completion, truth, value)
    return values


def test_every_reward_without_a_language_model_is_covered_here():
    assert {term.partition("(")[0] for term in RANGES} == set(REWARDS) - {"svqa_semantic"}


@pytest.mark.slow
@pytest.mark.parametrize("term", RANGES)
def test_reward_is_in_range_on_10000_strings(term):
    draw = random.Random(term)
    completions = [random_completion(draw) for _ in range(10_000)]
    truths = list(itertools.islice(itertools.cycle(TRUTHS), len(completions)))
    values = check_range(term, completions, truths)
    assert len({value for value in values if not math.isnan(value)}) > 1  # the strings reach more than one value


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.text(), st.sampled_from(TRUTHS))
def test_rewards_accept_any_text(text, truth):
    for term in RANGES:
        check_range(
            term, [text, f"<answer>{text}</answer>", f"<think>{text}</think><answer>{text}</answer>"], [truth] * 3
        )


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_parsers_accept_any_text_and_give_finite_numbers(text):
    for value in (parse_number(text), parse_length_cm(text), *parse_numbers(text)):
        assert value is None or math.isfinite(value)
    assert isinstance(extract_answer(text), str)
    assert tag_text(text) is None or isinstance(tag_text(text), str)
    assert choice_letter(text, OPTIONS) in (None, "A", "B", "C", "D")


def restated_word(text):
    """`normalise_word` again, letter by letter."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    while text and text[0] in MARKS:
        text = text[1:]
    while text and text[-1] in MARKS:
        text = text[:-1]
    for article in ("the ", "an ", "a "):
        if text.startswith(article):
            return text[len(article) :]
    return text


@settings(max_examples=500, deadline=None)
@given(st.text() | st.lists(st.sampled_from(WORD_PIECES), max_size=8).map("".join))
def test_words_are_normalised_as_in_a_second_implementation(text):
    word = normalise_word(text)
    assert word == restated_word(text)
    assert word == word.casefold() == " ".join(word.split())
    assert word == "" or word[-1] not in MARKS


def test_only_the_first_article_is_dropped():
    assert normalise_word(" The  Sofa. ") == normalise_word("a sofa") == normalise_word("sofa") == "sofa"
    assert normalise_word("the a sofa") == "a sofa"
    assert normalise_word("the ...") == "the"


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(), max_size=5))
def test_measures_of_hacking_are_shares(texts):
    for share in hack_shares(hacks(texts, ["How many?"] * len(texts), "think")).values():
        assert 0 <= share <= 1


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back(value):
    assert parse_number(repr(value)) == value
    assert parse_number(f"about {value!r} metres") == value


@settings(max_examples=200, deadline=None)
@given(st.integers(min_value=0, max_value=999_999))
def test_thousands_separators_and_other_scripts_are_read(value):
    arabic = str(value).translate({ord("0") + digit: 0x0660 + digit for digit in range(10)})
    assert parse_number(f"{value:,} chairs") == parse_number(arabic) == value


HOSTILE = ("<think>", "<answer>", "</answer>", "9", "9,", "one ", " ", "-", "answer is ", "<think></think>", "(A", "A ")


@pytest.mark.slow
@pytest.mark.parametrize("piece", HOSTILE)
def test_long_hostile_strings_are_scored_without_hanging(piece, alarm):
    """Linear code needs a fraction of a second; a regular expression in quadratic time would need minutes."""
    text = piece * (200_000 // len(piece))
    alarm()
    for term in RANGES:
        check_range(term, [text], TRUTHS[:1])
    assert set(hacks([text], ["How many?"], "think")["repeated_tags"]) == {"<" in piece}
    assert parse_length_cm(text) is None
    assert choice_letter(text, OPTIONS) == ("A" if "A" in piece else None)


def test_long_tags_that_never_close_are_scored_without_hanging(alarm):
    """A rollout that repeats itself up to its budget; each open tag would look for its end through the whole text."""
    alarm()
    for piece in ("a <think>", "<answer>", "<think> </think> <answer>", "<observe></observe><answer>"):
        text = "<think>" + piece * (300_000 // len(piece))
        for term in (term for term in RANGES if "format" in term or "parsing" in term):
            ((value,),) = score_completions(rewards_from(term), [text], columns_for([("4", "number")]))
            assert value == 0 or math.isnan(value), term
        assert hacks([text], ["How many?"], "think")["repeated_tags"].all()


@pytest.mark.slow
def test_formats_and_tricks_are_those_of_plain_patterns():
    """What the same patterns say that look again from every tag."""
    draw = random.Random(5)
    tags = ["<think>", "</think>", "<answer>", "</answer>", "<observe>", "</observe>"]
    texts = [
        "".join(draw.choice([*tags, *tags, " ", "\n", "a", "4"]) for _ in range(draw.randint(0, 12)))
        for _ in range(5000)
    ]
    texts += [f"<{tag}>{text}</{tag}> <answer>{text}</answer>" for tag in ("think", "observe") for text in texts[:500]]
    forms = {
        "vsgrpo_format_think": r"\s*<think>.*?</think>\s*<answer>.+?</answer>\s*",
        "vsgrpo_format_observe": r"\s*<observe>.*?</observe>\s*<answer>.+?</answer>\s*",
        "spatial_r1_format": r"<think>.*?</think>\s*<answer>.+?</answer>",
        "svqa_format": r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*",
    }
    for term, pattern in forms.items():
        expected = [float(re.fullmatch(pattern, text, re.DOTALL) is not None) for text in texts]
        assert 0 < sum(expected) < len(texts)
        assert score_completions(rewards_from(term), texts, {})[0].tolist() == expected
    found = hacks(texts, ["?"] * len(texts), "think")
    for text, empty, outside in zip(texts, found["empty_thought"], found["outside_tags"], strict=True):
        thoughts = [
            thought for tag in ("think", "observe") for thought in re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        ]
        assert empty == any("a" not in re.sub("</?[a-z]+>", " ", thought) for thought in thoughts)
        rest = text
        for tag in ("think", "observe", "answer"):
            rest = re.sub(f"<{tag}>.*?</{tag}>", " ", rest, flags=re.DOTALL)
        assert outside == bool(re.search("[a4]", re.sub("</?[a-z]+>", " ", rest)))
