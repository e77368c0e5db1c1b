"""One of two processes of a training dies: the other ends soon, with one line and an exit code of its own."""

import os
import random
import re
import shutil
import signal
import socket
import time
from pathlib import Path

from jaxvsr.devices.peers import EXIT_PEER_DIED
from jaxvsr.files import read_rows
from tests.support.faults import Tally
from tests.support.forked_commands import Forked, fork

DEATHS, MOST_SECONDS = 20, 60.0


def both(place: Path, run: Path, steps: int) -> list[Forked]:
    """Two processes of one training, each with a device."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--config", "recipe.yaml", "--run-dir", run, "--resume", "--steps", steps, "--set", "logging.trackers="]
    flags += ["--mesh", "fsdp=2", "--coordinator", f"127.0.0.1:{port}", "--process-count", 2]
    return [fork("train.py", *flags, "--process-id", index, cwd=place) for index in range(2)]


def wait_for(text: str, process: Forked) -> None:
    while text not in process.out() and not process.is_over():
        time.sleep(0.02)


def test_the_death_of_one_of_two_processes(place: Path, tmp_path: Path):
    draw, slowest = random.Random(0), 0.0
    tally = Tally("SIGKILL or SIGSTOP of one of two processes, from their start to their steps")
    for number in range(DEATHS):
        run = tmp_path / f"run{number}"
        processes = both(place, run, 10**6)
        wait_for(draw.choice(["in 2 processes", "compiling sample", "compiling update", "step 1/"]), processes[0])
        time.sleep(draw.random())
        dies, lives = processes if number % 2 else processes[::-1]
        start = time.monotonic()
        how = signal.SIGSTOP if number % 10 == 9 else signal.SIGKILL  # the former: silent, as behind a broken network
        os.kill(dies.pid, how)
        code, error = lives.finish(MOST_SECONDS + 60)
        seconds = time.monotonic() - start
        dies.kill()
        slowest = max(slowest, seconds)
        named = re.fullmatch(rf"process {1 - number % 2} on .* (has died|has not answered for 45 s)\n", error)
        tally.add(error, silent=code != EXIT_PEER_DIED or not named or seconds > MOST_SECONDS)
        if number < DEATHS - 1:
            shutil.rmtree(run)
    print(f"slowest end: {slowest:.1f} s")
    tally.check()
    done = sum(1 for _ in read_rows(run / "metrics.jsonl"))
    ends = [process.finish() for process in both(place, run, done + 3)]
    assert [code for code, _ in ends] == [0, 0], ends
    assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == list(range(1, done + 4))
