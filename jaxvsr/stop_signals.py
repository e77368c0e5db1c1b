"""Ctrl-C and SIGTERM, alike in every command from its first line on.

The first one ends the command: `KeyboardInterrupt` in the main thread, so that half-written files go. Where that would
be swallowed (in an import, in the garbage collector), or has not helped after `PATIENCE` seconds (a library computes),
the process ends without it. Either way it prints one line, and exits with 130 (Ctrl-C) or 143 (SIGTERM). A second
Ctrl-C ends it at once.

SIGUSR1 prints the stack of every thread, and where the command stands if it knows; it ends nothing.

Inside of `answered_by` somebody else answers: a training that has steps to save, a command whose child does the work.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
PATIENCE = 4.0  # seconds for the main thread to clean up
Answer = Callable[[int], None]

# Called with exit code and line when the command ends: what other processes have to be told.
before_end: list[Callable[[int, str], None]] = []
speaker = ""  # before every line of a failure: which of several processes it is, and where

standing: list[Callable[[], str]] = []  # the last one says where the command stands

_taken = False
_first: int | None = None  # the signal that ends the command
_answer: Answer | None = None
_answers_every_one = False
_is_caught = False  # whether a `KeyboardInterrupt` ends the command, and not the script that begins it
_notes: list[str] = []  # of the `noting` blocks that are open; the last one counts
_leaving = threading.Lock()


def take_signals() -> None:
    """Answer SIGINT and SIGTERM in this process, from now on to its end. The first thing that a command does."""
    global _taken
    if _taken:
        return
    _taken = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python's own handlers wait for the main thread, which may be inside of a library for minutes.
    threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True).start()
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in NAMES:
        signal.signal(number, _handle)
    # The stacks are printed at once, also where Python's lock is held; then the thread below prints the rest.
    signal.signal(signal.SIGUSR1, _wake_up)
    with contextlib.suppress(AttributeError, ValueError, OSError):  # stderr is closed, or no file
        faulthandler.register(signal.SIGUSR1, all_threads=True, chain=True)
    os.register_at_fork(after_in_child=_give_back)


def take_back() -> None:
    """Once more after a library has taken them, as `jax.distributed` takes SIGTERM."""
    if _taken:
        for number in NAMES:
            signal.signal(number, _handle)


def are_taken() -> bool:
    """Whether this process is a command, which may be ended at once."""
    return _taken


def is_ending() -> bool:
    """Whether a signal has come that ends the command."""
    return _first is not None


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """Inside of the block somebody catches `KeyboardInterrupt`; a signal that comes outside of it ends at once."""
    global _is_caught
    before, _is_caught = _is_caught, True
    try:
        yield
    finally:
        _is_caught = before


@contextlib.contextmanager
def answered_by(answer: Answer, *, every_one: bool = False) -> Iterator[None]:
    """Inside of the block `answer(number)` is called in the main thread in place of ending the command.

    A second Ctrl-C ends it all the same, unless `every_one` is answered. Outside of the main thread signals cannot be
    taken, and nothing happens.
    """
    global _answer, _answers_every_one
    if threading.current_thread() is not threading.main_thread():
        yield
    elif _taken:
        before = _answer, _answers_every_one
        _answer, _answers_every_one = answer, every_one
        try:
            yield
        finally:
            _answer, _answers_every_one = before
    else:  # in somebody else's program, for the time of the block
        others = {number: signal.signal(number, lambda number, _: answer(number)) for number in NAMES}
        try:
            yield
        finally:
            for number, handler in others.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def noting(text: str) -> Iterator[None]:
    """The line of a command that is ended inside of the block goes on with `text`."""
    _notes.append(text)
    try:
        yield
    finally:
        if _first is None:  # the line of an ending command is still to be printed
            _notes.remove(text)  # blocks may end in any order


def line_of(number: int) -> str:
    """What a command that a signal has ended says."""
    note = _notes[-1] if _notes else ""
    return "interrupted" + ("" if number == signal.SIGINT else f" by {NAMES[number]}") + note


def end_at_once(number: int | None = None) -> NoReturn:
    """End the process, with its line and exit code, without what Python and its libraries would do at exit."""
    number = number or _first or signal.SIGINT
    if not _taken:
        raise KeyboardInterrupt
    leave(128 + number, line_of(number))


def leave(code: int, line: str, *, of_another: bool = False) -> NoReturn:
    """Print a line and end the process at once; its worker processes end with it.

    Args:
        of_another: the line names the process that it is about.
    """
    if not _leaving.acquire(blocking=False):
        while True:  # another thread is at it
            time.sleep(60)
    _flush()
    with contextlib.suppress(OSError):
        os.write(2, f"{'' if of_another else speaker}{line}\n".encode() if line else b"")
    for tell in before_end:
        with contextlib.suppress(Exception):
            tell(code, line)
    active_children = getattr(sys.modules.get("multiprocessing"), "active_children", list)  # it may be half imported
    for child in active_children():
        child.kill()
    os._exit(code)


def say_where() -> None:
    """Print on stderr where this command stands."""
    with contextlib.suppress(OSError):
        os.write(2, f"{speaker}{standing[-1]() if standing else 'no step is running'}\n".encode())


def _wake_up(number: int, frame: FrameType | None) -> None:
    """So that `_watch` sees the signal."""


def _flush() -> None:
    """Write out what was printed, unless the main thread is stuck in doing that itself."""

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()

    flushing = threading.Thread(target=flush, daemon=True)
    flushing.start()
    flushing.join(1.0)


def _handle(number: int, frame: FrameType | None) -> None:
    """The handler, in the main thread."""
    global _first
    if _answer is not None:
        _answer(number)
    elif _first is None:
        _first = number
        if not _is_caught or _swallows(frame):
            end_at_once(number)
        raise KeyboardInterrupt


def _swallows(frame: FrameType | None) -> bool:
    """Whether an exception raised in this frame may get lost, or leave a module half imported."""
    collecting = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        code = frame.f_code
        if code in collecting or code.co_name == "__del__" or code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _watch(reading: int) -> None:
    """The thread that sees every signal as it comes, whatever the main thread does."""
    interrupts = 0
    while True:
        number = os.read(reading, 1)[0]
        if number == signal.SIGUSR1:
            say_where()
        if number not in NAMES:
            continue
        interrupts += number == signal.SIGINT
        if interrupts > 1 and not _answers_every_one:
            end_at_once(number)
        if _answer is None:
            ending = threading.Timer(PATIENCE, end_at_once, (_first or number,))
            ending.daemon = True
            ending.start()


def _give_back() -> None:
    """In a forked child: the signals are its own."""
    global _taken, _answer, _answers_every_one
    _taken, _answer, _answers_every_one = False, None, False
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.unregister(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
