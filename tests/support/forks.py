"""Commands as processes of their own, forked from one process that has made the imports.

The start of a command is mostly imports: 4 CPU seconds of them, with torch, which transformers imports where it is
installed.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import importlib
import itertools
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from tests.support.xla_flags import FLAGS

ROOT = Path(__file__).resolve().parents[2]
_FORKS = multiprocessing.get_context("forkserver")
_SCRIPTS = ("build_data", "convert", "evaluate", "report", "study", "train")
_MODULES = ("jaxvsr.training.assemble", "jaxvsr.training.loop", "jaxvsr.evaluation.evaluate_benchmark", "transformers")
_NUMBERS = itertools.count()


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

    def err(self) -> str:
        """stderr so far."""
        return (self.said / "err").read_text(errors="replace")

    def wait_for(self, text: str, timeout: float = 300) -> None:
        """Until it has printed `text`."""
        deadline = time.monotonic() + timeout
        while text not in self.out():
            assert time.monotonic() < deadline and not self.is_over(), self.out() + self.err()
            time.sleep(0.02)

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
        return self.process.exitcode, self.err()

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


@functools.cache
def _start() -> Path:
    """Start the process that commands are forked from; where they print to, which goes when the tests end."""
    _FORKS.set_forkserver_preload([*(f"launch.{name}" for name in _SCRIPTS), *_MODULES])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()
    folder = Path(tempfile.mkdtemp(prefix="said"))
    atexit.register(shutil.rmtree, folder)
    return folder


def fork(
    script: str,
    *arguments: object,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    limits: Mapping[int, int] | None = None,
) -> Forked:
    """Start a command on the CPU.

    Args:
        script: a file of launch/, or the text of a program.
        environment: variables beside those of this process. None that a library reads when it is imported.
        limits: of the process, by their number in `resource`.
    """
    said = _start() / str(next(_NUMBERS))
    said.mkdir()
    for name in ("out", "err"):
        (said / name).touch()
    given = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS, "PYTHONPATH": str(ROOT), **(environment or {})}
    how = (script, [str(one) for one in arguments], cwd, given, said, dict(limits or {}))
    process = _FORKS.Process(target=_run, args=how)
    process.start()
    return Forked(process, said)


def said_by(program: str, *arguments: object, cwd: Path = ROOT) -> str:
    """What a program prints that ends well."""
    process = fork(program, *arguments, cwd=cwd)
    code, error = process.finish()
    assert code == 0, process.out() + error
    return process.out()


def _run(
    script: str, arguments: list[str], cwd: Path, environment: dict[str, str], said: Path, limits: dict[int, int]
) -> None:
    os.setsid()
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    from jaxvsr.stop_signals import take_signals

    take_signals()
    sys.argv = [script, *arguments]
    code = None
    if script.endswith(".py"):
        code = importlib.import_module(f"launch.{script.removesuffix('.py')}").main(arguments)
    else:
        exec(script, {"__name__": "__main__"})
    atexit._run_exitfuncs()
    sys.exit(code)
