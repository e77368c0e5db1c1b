"""A study: arms, each a training with a few fields changed, and the comparisons between them.

    base: demo-grpo                         # config of every training: a recipe or a file
    set: {steps: 200}                       # fields that all arms change
    data: ["build_data.py rooms {out}/data --scenes 320"]       # commands that make the data, once
    evaluate: "--data {out}/data --benchmark vsi-bench"         # how evaluate.py scores each arm
    arms:
      base:  {model: rooms-base}            # scored as it is, without training
      sft:   {set: {objective: sft}}
      grpo:  {}
      again: {start: grpo}                  # starts from an arm's trained model
    comparisons:
      methods: {arms: [base, sft, grpo], paper: "…", differences: ["grpo > sft", "sft ? base"]}

`{out}` is the study's folder. `a > b` is a paper's claim that a scores higher, `a ? b` a comparison without a claim. A
comparison's `question_types: [object_counting]` compares over these types of question alone.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvsr.config.config_file import Override, find_config, read_config
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.errors import InputError, prefixed
from jaxvsr.evaluation.metrics.vsi_bench_scores import TASKS
from jaxvsr.fields import flat_fields, read_fields
from jaxvsr.yaml_file import read_yaml

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_DIFFERENCE = re.compile(r"(\S+) ([>?]) (\S+)")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One row of the table: a `model` that is scored as it is, or a training of the base config."""

    name: str
    label: str = ""  # in table and figure
    model: str | None = None
    start: str | None = None  # arm whose trained model this training starts from
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)  # changed config fields, as `--set` has them
    seconds_a_step: float | None = None  # measured on two cores

    @property
    def is_trained(self) -> bool:
        return self.model is None


@dataclasses.dataclass(frozen=True)
class Claim:
    """Two arms to compare; where `is_claimed`, a paper says that `higher` scores more than `lower`."""

    higher: str
    lower: str
    is_claimed: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One question of the study: a panel of the figure, and the differences between pairs of its arms."""

    title: str
    arms: tuple[str, ...]
    differences: tuple[Claim, ...]
    paper: str = ""  # what the papers found
    question_types: tuple[str, ...] = ()  # only over these; none: all

    def among(self, names: Collection[str]) -> Comparison:
        """The part of it that concerns these arms."""
        claims = tuple(claim for claim in self.differences if claim.higher in names and claim.lower in names)
        return dataclasses.replace(self, arms=tuple(arm for arm in self.arms if arm in names), differences=claims)


@dataclasses.dataclass(frozen=True)
class Seconds:
    """For --dry-run, measured on two cores: all data commands, one training besides its steps, one evaluation."""

    data: float = 0.0
    training: float = 0.0
    evaluation: float = 0.0

    def __post_init__(self) -> None:
        for name, seconds in dataclasses.asdict(self).items():
            if seconds < 0:
                raise InputError(f"{name} {seconds}: must be at least 0")


@dataclasses.dataclass(frozen=True)
class Study:
    """A study as its file has it."""

    name: str
    base: str
    evaluate: str
    arms: tuple[Arm, ...]
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    seeds: tuple[int, ...] = (0,)
    seconds: Seconds = Seconds()

    def arm(self, name: str) -> Arm:
        """The arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)

    def overrides(self, arm: Arm, more: Sequence[Override] = ()) -> list[Override]:
        """The base config's fields that the arm's training changes; of several values of a field the last."""
        named = [(f"study {self.name}, arm {arm.name}: {field}", field, text) for field, text in self.fields.items()]
        named += [(f"study {self.name}, arm {arm.name}: {field}", field, text) for field, text in arm.fields.items()]
        return list({field: (flag, field, text) for flag, field, text in [*named, *more]}.values())

    def config(self, arm: Arm, more: Sequence[Override] = ()) -> TrainConfig:
        """The config of the arm's training; for a model that is not trained, how it is asked."""
        return read_config(find_config(self.base), self.overrides(arm, more))

    def chosen(self, names: Sequence[str]) -> Study:
        """The study with only these arms, those that they start from, and the comparisons between them."""
        wanted = set(names)
        for name in names:
            if name not in {arm.name for arm in self.arms}:
                raise InputError(f"--arms {name}: {_no_arm(name, self.arms)}")
        for arm in reversed(self.arms):  # an arm starts from an earlier one
            if arm.name in wanted and arm.start:
                wanted.add(arm.start)
        arms = tuple(arm for arm in self.arms if arm.name in wanted)
        comparisons = tuple(comparison.among(wanted) for comparison in self.comparisons)
        return dataclasses.replace(self, arms=arms, comparisons=tuple(one for one in comparisons if one.differences))


