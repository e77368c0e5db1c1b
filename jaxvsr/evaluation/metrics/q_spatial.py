"""Q-Spatial Bench and Q-Spatial++: success, samples completed, sMAPE and the in-range columns of SVQA-R1's Table 2.

Parsing is the benchmark's own (its `evaluate_success_rate.ipynb`): the mean of the numbers in the last `scalar{…}`,
times the last `distance_unit{…}`. Denominators and ends follow from the papers' tables: success is over all questions
and strictly below a factor of 2; sMAPE and the ranges are over completed samples only, and the ranges include their
ends.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.evaluation.metrics.vsi_bench_scores import Parser
from jaxvsr.evaluation.predictions import Prediction, missing_note, with_missing
from jaxvsr.rewards.answers import final_answer
from jaxvsr.rewards.numerals import CENTIMETRES, parse_length_cm

FACTOR = 2.0
_SCALAR = re.compile(r"scalar{([^}]*)}")
_UNIT = re.compile(r"distance_unit{([^}]*)}")
_NUMBER = re.compile(r"\d+\.?\d*")


@dataclasses.dataclass(frozen=True)
class QSpatialScores:
    """Scores in per cent, nan if no sample is completed; `predicted_cm` [N] is nan for each that is not completed."""

    parser: Parser
    questions: int
    success_rate: float
    samples_completed: float
    smape: float
    in_range_50_100: float
    in_range_100_150: float
    in_range_150_200: float
    notes: tuple[str, ...]
    predicted_cm: Float[np.ndarray, " N"]

    def to_json(self) -> dict[str, Any]:
        """The flat form of scores.json; `overall` is the success rate."""
        names = (
            "success_rate",
            "samples_completed",
            "smape",
            "in_range_50_100",
            "in_range_100_150",
            "in_range_150_200",
        )
        numbers = {name: getattr(self, name) for name in names}
        shown = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return {"overall": shown["success_rate"], **shown, "questions": self.questions, "parser": self.parser}


def official_length_cm(text: str) -> tuple[float | None, str | None]:
    """The length in centimetres as the benchmark's evaluator reads it, and the unit if it does not know that unit.

    It takes an unknown unit for centimetres (and prints it). Without a scalar, a number in it or a unit: None.
    """
    scalars, units = _SCALAR.findall(text), _UNIT.findall(text)
    if not scalars or not units:
        return None, None
    numbers = [float(number) for number in _NUMBER.findall(scalars[-1])]
    if not numbers:
        return None, None
    unit = units[-1].lower()
    value = float(np.mean(numbers)) * CENTIMETRES.get(unit, 1.0)
    return (value if math.isfinite(value) else None), (None if unit in CENTIMETRES else unit)


def robust_length_cm(text: str) -> float | None:
    """`official_length_cm` of what follows the thought, else its first length with a unit ("about 2.5 meters")."""
    text = final_answer(text)
    value, _ = official_length_cm(text)
    return parse_length_cm(text) if value is None else value


def true_length_cm(question: Question) -> float:
    """The ground truth in centimetres, from an answer such as "96 cm" or "1.2 meter".

    Raises:
        InputError: the answer is not a positive length.
    """
    value = robust_length_cm(question.answer)
    if value is None or value <= 0:
        raise InputError(
            f"question {question.id!r}: answer {question.answer!r} is not a length; expected one such as '96 cm'"
        )
    return value


def score_q_spatial(
    predictions: Sequence[Prediction],
    *,
    parser: Parser = "official",
    answer_of: Callable[[str], str] = str,
    questions: Iterable[Question] | None = None,
) -> QSpatialScores:
    """Score predictions; questions without one count as not completed and as failures."""
    rows = with_missing(predictions, questions)
    if not rows:
        raise InputError("q-spatial: no predictions to score")
    truth = np.array([true_length_cm(row.question) for row in rows])
    predicted = np.full(len(rows), np.nan)
    unknown: dict[str, int] = {}
    for index, row in enumerate(rows):
        if row.prediction is None:
            continue
        text = answer_of(row.prediction)
        value, unit = official_length_cm(text)
        if unit is not None:
            unknown[unit] = unknown.get(unit, 0) + 1
        value = robust_length_cm(text) if parser == "robust" else value
        predicted[index] = np.nan if value is None else value
    completed = np.isfinite(predicted)
    p, g = predicted[completed], truth[completed]
    with np.errstate(divide="ignore", over="ignore"):
        ratio = p / g
        success = np.maximum(ratio, g / p) < FACTOR
    error = np.abs(p - g) / ((np.abs(p) + np.abs(g)) / 2)

    def share(hits: np.ndarray) -> float:
        return 100 * float(hits.mean()) if hits.size else float("nan")

    notes = [f"{n} answers in the unit {unit!r} count as centimetres, as there" for unit, n in sorted(unknown.items())]
    notes += missing_note(rows, "count as failures")
    return QSpatialScores(
        parser=parser,
        questions=len(rows),
        success_rate=100 * float(success.sum()) / len(rows),
        samples_completed=share(completed),
        smape=share(error),
        in_range_50_100=share((ratio >= 0.5) & (ratio <= 1)),
        in_range_100_150=share((ratio > 1) & (ratio <= 1.5)),
        in_range_150_200=share((ratio > 1.5) & (ratio <= 2)),
        notes=tuple(notes),
        predicted_cm=predicted[: len(predictions)],
    )
