"""Processes that end with the one that started them, also where that is killed and can say nothing.

The parent holds one end of a pipe that nobody else has, and the child waits at the other: it reads the end of the file
when the parent is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import wait

_PIPE = "JAXVSR_PARENT_PIPE"  # number of the pipe's reading end, for the child


def end_worker_with_parent(*_: object) -> None:
    """Called first in a worker process of `multiprocessing`: it ends when its parent does, whatever it is doing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    _watch(lambda: wait([parent.sentinel]), lambda: os._exit(1))


def stop_command_with_parent() -> None:
    """Called first in a command: it gets SIGTERM when the command that started it by `child_of_this` is gone."""
    number = os.environ.pop(_PIPE, "")
    if number.isdecimal():
        _watch(lambda: os.read(int(number), 1), lambda: os.kill(os.getpid(), signal.SIGTERM))


@contextlib.contextmanager
def child_of_this(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """This Python with arguments, as a process that is stopped when this one is gone."""
    reading, writing = os.pipe()
    try:
        yield subprocess.Popen(
            [sys.executable, *arguments], env={**environment, _PIPE: str(reading)}, pass_fds=(reading,)
        )
    finally:
        os.close(reading)
        os.close(writing)


def _watch(until_gone: Callable[[], object], then: Callable[[], object]) -> None:
    def watch() -> None:
        with contextlib.suppress(OSError):
            until_gone()
            then()

    threading.Thread(target=watch, name="parent", daemon=True).start()
