"""Given answers: what SFT and DPO learn from a question row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal

from jaxvsr.config.algorithm import Difficulty
from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.rewards.answers import words_match
from jaxvsr.rewards.option_letter import answer_letter

_LEVELS: tuple[Literal["easy", "medium", "hard"], ...] = ("easy", "medium", "hard")

# How far a rejected number is from the right one: so many times larger or smaller, and a rejected count so much higher
# or lower. VSI-Bench's widest tolerance is 50 %: a hard one would still score a little, half the number a tenth.
FACTORS = {"easy": "4", "medium": "2", "hard": "1.25"}
COUNT_MISSES = {"easy": 4, "medium": 2, "hard": 1}
_LARGEST = 10**20  # numbers beyond are no measure of a room, and leave Decimal's digits
_OPPOSITES = {"left": "right", "front": "back", "yes": "no", "above": "below", "near": "far", "larger": "smaller"}
_OPPOSITES |= {other: one for one, other in _OPPOSITES.items()}
_NAMED = re.compile(r"\(([^()]+,[^()]+)\)")  # the objects to choose from: "Which of these objects (sink, bed, guitar)"


def target_answer(question: Question) -> str:
    """The text that SFT learns: the full response where the row has one."""
    return question.response if question.response is not None else question.answer


def rejected_answer(question: Question, difficulty: Difficulty = "mixed") -> str:
    """A wrong answer of the same kind, the same for the same question every time: a number that is off, another option,
    another of the objects that the question names, the opposite direction.

    Args:
        difficulty: easy is far off (a number 4 times too large or too small, a count off by 4, every part of a
            direction turned round), medium nearer (2 times, 2, one part), hard nearest (a quarter, 1, one part).
            mixed draws one of the three for each question. Options and objects are wrong or not: there it changes
            nothing.

    Raises:
        InputError: the question has no such answer (free text, boxes, other words, one option).
    """
    draw = int.from_bytes(hashlib.blake2b(question.id.encode(), digest_size=8).digest(), "big")
    level = _LEVELS[draw % 3] if difficulty == "mixed" else difficulty
    wrong = _wrong_answers(question, level)
    if not wrong:
        raise InputError(
            f"question {question.id!r}: no wrong answer to {question.answer!r} ({question.answer_kind}) is known; "
            "train DPO on numbers, choices, named objects and directions (data.question_types), "
            "or leave the question out"
        )
    return wrong[draw // 3 % len(wrong)]


def _wrong_answers(question: Question, level: Literal["easy", "medium", "hard"]) -> Sequence[str]:
    """Every wrong answer of this level; empty where none is known."""
    answer = question.answer.strip()
    if question.answer_kind == "choice" and question.options:
        if answer in question.options:  # the answer is the option's text
            return [option for option in question.options if option != answer]
        letters = [chr(ord("A") + index) for index in range(len(question.options))]
        return [letter for letter in letters if letter != answer_letter(answer, question.options)]
    if question.answer_kind == "number":
        return _wrong_numbers(answer, level)
    if question.answer_kind != "word":
        return []
    named = [name.strip() for group in _NAMED.findall(question.question) for name in group.split(",")]
    if any(words_match(answer, name) for name in named):
        return [name for name in named if name and not words_match(answer, name)]
    return _wrong_directions(answer.lower(), level)


def _wrong_numbers(answer: str, level: Literal["easy", "medium", "hard"]) -> list[str]:
    """Both misses, larger first; as many decimals as the right one has. Empty for what is no such number."""
    try:
        value = Decimal(answer)
    except InvalidOperation:
        return []
    if not value.is_finite() or abs(value) >= _LARGEST:
        return []
    if value == value.to_integral_value() and "." not in answer:
        # Of a length or an area, given in whole units, a miss of 4 is none: large numbers miss by their factor.
        if abs(value) < 10:
            miss = COUNT_MISSES[level]
            return [str(int(value) + miss), *([str(int(value) - miss)] if value > miss else [])]
        step = Decimal(1)
    else:
        step = Decimal(1).scaleb(value.as_tuple().exponent)  # type: ignore[arg-type]  # finite: a whole number
    factor = Decimal(FACTORS[level])
    misses = [(value * factor).quantize(step), (value / factor).quantize(step)]
    if value == 0:
        misses = [step * COUNT_MISSES[level]]
    return [str(miss) for miss in misses if miss != value and miss * value >= 0] or [str(value + step)]


def _wrong_directions(answer: str, level: Literal["easy", "medium", "hard"]) -> list[str]:
    """The opposite; of a direction with two parts ("front-left") only an easy miss turns both round."""
    known = [word for word in re.findall(r"[a-z]+", answer) if word in _OPPOSITES]
    if not known:
        return []
    turned = {"easy": known, "medium": known[:1], "hard": known[-1:]}[level]
    return [re.sub(r"[a-z]+", lambda word: _OPPOSITES[word[0]] if word[0] in turned else word[0], answer)]
