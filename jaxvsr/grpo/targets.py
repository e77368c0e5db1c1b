"""Given answers: what SFT and DPO learn from a question row."""

from __future__ import annotations

import hashlib
import re

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError

# A rejected number is this many times the right one: plain misses, none within VSI-Bench's widest tolerance of 50 %.
WRONG_FACTORS = (0.25, 0.4, 1.7, 2.5)
WRONG_COUNTS = (1, 2, 3)  # a rejected count is this much higher, or lower where it stays above 0
_OPPOSITES = {"left": "right", "front": "back", "yes": "no", "above": "below", "near": "far", "larger": "smaller"}
_OPPOSITES |= {other: one for one, other in _OPPOSITES.items()}


def target_answer(question: Question) -> str:
    """The text that SFT learns: the full response where the row has one."""
    return question.response if question.response is not None else question.answer


def rejected_answer(question: Question) -> str:
    """A wrong answer of the same kind, the same for the same question every time: another option, a number far off, the
    opposite word.

    Raises:
        InputError: the question has no such answer (free text, boxes, words without an opposite, one option, 0.0).
    """
    wrong = _wrong_answer(question)
    if wrong is None or wrong == question.answer.strip():
        raise InputError(
            f"question {question.id!r}: no wrong answer to {question.answer!r} ({question.answer_kind}) is known; "
            "train DPO on numbers, choices and directions (data.question_types), or leave the question out"
        )
    return wrong


def _wrong_answer(question: Question) -> str | None:
    turn = int.from_bytes(hashlib.blake2b(question.id.encode(), digest_size=8).digest(), "big")
    if question.answer_kind == "choice" and question.options:
        letters = [chr(ord("A") + index) for index in range(len(question.options))]
        wrong = [letter for letter in letters if letter != question.answer.strip().rstrip(".")]
        if question.answer.strip() in question.options:  # the answer is the option's text
            wrong = [option for option in question.options if option != question.answer.strip()]
        return wrong[turn % len(wrong)] if wrong else None
    if question.answer_kind == "number":
        try:
            value = float(question.answer)
        except ValueError:
            return None
        if value.is_integer() and "." not in question.answer:
            miss = WRONG_COUNTS[turn % len(WRONG_COUNTS)]
            return str(int(value) - miss if value > miss and turn & 8 else int(value) + miss)
        decimals = len(question.answer.partition(".")[2])
        return f"{value * WRONG_FACTORS[turn % len(WRONG_FACTORS)]:.{decimals}f}"
    swapped = re.sub(r"[a-z]+", lambda word: _OPPOSITES.get(word[0], word[0]), question.answer.lower())
    return None if swapped == question.answer.lower() else swapped
