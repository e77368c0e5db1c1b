"""The table of scores by question type: what a constant, a blind and a seeing model reach.

Reads `comparison.json` as `evaluation.comparison.Comparison.to_json` writes it: one object a question type, with
`score/<column>` in per cent and `<a> - <b>` as paired differences with their standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvsr.errors import InputError
from jaxvsr.files import read_json
from jaxvsr.report.markup import text

SCORE = "score/"
SURE = 2.0  # standard errors from which on a difference is coloured

Row = Mapping[str, Any]


def read_comparison(path: Path) -> list[dict[str, Any]]:
    """The rows of a comparison.json."""
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "question_type" in row for row in rows):
        raise InputError(f"{path}: expected a list of rows with question_type, n and score/… fields")
    return rows


def score_table(rows: Sequence[Row]) -> str:
    """The rows as HTML, the last one set apart; empty where there are no rows."""
    if not rows:
        return ""
    columns = [name for name in rows[0] if name.startswith(SCORE)]
    pairs = [name for name, value in rows[0].items() if isinstance(value, Mapping)]
    names = ["question type", "questions", *(name.removeprefix(SCORE) for name in columns), *pairs]
    head = "".join(f"<th>{text(name.replace(' - ', ' − '))}</th>" for name in names)
    body = "".join(_row(row, columns, pairs, is_last=row is rows[-1]) for row in rows)
    note = "Differences are paired over questions, in points and in standard errors (SE)."
    return f'<div class="scroll"><table class="scores"><tr>{head}</tr>{body}</table></div>' + (
        f'<p class="note">{note} Coloured from {SURE:.0f} SE on.</p>' if pairs else ""
    )


def _row(row: Row, columns: Sequence[str], pairs: Sequence[str], *, is_last: bool) -> str:
    scores = [_number(row.get(name)) for name in columns]
    best = max((score for score in scores if math.isfinite(score)), default=math.nan)
    cells = [f"<td>{text(row['question_type'])}</td>", f"<td>{text(row.get('n', '–'))}</td>"]
    cells += [f"<td{' class=best' if score == best else ''}>{_shown(score)}</td>" for score in scores]
    cells += [_difference(row.get(name)) for name in pairs]
    return f"<tr{' class=total' if is_last else ''}>{''.join(cells)}</tr>"


def _difference(difference: object) -> str:
    if not isinstance(difference, Mapping):
        return "<td>–</td>"
    mean, errors = _number(difference.get("mean")), _number(difference.get("in_standard_errors"))
    if not math.isfinite(errors):
        return f"<td>{_points(mean)}</td>"
    style = "" if abs(errors) <= SURE else ' class="better"' if errors > 0 else ' class="worse"'
    return f"<td{style}>{_points(mean)} <small>({abs(errors):.1f} SE)</small></td>"


def _points(mean: float) -> str:
    return f"{mean:+.1f}".replace("-", "−") if math.isfinite(mean) else "–"


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _shown(score: float) -> str:
    return f"{score:.1f}" if math.isfinite(score) else "–"
