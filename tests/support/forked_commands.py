"""Commands of all kinds on small data, each as a process of its own.

A command's start is mostly imports, so they are forked from one process that has made them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.faults import ROOT, write_rows
from tests.support.runs import TINY_RECIPE
from tests.support.xla_flags import FLAGS

_FORKS = multiprocessing.get_context("forkserver")
_SCRIPTS = ("build_data", "convert", "evaluate", "report", "study", "train")
_MODULES = ("jaxvsr.training.assemble", "jaxvsr.training.loop", "jaxvsr.evaluation.evaluate_benchmark", "transformers")
_NUMBERS = itertools.count()

RECIPE = (
    TINY_RECIPE
    + """steps: 6
intervals: {checkpoint: 2, samples: 1}
"""
)
STUDY = """
base: recipe.yaml
seeds: [0]
evaluate: --data data --benchmark vsi-bench
arms:
  low: {set: {steps: 2}}
"""
ROOMS = ("--scenes", "3", "--frames-per-scan", "9", "--size", "96x72")
# command: script, arguments (it writes into OUT), what it adds to
COMMANDS: dict[str, tuple[str, Sequence[str], str | None]] = {
    "import": ("build_data.py", ("import", "rows.jsonl", "OUT/new", "--videos", "videos"), None),
    "rooms": ("build_data.py", ("rooms", "OUT/new", *ROOMS, "--workers", "1"), None),
    "rooms, workers": ("build_data.py", ("rooms", "OUT/new", *ROOMS, "--workers", "2"), None),
    "questions": ("build_data.py", ("questions", "rooms", "OUT/new", "--recipe", "vsi100k", "--workers", "1"), None),
    "frames": ("build_data.py", ("frames", "rooms", "OUT/new", "--frames", "4", "--max-pixels", "4000"), None),
    "features": ("build_data.py", ("features", "OUT/data", "--model", "tiny"), "data"),
    "tag": ("build_data.py", ("tag", "data", "OUT/new", "--tag", "think"), None),
    "show": ("build_data.py", ("show", "rooms", "scene0000_00", "--page", "OUT/page.html"), None),
    "train": ("train.py", ("--config", "recipe.yaml", "--run-dir", "OUT/run"), None),
    "evaluate": (
        "evaluate.py",
        ("--model", "tiny", "--data", "data", "--benchmark", "vsi-bench", "--split", "all", "--out", "OUT/scores"),
        None,
    ),
    "tiny": ("convert.py", ("tiny", "OUT/new"), None),
    "to-hf": ("convert.py", ("to-hf", "run", "OUT/new"), None),
    "report": ("report.py", ("OUT/run",), "run"),
    "tables": ("report.py", ("run", "run", "--out", "OUT/tables"), None),
    "study": ("study.py", ("--config", "study.yaml", "--out", "OUT/study"), None),
}


def arguments_of(name: str, out: Path) -> list[str]:
    """Script and arguments of a command that writes into `out`."""
    script, arguments, _ = COMMANDS[name]
    return [script, *(text.replace("OUT", str(out)) for text in arguments)]


def fill_place(folder: Path, tiny_model: Path, data_folder: Path) -> None:
    """What the commands read: `tiny`, `data`, `rooms`, `rows.jsonl`, recipes, and the finished run `run`."""
    shutil.copytree(tiny_model, folder / "tiny")
    shutil.copytree(data_folder, folder / "data")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "score.py").write_text("def vowels(completions, **c):\n    return [float(len(t)) for t in completions]\n")
    write_rows(folder / "rows.jsonl", folder / "videos", 500)
    assert fork("build_data.py", "rooms", "rooms", *ROOMS, "--workers", "1", cwd=folder).finish()[0] == 0
    assert fork("train.py", "--config", "recipe.yaml", "--run-dir", "run", cwd=folder).finish() == (0, "")


@dataclasses.dataclass(frozen=True)
class Forked:
    """A command that was forked; it has a session of its own, with the processes that it starts."""

    process: Any  # multiprocessing's
    said: Path  # a folder with its stdout and stderr

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def out(self) -> str:
        """stdout so far."""
        return (self.said / "out").read_text(errors="replace")

    def is_over(self) -> bool:
        return self.process.exitcode is not None

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def finish(self, timeout: float = 300) -> tuple[int, str]:
        """Exit code and stderr; the process has to end by itself."""
        self.process.join(timeout)
        if not self.is_over():
            self.kill()
            raise AssertionError(f"hangs: {self.out()[-2000:]}")
        return self.process.exitcode, (self.said / "err").read_text(errors="replace")

    def children(self) -> list[int]:
        """Processes that it started, and theirs, that live; it need not live itself."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, session, *_ = stat.read_text().rpartition(")")[2].split()
                if int(session) == self.pid and state not in "ZX":
                    found.append(int(stat.parent.name))
        return [process for process in found if process != self.pid]

    def wait_for_children(self, seconds: float = 60) -> bool:
        """Whether they all end within this time."""
        deadline = time.monotonic() + seconds
        while self.children():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


def fork(script: str, *arguments: object, cwd: Path, limits: Mapping[int, int] | None = None) -> Forked:
    """Start a script of launch/ on the CPU.

    Args:
        limits: of the process, by their number in `resource`.
    """
    os.environ.update({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS, "PYTHONPATH": str(ROOT)})
    _FORKS.set_forkserver_preload([*(f"launch.{name}" for name in _SCRIPTS), *_MODULES])
    said = Path(os.environ["JAXVSR_FAULTS_SAID"]) / str(next(_NUMBERS))
    said.mkdir(parents=True)
    for name in ("out", "err"):
        (said / name).touch()
    how = (script.removesuffix(".py"), [str(one) for one in arguments], cwd, said, dict(limits or {}))
    process = _FORKS.Process(target=_run, args=how)
    process.start()
    return Forked(process, said)


def _run(script: str, arguments: list[str], cwd: Path, said: Path, limits: dict[int, int]) -> None:
    os.setsid()
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_APPEND), number)
    os.chdir(cwd)
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    from jaxvsr.stop_signals import take_signals

    take_signals()
    sys.exit(importlib.import_module(f"launch.{script}").main(arguments))
