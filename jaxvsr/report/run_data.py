"""What a run folder holds, as the page needs it: metrics, sampled answers, settings."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvsr.errors import InputError
from jaxvsr.report.charts import Curve


@dataclasses.dataclass(frozen=True)
class SampledAnswer:
    """One rollout."""

    text: str
    reward: float  # weighted sum; nan where no reward applies
    advantage: float
    rewards: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SampledQuestion:
    """One question at one step with its G rollouts."""

    step: int
    question_id: str
    scene: str
    question_type: str
    question: str
    answer: str  # the right one
    answers: tuple[SampledAnswer, ...]

    @property
    def mean_reward(self) -> float:
        finite = [answer.reward for answer in self.answers if math.isfinite(answer.reward)]
        return sum(finite) / len(finite) if finite else math.nan


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a .jsonl file; a last line that was cut off while it was written is left out."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; a run folder has one")
    rows: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):  # no newline behind it: the run was stopped in the middle of the line
                break
            raise InputError(f"{path} line {number}: not JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise InputError(f"{path} line {number}: expected a JSON object, found {type(row).__name__}")
        rows.append(row)
    return rows


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The numbers of metrics.jsonl, one row a step; values that are no numbers become nan."""
    rows = []
    for number, row in enumerate(read_rows(run / "metrics.jsonl"), start=1):
        if not isinstance(row.get("step"), int):
            raise InputError(f"{run / 'metrics.jsonl'} line {number}: no integer in field 'step'")
        rows.append({name: _number(value) for name, value in row.items()})
    return rows


def metric_curve(metrics: Sequence[Mapping[str, float]], name: str) -> Curve | None:
    """A metric over the steps in which it was logged."""
    rows = [row for row in metrics if name in row]
    if not rows:
        return None
    return Curve(name, tuple(int(row["step"]) for row in rows), tuple(row[name] for row in rows))


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
