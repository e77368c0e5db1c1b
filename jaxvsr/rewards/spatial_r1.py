"""The rewards of Spatial-R1: numerical accuracy (NAR), multiple-choice accuracy (MAR), format.

The default parsing is ours. `parsing="released"` is that of the code released in April 2025, with its faults: the
sign is lost, number words are looked for first in a fixed order ("twenty-one" is 1, "a" is 1), letters A to D are
looked for anywhere in alphabetical order ("An answer: C" is A), and left/right answers can never score.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from jaxvsr.rewards.answers import tag_text
from jaxvsr.rewards.numerals import parse_number
from jaxvsr.rewards.vsgrpo import match_score
from jaxvsr.rewards.vsi_bench import THRESHOLDS, number_reward, to_float

Parsing = Literal["robust", "released"]

# Atomic: what fails behind the first </think> <answer> fails behind every later one.
_FORMAT = re.compile(r"<think>(?>.*?</think>\s*<answer>).+?</answer>", re.DOTALL)
_RELEASED_WORDS = {
    **{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10},
    **{"eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17},
    **{"eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60},
    **{"seventy": 70, "eighty": 80, "ninety": 90, "zero": 0, "a": 1, "an": 1},
}


def released_number(answer: str) -> float | None:
    """The number that the released reward reads in the text of the answer tag."""
    answer = answer.strip().lower()
    for word, value in _RELEASED_WORDS.items():
        if re.search(rf"\b{word}\b", answer):
            return float(value)
    match = re.search(r"\d+(\.\d+)?", answer)
    return None if match is None else to_float(match[0])


def released_letter(answer: str) -> str:
    """The letter that the released reward reads: the first of A, B, C, D, in this order, that occurs anywhere."""
    return next((letter for letter in "ABCD" if letter in answer), "None")


def _check(parsing: str) -> None:
    if parsing not in get_args(Parsing):
        raise ValueError(f"parsing={parsing!r} is not one of {', '.join(get_args(Parsing))}")


def spatial_r1_nar(
    completions: list[str],
    *,
    answer: list[str],
    answer_kind: list[str],
    thresholds: int = THRESHOLDS,
    parsing: Parsing = "robust",
    **columns: Any,
) -> list[float | None]:
    """Mean relative accuracy of the number in the first <answer> pair, in [0, 1]; None where the answer is no number.

    `thresholds` 10 as in the code and in VSI-Bench, 11 as in the paper's Eq. 2. No tag, no number: 0. A true answer
    that is not positive (the released code stops at 0) scores 1 only for exactly that number.
    """
    _check(parsing)
    if thresholds < 1:
        raise ValueError(f"thresholds={thresholds}: must be at least 1")
    rewards: list[float | None] = []
    for text, truth, kind in zip(completions, answer, answer_kind, strict=True):
        if kind != "number":
            rewards.append(None)
            continue
        said = tag_text(text)
        if parsing == "released":
            number = released_number("None" if said is None else said)
        else:
            number = None if said is None else parse_number(said)
        rewards.append(number_reward(number, parse_number(truth), thresholds))
    return rewards


def spatial_r1_mar(
    completions: list[str],
    *,
    answer: list[str],
    answer_kind: list[str],
    options: list[Any] | None = None,
    parsing: Parsing = "robust",
    **columns: Any,
) -> list[float | None]:
    """1 if the first <answer> pair holds the solution in the solution's own form (letter, word, left/right), else 0.

    None for numbers and boxes.
    """
    _check(parsing)
    rewards: list[float | None] = []
    for text, truth, kind, choices in zip(
        completions, answer, answer_kind, options or [None] * len(answer), strict=True
    ):
        said = tag_text(text)
        if kind in ("number", "box"):
            rewards.append(None)
        elif parsing == "released":
            rewards.append(float(released_letter("None" if said is None else said).lower() == truth.lower()))
        else:
            rewards.append(0.0 if said is None else match_score(said, truth, kind, choices))
    return rewards


def spatial_r1_format(completions: list[str], **columns: Any) -> list[float | None]:
    """1 if the whole completion, untrimmed, is <think>…</think> <answer>…</answer> with something in the answer, else
    0.

    As released: a trailing newline fails, nested and repeated tags pass.
    """
    return [float(_FORMAT.fullmatch(text) is not None) for text in completions]
