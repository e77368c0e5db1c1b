"""Where scores come from: what stands beside the numbers in scores.json, and is read back when predictions are scored
again.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxvsr
from jaxvsr.rewards.answers import EXTRACTION
from jaxvsr.rewards.prompts import Prompt

if TYPE_CHECKING:
    from jaxvsr.grpo.start_model import StartModel

# What generation writes; scoring again keeps it.
FIELDS = (
    *("model", "revision", "data", "split", "subset", "limit", "frames", "blank", "max_pixels", "decoding", "commit"),
    *("prompt", "extraction", "max_answer_tokens", "stop", "repetition_penalty"),
)


def of_prompt(prompt: Prompt) -> dict[str, Any]:
    """A prompt's name with the token budget, stop strings and extraction that it carries."""
    return {
        "prompt": prompt.name,
        "extraction": prompt.extraction,
        "max_answer_tokens": prompt.max_answer_tokens,
        "stop": list(prompt.stop),
    }


def of_model(model: StartModel) -> dict[str, Any]:
    """What a model folder adds to greedy decoding."""
    from jaxvsr.models.hf_config import read_generation_config

    return {"repetition_penalty": read_generation_config(model.folder.path).repetition_penalty}


def beside(predictions: Path) -> dict[str, Any]:
    """The provenance in the scores.json of the folder that the predictions lie in; empty where there is none."""
    try:
        scores = json.loads((predictions.parent / "scores.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: scores[name] for name in FIELDS if name in scores} if isinstance(scores, dict) else {}


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
