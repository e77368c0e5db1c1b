"""What a run says while it runs: a progress bar on a terminal, elsewhere a plain line every 30 s; compiling is visible.

step 12/100  reward 0.532  kl 0.0003  1.52 s/step  2 min left
compiling update, bucket 2/3, last time 74 s
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxvsr.files import write_text
from jaxvsr.outside_text import VisibleStream, visible

# What a line shows, where a step has it: name in metrics.jsonl, name here, format.
SHOWN = (
    ("reward/mean", "reward", ".3f"),
    ("loss", "loss", ".4f"),
    ("kl", "kl", ".4f"),
    ("eval/overall", "eval", ".1f"),
)


@runtime_checkable
class Compiled(Protocol):
    """What is watched of a compiled function (`grpo.step.CompiledFunction`)."""

    name: str
    seconds: float  # spent compiling so far
    compiled: dict[Any, Any]  # by bucket


def step_line(step: int, steps: int, row: Mapping[str, Any], seconds_a_step: float) -> str:
    """One step in words."""
    parts = [f"step {step}/{steps}"]
    parts += [f"{label} {row[name]:{form}}" for name, label, form in SHOWN if isinstance(row.get(name), float)]
    if not (row.get("reward/mean") is None or "loss" not in row):  # on policy the GRPO loss says nothing
        parts = [part for part in parts if not part.startswith("loss ")]
    return "  ".join([*parts, f"{seconds_a_step:.2f} s/step", f"{duration((steps - step) * seconds_a_step)} left"])


def duration(seconds: float) -> str:
    """
    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Console:
    """The output of one run. The processes of a run that are not its first say nothing (`quiet`)."""

    def __init__(
        self,
        steps: int,
        *,
        done: int = 0,
        line_seconds: float = 30.0,
        stream: io.TextIOBase | None = None,
        quiet: bool = False,
    ):
        self._stream: Any = sys.stdout if stream is None else stream
        self._steps, self._line_seconds, self._quiet = steps, line_seconds, quiet
        self._steps_took: deque[float] = deque(maxlen=20)  # seconds of the last steps, without compiling
        self._compiled = 0.0
        self._last_line: float | None = None
        self._bar: Any = None
        if self._stream.isatty() and not quiet:
            self._start_bar(done)

    def _start_bar(self, done: int) -> None:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn

        raw = self._stream.raw if isinstance(self._stream, VisibleStream) else self._stream  # a bar is escape sequences
        self._bar = Progress(BarColumn(), TextColumn("{task.description}"), console=Terminal(file=raw))
        self._task = self._bar.add_task("starting", total=self._steps, completed=done)
        self._bar.start()

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(visible(text), markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def step(self, step: int, row: Mapping[str, Any]) -> None:
        """A step is done: the bar moves; without a terminal, a line if the last one is old enough, and at the end."""
        if self._quiet:
            return
        now = time.monotonic()
        self._steps_took.append(row["seconds/step"] - (row["compile_seconds"] - self._compiled))
        self._compiled = row["compile_seconds"]
        line = step_line(step, self._steps, row, statistics.median(self._steps_took))
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=visible(line))
        elif self._last_line is None or now - self._last_line >= self._line_seconds or step == self._steps:
            self._last_line = now
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class CompileTimes:
    """Says what is being compiled, and how long it took the last time on this machine.

    Args:
        file: where the seconds are kept from run to run (JSON), beside the cache of compiled programs.
        run: what the seconds depend on: model, sizes, devices.
        buckets: number of shape buckets that the data can have; None: not known.
    """

    def __init__(self, console: Console, file: Path, run: str, buckets: int | None = None):
        self._console, self._file, self._run, self._buckets = console, file, run, buckets
        self._seen: dict[str, tuple[int, float]] = {}
        try:
            self._seconds: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._seconds = {}

    def starts(self, name: str, bucket: int) -> None:
        """Called before a function is compiled for its bucket number `bucket` (from 1)."""
        last = self._seconds.get(self._key(name, bucket))
        of = f"/{self._buckets}" if self._buckets and self._buckets >= bucket else ""
        self._console.say(
            f"compiling {name}, bucket {bucket}{of}" + ("" if last is None else f", last time {duration(last)}")
        )

    def record(self, functions: Sequence[Compiled]) -> None:
        """Keep the seconds of what was compiled since the last call."""
        changed = False
        for function in functions:
            count, seconds = self._seen.get(function.name, (0, 0.0))
            if len(function.compiled) > count:
                self._seconds[self._key(function.name, len(function.compiled))] = function.seconds - seconds
                self._seen[function.name] = (len(function.compiled), function.seconds)
                changed = True
        if changed:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_text(self._file, json.dumps(self._seconds, indent=0))
            except OSError:  # a cache that cannot be written is no reason to stop
                pass

    def _key(self, name: str, bucket: int) -> str:
        return f"{self._run}/{name}/{bucket}"
