"""The commands of a study, in order, each with the folder that it writes, and the manifest of those that are done.

STUDY/data/ …                what the data commands write
STUDY/seed-0/grpo/run        a training; STUDY/seed-0/grpo/scores its evaluation
STUDY/untrained/base/scores  a model that is scored as it is, once for all seeds
STUDY/manifest.json          {"seed-0/grpo train": {"command": "…", "seconds": 123.4, "config": {"steps": 200, …}}}
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxvsr.config.config_file import Override
from jaxvsr.errors import InputError
from jaxvsr.evaluation.answering.baselines import BASELINES
from jaxvsr.fields import flat_fields, to_tree
from jaxvsr.files import write_text
from jaxvsr.study.definition import Arm, Study

MANIFEST = "manifest.json"
STUDY_LOCK = ".study.lock"  # the folder itself may be the data folder of a command, which locks it by itself
UNTRAINED = "untrained"
Kind = Literal["data", "train", "evaluate"]


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of a study; `key` names it in the manifest."""

    key: str
    kind: Kind
    arguments: tuple[str, ...]  # of `python`, a script of launch/ first
    result: Path | None = None  # the file that it writes last; None: only the manifest says whether it is done
    arm: str = ""
    config: Mapping[str, Any] | None = None  # a training's fields, with those of the base file

    @property
    def text(self) -> str:
        """As one would type it."""
        return shlex.join(("python", f"launch/{self.arguments[0]}", *self.arguments[1:]))


def arm_folder(out: Path, arm: Arm, seed: int) -> Path:
    """The folder of an arm's run and scores."""
    return out / (f"seed-{seed}" if arm.is_trained else UNTRAINED) / arm.name


def commands(study: Study, out: Path, seeds: Sequence[int], more: Sequence[Override] = ()) -> list[Command]:
    """All commands of a study, the data first, then seed by seed; `more` are overrides of every training."""
    planned = [Command(f"data {index}", "data", _words(text, out)) for index, text in enumerate(study.data, start=1)]
    planned += [_evaluation(study, out, arm, 0, more) for arm in study.arms if not arm.is_trained]
    for seed in seeds:
        for arm in study.arms:
            if arm.is_trained:
                planned += [_training(study, out, arm, seed, more), _evaluation(study, out, arm, seed, more)]
    return planned


def _words(text: str, out: Path) -> tuple[str, ...]:
    """The words of a command line in a study's file."""
    return tuple(word.replace("{out}", str(out)) for word in shlex.split(text))


def _training(study: Study, out: Path, arm: Arm, seed: int, more: Sequence[Override]) -> Command:
    run = arm_folder(out, arm, seed) / "run"
    config = study.config(arm, more)
    if config.intervals.time_limit is not None:
        raise InputError(
            f"study {study.name}, arm {arm.name}: intervals.time_limit {config.intervals.time_limit}: would end a "
            "training before its last step, and the study would compare it as if it were done; expected null"
        )
    changed = [(field, text) for _, field, text in study.overrides(arm, more)]
    if arm.start:
        changed.append(("model.path", str(arm_folder(out, study.arm(arm.start), seed) / "run")))
    flags = [flag for field, text in changed for flag in ("--set", f"{field}={text.replace('{out}', str(out))}")]
    arguments = ("train.py", "--config", study.base, *flags, "--seed", str(seed), "--run-dir", str(run), "--resume")
    fields = {field: value for field, value in flat_fields(to_tree(config)) if field != "seed"}
    return Command(_key(out, run.parent, "train"), "train", arguments, run / "report.html", arm.name, fields)


def _evaluation(study: Study, out: Path, arm: Arm, seed: int, more: Sequence[Override]) -> Command:
    folder = arm_folder(out, arm, seed)
    config = study.config(arm, more)
    model = str(folder / "run") if arm.model is None else arm.model.replace("{out}", str(out))
    asked: list[str] = []
    if model not in BASELINES:  # asked as the arm was trained
        asked += ["--frames", str(config.data.frames)]
        asked += [] if config.data.max_pixels is None else ["--max-pixels", str(config.data.max_pixels)]
        asked += ["--prompt", config.data.prompt, *(["--blank"] if config.data.blank else [])]
    scored = _words(study.evaluate, out)
    arguments = ("evaluate.py", "--model", model, *scored, *asked, "--out", str(folder / "scores"))
    return Command(_key(out, folder, "evaluate"), "evaluate", arguments, folder / "scores" / "scores.json", arm.name)


