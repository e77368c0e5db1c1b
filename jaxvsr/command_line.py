"""What all launch scripts share: one-line errors, exit codes, types of arguments.

A launch script reads

    from jaxvsr.stop_signals import take_signals

    if __name__ == "__main__":
        take_signals()                      # before the imports that take time

    def main(argv: Sequence[str] | None = None) -> int:
        return run(_command, argv)          # _command(argv) -> exit code; may raise InputError

    if __name__ == "__main__":
        sys.exit(main())
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from jaxvsr import stop_signals
from jaxvsr.buckets.urls import refuse_url
from jaxvsr.errors import EndedError, InputError, NotFiniteError, described, system_fault
from jaxvsr.outside_text import visible, visible_stdout
from jaxvsr.parent_process import child_of_this, stop_command_with_parent

EXIT_INPUT_ERROR = 2
EXIT_NOT_FINITE = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports
PEER_SECONDS = 3.0  # an error may come of the death of another process, which is then noticed within this time


class ArgumentParser(argparse.ArgumentParser):
    """argparse with exact option names, and with errors as `InputError`: one line, no usage block."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        if sys.argv[0].startswith("jaxvsr ") and str(kwargs.get("prog")).endswith(".py"):
            kwargs["prog"] = sys.argv[0]  # `jaxvsr train`, not the script that it runs
        self._in_buckets: set[str] = set()
        super().__init__(*args, **kwargs)

    def take_buckets(self, *places: str) -> None:
        """These arguments, by the name of their values, take folders in buckets too; others take no URL."""
        self._in_buckets |= {*places}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse; a URL is refused where a file or folder of this machine is wanted."""
        found, unknown = super().parse_known_args(args, namespace)
        for action in self._actions:
            if action.dest in self._in_buckets:
                continue
            refuse_url(getattr(found, action.dest, None), action.option_strings[0] if action.option_strings else "")
        return found, unknown

    def given_flags(self, found: argparse.Namespace) -> set[str]:
        """The flags whose values are not their defaults: a command refuses those that would have no effect."""
        known = (action for action in self._actions if action.option_strings and hasattr(found, action.dest))
        return {action.option_strings[0] for action in known if getattr(found, action.dest) != action.default}

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def run(command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run `command(argv)` and return its exit code; `InputError` becomes one line on stderr and code 2,
    `NotFiniteError` one line and code 3. What the system refuses (a full disk, no memory) is one line and code 2.

    A process whose signals are taken ends here where one has come, whatever became of its `KeyboardInterrupt`.
    """
    # Without torch, transformers would say at import that it has no models. Tokenizers are all that is wanted of it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    logging.basicConfig(format="%(message)s")  # before a library does: its lines begin with WARNING:name:
    stop_command_with_parent()
    try:
        with stop_signals.caught():
            code, line = _outcome(command, argv)
    except BaseException as error:
        if stop_signals.before_end and not stop_signals.is_ending():
            time.sleep(PEER_SECONDS)
            for traced in traceback.format_exc().splitlines():
                print(f"{stop_signals.speaker}{visible(traced)}", file=sys.stderr)
            stop_signals.leave(1, visible(described(error)))
        if not stop_signals.is_ending():
            raise
        code, line = EXIT_INTERRUPTED, ""
    if stop_signals.is_ending():
        stop_signals.end_at_once()
    if code and stop_signals.before_end:  # Python's exit would wait for processes that wait for this one
        stop_signals.leave(code, visible(line))
    for tell in stop_signals.before_end:
        tell(code, line)
    if line:
        print(f"{stop_signals.speaker}{visible(line)}", file=sys.stderr)
    return code


def _outcome(command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> tuple[int, str]:
    """The exit code, and the line that says why where it is not the command's own."""
    try:
        with visible_stdout():
            code = command(argv)
            sys.stdout.flush()
            return code, ""
    except (InputError, NotFiniteError) as error:
        code = EXIT_INPUT_ERROR if isinstance(error, InputError) else EXIT_NOT_FINITE
        return code, f"error: {' '.join(str(error).split())}"
    except EndedError as error:
        return error.code, ""
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED, stop_signals.line_of(signal.SIGINT)
    except BrokenPipeError:
        # The reader (`| head`) has gone; keep the interpreter from complaining when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0, ""
    except Exception as error:
        fault = system_fault(error)
        if fault is None:
            raise
        return EXIT_INPUT_ERROR, f"error: {' '.join(fault.split())}"


def run_child(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run this Python with arguments and return the exit code; Ctrl-C and SIGTERM are the child's to handle: it may
    have to save. It is stopped where this process is killed.

    `environment` is added to this process's own.
    """
    added = {"PYTHONUNBUFFERED": "1", **(environment or {})}
    came: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int) -> None:
        came.append(number)
        if child is None:
            return
        if came.count(signal.SIGINT) > 1:
            child.kill()
        else:  # a terminal has sent Ctrl-C to the child too, which then takes no notice of this
            child.terminate()

    with (
        stop_signals.answered_by(pass_on, every_one=True),
        child_of_this(arguments, {**os.environ, **added}) as started,
    ):
        child = started
        if came:
            child.terminate()
        code = child.wait()
    if came:
        return 128 + came[0]
    return code if code >= 0 else 128 - code


def add_process_flags(parser: argparse._ActionsContainer) -> None:
    """The flags with which the processes of one command find each other where no cluster tells them."""
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0; a cluster tells it by itself")
    parser.add_argument("--process-id", type=int, metavar="I", help="of this process, from 0")
    parser.add_argument(
        "--process-count", type=int, metavar="N", help="of processes; 1: alone, whatever has started it"
    )


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


def shard(text: str) -> tuple[int | None, int | None]:
    """argparse type: `2/8`, the second of eight tasks, as (2, 8); `auto` as (None, None), `auto/8` as (None, 8)."""
    index, _, count = text.partition("/")
    if text == "auto":
        return None, None
    if index == "auto" and count.isdecimal() and int(count) > 0:
        return None, int(count)
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected i/n like 2/8 with 1 ≤ i ≤ n, or auto, found {text!r}")
    return int(index), int(count)
