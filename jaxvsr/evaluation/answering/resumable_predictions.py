"""predictions.jsonl while a model answers: written batch by batch, and resumed after a kill.

OUT/settings.json has everything that the answers depend on. With the same settings existing answers are kept; with
others the file starts anew, and scores that no longer belong to it are deleted. Answers about other frames than are
there now are an error: the data have changed, and nobody asked for other answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError, naming
from jaxvsr.evaluation.output_folder import PREDICTIONS_FILE, RESULT_FILES, SETTINGS_FILE, read_object_or_empty
from jaxvsr.evaluation.predictions import Prediction, prediction_line, prediction_of_row, write_predictions
from jaxvsr.files import write_text

_MEDIA = "media"  # in settings.json


class ResumablePredictions:
    """Predictions in an output folder; a context manager, open for appending inside its block.

    Args:
        settings: everything that the answers depend on besides questions and media, as JSON values.
        media: a hash of each scene's frames, images or video (`SceneMedia.identities`).

    Raises:
        InputError: the file has answers with the same settings, but about other media.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], media: Mapping[str, str]):
        self._path, self._settings_path = out / PREDICTIONS_FILE, out / SETTINGS_FILE
        self._results = [out / name for name in RESULT_FILES]
        self._settings, self._media = json.loads(json.dumps(settings)), media
        self.answered: dict[str, Prediction] = {}  # by question id
        self.changed_setting = ""  # the first setting in which an existing file differs
        if self._path.is_file():
            recorded = read_object_or_empty(self._settings_path)
            seen = recorded.pop(_MEDIA, None)
            self.changed_setting = _first_difference(recorded, self._settings)
            if not self.changed_setting:
                self.answered = {one.question.id: one for one in _whole_lines(self._path)}
            if self.answered:
                self._check_media(seen)

    def _check_media(self, seen: Any) -> None:
        """`seen`: what settings.json says of the media that the answers are about."""
        way_out = "choose another --out, score this file with --score, or delete it"
        if not isinstance(seen, dict):
            raise InputError(
                f"{self._path}: an earlier version wrote it, which did not record the frames that its answers are "
                f"about, so they may not be those of now; {way_out}"
            )
        changed = [scene for scene, media in self._media.items() if seen.get(scene, media) != media]
        if changed:
            raise InputError(
                f"{self._path}: its answers are about other frames or images of {len(changed):,} scenes than are there "
                f"now (first: {changed[0]}); {way_out}"
            )

    def unanswered(self, questions: Sequence[Question]) -> list[Question]:
        """The questions without a prediction, or whose row has changed since.

        Raises:
            InputError: the file has answers to other questions, which this evaluation would delete.
        """
        other = sorted(set(self.answered) - {one.id for one in questions})
        if other:
            raise InputError(
                f"{self._path}: has answers to {len(other):,} questions that are not asked now (first: {other[0]}); "
                "choose another --out, or score this file with --score"
            )
        return [one for one in questions if one.id not in self.answered or self.answered[one.id].question != one]

    def __enter__(self) -> ResumablePredictions:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for path in self._results:
            path.unlink(missing_ok=True)
        write_predictions(self._path, self.answered.values())  # without an unfinished last line
        write_text(self._settings_path, json.dumps({**self._settings, _MEDIA: self._media}, indent=1) + "\n")
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Write them to the file immediately."""
        with naming(self._path):
            self._file.write("".join(map(prediction_line, predictions)))
            self._file.flush()
        self.answered |= {one.question.id: one for one in predictions}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def finish(self, questions: Sequence[Question]) -> list[Prediction]:
        """The predictions of these questions, in this order; the file then has exactly these."""
        predictions = [self.answered[question.id] for question in questions]
        write_predictions(self._path, predictions)
        return predictions


def _first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [*now, *(name for name in before if name not in now)]
    return next((name for name in names if before.get(name) != now.get(name)), "")


def _whole_lines(path: Path) -> list[Prediction]:
    """The predictions up to the first broken line: the last line of a killed process may be unfinished."""
    predictions = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        try:
            predictions.append(prediction_of_row(json.loads(line), f"{path} line {number}"))
        except (ValueError, RecursionError, InputError):
            break
    return predictions
