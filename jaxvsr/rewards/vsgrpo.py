"""The rewards of vsGRPO (its section 3.2): format by mode, accuracy by kind of answer, length as an option.

The paper gives no code. "Character matching" is read as equality after normalising; its numerical reward |y - ŷ| /
min(y, ŷ) is an error (larger is worse, unbounded, undefined at 0), so `numeric` names what is made of it.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from jaxvsr.rewards.answers import answer_letter, choice_letter, extract_answer, words_match
from jaxvsr.rewards.numerals import parse_number
from jaxvsr.rewards.vsi_bench import number_reward

Numeric = Literal["bounded", "negated", "mra"]
NEGATED_FLOOR = -10.0  # one wild answer must not own the standard deviation of its group
LENGTH_CHARACTERS = 300  # the paper tried a length reward and does not say which


def numeric_error(prediction: float, target: float) -> float:
    """|prediction - target| / min of the two; 0 where they are equal, inf where the smaller is not positive."""
    if prediction == target:
        return 0.0
    smaller = min(prediction, target)
    if smaller <= 0:
        return float("inf")
    return abs(prediction - target) / smaller


def numeric_score(prediction: float | None, target: float | None, numeric: Numeric = "bounded") -> float:
    """The numerical accuracy of one answer.

    bounded (default): 1 - clip(error, 0, 1), in [0, 1]. negated: -error, in [-10, 0] (cut at -10). mra: VSI-Bench's
    mean relative accuracy, in [0, 1]. An unparseable or, where it errs, non-positive value takes the lowest score.
    """
    if numeric == "mra":
        return number_reward(prediction, target)
    error = float("inf") if prediction is None or target is None else numeric_error(prediction, target)
    return max(-error, NEGATED_FLOOR) if numeric == "negated" else 1.0 - min(error, 1.0)


def match_score(prediction: str, answer: str, answer_kind: str, options: list[str] | tuple[str, ...] | None) -> float:
    """1 if a choice or a word is the right one, else 0, by normalised match."""
    if answer_kind == "choice":
        letter = answer_letter(answer, options)
        if letter is not None:
            return float(choice_letter(prediction, options) == letter)
    return float(words_match(prediction, answer))


def vsgrpo_accuracy(
    completions: list[str],
    *,
    answer: list[str],
    answer_kind: list[str],
    options: list[Any] | None = None,
    numeric: Numeric = "bounded",
    **columns: Any,
) -> list[float | None]:
    """Accuracy of the answer (the first <answer> pair, else the whole completion); range by `numeric_score`; None for
    a box.

    Words, texts and letters score 1 or 0 by normalised match.
    """
    if numeric not in get_args(Numeric):
        raise ValueError(f"numeric={numeric!r} is not one of {', '.join(get_args(Numeric))}")
    rewards: list[float | None] = []
    for text, truth, kind, choices in zip(
        completions, answer, answer_kind, options or [None] * len(answer), strict=True
    ):
        said = extract_answer(text)
        if kind == "number":
            rewards.append(numeric_score(parse_number(said), parse_number(truth), numeric))
        else:
            rewards.append(None if kind == "box" else match_score(said, truth, kind, choices))
    return rewards


def _tagged(tag: str) -> re.Pattern[str]:
    # Atomic: what fails behind the first </think> <answer> fails behind every later one.
    return re.compile(rf"\s*<{tag}>(?>.*?</{tag}>\s*<answer>).+?</answer>\s*", re.DOTALL)


_FORMS = {"think": _tagged("think"), "observe": _tagged("observe")}


def vsgrpo_format_think(completions: list[str], **columns: Any) -> list[float | None]:
    """1 if the completion is <think>…</think> <answer>…</answer>, white space around allowed, else 0.

    As in the paper it can be hacked: an empty thought passes, and so do repeated tags. `robust_format` is the one
    that cannot.
    """
    return [float(_FORMS["think"].fullmatch(text) is not None) for text in completions]


def vsgrpo_format_observe(completions: list[str], **columns: Any) -> list[float | None]:
    """1 if the completion is <observe>…</observe> <answer>…</answer>, else 0: observe mode's own tag, which the paper's
    example of a hacked observe rollout does not have (it shows <think>)."""
    return [float(_FORMS["observe"].fullmatch(text) is not None) for text in completions]


def vsgrpo_length(completions: list[str], *, characters: int = LENGTH_CHARACTERS, **columns: Any) -> list[float | None]:
    """min(1, length / characters) of the whole completion, tags included: in [0, 1], and gamed by extra tag pairs as
    reported.
    """
    if characters < 1:
        raise ValueError(f"characters={characters}: must be at least 1")
    return [min(1.0, len(text) / characters) for text in completions]
