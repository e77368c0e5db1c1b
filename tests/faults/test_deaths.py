"""One of two processes of a training dies: the other ends soon, with one line and an exit code of its own; and a run
goes on with whatever number of processes, to the end that it would have had.
"""

import functools
import os
import random
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxvsr.devices.peers import EXIT_PEER_DIED
from jaxvsr.files import read_rows
from tests.support.faults import Tally
from tests.support.forks import Forked, fork
from tests.support.runs import result_of, without_times

KILLS, SILENCES, STEPS, MOST_SECONDS = 20, 2, 12, 60.0
# When one dies: once this is said, or once so many steps are done; and up to a second later.
MOMENTS = ("in 2 processes", "compiling sample", "compiling update", 1, 2, 3, 5, 7, 9)
RESUMES = ((1, 2), (2, 1), (2, 4), (4, 2), (4, 1))


def start(place: Path, run: Path, count: int, *flags: object) -> list[Forked]:
    """The processes of one training, which goes on where there is a run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = ["--config", "recipe.yaml", "--run-dir", run, "--resume", "--set", "logging.trackers=", *flags]
    line += ["--coordinator", f"127.0.0.1:{port}", "--process-count", count] if count > 1 else []
    return [
        fork("train.py", *line, *(["--process-id", index] if count > 1 else []), cwd=place) for index in range(count)
    ]


def both(place: Path, run: Path) -> list[Forked]:
    return start(place, run, 2, "--steps", STEPS, "--mesh", "fsdp=2")


def steps_of(run: Path) -> int:
    return sum(1 for _ in read_rows(run / "metrics.jsonl")) if (run / "metrics.jsonl").exists() else 0


def has_come(moment: str | int, process: Forked, run: Path) -> bool:
    return moment in process.out() if isinstance(moment, str) else steps_of(run) >= moment


def wait_until(condition: Callable[[], bool], process: Forked) -> bool:
    """Whether it comes to be true while the process lives."""
    while not process.is_over():
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_the_death_of_one_of_two_processes(place: Path, tmp_path: Path):
    draw, seconds, run = random.Random(0), list[float](), tmp_path / "run"
    assert [process.finish() for process in both(place, run)] == [(0, "")] * 2
    whole = result_of(run)
    shutil.rmtree(run)
    tally = Tally("SIGKILL of one of two processes, then --resume: rows, samples and all arrays bit-equal at the end")
    while tally.tries < KILLS:
        processes, moment, dies = both(place, run), draw.choice(MOMENTS), draw.randrange(2)
        alive = wait_until(functools.partial(has_come, moment, processes[0], run), processes[0])
        time.sleep(draw.random())
        if not alive or processes[dies].is_over():
            print("over before the kill")
            continue
        begun = time.monotonic()
        os.kill(processes[dies].pid, signal.SIGKILL)
        code, error = processes[1 - dies].finish(MOST_SECONDS + 60)
        seconds.append(time.monotonic() - begun)
        done = steps_of(run)
        named = re.fullmatch(rf"process {dies} on .* has died\n", error)
        ends = [process.finish() for process in both(place, run)]
        lost = [code for code, _ in ends] != [0, 0] or result_of(run) != whole
        print(f"process {dies} killed at {moment} with {done} steps done: the other ended after {seconds[-1]:.1f} s")
        tally.add(
            "".join([error, *(said for _, said in ends)]),
            lost=lost,
            silent=code != EXIT_PEER_DIED or not named or seconds[-1] > MOST_SECONDS,
        )
        shutil.rmtree(run)
    print(f"ends: median {sorted(seconds)[len(seconds) // 2]:.1f} s, slowest {max(seconds):.1f} s")
    tally.check()


def test_a_process_that_falls_silent(place: Path, tmp_path: Path):
    tally = Tally("SIGSTOP of one of two processes, as behind a broken network")
    for number in range(SILENCES):
        run = tmp_path / f"run{number}"
        processes = both(place, run)
        assert wait_until(lambda: steps_of(run) > 0, processes[0])  # noqa: B023
        begun = time.monotonic()
        os.kill(processes[number].pid, signal.SIGSTOP)
        code, error = processes[1 - number].finish(MOST_SECONDS + 60)
        seconds = time.monotonic() - begun
        processes[number].kill()
        print(f"ended after {seconds:.1f} s")
        named = re.fullmatch(rf"process {number} on .* has not answered for 45 s\n", error)
        tally.add(error, silent=code != EXIT_PEER_DIED or not named or seconds > MOST_SECONDS)
    tally.check()


@pytest.mark.parametrize("mesh", ["fsdp=4"])
def test_resumes_on_another_number_of_processes(mesh: str, place: Path, tmp_path: Path):
    flags = ("--steps", STEPS, "--mesh", mesh, "--set", "data.scenes=4")
    whole = tmp_path / "whole"
    assert [process.finish() for process in start(place, whole, 1, *flags)] == [(0, "")]
    tally = Tally("a run told to stop goes on with another number of processes: same batches, same tokens")
    for before, after in RESUMES:
        run = tmp_path / f"{before}-{after}"
        processes = start(place, run, before, *flags)
        assert wait_until(lambda: steps_of(run) >= 3, processes[0])  # noqa: B023
        os.kill(processes[-1].pid, signal.SIGTERM)
        ends = [process.finish() for process in processes]
        stopped = steps_of(run)
        ends += [process.finish() for process in start(place, run, after, *flags)]
        codes = [143] * before + [0] * after
        same, weights = compare(run, whole)
        print(f"{before} to {after} processes after step {stopped}: {weights}")
        tally.add("".join(said for _, said in ends), lost=not same, silent=[code for code, _ in ends] != codes)
    tally.check()


def compare(run: Path, whole: Path) -> tuple[bool, str]:
    """Whether steps, questions and sampled tokens are those of the undisturbed run, and how far the weights are."""
    # Of several processes the first writes down its own questions; the rewards are those of all.
    counted = ("step", "tokens", "completion_length", "update_questions", "reward/mean", "reward/std", "learning_rate")
    rows = [
        [{name: row[name] for name in counted if name in row} for row in without_times(read_rows(path))]
        for path in (run / "metrics.jsonl", whole / "metrics.jsonl")
    ]
    asked = [
        {
            (row["step"], row["question_id"]): [answer["text"] for answer in row["answers"]]
            for row in read_rows(path / "samples.jsonl")
            if row["step"] < STEPS  # the last step has those of the first too, answered again
        }
        for path in (run, whole)
    ]
    common = asked[0].keys() & asked[1].keys()
    other_tokens = [key for key in common if asked[0][key] != asked[1][key]]
    other_rows = [
        (one["step"], name, one[name], other[name])
        for one, other in zip(*rows, strict=True)
        for name in one
        if one[name] != other[name]
    ]
    same = not other_rows and not other_tokens and {step for step, _ in common} == set(range(1, STEPS))
    if not same:
        print(f"{len(other_tokens)} of {len(common)} groups have other tokens; numbers differ: {other_rows}")
    equal = result_of(run)[1] == result_of(whole)[1]
    norms = [[row["weight_norm"] for row in read_rows(path / "metrics.jsonl")] for path in (run, whole)]
    apart = max(abs(a - b) / b for a, b in zip(*norms, strict=True))
    return same, "all arrays bit-equal" if equal else f"weight norms differ by at most {apart:.1e} of themselves"
