"""The output folder of an evaluation: the names of its files, and writing the scores."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object, write_text

if TYPE_CHECKING:
    from jaxvsr.evaluation.benchmarks import Result

PREDICTIONS_FILE = "predictions.jsonl"
SETTINGS_FILE = "settings.json"  # everything that a model's predictions depend on
SCORES_FILE = "scores.json"
PARSER_FILES = {"robust": "scores-robust.json", "lmms-eval": "scores-lmms-eval.json"}
RESULT_FILES = (SCORES_FILE, *PARSER_FILES.values(), "details.json", "table.md")


def check_out(out: Path) -> None:
    """Raise `InputError` if OUT cannot be a folder to write to, before anything is answered."""
    there = next(place for place in (out, *out.resolve().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"--out {out}: {there} is a file; expected a folder, new or existing")
    if not os.access(there, os.W_OK):
        raise InputError(f"--out {out}: {there} cannot be written to")


def write_result(out: Path, result: Result, provenance: Mapping[str, Any]) -> None:
    """Write scores.json, those of the other parsers, details.json and table.md.

    `provenance` (model, prompt, frames, …) follows the numbers in all files of scores.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror})") from None
    texts = (
        _json({**result.scores, **provenance}),
        *(
            _json({**result.by_parser[parser], **provenance}) if parser in result.by_parser else None
            for parser in PARSER_FILES
        ),
        _json(result.details),
        result.to_markdown(),
    )
    for name, text in reversed(list(zip(RESULT_FILES, texts, strict=True))):  # scores.json last: the others exist then
        if text is not None:
            write_text(out / name, text)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_object_or_empty(path: Path) -> dict[str, Any]:
    """The object in a JSON file, such as settings.json; empty if the file is missing or broken."""
    try:
        return read_json_object(path)
    except InputError:
        return {}
