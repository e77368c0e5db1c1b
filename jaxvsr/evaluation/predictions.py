"""predictions.jsonl: question rows with `prediction`, the model's raw completion; also lmms-eval's sample logs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxvsr.data.importers.vsi_bench_download import question_of_row
from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.files import replacing


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
    """Read predictions.jsonl, or a sample log of lmms-eval's VSI-Bench task.

    Raises:
        InputError: no such file, a broken line, a repeated id, or no predictions.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; evaluate.py --model … --out DIR writes DIR/predictions.jsonl")
    predictions: list[Prediction] = []
    lines: dict[str, int] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    # Not splitlines(): a completion may hold the other line separators of Unicode.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{where}: not JSON ({getattr(error, 'msg', 'nested too deep')})") from None
        prediction = prediction_of_row(row, where)
        name = prediction.question.id
        if name in lines:
            raise InputError(f"{where}: id {name!r} is also in line {lines[name]}")
        lines[name] = number
        predictions.append(prediction)
    if not predictions:
        raise InputError(f"{path}: has no predictions")
    return predictions


def prediction_of_row(row: Any, where: str) -> Prediction:
    """A row of predictions.jsonl, of lmms-eval's log (`doc` and responses), or of VSI-Bench with `prediction` added."""
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
    if isinstance(row.get("doc"), dict):
        logged = row.get("vsibench_score")
        predicted = logged.get("prediction") if isinstance(logged, dict) else None
        for name in ("filtered_resps", "resps"):
            predicted = _first(row.get(name)) if predicted is None else predicted
        row = {**row["doc"], "prediction": predicted}
    predicted = row.get("prediction")
    if predicted is not None and not isinstance(predicted, str):
        raise InputError(f"{where}: prediction must be a string or null, found {predicted!r}")
    fields = {name: value for name, value in row.items() if name != "prediction"}
    if "ground_truth" in fields and "answer" not in fields:
        return Prediction(question_of_row(fields, where), predicted)
    return Prediction(Question.from_json(fields, where), predicted)


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
