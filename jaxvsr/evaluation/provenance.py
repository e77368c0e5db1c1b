"""Where scores come from: the fields beside the numbers in scores.json, which are read back when predictions are scored
again.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxvsr
from jaxvsr.evaluation.output_folder import SCORES_FILE, SETTINGS_FILE, read_object_or_empty
from jaxvsr.evaluation.predictions import Prediction, read_predictions
from jaxvsr.prompts import Prompt
from jaxvsr.rewards.answers import EXTRACTION

if TYPE_CHECKING:
    from jaxvsr.runs.model_source import Model

# Written when a model answers, and kept when its predictions are scored again.
FIELDS = (
    *("model", "revision", "data", "split", "subset", "limit", "frames", "rule", "rate", "seconds_of_length", "blank"),
    *("max_pixels", "min_pixels", "decoding", "commit"),
    *("prompt", "extraction", "max_answer_tokens", "stop", "repetition_penalty", "read_as"),
)


def prompt_fields(prompt: Prompt) -> dict[str, Any]:
    """A prompt's name, extraction rule, token budget and stop strings."""
    return {
        "prompt": prompt.name,
        "extraction": prompt.extraction,
        "max_answer_tokens": prompt.max_answer_tokens,
        "stop": list(prompt.stop),
    }


def model_fields(model: Model) -> dict[str, Any]:
    """What a model folder adds to greedy decoding."""
    from jaxvsr.models.huggingface.hf_config import read_generation_config

    return {"repetition_penalty": read_generation_config(model.folder.path).repetition_penalty}


def read_provenance(predictions: Path) -> dict[str, Any]:
    """The fields in the scores.json beside a file of predictions; without scores (a killed evaluation) those in its
    settings.json; empty without either.
    """
    scores = read_object_or_empty(predictions.parent / SCORES_FILE)
    if not scores:
        settings = read_object_or_empty(predictions.parent / SETTINGS_FILE)
        prompt = settings.pop("prompt", None)
        if isinstance(prompt, dict):
            folders = settings.get("data")
            data = {"data": ",".join(map(str, folders))} if isinstance(folders, list) else {}
            scores = {**settings, **data, **prompt, "prompt": prompt.get("name")}
    return {name: scores[name] for name in FIELDS if name in scores}


def with_extraction_of(prompt: Prompt, origin: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of answers that are extracted as `prompt` says, whatever prompt the model was given."""
    given = prompt_fields(prompt)
    if origin.get("prompt") in (None, prompt.name):
        return {**origin, **given}
    return {**origin, "extraction": given["extraction"], "stop": given["stop"], "read_as": prompt.name}


def read_answers(path: Path) -> list[Prediction]:
    """predictions.jsonl with answers in place of completions, extracted as in the evaluation that wrote it."""
    prompt = recorded_prompt(read_provenance(path))
    rule = prompt.answer if prompt else str
    return [
        dataclasses.replace(one, prediction=None if one.prediction is None else rule(one.prediction))
        for one in read_predictions(path)
    ]


def recorded_prompt(origin: Mapping[str, Any]) -> Prompt | None:
    """A prompt with the recorded extraction rule and stop strings; None if none are recorded."""
    extraction, stop = origin.get("extraction"), origin.get("stop", [])
    if extraction not in EXTRACTION or not isinstance(stop, list) or not all(isinstance(text, str) for text in stop):
        return None
    return Prompt("recorded", "", "{question}", 1, extraction, stop=tuple(stop))


def code_version() -> str:
    """The git commit of this code, with "-dirty" if files have changed; outside a repository the package's version."""
    folder = Path(jaxvsr.__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return f"jaxvsr {jaxvsr.__version__}"
    return found.stdout.strip()
