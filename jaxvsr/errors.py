"""The exceptions that end a command with one line, and what a library's exception says in one line of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message is one line that names the thing and says what would be right.
    `launch/` prints it and exits with code 2.
    """


class NotFiniteError(ArithmeticError):
    """A loss, a gradient or a weight is infinite or not a number.

    The message is one line that says in which step and which. `launch/` prints it and exits with code 3.
    """


def one_line(error: Exception, limit_characters: int = 120) -> str:
    """What a library's exception says on one line, cut at the limit; the exception's name where it has no message."""
    return " ".join(str(error).split())[:limit_characters] or type(error).__name__


def described(error: BaseException) -> str:
    """An exception on one line: ValueError: the message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextlib.contextmanager
def prefixed(source: str) -> Iterator[None]:
    """An `InputError` inside begins with `source`: the file, line or flag that the value was given by."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
