"""Checkpoints that were cut, damaged or emptied: what can be told before Orbax reads them, and the line about it."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxvsr.errors import InputError


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what Orbax and its tasks say of a checkpoint that cannot be read: that is said in one line."""
    with warnings.catch_warnings(), quiet_threads():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


@contextlib.contextmanager
def quiet_threads() -> Iterator[None]:
    """Without logs and tracebacks of the threads in which Orbax writes: what fails there is raised again where it is
    waited for."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]

    def nothing(record: logging.LogRecord) -> bool:
        return False

    def others(raised: threading.ExceptHookArgs) -> None:
        frames = traceback.walk_tb(raised.exc_traceback)
        if not any("orbax" in frame.f_globals.get("__name__", "") for frame, _ in frames):
            before(raised)

    before = threading.excepthook
    threading.excepthook = others
    for logger in loggers:
        logger.addFilter(nothing)
    try:
        yield
    finally:
        if threading.excepthook is others:
            threading.excepthook = before
        for logger in loggers:
            logger.removeFilter(nothing)


def score_file(folder: Path, step: int) -> Path:
    """Where Orbax keeps the score of a checkpoint."""
    return folder / str(step) / "metrics" / "metrics"


def check_scores(folder: Path) -> None:
    """Whether the scores of all checkpoints can be read.

    Raises:
        InputError: those of one cannot.
    """
    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal() and path.is_dir())
    for step in steps:
        scores = score_file(folder, step)
        try:
            if scores.is_file():
                json.loads(scores.read_bytes())
        except ValueError:
            raise damaged(
                folder, step, steps, "its scores are no JSON, which keeps all others from being read"
            ) from None


def damaged(folder: Path, step: int, steps: Sequence[int], reason: str) -> InputError:
    """The line for a checkpoint that cannot be read, with the run's other `steps`."""
    run, others = folder.parent, ", ".join(str(other) for other in steps if other != step)
    instead = f"move its folder away, or take another step with {run}@STEP (it has {others})"
    return InputError(
        f"{folder}/{step}: the checkpoint is cut, damaged or empty ({reason}); "
        + (instead if others else "the run has no other one")
    )
