"""Sets of predictions side by side: one row per question type, one column per set, and paired differences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxvsr.errors import InputError
from jaxvsr.evaluation.answering.baselines import constant_predictions
from jaxvsr.evaluation.metrics.uncertainty import Difference, paired_difference
from jaxvsr.evaluation.metrics.vsi_bench_scores import Parser, score_vsi_bench
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.evaluation.tables.text_table import format_number, markdown_table, plain_table

CONSTANT = "constant"
ALL = "all questions"


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
    """One question type: n questions, the score of each column in per cent, and paired differences in per cent."""

    question_type: str
    n: int
    constant: str | None  # the constant answer
    scores: dict[str, float]
    differences: tuple[Difference, ...]


@dataclasses.dataclass(frozen=True)
class ComparisonTable:
    """Rows by question type, the last one for all questions together (their plain mean)."""

    columns: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    rows: tuple[ComparisonRow, ...]

    def row(self, question_type: str) -> ComparisonRow:
        """The row of one question type."""
        return next(row for row in self.rows if row.question_type == question_type)

    def to_json(self) -> list[dict[str, Any]]:
        """One object per row; differences under "a - b" with mean, standard_error and in_standard_errors, null where
        undefined.
        """
        return [
            {
                "question_type": row.question_type,
                "n": row.n,
                "constant_answer": row.constant,
                **{f"score/{name}": _finite(value) for name, value in row.scores.items()},
                **{
                    f"{a} - {b}": {
                        "mean": _finite(difference.mean),
                        "standard_error": _finite(difference.standard_error),
                        "in_standard_errors": _finite(difference.in_standard_errors),
                    }
                    for (a, b), difference in zip(self.pairs, row.differences, strict=True)
                },
            }
            for row in self.rows
        ]

    def to_markdown(self) -> str:
        """A Markdown table; differences as "+12.3 (4.1 SE)"."""
        return markdown_table(self._cells())

    def to_text(self) -> str:
        """The same for a terminal."""
        return plain_table(self._cells())

    def _cells(self) -> list[list[str]]:
        header = ["question type", "n", *self.columns, *(f"{a} − {b}" for a, b in self.pairs)]
        return [header] + [
            [
                row.question_type,
                str(row.n),
                *(format_number(row.scores[name]) for name in self.columns),
                *(_difference(difference) for difference in row.differences),
            ]
            for row in self.rows
        ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _difference(difference: Difference) -> str:
    errors = difference.in_standard_errors
    shown = f"{abs(errors):.1f} SE" if math.isfinite(errors) else "no spread" if math.isinf(errors) else "– SE"
    return f"{difference.mean:+.1f} ({shown})" if math.isfinite(difference.mean) else "–"


def compare_predictions(
    columns: Mapping[str, Sequence[Prediction]],
    *,
    constants: Mapping[str, str] | None = None,
    differences: Sequence[tuple[str, str]] = (),
    parser: Parser = "official",
    answer_of: Callable[[str], str] = str,
) -> ComparisonTable:
    """Score several sets of predictions on the same questions as VSI-Bench does.

    Args:
        columns: predictions by column name. All answer the same question ids, in any order; None for a missing answer.
        constants: `best_constants` of the training questions; they become the first column, "constant".
        differences: pairs of column names (a, b) for the columns a - b, paired over questions.

    Raises:
        InputError: different questions, an unknown column, or no question that has a score.
    """
    if not columns or not all(columns.values()):
        raise InputError("comparison: expected at least one set of predictions, each with at least one question")
    first = next(iter(columns))
    order = {one.question.id: index for index, one in enumerate(columns[first])}
    answered: dict[str, Sequence[Prediction]] = dict(columns)
    for name, predictions in columns.items():
        ids = {one.question.id for one in predictions}
        if ids != set(order) or len(predictions) != len(order):
            odd = sorted(ids ^ set(order))[0] if ids != set(order) else "a repeated one"
            raise InputError(f"comparison: {name!r} and {first!r} answer different questions (first: {odd})")
        answered[name] = sorted(predictions, key=lambda one: order[one.question.id])
    questions = [one.question for one in answered[first]]
    if constants is not None:
        answered = {CONSTANT: constant_predictions(constants, questions), **answered}
    for pair in differences:
        for name in pair:
            if name not in answered:
                raise InputError(f"comparison: no column {name!r}; the columns are {', '.join(answered)}")
    values = {}
    for name, predictions in answered.items():
        scores = score_vsi_bench(predictions, parser=parser, answer_of=str if name == CONSTANT else answer_of)
        values[name] = 100 * scores.per_question
    types = np.array([question.question_type for question in questions], dtype=object)
    if constants is not None:  # a type without a constant has no score, which is not a score of 0
        values[CONSTANT][[question_type not in constants for question_type in types]] = np.nan
    scored = np.isfinite(values[first])
    if not scored.any():
        kinds = ", ".join(sorted({question.answer_kind for question in questions}))
        raise InputError(
            f"comparison: none of the {len(questions):,} questions has a score (they are of kind {kinds}); "
            "report.py --answers puts free answers side by side"
        )
    rows = []
    for question_type in [*sorted(set(types[scored])), ALL]:
        chosen = scored & ((types == question_type) | (question_type == ALL))
        if not chosen.any():
            continue
        rows.append(
            ComparisonRow(
                question_type,
                int(chosen.sum()),
                (constants or {}).get(question_type),
                {name: float(column[chosen].mean()) for name, column in values.items()},
                tuple(paired_difference(values[a][chosen], values[b][chosen]) for a, b in differences),
            )
        )
    return ComparisonTable(tuple(answered), tuple(differences), tuple(rows))
