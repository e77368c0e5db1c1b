"""What all launch scripts share: one-line errors, exit codes, types of arguments.

A launch script reads

    def main(argv: Sequence[str] | None = None) -> int:
        return run(_command, argv)          # _command(argv) -> exit code; may raise InputError

    if __name__ == "__main__":
        sys.exit(main())
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from jaxvsr.errors import InputError, NotFiniteError

EXIT_INPUT_ERROR = 2
EXIT_NOT_FINITE = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports

Thing = TypeVar("Thing")


class ArgumentParser(argparse.ArgumentParser):
    """argparse with exact option names, and with errors as `InputError`: one line, no usage block."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def run(command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run `command(argv)` and return its exit code; `InputError` becomes one line on stderr and code 2,
    `NotFiniteError` one line and code 3."""
    # Without torch, transformers would say at import that it has no models. Tokenizers are all that is wanted of it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        return command(argv)
    except (InputError, NotFiniteError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_INPUT_ERROR if isinstance(error, InputError) else EXIT_NOT_FINITE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; keep the interpreter from complaining when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # the first look for such a file raises it
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_INPUT_ERROR


def run_child(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run this Python with arguments and return the exit code; Ctrl-C and SIGTERM are the child's to handle: it may
    have to save.

    `environment` is added to this process's own.
    """
    added = {"PYTHONUNBUFFERED": "1", **(environment or {})}
    child = subprocess.Popen([sys.executable, *arguments], env={**os.environ, **added})
    came: list[int] = []

    def interrupted(number: int, _: object) -> None:
        came.append(number)
        if number == signal.SIGTERM:  # the terminal sends Ctrl-C to the child by itself
            child.terminate()

    before = {number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        return 128 + came[0]
    return code if code >= 0 else 128 - code


def positive_int(text: str) -> int:
    """argparse type: an integer of at least 1."""
    return _int_of_at_least(1, text)


def natural_int(text: str) -> int:
    """argparse type: an integer of at least 0, such as a seed."""
    return _int_of_at_least(0, text)


def _int_of_at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, found {text!r}") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, found {value}")
    return value


def share(text: str) -> float:
    """argparse type: a number of at least 0 and below 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}") from None
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, found {text}")
    return value


def int_list(text: str) -> tuple[int, ...]:
    """argparse type: `8,16,32`, integers of at least 1, sorted, each once."""
    try:
        values = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected integers like 8,16,32, found {text!r}") from None
    if values[0] < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {values[0]}")
    return values


def shard(text: str) -> tuple[int, int]:
    """argparse type: `2/8`, the second of eight machines, as (2, 8)."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected i/n like 2/8 with 1 ≤ i ≤ n, found {text!r}")
    return int(index), int(count)


def shard_of(things: Sequence[Thing], shard: tuple[int, int]) -> Sequence[Thing]:
    """The share of the `index`-th of `count` machines, counted from 1; each thing is in exactly one share."""
    index, count = shard
    return things[index - 1 :: count]
