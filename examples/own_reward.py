"""A reward of one's own: right within a tenth, and a little for every answer that is a number at all.

    python launch/train.py --config demo-grpo --rewards examples/own_reward.py:within_a_tenth

A reward has TRL's signature: the completions, then the fields of their questions as lists of the same length. It
returns one number each, or None where it does not apply (here: questions whose answer is not a number). One that
raises, or that returns another number of values, ends the run with its name and the row.
"""

from __future__ import annotations

from typing import Any

from jaxvsr.rewards.answers import extract_answer
from jaxvsr.rewards.numerals import parse_number


def within_a_tenth(
    completions: list[str], *, answer: list[str], answer_kind: list[str], **columns: Any
) -> list[float | None]:
    """1 within 10 % of the truth, 0.1 for any other number, 0 for none."""
    rewards: list[float | None] = []
    for completion, truth, kind in zip(completions, answer, answer_kind, strict=True):
        if kind != "number":
            rewards.append(None)
            continue
        said, true = parse_number(extract_answer(completion)), float(truth)
        if said is None:
            rewards.append(0.0)
        else:
            rewards.append(1.0 if abs(said - true) <= 0.1 * abs(true) else 0.1)
    return rewards
