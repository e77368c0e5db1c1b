"""The `jaxvsr` command: `jaxvsr train …` is `python launch/train.py …`, and so on for every script in `launch/`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import jaxvsr
from jaxvsr.command_line import EXIT_INPUT_ERROR, run
from jaxvsr.devices.large_pages import take_large_pages
from jaxvsr.errors import InputError
from jaxvsr.stop_signals import take_signals

# command: (module of jaxvsr.launch, what it does)
COMMANDS = {
    "demo": ("demo", "rooms, GRPO, scores, the page and the export in small, in runs/demo"),
    "train": ("train", "SFT, DPO or GRPO on scene trees"),
    "data": ("build_data", "rooms, questions, frames, features; import and check data folders"),
    "evaluate": ("evaluate", "benchmark scores of a model, or of a file of predictions"),
    "convert": ("convert", "Hugging Face folders in and out"),
    "doctor": ("doctor", "a model and its data looked over: what would go wrong in training or serving"),
    "ask": ("ask", "one question about one video"),
    "teach": ("teach_rooms", "the lessons of the demo's small base model"),
    "bench": ("bench", "time and memory of a step, by phase"),
    "study": ("study", "several trainings compared: one table, one figure"),
    "report": ("report", "the page of a run; mean and spread over several"),
}
COMPUTING = ("demo", "train", "evaluate", "ask", "teach", "bench", "study")  # their scripts take large pages too


def usage() -> str:
    """The list of commands, one per line."""
    lines = [f"  jaxvsr {name:10}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(["usage: jaxvsr COMMAND …        (jaxvsr COMMAND --help for its flags)", "", *lines])


def _dispatch(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else EXIT_INPUT_ERROR
    if arguments[0] == "--version":
        print(f"jaxvsr {jaxvsr.__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1) or [
            name for name in COMMANDS if name.startswith(command)
        ]
        guess = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"no command {command!r}; {guess}the commands are {', '.join(COMMANDS)}")
    script, sys.argv[0] = sys.argv[0], f"jaxvsr {command}"  # the name that its --help prints
    try:
        return importlib.import_module(f"jaxvsr.launch.{COMMANDS[command][0]}").main(rest)
    finally:
        sys.argv[0] = script


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the arguments after the command to that command's own `main`; returns the exit code."""
    if argv is None:  # this process is the command
        if Path(sys.argv[0]).name in ("jaxvsr", "__main__.py") and sys.argv[1:2] and sys.argv[1] in COMPUTING:
            take_large_pages()
        take_signals()
    return run(_dispatch, argv)
