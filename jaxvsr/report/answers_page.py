"""The answers of several models to the same questions beside each other: a page to read, and a CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

from jaxvsr.data.questions import Question
from jaxvsr.outside_text import csv_cell
from jaxvsr.report.rendering import Cell, render

MOST_ROWS = 2000  # on the page; the CSV has all
QUESTION_FIELDS = ("id", "scene", "question_type", "question", "answer")


@dataclasses.dataclass(frozen=True)
class AnsweredQuestion:
    """A question and each model's prediction; scores in [0, 1], nan where the question has none."""

    question: Question
    predictions: Sequence[str | None]
    scores: Sequence[float]

    @property
    def difference(self) -> float:
        """Score of the last model minus that of the first; 0 where there is none."""
        gain = self.scores[-1] - self.scores[0]
        return gain if math.isfinite(gain) else 0.0


def most_different_first(rows: Sequence[AnsweredQuestion]) -> list[AnsweredQuestion]:
    """By how much the last model's score differs from the first's, then different answers, then by id."""
    return sorted(rows, key=lambda row: (-abs(row.difference), len(set(row.predictions)) == 1, row.question.id))


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
        rows=[(row.question, list(map(_cell, row.predictions, row.scores))) for row in shown],
    )


def _cell(prediction: str | None, score: float) -> Cell:
    if math.isnan(score):
        return Cell(prediction)
    return Cell(prediction, "right" if score >= 0.5 else "wrong", f"{score:.1f}")


def answers_csv(names: Sequence[str], rows: Sequence[AnsweredQuestion]) -> str:
    """One line per question, in the page's order."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    scores = [f"score of {name}" for name in names]
    writer.writerow([*QUESTION_FIELDS, *map(csv_cell, names), *scores])
    for row in most_different_first(rows):
        # A model's tokens may end in half a character: a lone surrogate, which no file can hold.
        texts = ["" if one is None else one.encode("utf-8", "backslashreplace").decode() for one in row.predictions]
        numbers = ["" if math.isnan(score) else f"{score:g}" for score in row.scores]
        asked = [str(getattr(row.question, name)) for name in QUESTION_FIELDS]
        writer.writerow([*map(csv_cell, (*asked, *texts)), *numbers])
    return out.getvalue()
