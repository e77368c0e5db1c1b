"""The answers of several models to the same questions beside each other: a page to read, and a CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

from jaxvsr.report.markup import POLICY, text

MOST_ROWS = 2000  # on the page; the CSV has all
_STYLE = (
    "body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #ddd;padding:.35rem .5rem;text-align:left;"
    "vertical-align:top;overflow-wrap:anywhere}td.right{background:#e7f4ea}td.wrong{background:#fbe9e7}"
    "small{color:#667}"
)


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
    """One self-contained page; everything that a model said is escaped."""
    ordered = most_different_first(rows)
    better, worse = (sum(sign * row.difference > 0 for row in rows) for sign in (1, -1))
    first, last = text(names[0]), text(names[-1])
    head = "".join(f"<th>{text(name)}</th>" for name in ("question", "true answer", *names))
    unscored = sum(not all(map(math.isfinite, row.scores)) for row in rows)
    note = f"{len(rows):,} questions:"
    if unscored < len(rows):
        note += f" {last} scores higher than {first} on {better:,}, lower on {worse:,}."
    if unscored:
        # Texts, boxes and lengths with a unit: 0 would read as "equally good".
        note += f" {unscored:,} have no score (free answers), and stand behind the others, different answers first."
    if len(rows) > MOST_ROWS:
        note += f" The {MOST_ROWS:,} with the largest difference are shown; the CSV has all."
    body = "".join(_row(row) for row in ordered[:MOST_ROWS])
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{first} and {last}</title>'
        f"<style>{_STYLE}</style><h1>{' · '.join(map(text, names))}</h1><p>{note}</p>"
        f"<table><tr>{head}</tr>{body}</table></html>\n"
    )


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


def _row(row: AnsweredQuestion) -> str:
    asked = f"{text(row.question)}<br><small>{text(row.question_type)}, {text(row.scene)}, {text(row.id)}</small>"
    cells = "".join(_answer(said, score) for said, score in zip(row.said, row.scores, strict=True))
    return f"<tr><td>{asked}</td><td>{text(row.answer)}</td>{cells}</tr>"


def _answer(said: str | None, score: float) -> str:
    kind = "" if math.isnan(score) else ' class="right"' if score >= 0.5 else ' class="wrong"'
    shown = "<small>no answer</small>" if said is None else text(said)
    return f"<td{kind}>{shown}{'' if math.isnan(score) else f' <small>({score:.1f})</small>'}</td>"
