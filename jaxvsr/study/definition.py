"""What a study is: arms, each a training with a few fields changed, and what is compared with what.

    base: demo-grpo                         # config of every training: a recipe or a file
    set: {steps: 200}                       # fields that all arms change
    data: ["build_data.py rooms {out}/data --scenes 320"]       # commands that make the data, once
    evaluate: "--data {out}/data --benchmark vsi-bench"         # how each arm's model is scored
    arms:
      base:  {model: rooms-base}            # answers as it is, without training
      sft:   {set: {objective: sft}}
      grpo:  {}
      again: {start: grpo}                  # starts from the model that an arm has trained
    comparisons:
      methods: {arms: [base, sft, grpo], paper: "…", differences: ["grpo > sft", "sft ? base"]}

`{out}` is the study's folder. `a > b` is a paper's claim that a scores higher, `a ? b` a question without one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvsr.config.config_file import Override, find_config, flat_fields, read_config
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.errors import InputError
from jaxvsr.yaml_file import read_yaml

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_DIFFERENCE = re.compile(r"(\S+) ([>?]) (\S+)")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One row of the table. `model` is scored as it is; without one, a training of the base config is."""

    name: str
    label: str = ""  # in tables and figure; the name where there is none
    model: str | None = None
    start: str | None = None  # arm whose trained model this training starts from
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)  # changed config fields, as `--set` has them
    seconds_a_step: float | None = None  # measured on two cores

    @property
    def is_trained(self) -> bool:
        return self.model is None


@dataclasses.dataclass(frozen=True)
class Claim:
    """`higher` scores more than `lower`, says a paper; or nobody says so, and it is a question."""

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

    def among(self, names: Collection[str]) -> Comparison:
        """What of it can be compared of these arms."""
        claims = tuple(claim for claim in self.differences if claim.higher in names and claim.lower in names)
        return dataclasses.replace(self, arms=tuple(arm for arm in self.arms if arm in names), differences=claims)


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Measured on two cores: all data commands; one training besides its steps; one evaluation."""

    data: float = 0.0
    training: float = 0.0
    evaluation: float = 0.0


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
        """Fields that the arm's training changes of the base config, the last one of each counting."""
        named = [(f"study {self.name}, arm {arm.name}: {field}", field, text) for field, text in self.fields.items()]
        named += [(f"study {self.name}, arm {arm.name}: {field}", field, text) for field, text in arm.fields.items()]
        return list({field: (flag, field, text) for flag, field, text in [*named, *more]}.values())

    def config(self, arm: Arm, more: Sequence[Override] = ()) -> TrainConfig:
        """The config of the arm's training; of a model without training, what it is asked with."""
        return read_config(find_config(self.base), self.overrides(arm, more))

    def chosen(self, names: Sequence[str]) -> Study:
        """The same study with some of its arms, those that they start from, and what is left to compare."""
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
    tree = read_yaml(path)
    where = f"study {path}"
    known = {field.name for field in dataclasses.fields(Study)} - {"name", "fields"} | {"set"}
    _check_names(where, tree, known)
    for name in ("base", "evaluate"):
        if not isinstance(tree.get(name), str):
            raise InputError(f"{where}: {name} must be a text, found {tree.get(name)!r}")
    arms: list[Arm] = []
    for name, row in _mapping(where, "arms", tree.get("arms")).items():
        arms.append(_arm(f"{where}: arm {name}", str(name), row or {}, arms))
        if arms[-1].label in {arm.label for arm in arms[:-1]}:
            raise InputError(f"{where}: two arms are called {arms[-1].label!r} in the table")
    if not arms:
        raise InputError(f"{where}: no arms; expected at least one, such as arms: {{grpo: {{}}}}")
    comparisons = [
        _comparison(f"{where}: comparison {name}", str(name), row, arms)
        for name, row in _mapping(where, "comparisons", tree.get("comparisons", {})).items()
    ]
    study = Study(
        name=path.stem,
        base=tree["base"],
        evaluate=tree["evaluate"],
        arms=tuple(arms),
        fields=_fields(where, tree.get("set", {})),
        data=_texts(where, "data", tree.get("data", [])),
        comparisons=tuple(comparisons),
        seeds=checked_seeds(where, tree.get("seeds", [0])),
        seconds=Seconds(**_numbers(where, "seconds", tree.get("seconds", {}))),
    )
    for arm in study.arms:
        study.config(arm)
    return study


