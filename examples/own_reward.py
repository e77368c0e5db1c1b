"""A custom reward: 1 within a tenth of the right number, and a little for any other number.

    python launch/train.py --config demo-grpo --rewards examples/own_reward.py:within_a_tenth

A reward has TRL's signature: the completions, then the fields of their questions as lists of the same length. It
returns one number per completion, or None where it does not apply (here: questions whose answer is not a number). A
reward that raises, or that returns too few or too many values, ends the run with a line that names it and the row.
"""

from __future__ import annotations

from typing import Any

from jaxvsr.rewards.answers import extract_answer
from jaxvsr.rewards.numerals import parse_number


def within_a_tenth(
    completions: list[str], *, answer: list[str], answer_kind: list[str], **columns: Any
) -> list[float | None]:
    """1 within 10 % of the right number, 0.1 for any other number, 0 for no number."""
    rewards: list[float | None] = []
    for completion, truth, kind in zip(completions, answer, answer_kind, strict=True):
        if kind != "number":
            rewards.append(None)
            continue
        predicted, target = parse_number(extract_answer(completion)), float(truth)
        if predicted is None:
            rewards.append(0.0)
        else:
            rewards.append(1.0 if abs(predicted - target) <= 0.1 * abs(target) else 0.1)
    return rewards
