"""The rewards of vsGRPO (sections 3.2 and 3.3.3): format by mode, accuracy by kind of answer, length as an option.

The paper has no equations and no code for them. We read its "character matching" as equality after normalising. Its
number reward, |y - ŷ| / min(y, ŷ), is an error (larger is worse, unbounded, undefined at 0): the option `numeric` says
how it becomes a reward.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from jaxvsr.rewards.answers import extract_answer, tagged_completion, words_match
from jaxvsr.rewards.numerals import parse_number
from jaxvsr.rewards.option_letter import answer_letter, choice_letter
from jaxvsr.rewards.vsi_bench import number_reward

Numeric = Literal["bounded", "negated", "mra"]
NEGATED_FLOOR = -10.0  # caps outliers: one answer must not dominate the group's standard deviation
LENGTH_CHARACTERS = 300  # the paper tried a length reward and does not say which


def numeric_error(prediction: float, target: float) -> float:
    """|ŷ - y| / min(ŷ, y), vsGRPO section 3.2; 0 where both are equal, inf where the smaller is not positive."""
    if prediction == target:
        return 0.0
    smaller = min(prediction, target)
    if smaller <= 0:
        return float("inf")
    return abs(prediction - target) / smaller


def numeric_score(prediction: float | None, target: float | None, numeric: Numeric = "bounded") -> float:
    """The accuracy of one number, with error = `numeric_error`:

        bounded   1 - min(error, 1)             0 to 1, the default
        negated   max(-error, -10)            -10 to 0
        mra       `number_reward`               0 to 1, VSI-Bench's mean relative accuracy

    None (no number in the text) gets the lowest score. So does a wrong number where either is not positive; with mra,
    where the target is not positive.
    """
    if numeric == "mra":
        return number_reward(prediction, target)
    error = float("inf") if prediction is None or target is None else numeric_error(prediction, target)
    return max(-error, NEGATED_FLOOR) if numeric == "negated" else 1.0 - min(error, 1.0)


def match_score(prediction: str, answer: str, answer_kind: str, options: list[str] | tuple[str, ...] | None) -> float:
    """1.0 if the prediction names the right letter (answer_kind "choice") or is the right word, else 0.0."""
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
    """vsGRPO's accuracy of the answer: the first `<answer>` pair, else the whole completion.

    Range: 0 to 1; with `numeric="negated"` -10 to 0 for numbers. None if the true answer is a box.

    Formula, by kind of answer, with a predicted number ŷ and the true number y:

        number       1 - min(|ŷ - y| / min(ŷ, y), 1); other values of `numeric` in `numeric_score`
        choice       1 if the letter is right (`choice_letter`), else 0
        word, text   1 if equal after `normalise_word`, else 0

    Source: vsGRPO section 3.2, "Accuracy Reward"; "1 - min(…, 1)" is ours, see the head of this module.
    """
    if numeric not in get_args(Numeric):
        raise ValueError(f"numeric={numeric!r} is not one of {', '.join(get_args(Numeric))}")
    rewards: list[float | None] = []
    for text, target, kind, choices in zip(
        completions, answer, answer_kind, options or [None] * len(answer), strict=True
    ):
        predicted = extract_answer(text)
        if kind == "number":
            rewards.append(numeric_score(parse_number(predicted), parse_number(target), numeric))
        else:
            rewards.append(None if kind == "box" else match_score(predicted, target, kind, choices))
    return rewards


_THINK, _OBSERVE = tagged_completion("think"), tagged_completion("observe")


def vsgrpo_format_think(completions: list[str], **columns: Any) -> list[float | None]:
    r"""vsGRPO's format reward in think mode.

    Range: 0 or 1; never None.

    Formula: 1 if the whole completion matches `\s*<think>.*?</think>\s*<answer>.+?</answer>\s*`, else 0; `.` is any
    character.

    Source: vsGRPO section 3.2, "Format Reward", which gives the prompt's tags and no pattern. It can be hacked, as
    section 3.3.3 reports: an empty thought passes, and so do repeated tags. `robust_format` rejects both.
    """
    return [float(_THINK.fullmatch(text) is not None) for text in completions]


def vsgrpo_format_observe(completions: list[str], **columns: Any) -> list[float | None]:
    r"""vsGRPO's format reward in observe mode: `vsgrpo_format_think` with the tag of its prompt, `<observe>`.

    Range: 0 or 1; never None.

    Formula: 1 if the whole completion matches `\s*<observe>.*?</observe>\s*<answer>.+?</answer>\s*`, else 0.

    Source: vsGRPO section 3.2; the hacked observe rollout printed in section 3.3.3 has `<think>` instead.
    """
    return [float(_OBSERVE.fullmatch(text) is not None) for text in completions]


def vsgrpo_length(completions: list[str], *, characters: int = LENGTH_CHARACTERS, **columns: Any) -> list[float | None]:
    """A reward for long completions.

    Range: 0 to 1; never None.

    Formula: min(1, length / `characters`), length being the characters of the whole completion, tags included.

    Source: vsGRPO section 3.3.3 tried a length reward and does not say which. As it reports, extra tag pairs game it.
    """
    if characters < 1:
        raise ValueError(f"characters={characters}: must be at least 1")
    return [min(1.0, len(text) / characters) for text in completions]
