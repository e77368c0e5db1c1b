"""When a run ends before its last step: Ctrl-C, SIGTERM, the time limit.

Before a step is done there is nothing to save: a signal ends the command as it ends any other. From then on the
program that is running (sample, reference, update) is finished, and the last step that was done is saved. A program
that is still being compiled is not waited for; several processes, which save together or not at all, then leave with
their last checkpoint. A second Ctrl-C ends at once, with nothing saved since the last checkpoint.

    exit code   0  all steps are done, or the time limit was reached
              130  Ctrl-C
              143  SIGTERM
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from jaxvsr.stop_signals import NAMES, answered_by, end_at_once, noting

EXIT_CODES = {"all steps": 0, "scenes used up": 0, "time limit": 0, "Ctrl-C": 130, "SIGTERM": 143}
COMPILING_SECONDS = 8.0  # how long several processes wait for a program that compiles: they save together or not at all


def stop_line(reason: str, saved: int | None, run_path: Path) -> str:
    """What a run says that ends before its last step; `saved` is the step of its last checkpoint.

    >>> stop_line("time limit", 12, Path("runs/mine"))
    'stopped by time limit, saved up to step 12; continue with: python launch/train.py --run-dir runs/mine --resume'
    """
    kept = "no step is saved yet; start again" if saved is None else f"saved up to step {saved}; continue"
    return f"stopped by {reason}, {kept} with: python launch/train.py --run-dir {run_path} --resume"


class StopInStepError(Exception):
    """A signal has come, and the step that is running is not to be finished."""


class StopRequest:
    """What has asked the run to stop, if anything has."""

    def __init__(self, time_limit: float | None = None):
        self._deadline = None if time_limit is None else time.monotonic() + time_limit
        self._signal: str | None = None
        self._since = 0.0
        self._listening: contextlib.ExitStack | None = None
        self._has_steps = False
        self.has_left_step = False  # in the middle, of which other processes know nothing

    def reason(self, step_seconds: float = 0.0) -> str | None:
        """Why to stop now; the time limit counts as reached where another step as long as the last would pass it."""
        if self._signal is not None:
            return self._signal
        if self._deadline is not None and time.monotonic() + step_seconds > self._deadline:
            return "time limit"
        return None

    def handle(self, number: int) -> None:
        """Take a signal down; the first one counts."""
        if self._signal is None:
            self._signal, self._since = NAMES[number], time.monotonic()
        elif self._signal == "Ctrl-C" and number == signal.SIGINT:
            end_at_once(number)

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take SIGINT and SIGTERM over inside the block, once there is something to save."""
        with contextlib.ExitStack() as self._listening:
            yield self

    def step_is_done(self) -> None:
        """There is something to save from now on."""
        if self._listening is not None and not self._has_steps:
            self._listening.enter_context(answered_by(self.handle))
            self._listening.enter_context(noting("; nothing is saved since the last checkpoint"))
        self._has_steps = True

    def look(self, alone: bool, compiling: bool) -> None:
        """Between two programs, and while one compiles.

        Args:
            alone: this process may leave the step; of several all have to, which they agree on only between steps.
            compiling: whether a program compiles.

        Raises:
            StopInStepError: a signal has come.
        """
        if self._signal is None:
            return
        if alone or (compiling and time.monotonic() - self._since > COMPILING_SECONDS):
            self.has_left_step = True
            raise StopInStepError(self._signal)
