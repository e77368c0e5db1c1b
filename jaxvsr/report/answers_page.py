"""The answers of several models to the same questions beside each other: a page to read, and a CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

from jaxvsr.report.rendering import Cell, render

MOST_ROWS = 2000  # on the page; the CSV has all


@dataclasses.dataclass(frozen=True)
class AnsweredQuestion:
    """A question and what each model said; scores in [0, 1], nan where the question has none."""

    id: str
    scene: str
    question_type: str
    question: str
    answer: str
    said: tuple[str | None, ...]
    scores: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Score of the last model minus that of the first; 0 where there is none."""
        gain = self.scores[-1] - self.scores[0]
        return gain if math.isfinite(gain) else 0.0


def most_different_first(rows: Sequence[AnsweredQuestion]) -> list[AnsweredQuestion]:
    """By how much the last model's score differs from the first's, then those with different words, then by id."""
    return sorted(rows, key=lambda row: (-abs(row.difference), len(set(row.said)) == 1, row.id))


def answers_html(names: Sequence[str], rows: Sequence[AnsweredQuestion]) -> str:
    """One self-contained page."""
    shown = most_different_first(rows)[:MOST_ROWS]
    return render(
        "answers.html.jinja",
        names=names,
        asked=len(rows),
        better=sum(row.difference > 0 for row in rows),
        worse=sum(row.difference < 0 for row in rows),
        # Texts, boxes and lengths with a unit: 0 would read as "equally good".
        unscored=sum(not all(map(math.isfinite, row.scores)) for row in rows),
        rows=[(row, [_cell(*answer) for answer in zip(row.said, row.scores, strict=True)]) for row in shown],
    )


def _cell(said: str | None, score: float) -> Cell:
    if math.isnan(score):
        return Cell(said)
    return Cell(said, "right" if score >= 0.5 else "wrong", f"{score:.1f}")


def answers_csv(names: Sequence[str], rows: Sequence[AnsweredQuestion]) -> str:
    """One line a question, in the page's order."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    scores = [f"score of {name}" for name in names]
    writer.writerow(["id", "scene", "question_type", "question", "answer", *names, *scores])
    for row in most_different_first(rows):
        # A model's tokens may end in half a character: a lone surrogate, which no file can hold.
        said = ["" if one is None else one.encode("utf-8", "backslashreplace").decode() for one in row.said]
        numbers = ["" if math.isnan(score) else f"{score:g}" for score in row.scores]
        writer.writerow([row.id, row.scene, row.question_type, row.question, row.answer, *said, *numbers])
    return out.getvalue()
