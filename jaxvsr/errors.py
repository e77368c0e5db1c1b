"""The exceptions that end a command with one line, and what a library's exception says in one line of it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message is one line that names the thing and says what would be right.
    `launch/` prints it and exits with code 2.
    """


class BucketError(InputError):
    """A bucket refuses, or does not answer: its next object would fare no better."""


class NotFiniteError(ArithmeticError):
    """A loss, a gradient or a weight is infinite or not a number.

    The message is one line that says in which step and which. `launch/` prints it and exits with code 3.
    """


class EndedError(Exception):
    """The command ends with this exit code, and why has been said: a command that it has started failed, or it was told
    to stop."""

    def __init__(self, code: int):
        super().__init__(f"exit code {code}")
        self.code = code


def one_line(error: BaseException, limit_characters: int = 120) -> str:
    """What a library's exception says on one line, cut at the limit; the exception's name where it has no message."""
    return " ".join(str(error).split())[:limit_characters] or type(error).__name__


def described(error: BaseException) -> str:
    """An exception on one line: ValueError: the message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# What a disk, a process's limits or memory refuse: never a mistake of the program.
_FAULTS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EACCES, errno.EPERM),
}
_OF_ALL_FILES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_OF_TENSORSTORE = re.compile(r"""("/.*?").*\[os_error_code='(\d+)'\]""", re.DOTALL)
_OF_A_LIBRARY = re.compile(r"cannot allocate memory|failed to map segment|bad_alloc", re.IGNORECASE)


def system_fault(error: BaseException) -> str | None:
    """What the system refused, as `file: reason` on one line; None where an error is of another kind.

    It is looked for in the error, in what that was raised from, and in what libraries make of it in words.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return _fault(error.filename, error.errno)
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one in seen:
            continue
        seen.append(one)
        text = str(one)
        if isinstance(one, OSError) and one.errno in _FAULTS:
            return _fault(one.filename, one.errno)
        if isinstance(one, shutil.Error) and one.args and isinstance(one.args[0], list):
            return "; ".join(f"{target}: {reason}" for _, target, reason in one.args[0][:1])
        if found := _OF_TENSORSTORE.search(text):
            return _fault(found[1].strip('"'), int(found[2]))
        if isinstance(one, MemoryError):
            return f"out of memory ({one_line(one)})" if text else "out of memory"
        if _OF_A_LIBRARY.search(text):
            return f"out of memory ({one_line(one)})"
        if isinstance(one, RuntimeError) and "can't start new thread" in text:
            return "no further thread can be started: a limit of processes or of memory is reached"
        if isinstance(one, BrokenProcessPool):
            return "a worker process was ended from outside or ran out of memory; --workers takes fewer"
        waiting += [*getattr(one, "exceptions", ())]
        waiting += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
    return None


def hits_all_files(error: BaseException) -> bool:
    """Whether the next file would fare no better: a full disk, too many open files, no memory, a bucket that refuses,
    not a broken file."""
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, MemoryError | BucketError) or (isinstance(one, OSError) and one.errno in _OF_ALL_FILES):
            return True
        one = one.__cause__ or one.__context__
    return False


def _fault(name: object, number: int) -> str:
    """`file: reason`, as far as the file is known."""
    reason = os.strerror(number)
    if not isinstance(name, str | bytes | os.PathLike):
        return reason
    return f"{os.fsdecode(name)}: {reason}"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An `OSError` inside that names no file, as those of writing and closing do, names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def prefixed(source: str) -> Iterator[None]:
    """An `InputError` inside begins with `source`: the file, line or flag that the value was given by."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
