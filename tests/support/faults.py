"""Commands that are disturbed from outside, and the count of what came of it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(script: str, *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None, **how):
    """A script of launch/ as a process of its own, on the CPU; text of stdout and stderr."""
    python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    set_here = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": python_path, **(environment or {})}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **set_here},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def finish(process: subprocess.Popen[str], timeout: float = 300) -> tuple[int, str]:
    """Exit code and stderr of a process that has to end by itself."""
    _, error = process.communicate(timeout=timeout)
    return process.returncode, error


@dataclasses.dataclass
class Tally:
    """Tries of one experiment and what went wrong in them, printed as a row of docs/reliability.md."""

    experiment: str
    tries: int = 0
    lost: int = 0
    silent: int = 0
    tracebacks: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)

    def add(self, error: str, *, lost: bool = False, silent: bool = False) -> None:
        """One try, with what it said on stderr."""
        self.tries += 1
        self.lost += lost
        self.silent += silent
        traceback = "Traceback" in error or "Exception ignored" in error or "Fatal Python error" in error
        self.tracebacks += traceback
        if lost or silent or traceback:
            self.notes.append(error[-3000:])

    def check(self) -> None:
        """Print the row; an error if anything went wrong."""
        print(f"\n| {self.experiment} | {self.tries} | {self.lost} | {self.silent} | {self.tracebacks} |")
        assert (self.lost, self.silent, self.tracebacks) == (0, 0, 0), "\n---\n".join(self.notes[:3])
