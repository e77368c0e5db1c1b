"""predictions.jsonl: a question row and `prediction`, the model's completion as it came; lmms-eval's sample logs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxvsr.data.importers.vsi_bench_download import question_of_row
from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.files import replacing


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A question and the model's completion; None where there is none."""

    question: Question
    prediction: str | None


def read_predictions(path: Path) -> list[Prediction]:
    """Read predictions.jsonl, or a sample log of lmms-eval's VSI-Bench task; a broken line or a repeated id is an
    `InputError`.
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
            raise InputError(f"{where}: id {name!r} already stands in line {lines[name]}")
        lines[name] = number
        predictions.append(prediction)
    if not predictions:
        raise InputError(f"{path}: no predictions in it")
    return predictions


def prediction_of_row(row: Any, where: str) -> Prediction:
    """One row: ours, lmms-eval's (`doc` and responses), or a row of the benchmark itself with `prediction` added."""
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
    if isinstance(row.get("doc"), dict):
        logged = row.get("vsibench_score")
        said = logged.get("prediction") if isinstance(logged, dict) else None
        for name in ("filtered_resps", "resps"):
            said = _first(row.get(name)) if said is None else said
        row = {**row["doc"], "prediction": said}
    said = row.get("prediction")
    if said is not None and not isinstance(said, str):
        raise InputError(f"{where}: prediction must be text or null, found {said!r}")
    fields = {name: value for name, value in row.items() if name != "prediction"}
    if "ground_truth" in fields and "answer" not in fields:
        return Prediction(question_of_row(fields, where), said)
    return Prediction(Question.from_json(fields, where), said)


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
    return json.dumps(row, ensure_ascii=True) + "\n"  # a lone surrogate in a completion must not stop it
