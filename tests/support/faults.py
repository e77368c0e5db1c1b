"""Commands that are disturbed from outside, and the count of what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.xla_flags import FLAGS

ROOT = Path(__file__).resolve().parents[2]


def start(
    script: str, *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None, **how: Any
) -> subprocess.Popen[str]:
    """A script of launch/ as a process of its own, on the CPU; text of stdout and stderr."""
    python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    set_here = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS, "PYTHONPATH": python_path, **(environment or {})}
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

    def add(self, error: str, *, lost: bool = False, silent: bool = False, tries: int = 1) -> None:
        """One try, or several with one end, and what was said on stderr."""
        self.tries += tries
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


@contextlib.contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """`folder` as a disk of its own, of this size. A test that wants one is skipped where that needs more rights."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def make_read_only(folder: Path) -> None:
    """A disk that `disk` made, from now on for reading alone."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def used_kilobytes(folder: Path) -> int:
    """What a disk would need to hold a folder."""
    found = subprocess.run(["du", "-sk", str(folder)], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def write_rows(path: Path, videos: Path, count: int) -> None:
    """Rows to import, about nine videos of the folder `videos`."""
    videos.mkdir(exist_ok=True)
    with path.open("w") as out:
        for index in range(count):
            name = f"{path.stem}{index % 9}"
            (videos / f"{name}.mp4").touch()
            row = {"id": str(index), "scene": name, "video": f"{name}.mp4", "question": f"How many {index}?"}
            out.write(json.dumps({**row, "question_type": "t", "answer": "2", "answer_kind": "number"}) + "\n")
