"""predictions.jsonl: question rows with `prediction`, the model's raw completion; also lmms-eval's sample logs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxvsr.data.importers.vsi_bench_download import question_of_row
from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError, one_line
from jaxvsr.files import replacing

_FIELDS = tuple(field.name for field in dataclasses.fields(Question))
_BENCHMARK_FIELDS = ("dataset", "scene_name", "ground_truth")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A question and the model's completion, None if there is none."""

    question: Question
    prediction: str | None


def with_missing(predictions: Sequence[Prediction], questions: Iterable[Question] | None) -> list[Prediction]:
    """The predictions, and one of None for each of `questions` that has none."""
    answered = {one.question.id for one in predictions}
    return [*predictions, *(Prediction(question, None) for question in questions or () if question.id not in answered)]


def missing_note(predictions: Sequence[Prediction], effect: str) -> list[str]:
    """A note on the questions without a prediction and what that does to the score; nothing if all have one."""
    missing = [one.question.id for one in predictions if one.prediction is None]
    if not missing:
        return []
    return [f"{len(missing)} of {len(predictions)} questions have no prediction and {effect} (first: {missing[0]})"]


def read_predictions(path: Path) -> list[Prediction]:
    """Read predictions.jsonl, a JSON list of such rows, or a sample log of lmms-eval's VSI-Bench task.

    Raises:
        InputError: no such file, a broken row, a repeated id, or no predictions.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; evaluate.py --model … --out DIR writes DIR/predictions.jsonl")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    predictions: list[Prediction] = []
    places: dict[str, str] = {}
    for place, row in _rows(text, path):
        where = f"{path} {place}"
        prediction = prediction_of_row(row, where)
        name = prediction.question.id
        if name in places:
            raise InputError(f"{where}: id {name!r} is also in {places[name]}")
        places[name] = place
        predictions.append(prediction)
    if not predictions:
        raise InputError(f"{path}: has no predictions")
    return predictions


def _rows(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """(`line 3` or `row 3`, row) of JSON lines, of a JSON list, or of a document with `logs`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # several lines of JSON, or something broken: then the line is named
        document = None
    if isinstance(document, dict):
        logs = document.get("logs")
        if isinstance(logs, dict):  # by task
            logs = [row for rows in logs.values() if isinstance(rows, list) for row in rows]
        if logs is None and "results" in document and "prediction" not in document:
            raise InputError(
                f"{path}: has scores but no answers; lmms-eval --log_samples writes the answers to …_samples_….jsonl"
            )
        document = logs if isinstance(logs, list) else [document]
    if isinstance(document, list):
        for number, row in enumerate(document, start=1):
            yield f"row {number}", row
        return
    # Not splitlines(): a completion may hold the other line separators of Unicode.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits, too
                reason = getattr(error, "msg", None) or one_line(error)
                raise InputError(f"{path} line {number}: not JSON ({reason})") from None


def prediction_of_row(row: Any, where: str) -> Prediction:
    """A row of predictions.jsonl, of VSI-Bench with `prediction` added, or of lmms-eval's log.

    That log has the question in `doc`, from version 0.4 on only in the row under the metric (`vsibench_score`,
    `vsibench_overall`), which has the prediction too; what else the harness adds is not read.
    """
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
    document = row.get("doc")
    logged = next((row[name] for name in row if _is_question(row[name]) and name != "doc"), None)
    if isinstance(document, dict) or logged is not None:
        predicted = None if logged is None else logged.get("prediction")
        for name in ("filtered_resps", "resps"):
            predicted = _first(row.get(name)) if predicted is None else predicted
        found = {**(document if isinstance(document, dict) else {}), **(logged or {})}
        row = {name: value for name, value in found.items() if name in (*_FIELDS, *_BENCHMARK_FIELDS)}
        row["prediction"] = predicted
    predicted = row.get("prediction")
    if predicted is not None and not isinstance(predicted, str):
        raise InputError(f"{where}: prediction must be a string or null, found {predicted!r}")
    fields = {name: value for name, value in row.items() if name != "prediction"}
    if "ground_truth" in fields and "answer" not in fields:
        return Prediction(question_of_row(fields, where), predicted)
    if isinstance(fields.get("id"), int) and not isinstance(fields["id"], bool):
        fields["id"] = str(fields["id"])
    return Prediction(Question.from_json(fields, where), predicted)


def _is_question(value: Any) -> bool:
    return isinstance(value, dict) and "question_type" in value and bool({"ground_truth", "answer"} & set(value))


def _first(responses: Any) -> Any:
    while isinstance(responses, list) and responses:
        responses = responses[0]
    return responses if isinstance(responses, str) else None


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a whole predictions.jsonl."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as out:
        out.writelines(map(prediction_line, predictions))


def prediction_line(one: Prediction) -> str:
    """One line of predictions.jsonl."""
    row = {**one.question.to_json(), "prediction": one.prediction}
    return json.dumps(row, ensure_ascii=True) + "\n"  # ASCII, since UTF-8 cannot encode a lone surrogate
