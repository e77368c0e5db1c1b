"""Questions with everything filled in that a test does not care about."""

from __future__ import annotations

from typing import Any

from jaxvsr.data.questions import Question


def make_question(
    id: object,
    question_type: str = "object_counting",
    answer: str = "4",
    kind: Any = "number",
    options: tuple[str, ...] | None = None,
) -> Question:
    return Question(str(id), "scene", question_type, "How many?", options, answer, kind)
