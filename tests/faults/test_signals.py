"""Ctrl-C and SIGTERM in the first seconds of a command: one line, and the exit code of the signal."""

import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.faults import Tally, finish, start


def takes_signals(process_id: int) -> bool:
    """Whether a process catches SIGTERM, as a command does from the first line of its script on."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process_id}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("command", ["train.py", "convert.py"])
def test_early_signals(command: str, tmp_path: Path, data_folder: Path, tiny_model: Callable[..., Path]) -> None:
    tally, draw = Tally(f"Ctrl-C and SIGTERM in the first seconds of {command}"), random.Random(0)
    model, out = tiny_model(), tmp_path / "out"
    arguments = {
        "train.py": ("--model", model, "--data", data_folder, "--run-dir", out, "--set", "data.frames=2"),
        "convert.py": ("to-hf", model, out),
    }[command]
    tries = 20
    for index in range(tries):
        number = (signal.SIGINT, signal.SIGTERM)[index % 2]
        process = start(command, *arguments, cwd=tmp_path)
        while not takes_signals(process.pid):
            time.sleep(0.01)
        time.sleep(2.4 * (index + draw.random()) / tries)
        over = process.poll() is not None
        process.send_signal(number)
        code, error = finish(process)
        assert not over, error
        tally.add(error, silent=code != 128 + number or error.count("\n") != 1)
    tally.check()
