"""The rewards of Spatial-R1 (section 3): numerical accuracy (NAR), multiple-choice accuracy (MAR), format (FR).

The default parsing is ours. `parsing="released"` is that of the code released in April 2025, with its faults: the sign
is lost, number words come first and in a fixed order ("twenty-one" is 1, "a" is 1), the letters A to D are searched for
anywhere in alphabetical order ("An answer: C" is A), and left/right answers can never score.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from jaxvsr.rewards.answers import tag_text, tagged_completion
from jaxvsr.rewards.numerals import parse_number
from jaxvsr.rewards.vsgrpo import match_score
from jaxvsr.rewards.vsi_bench import THRESHOLDS, number_reward, to_float

Parsing = Literal["robust", "released"]

_FORMAT = tagged_completion("think", around="")
_RELEASED_WORDS = {
    **{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10},
    **{"eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17},
    **{"eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60},
    **{"seventy": 70, "eighty": 80, "ninety": 90, "zero": 0, "a": 1, "an": 1},
}


def released_number(answer: str) -> float | None:
    """The number that the released code reads in the text of the answer tag."""
    answer = answer.strip().lower()
    for word, value in _RELEASED_WORDS.items():
        if re.search(rf"\b{word}\b", answer):
            return float(value)
    match = re.search(r"\d+(\.\d+)?", answer)
    return None if match is None else to_float(match[0])


def released_letter(answer: str) -> str:
    """The letter that the released code reads: the first of A, B, C, D, in this order, that occurs anywhere."""
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
    """Numerical accuracy reward (NAR): mean relative accuracy of the number in the first `<answer>` pair.

    Range: 0 to 1; None if the true answer is not of kind number. No tag or no number in it: 0.

    Formula, with the predicted number ŷ, the true number y and N = `thresholds`:

        1/N Σ_i [|ŷ - y| / y <= 1 - c_i],   c = linspace(0.5, 0.95, N)

    A true answer that is not positive scores 1 for exactly that number, else 0 (the released code fails at 0).

    Source: Spatial-R1 Eq. 1 and 3. N is 10 in its code and in VSI-Bench; 11 is what Eq. 2 gives.
    """
    _check(parsing)
    if thresholds < 1:
        raise ValueError(f"thresholds={thresholds}: must be at least 1")
    rewards: list[float | None] = []
    for text, target, kind in zip(completions, answer, answer_kind, strict=True):
        if kind != "number":
            rewards.append(None)
            continue
        predicted = tag_text(text)
        if parsing == "released":
            number = released_number("None" if predicted is None else predicted)
        else:
            number = None if predicted is None else parse_number(predicted)
        rewards.append(number_reward(number, parse_number(target), thresholds))
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
    """Multiple-choice accuracy reward (MAR): whether the first `<answer>` pair is the true answer.

    Range: 0 or 1; None if the true answer is a number or a box. No tag: 0.

    Formula: 1 if ŷ = y, else 0; letters are compared by `choice_letter`, words such as left and right by `words_match`,
    and with `parsing="released"` everything by `released_letter`.

    Source: Spatial-R1 Eq. 8.
    """
    _check(parsing)
    rewards: list[float | None] = []
    for text, target, kind, choices in zip(
        completions, answer, answer_kind, options or [None] * len(answer), strict=True
    ):
        predicted = tag_text(text)
        if kind in ("number", "box"):
            rewards.append(None)
        elif parsing == "released":
            rewards.append(float(released_letter("None" if predicted is None else predicted).lower() == target.lower()))
        else:
            rewards.append(0.0 if predicted is None else match_score(predicted, target, kind, choices))
    return rewards


def spatial_r1_format(completions: list[str], **columns: Any) -> list[float | None]:
    r"""Format reward (FR), as in the released code.

    Range: 0 or 1; never None.

    Formula: 1 if the whole completion matches `<think>.*?</think>\s*<answer>.+?</answer>`, else 0; `.` is any
    character. Nothing is trimmed first, so a newline at the end fails; nested and repeated tags pass.

    Source: Spatial-R1 section 3 and its code of April 2025 (grpo_video.py).
    """
    return [float(_FORMAT.fullmatch(text) is not None) for text in completions]
