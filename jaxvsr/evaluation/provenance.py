"""Where scores come from: what stands beside the numbers in scores.json, and is read back when predictions are scored
again.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxvsr
from jaxvsr.errors import InputError
from jaxvsr.evaluation.predictions import Prediction, read_predictions
from jaxvsr.files import read_json_object
from jaxvsr.prompts import Prompt
from jaxvsr.rewards.answers import EXTRACTION

if TYPE_CHECKING:
    from jaxvsr.runs.model_source import Model

# What generation writes; scoring again keeps it.
FIELDS = (
    *("model", "revision", "data", "split", "subset", "limit", "frames", "blank", "max_pixels", "decoding", "commit"),
    *("prompt", "extraction", "max_answer_tokens", "stop", "repetition_penalty", "read_as"),
)


def of_prompt(prompt: Prompt) -> dict[str, Any]:
    """A prompt's name with the token budget, stop strings and extraction that it carries."""
    return {
        "prompt": prompt.name,
        "extraction": prompt.extraction,
        "max_answer_tokens": prompt.max_answer_tokens,
        "stop": list(prompt.stop),
    }


def of_model(model: Model) -> dict[str, Any]:
    """What a model folder adds to greedy decoding."""
    from jaxvsr.models.huggingface.hf_config import read_generation_config

    return {"repetition_penalty": read_generation_config(model.folder.path).repetition_penalty}


def beside(predictions: Path) -> dict[str, Any]:
    """The provenance in the scores.json of the folder that the predictions lie in; of a killed evaluation, which has no
    scores, what its settings.json says; empty where there is neither.
    """
    scores = _read_object(predictions.parent / "scores.json")
    if not scores:
        settings = _read_object(predictions.parent / "settings.json")
        prompt = settings.pop("prompt", None)
        if isinstance(prompt, dict):
            folders = settings.get("data")
            data = {"data": ",".join(map(str, folders))} if isinstance(folders, list) else {}
            scores = {**settings, **data, **prompt, "prompt": prompt.get("name")}
    return {name: scores[name] for name in FIELDS if name in scores}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except InputError:
        return {}


def read_as(origin: Mapping[str, Any], prompt: Prompt) -> dict[str, Any]:
    """The provenance of answers that are read as `prompt` says, whatever prompt they were asked for with."""
    given = of_prompt(prompt)
    if origin.get("prompt") in (None, prompt.name):
        return {**origin, **given}
    return {**origin, "extraction": given["extraction"], "stop": given["stop"], "read_as": prompt.name}


def read_answers(path: Path) -> list[Prediction]:
    """predictions.jsonl with answers in place of completions, taken out as the evaluation that wrote it does."""
    rule = answer_rule(beside(path)) or str
    return [
        dataclasses.replace(one, prediction=None if one.prediction is None else rule(one.prediction))
        for one in read_predictions(path)
    ]


def answer_rule(origin: Mapping[str, Any]) -> Callable[[str], str] | None:
    """From completion to answer as the recorded extraction and stop strings say; None where none are recorded."""
    extraction, stop = origin.get("extraction"), origin.get("stop", [])
    if extraction not in EXTRACTION or not isinstance(stop, list) or not all(isinstance(text, str) for text in stop):
        return None
    return Prompt("recorded", "", "{question}", 1, extraction, stop=tuple(stop)).answer


def commit() -> str:
    """The git commit of this code with "-dirty" for changed files, or the package's version outside a repository."""
    folder = Path(jaxvsr.__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return f"jaxvsr {jaxvsr.__version__}"
    return found.stdout.strip()
