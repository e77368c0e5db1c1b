"""The rows of a run folder that its page shows: metrics, sampled answers, rollouts with a trick."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxvsr.errors import InputError
from jaxvsr.files import read_rows

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class SampledAnswer:
    """One rollout, a held-out answer without a reward, or an answer that was given."""

    text: str
    reward: float = math.nan  # weighted sum; nan where no reward applies
    advantage: float = math.nan
    given: str = ""  # what SFT (target) and DPO (chosen, rejected) learn it as; empty where the model wrote it


@dataclasses.dataclass(frozen=True)
class SampledQuestion:
    """One question at one step with its answers: G rollouts, or one held-out answer, or those that were given."""

    step: int
    question_id: str
    scene: str
    question_type: str
    question: str
    answer: str  # the correct one
    answers: tuple[SampledAnswer, ...]

    @property
    def mean_reward(self) -> float:
        finite = [answer.reward for answer in self.answers if math.isfinite(answer.reward)]
        return sum(finite) / len(finite) if finite else math.nan

    @property
    def is_given(self) -> bool:
        return any(answer.given for answer in self.answers)

    @property
    def has_rewards(self) -> bool:
        return any(math.isfinite(answer.reward) for answer in self.answers)

    @property
    def largest_reward(self) -> float:
        return max((answer.reward for answer in self.answers if math.isfinite(answer.reward)), default=0.0)

    @property
    def largest_advantage(self) -> float:
        return max((abs(one.advantage) for one in self.answers if math.isfinite(one.advantage)), default=0.0)


@dataclasses.dataclass(frozen=True)
class HackedRollout:
    """One rollout that looks like reward hacking."""

    step: int
    question: str
    answer: str  # the correct one
    text: str
    reward: float
    tricks: tuple[str, ...]


def read_hacking(path: Path, most: int) -> list[HackedRollout]:
    """The rows of hacking.jsonl of the last step that has any, at most `most`; none where the file is missing."""

    def rollout(row: Mapping[str, Any]) -> HackedRollout:
        question, answer, text = (str(row[name]) for name in ("question", "answer", "text"))
        tricks = tuple(map(str, row["tricks"]))
        return HackedRollout(int(row["step"]), question, answer, text, number_or_nan(row["reward"]), tricks)

    rows = _read(path, rollout)
    return [row for row in rows if row.step == rows[-1].step][:most]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The numbers of metrics.jsonl, one row per step; null becomes nan.

    Raises:
        InputError: there is no such file, or a row has no step.
    """
    if not path.is_file():
        raise InputError(f"{path.parent}: not a run folder, it has no {path.name}")
    rows = []
    for number, row in enumerate(read_rows(path), start=1):
        if not isinstance(row.get("step"), int):
            raise InputError(f"{path} line {number}: no integer in field 'step'")
        rows.append({name: number_or_nan(value) for name, value in row.items()})
    return rows


def read_samples(path: Path) -> list[SampledQuestion]:
    """The rows of samples.jsonl; none where the file is missing."""

    def question(row: Mapping[str, Any]) -> SampledQuestion:
        names = ("question_id", "scene", "question_type", "question", "answer")
        texts: dict[str, Any] = {name: str(row[name]) for name in names}
        answers = tuple(
            SampledAnswer(
                str(answer["text"]),
                number_or_nan(answer.get("reward")),
                number_or_nan(answer.get("advantage")),
                str(answer.get("given", "")),
            )
            for answer in row["answers"]
        )
        return SampledQuestion(step=int(row["step"]), answers=answers, **texts)

    return _read(path, question)


def _read(path: Path, make: Callable[[Mapping[str, Any]], T]) -> list[T]:
    rows = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            rows.append(make(row))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} line {number}: not a row of {path.name} ({error!r})") from None
    return rows


def same_question(samples: Sequence[SampledQuestion]) -> tuple[SampledQuestion, SampledQuestion] | None:
    """A question that was sampled early and late in the run; None where there is none.

    Of the pairs with most steps between them, the one whose mean reward changed most, up or down; without rewards, one
    whose answer changed.
    """
    best: tuple[tuple[int, float], SampledQuestion, SampledQuestion] | None = None
    first: dict[str, SampledQuestion] = {}
    for sample in samples:
        before = first.setdefault(sample.question_id, sample)
        if sample.step <= before.step:
            continue
        change = abs(sample.mean_reward - before.mean_reward)
        other = [one.text for one in sample.answers] != [one.text for one in before.answers]
        merit = (sample.step - before.step, change if math.isfinite(change) else other - 1.0)
        if best is None or merit > best[0]:
            best = merit, before, sample
    return best[1:] if best else None


def number_or_nan(value: object) -> float:
    """A JSON value as a number; null and everything else that is none is nan."""
    return float(value) if isinstance(value, (int, float)) else math.nan
