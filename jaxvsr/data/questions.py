"""Question rows: one JSON object per line in a data folder's `questions.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxvsr.data.scene_names import check_scene_name
from jaxvsr.errors import InputError, prefixed
from jaxvsr.fields import read_fields
from jaxvsr.files import read_whole_rows, replacing

AnswerKind = Literal["number", "choice", "word", "text", "box"]


@dataclasses.dataclass(frozen=True)
class Question:
    """One question about one scene.

    `question_type` is VSI-Bench's name of the task in all recipes; `answer_kind` decides about rewards and metrics.
    `mirror_of` is the id of the question of which this one is the mirror image; `response` is a full SFT target.
    """

    id: str
    scene: str
    question_type: str
    question: str
    options: tuple[str, ...] | None
    answer: str
    answer_kind: AnswerKind
    video: str | None = None
    images: tuple[str, ...] | None = None
    mirror_of: str | None = None
    response: str | None = None

    def __post_init__(self) -> None:
        check_scene_name(self.scene)

    def to_json(self) -> dict[str, Any]:
        """The row for JSON, without optional fields that are not set."""
        row = dataclasses.asdict(self)
        for name in ("video", "images", "mirror_of", "response"):
            if row[name] is None:
                del row[name]
        return row

    @classmethod
    def from_json(cls, row: Any, where: str = "row") -> Question:
        """Check and build one row; `where` names it in errors (`questions.jsonl line 3`)."""
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
        with prefixed(where):
            question = read_fields(cls, {"options": None, **row})
            for name in ("id", "scene", "question_type", "question", "answer"):
                if not getattr(question, name):
                    raise InputError(f"{name}: must not be empty")
            if question.answer_kind == "number" and not is_number(question.answer):
                raise InputError(f"answer_kind is 'number', but {question.answer[:60]!r} is not a number")
        return question


def meaning(answer: str, kind: AnswerKind, options: Sequence[str] | None) -> float | str:
    """What an answer says, whatever its form: 4 and 4.0 are the same number, a choice is its text, not its letter."""
    if kind == "number":
        return float(answer)
    if kind == "choice":
        answer = next((option[3:] for option in options or () if option[:1] == answer), answer)
    return " ".join(answer.casefold().split())


def is_same(one: Question, other: Question) -> bool:
    """Whether two rows are one question: of one scene, with one text, options in one order and one answer. Ids do not
    tell, since those of a set without ids of its own are row numbers.
    """

    def said(row: Question) -> tuple[object, ...]:
        texts = [" ".join(text.split()) for text in (row.question, *(row.options or ()))]
        return row.scene, texts, meaning(row.answer, row.answer_kind, row.options)

    return said(one) == said(other)


def choices(options: Sequence[str] | None) -> frozenset[str] | None:
    """The choices without letters (options are `A. sofa`) and without their order."""
    return None if options is None else frozenset(" ".join(option[3:].casefold().split()) for option in options)


def is_number(text: str) -> bool:
    """Whether Python reads a text as a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_questions(path: Path) -> list[Question]:
    """Read `questions.jsonl`; an `InputError` names the line that is broken or repeats an id."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; `build_data.py questions` writes it")
    questions: list[Question] = []
    seen: dict[str, int] = {}
    for number, row in read_whole_rows(path):
        where = f"{path} line {number}"
        question = Question.from_json(row, where)
        if question.id in seen:
            raise InputError(f"{where}: id {question.id!r} is already in line {seen[question.id]}")
        seen[question.id] = number
        questions.append(question)
    return questions


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write a whole `questions.jsonl`."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as out:
        for question in questions:
            out.write(json.dumps(question.to_json(), ensure_ascii=False) + "\n")