def checked_seeds(where: str, seeds: Any) -> tuple[int, ...]:
    """Different whole numbers from 0."""
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise InputError(f"{where}: seeds must be whole numbers from 0, such as 0,1,2; found {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"{where}: seeds {seeds!r}: each may stand there once")
    return tuple(seeds)


def _arm(where: str, name: str, row: Any, earlier: Sequence[Arm]) -> Arm:
    _check_names(where, _mapping(where, "fields", row), {"label", "model", "start", "set", "seconds_a_step"})
    if not _NAME.fullmatch(name):
        raise InputError(f"{where}: a name is letters, digits, '.', '_' and '-': it becomes a folder")
    for field in ("label", "model", "start"):
        if not isinstance(row.get(field, ""), str):
            raise InputError(f"{where}: {field} must be a text, found {row[field]!r}")
    start = row.get("start")
    if start is not None and start not in {arm.name for arm in earlier if arm.is_trained}:
        raise InputError(f"{where}: start {start!r} must be a trained arm that stands before it")
    if row.get("model") and start:
        raise InputError(f"{where}: has a model, so it is not trained and has no start")
    seconds = _numbers(where, "seconds_a_step", {"seconds_a_step": row.get("seconds_a_step", 0)}, Arm)
    measured = seconds["seconds_a_step"] or None
    fields = _fields(where, row.get("set", {}))
    if "model.path" in fields and (start or row.get("model")):
        raise InputError(f"{where}: set model.path: is what start and model say")
    return Arm(name, row.get("label", name), row.get("model"), start, fields, measured)


def _comparison(where: str, name: str, row: Any, arms: Sequence[Arm]) -> Comparison:
    _check_names(where, _mapping(where, "fields", row), {"arms", "paper", "differences"})
    members = _texts(where, "arms", row.get("arms", []))
    claims = []
    for text in _texts(where, "differences", row.get("differences", [])):
        match = _DIFFERENCE.fullmatch(text)
        if match is None:
            raise InputError(f"{where}: difference {text!r}: expected 'a > b', or 'a ? b' where no paper says so")
        claims.append(Claim(match[1], match[3], match[2] == ">"))
    for arm in [*members, *(side for claim in claims for side in (claim.higher, claim.lower))]:
        if arm not in {one.name for one in arms}:
            raise InputError(f"{where}: {_no_arm(arm, arms)}")
    if not isinstance(row.get("paper", ""), str):
        raise InputError(f"{where}: paper must be a text, found {row['paper']!r}")
    return Comparison(name, members, tuple(claims), " ".join(row.get("paper", "").split()))


def _no_arm(name: str, arms: Sequence[Arm]) -> str:
    return f"no arm {name!r}; the arms are {', '.join(arm.name for arm in arms)}"


def _check_names(where: str, row: Mapping[Any, Any], known: set[str]) -> None:
    for name in row:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(f"{where}: unknown field {name!r}{guess} (fields: {', '.join(sorted(known))})")


def _mapping(where: str, name: str, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {name} must be a mapping, found {value!r}")
    return value


def _texts(where: str, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: {name} must be a list of texts, found {value!r}")
    return tuple(value)


def _numbers(where: str, name: str, row: Any, kind: type = Seconds) -> dict[str, float]:
    _check_names(where, _mapping(where, name, row), {field.name for field in dataclasses.fields(kind)})
    for field, value in row.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise InputError(f"{where}: {field} must be seconds, found {value!r}")
    return row


def _fields(where: str, row: Any) -> dict[str, str]:
    """Config fields, nested or dotted, as `--set` writes their values."""
    fields: dict[str, str] = {}
    for field, value in flat_fields(_mapping(where, "set", row)):
        texts = [_text(item) for item in value] if isinstance(value, list) else [_text(value)]
        fields[str(field)] = ",".join(texts)
    if "seed" in fields:
        raise InputError(f"{where}: set seed: goes into seeds")
    return fields


def _text(value: Any) -> str:
    """As YAML reads it back."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
