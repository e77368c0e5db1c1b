"""The table of scores by question type.

Reads `comparison.json` as `evaluation.tables.comparison.ComparisonTable.to_json` writes it: one object per question
type, with `score/<column>` in per cent and `<a> - <b>` as paired differences with their standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from jaxvsr.errors import InputError
from jaxvsr.evaluation.tables.text_table import format_number
from jaxvsr.files import read_json
from jaxvsr.report.rendering import Cell, render
from jaxvsr.report.run_rows import number_or_nan

SCORE = "score/"
SURE = 2.0  # standard errors from which a difference is coloured

Row = Mapping[str, Any]


def read_comparison(path: Path) -> list[dict[str, Any]]:
    """The rows of a comparison.json."""
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "question_type" in row for row in rows):
        raise InputError(f"{path}: expected a list of rows with question_type, n and score/… fields")
    return rows


def score_table(rows: Sequence[Row]) -> Markup:
    """The rows as HTML, the last one set apart; empty where there are no rows."""
    if not rows:
        return Markup()
    columns = [name for name in rows[0] if name.startswith(SCORE)]
    pairs = [name for name, value in rows[0].items() if isinstance(value, Mapping)]
    names = [name.removeprefix(SCORE) for name in columns] + [name.replace(" - ", " − ") for name in pairs]
    return render(
        "score_table.html.jinja",
        head=["question type", "questions", *names],
        rows=[_cells(row, columns, pairs) for row in rows],
        has_differences=bool(pairs),
        sure=f"{SURE:.0f}",
    )


def _cells(row: Row, columns: Sequence[str], pairs: Sequence[str]) -> list[Cell]:
    scores = [number_or_nan(row.get(name)) for name in columns]
    best = max((score for score in scores if math.isfinite(score)), default=math.nan)
    return [
        Cell(str(row["question_type"])),
        Cell(str(row.get("n", "–"))),
        *(Cell(format_number(score), "best" if score == best else "") for score in scores),
        *(_difference(row.get(name)) for name in pairs),
    ]


def _difference(difference: object) -> Cell:
    if not isinstance(difference, Mapping):
        return Cell("–")
    mean, errors = number_or_nan(difference.get("mean")), number_or_nan(difference.get("in_standard_errors"))
    points = f"{mean:+.1f}".replace("-", "−") if math.isfinite(mean) else "–"
    if not math.isfinite(errors):
        return Cell(points)
    css_class = "" if abs(errors) <= SURE else "better" if errors > 0 else "worse"
    return Cell(points, css_class, f"{abs(errors):.1f} SE")
