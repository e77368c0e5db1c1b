"""predictions.jsonl while it grows: a batch at a time, and gone on with after a kill.

OUT/settings.json says what the predictions were made with. Under the same settings the answers that are there are kept;
under others the file begins anew, and scores that no longer belong to it are taken away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.evaluation.benchmarks import RESULT_FILES
from jaxvsr.evaluation.predictions import Prediction, prediction_line, prediction_of_row, write_predictions
from jaxvsr.files import read_json_object, write_text

PREDICTIONS_FILE, SETTINGS_FILE = "predictions.jsonl", "settings.json"


class PredictionsLog:
    """Predictions in an output folder; a context manager, open for appending inside of its block.

    Args:
        settings: everything that answers depend on, as JSON stores it.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]):
        self._path, self._settings_path = out / PREDICTIONS_FILE, out / SETTINGS_FILE
        self._results = [out / name for name in RESULT_FILES]
        self._settings = json.loads(json.dumps(settings))
        self.answered: dict[str, Prediction] = {}  # by question id
        self.different = ""  # the first setting in which the file that was there differs
        if self._path.is_file():
            self.different = _first_difference(_read_settings(self._settings_path), self._settings)
            if not self.different:
                self.answered = {one.question.id: one for one in _whole_lines(self._path)}

    def open_questions(self, questions: Sequence[Question]) -> list[Question]:
        """Those without a prediction; a question whose text or answer has changed since is open.

        Raises:
            InputError: the file has answers to other questions, which the end of this evaluation would take away.
        """
        other = sorted(set(self.answered) - {one.id for one in questions})
        if other:
            raise InputError(
                f"{self._path}: answers {len(other):,} questions that are not asked now (first: {other[0]}); take "
                "another --out, or score those that are there with --score"
            )
        return [one for one in questions if one.id not in self.answered or self.answered[one.id].question != one]

    def __enter__(self) -> PredictionsLog:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for path in self._results:
            path.unlink(missing_ok=True)
        write_predictions(self._path, self.answered.values())  # without a line that was cut off
        write_text(self._settings_path, json.dumps(self._settings, indent=1) + "\n")
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Write them to the file at once."""
        self._file.write("".join(map(prediction_line, predictions)))
        self._file.flush()
        self.answered |= {one.question.id: one for one in predictions}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def finish(self, questions: Sequence[Question]) -> list[Prediction]:
        """The predictions of these questions in their order; the file then holds just them."""
        predictions = [self.answered[question.id] for question in questions]
        write_predictions(self._path, predictions)
        return predictions


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except InputError:
        return {}


def _first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [*now, *(name for name in before if name not in now)]
    return next((name for name in names if before.get(name) != now.get(name)), "")


def _whole_lines(path: Path) -> list[Prediction]:
    """The predictions up to the first line that is not whole: what a killed process wrote last may be cut off."""
    predictions = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        try:
            predictions.append(prediction_of_row(json.loads(line), f"{path} line {number}"))
        except (ValueError, RecursionError, InputError):
            break
    return predictions
