"""The folder of a run: its files, and when a run may write into it.

runs/<config>-<date>-<seed>/
    config.yaml       the whole config: `train.py --config` of it is the same run
    metrics.jsonl     one row per step
    samples.jsonl     questions, their G answers, each reward, the advantages
    hacking.jsonl     rollouts that show a trick: the worst of some steps
    tensorboard/      events
    profile/          a trace of some steps, where one was asked for
    checkpoints/      Orbax, by step
    starts.jsonl      when it was started and resumed, on which machine, with which versions
    evaluations.jsonl where `evaluate.py` wrote scores of its checkpoints
    report.html
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jaxvsr
from jaxvsr.buckets.urls import refuse_url
from jaxvsr.config.config_file import config_from, to_yaml
from jaxvsr.config.train_config import CHANGEABLE, TrainConfig
from jaxvsr.errors import InputError, prefixed
from jaxvsr.fields import flat_fields, to_tree
from jaxvsr.files import read_rows, write_text
from jaxvsr.locks import LOCK_FILE
from jaxvsr.yaml_file import read_yaml


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def hacking(self) -> Path:
        return self.path / "hacking.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def profile(self) -> Path:
        return self.path / "profile"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def starts(self) -> Path:
        return self.path / "starts.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def read_config(self) -> TrainConfig:
        """The config that the run was started with."""
        if not self.config.is_file():
            raise InputError(f"{self.path}: not a run folder, it has no config.yaml")
        with prefixed(f"config {self.config}"):
            return config_from(read_yaml(self.config))


def default_run_folder(config_name: str, seed: int, *, resume: bool, root: Path = Path("runs")) -> Path:
    """`runs/<config>-<date>-<seed>`; with `resume` the newest such folder, if there is one."""
    if resume:
        found = sorted(path for path in root.glob(f"{config_name}-????????-??????-{seed}") if path.is_dir())
        if found:
            return found[-1]
    return root / f"{config_name}-{time.strftime('%Y%m%d-%H%M%S')}-{seed}"


def check_run_folder(path: Path, config: TrainConfig, *, resume: bool) -> RunFolder:
    """Whether a run may be written here; nothing is written yet.

    Raises:
        InputError: the folder is not empty and `resume` is not asked for; or a field changed that earlier steps used.
    """
    refuse_url(path, "run folder")
    folder = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"run folder {path}: is a file")
    if path.is_dir() and any(file.name != LOCK_FILE for file in path.iterdir()):
        if not resume:
            raise InputError(f"run folder {path}: is not empty; give another --run-dir, or --resume to continue it")
        check_resume(folder.read_config(), config, path)
    return folder


def make_run_folder(path: Path, config: TrainConfig) -> RunFolder:
    """Make the folder, if it is not there, and write its config."""
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path)
    write_text(folder.config, to_yaml(config))
    return folder


def note_start(folder: RunFolder, machine: str) -> None:
    """Write down that the run is started or resumed now; `machine` is the line that the command printed of it."""
    versions = {"jaxvsr": jaxvsr.__version__, "JAX": version("jax"), "Python": platform.python_version()}
    row = {"time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "machine": machine, "versions": versions}
    write_text(folder.starts, "".join(json.dumps(one) + "\n" for one in [*read_rows(folder.starts), row]))


def settings_that_stay(config: TrainConfig) -> dict[str, Any]:
    """The fields of a config that may not change within a run: dotted path → value, as JSON has it."""
    fields = json.loads(json.dumps(dict(flat_fields(to_tree(config)))))
    return {field: fields[field] for field in fields if not {field, field.split(".")[0]}.intersection(CHANGEABLE)}


def check_same_settings(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Refuse fields of `settings_that_stay` that differ; one that an older jaxvsr did not have may be new, and one that
    it did not let change may.

    Raises:
        InputError: one differs.
    """
    for field, value in before.items():
        if now.get(field) != value and field not in CHANGEABLE:
            raise InputError(
                f"--resume: {field} was {value!r} in {path}, now it is {now.get(field)!r}; "
                f"only {', '.join(CHANGEABLE)} may change within a run"
            )


def check_resume(before: TrainConfig, now: TrainConfig, path: Path) -> None:
    """Refuse a change of anything but `CHANGEABLE`."""
    old, new = settings_that_stay(before), settings_that_stay(now)
    check_same_settings({field: old.get(field) for field in {**old, **new}}, new, path)


def cut_rows(path: Path, last_step: int) -> list[int]:
    """Take out the rows after `last_step`, which a resumed run makes again; returns the steps of the others.

    Raises:
        InputError: a row is broken; nothing is taken out then.
    """
    if not path.is_file():
        return []
    kept = []
    for number, row in enumerate(read_rows(path), start=1):
        if not isinstance(row.get("step"), int):
            raise InputError(f"{path} line {number}: no integer in field 'step'")
        if row["step"] <= last_step:
            kept.append(row)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    return [row["step"] for row in kept]