def _key(out: Path, folder: Path, kind: Kind) -> str:
    return f"{folder.relative_to(out)} {kind}"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Which commands of the study in a folder are done, as one would type them, and how long they took."""

    out: Path

    def read(self) -> dict[str, dict[str, Any]]:
        """key: {"command", "seconds", "config"} of what is done; the config is empty where none was recorded."""
        path = self.out / MANIFEST
        if not path.exists():
            return {}
        try:
            done = json.loads(path.read_text(encoding="utf-8"))
            return {
                key: {
                    "command": str(row["command"]),
                    "seconds": float(row["seconds"]),
                    "config": dict(row.get("config") or {}),
                }
                for key, row in done.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: not the manifest of a study ({error!r})") from None

    def check(self, planned: Sequence[Command]) -> None:
        """Refuse to continue where a command that is done would now be another one."""
        done = self.read()
        for command in planned:
            before = done.get(command.key)
            if before is None:
                continue
            remedy = "take another --out, or delete the arm's folder and its lines in manifest.json"
            if before["command"] != command.text:
                raise InputError(
                    f"{self.out}: {command.key} was done as `{before['command']}`, now it would be `{command.text}`; "
                    f"{remedy}"
                )
            for field, value in (command.config or {}).items():  # the base file may have changed since
                old = before["config"].get(field, value)  # a field that is newer than the record
                if old != value:
                    raise InputError(
                        f"{self.out}: {command.key} was done with {field}={old}, now it would be {value}; {remedy}"
                    )

    def is_done(self, command: Command) -> bool:
        """Whether the command has ended, and what it wrote is still there."""
        is_there = command.result is None or command.result.exists()
        return is_there and command.key in self.read()

    def record(self, command: Command, seconds: float) -> None:
        """Note that a command has ended without an error."""
        row = {"command": command.text, "seconds": round(seconds, 1), "config": command.config}
        done = {**self.read(), command.key: row}
        write_text(self.out / MANIFEST, json.dumps(done, indent=1, ensure_ascii=False) + "\n")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """How long a command will take, and how that is known; None where it is not."""

    seconds: float | None
    source: str


def estimate(study: Study, command: Command, manifest: Manifest, more: Sequence[Override] = ()) -> Estimate:
    """Nothing for a command that is done, else as long as the same arm of another seed took here, else what the study's
    file says.
    """
    done = manifest.read()
    if manifest.is_done(command):
        return Estimate(0.0, "done")
    same = [row["seconds"] for key, row in done.items() if key.split("/", 1)[-1] == command.key.split("/", 1)[-1]]
    if same:
        return Estimate(statistics.fmean(same), "measured here")
    if command.kind == "data":
        return Estimate(study.seconds.data / len(study.data) or None, "study file")
    if command.kind == "evaluate":
        return Estimate(study.seconds.evaluation or None, "study file")
    arm = study.arm(command.arm)
    if arm.seconds_a_step is None:
        return Estimate(None, "not measured")
    steps = study.config(arm, more).steps
    total = study.seconds.training + steps * arm.seconds_a_step
    return Estimate(total, f"{steps} steps × {arm.seconds_a_step:g} s + {study.seconds.training:g} s")


def plan_lines(study: Study, planned: Sequence[Command], manifest: Manifest, more: Sequence[Override]) -> list[str]:
    """Each command with its time, and the hours that are left."""
    lines, total, unknown = [], 0.0, 0
    for number, command in enumerate(planned, start=1):
        time = estimate(study, command, manifest, more)
        total += time.seconds or 0.0
        unknown += time.seconds is None
        minutes = "unknown time" if time.seconds is None else f"{time.seconds / 60:.1f} min"
        lines.append(f"[{number}/{len(planned)}] {command.key}: {minutes} ({time.source})\n  {command.text}")
    rest = f", without {unknown} command{'s' * (unknown > 1)} of unknown time" if unknown else ""
    return [*lines, f"{total / 3600:.2f} h ({total / 60:.0f} min) left{rest}"]