def read_study(path: Path) -> Study:
    """The study of a YAML file; every mistake in it is one line."""
    with prefixed(f"study {path}"):
        study = _study(path.stem, read_fields(_StudyRow, read_yaml(path, what="study", fields="such as base and arms")))
    for arm in study.arms:
        study.config(arm)
    return study


@dataclasses.dataclass(frozen=True)
class _StudyRow:
    """A study's fields in its file."""

    base: str
    evaluate: str
    arms: dict[str, Any]
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: tuple[str, ...] = ()
    comparisons: dict[str, Any] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    seconds: Seconds = Seconds()


@dataclasses.dataclass(frozen=True)
class _ArmRow:
    """An arm's fields in the file."""

    label: str | None = None
    model: str | None = None
    start: str | None = None
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds_a_step: float | None = None


@dataclasses.dataclass(frozen=True)
class _ComparisonRow:
    """A comparison's fields in the file."""

    arms: tuple[str, ...] = ()
    paper: str = ""
    differences: tuple[str, ...] = ()
    question_types: tuple[str, ...] = ()


def _study(name: str, row: _StudyRow) -> Study:
    arms: list[Arm] = []
    for arm, fields in row.arms.items():
        with prefixed(f"arm {arm}"):
            arms.append(_arm(str(arm), read_fields(_ArmRow, fields or {}), arms))
        if arms[-1].label in {earlier.label for earlier in arms[:-1]}:
            raise InputError(f"two arms are called {arms[-1].label!r} in the table")
    if not arms:
        raise InputError("no arms; expected at least one, such as arms: {grpo: {}}")
    comparisons = []
    for title, fields in row.comparisons.items():
        with prefixed(f"comparison {title}"):
            comparisons.append(_comparison(str(title), read_fields(_ComparisonRow, fields), arms))
    return Study(
        name=name,
        base=row.base,
        evaluate=row.evaluate,
        arms=tuple(arms),
        fields=_fields(row.set),
        data=row.data,
        comparisons=tuple(comparisons),
        seeds=checked_seeds(row.seeds),
        seconds=row.seconds,
    )


def checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds, if they are different whole numbers from 0."""
    if not seeds or min(seeds) < 0:
        raise InputError(f"seeds must be whole numbers from 0, such as 0,1,2; found {list(seeds)}")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {list(seeds)}: each may be given once")
    return tuple(seeds)


def _arm(name: str, row: _ArmRow, earlier: Sequence[Arm]) -> Arm:
    if not _NAME.fullmatch(name):
        raise InputError("a name is letters, digits, '.', '_' and '-': it becomes a folder")
    if row.start is not None and row.start not in {arm.name for arm in earlier if arm.is_trained}:
        raise InputError(f"start {row.start!r} must be a trained arm that comes before it")
    if row.model and row.start:
        raise InputError("has a model, so it is not trained; remove start")
    if row.seconds_a_step is not None and row.seconds_a_step < 0:
        raise InputError(f"seconds_a_step {row.seconds_a_step}: must be at least 0")
    fields = _fields(row.set)
    if "model.path" in fields and (row.start or row.model):
        raise InputError("set model.path: cannot be set, start or model says it")
    label = name if row.label is None else row.label
    return Arm(name, label, row.model, row.start, fields, row.seconds_a_step or None)


def _comparison(name: str, row: _ComparisonRow, arms: Sequence[Arm]) -> Comparison:
    claims = []
    for text in row.differences:
        match = _DIFFERENCE.fullmatch(text)
        if match is None:
            raise InputError(f"difference {text!r}: expected 'a > b', or 'a ? b' without a paper's claim")
        claims.append(Claim(match[1], match[3], match[2] == ">"))
    for arm in [*row.arms, *(side for claim in claims for side in (claim.higher, claim.lower))]:
        if arm not in {one.name for one in arms}:
            raise InputError(_no_arm(arm, arms))
    if unknown := [one for one in row.question_types if one not in TASKS]:
        raise InputError(f"no question type {unknown[0]!r}; the types are {', '.join(TASKS)}")
    return Comparison(name, row.arms, tuple(claims), " ".join(row.paper.split()), row.question_types)


def _no_arm(name: str, arms: Sequence[Arm]) -> str:
    return f"no arm {name!r}; the arms are {', '.join(arm.name for arm in arms)}"


def _fields(row: Mapping[str, Any]) -> dict[str, str]:
    """Config fields, nested or dotted, as `--set` writes their values."""
    fields: dict[str, str] = {}
    for field, value in flat_fields(row):
        texts = [_text(item) for item in value] if isinstance(value, list) else [_text(value)]
        fields[str(field)] = ",".join(texts)
    if "seed" in fields:
        raise InputError("set seed: cannot be set, seeds lists the seeds")
    return fields


def _text(value: Any) -> str:
    """A value as YAML would read it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
