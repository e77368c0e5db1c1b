"""When a run ends before its last step: Ctrl-C, SIGTERM, the time limit.

The step that is running is finished and saved. A second Ctrl-C ends at once, with nothing saved since the last
checkpoint.

    exit code   0  all steps are done, or the time limit was reached
              130  Ctrl-C
              143  SIGTERM
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

EXIT_CODES = {"all steps": 0, "scenes used up": 0, "time limit": 0, "Ctrl-C": 130, "SIGTERM": 143}


class StopRequest:
    """What has asked the run to stop, if anything has."""

    def __init__(self, time_limit: float | None = None):
        self._deadline = None if time_limit is None else time.monotonic() + time_limit
        self._signal: str | None = None

    def reason(self, step_seconds: float = 0.0) -> str | None:
        """Why to stop now; the time limit counts as reached where another step as long as the last would pass it."""
        if self._signal is not None:
            return self._signal
        if self._deadline is not None and time.monotonic() + step_seconds > self._deadline:
            return "time limit"
        return None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self._signal == "Ctrl-C" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take SIGINT and SIGTERM over inside the block (in the main thread; elsewhere signals cannot be taken)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self.handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
