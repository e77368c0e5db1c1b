"""SIGKILL at any moment: the same command again ends with what it makes when nobody disturbs it."""

import random
import shutil
import time
from pathlib import Path

import pytest

from jaxvsr.files import read_rows
from tests.support.faults import Tally
from tests.support.files import contents
from tests.support.forked_commands import COMMANDS, arguments_of
from tests.support.forks import Forked, fork
from tests.support.runs import result_of

TRAININGS, KILLS_OF_EACH = 10, 5
KILLS_OF_A_COMMAND = 5
KILLS_OF_A_STUDY = 4
SHORT = [name for name in COMMANDS if name not in ("train", "study", "show")]
MOST_SECONDS = 120.0


def seconds_of(name: str, place: Path, out: Path) -> float:
    """How long a command takes that makes `out` undisturbed."""
    start = time.monotonic()
    command = begin(name, place, out)
    assert command.finish() == (0, ""), name
    return time.monotonic() - start


def begin(name: str, place: Path, out: Path) -> Forked:
    added_to = COMMANDS[name][2]
    if added_to is not None and not (out / added_to).exists():
        shutil.copytree(place / added_to, out / added_to)
    out.mkdir(exist_ok=True)
    return fork(*arguments_of(name, out), cwd=place)


@pytest.mark.parametrize("name", SHORT)
def test_a_killed_command(name: str, place: Path, tmp_path: Path):
    out, draw = tmp_path / "out", random.Random(name)
    seconds, wholes = 0.0, []
    for _ in range(2):  # what differs between them has a time in it
        seconds = seconds_of(name, place, out)
        wholes.append(contents(out))
        shutil.rmtree(out)
    tally = Tally(f"SIGKILL: {name}, then the same command again")
    while tally.tries < KILLS_OF_A_COMMAND:
        command = begin(name, place, out)
        time.sleep(seconds * draw.random())
        if command.is_over():
            shutil.rmtree(out)
            continue
        command.kill()
        orphans = not command.wait_for_children()
        code, error = begin(name, place, out).finish()
        if code == 2 and "exists and is not empty" in error:  # it was done
            code, error = 0, ""
        found = contents(out)
        same = found.keys() == wholes[0].keys() and all(
            found[file] == wholes[0][file] for file in found if wholes[0][file] == wholes[1][file]
        )
        tally.add(error, lost=bool(code) or not same, silent=orphans)
        shutil.rmtree(out)
    tally.check()


def kill_at(process: Forked, run: Path, moment: str, seconds: float, draw: random.Random) -> None:
    """Kill a training somewhere in its whole time, between its steps, or inside of a save."""
    deadline = time.monotonic() + MOST_SECONDS
    match moment:
        case "any":
            time.sleep(seconds * draw.random())
        case "step":
            before = rows_of(run)
            while not process.is_over() and rows_of(run) == before and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.3 * draw.random())
        case "save":
            while not process.is_over() and time.monotonic() < deadline:
                if any((run / "checkpoints").glob("*tmp*")):
                    break
                time.sleep(0.001)
    process.kill()


def rows_of(run: Path) -> int:
    return sum(1 for _ in read_rows(run / "metrics.jsonl"))


def test_killed_trainings(place: Path, tmp_path: Path):
    run, draw = tmp_path / "run", random.Random(0)
    flags = ["--config", "recipe.yaml", "--run-dir", str(run), "--resume", "--steps", "12"]
    flags += ["--set", "intervals.checkpoint=1", "--set", "logging.trackers="]
    start = time.monotonic()
    assert fork("train.py", *flags, cwd=place).finish() == (0, "")
    seconds = time.monotonic() - start
    whole, moments = result_of(run), {"any": 0, "step": 0, "save": 0, "over": 0}
    shutil.rmtree(run)
    tally = Tally("SIGKILL of a training, then --resume: rows, samples and all arrays bit-equal at the end")
    for _ in range(TRAININGS):
        said, kills = "", 0
        for _ in range(KILLS_OF_EACH):
            moment, process = draw.choice(["any", "step", "save", "save"]), fork("train.py", *flags, cwd=place)
            kill_at(process, run, moment, seconds, draw)
            code, error = process.finish()
            moments[moment if code else "over"] += 1
            said, kills = said + error, kills + bool(code)
        code, error = fork("train.py", *flags, cwd=place).finish()
        tally.add(said + error, lost=code != 0 or result_of(run) != whole, tries=kills)
        shutil.rmtree(run)
    print(moments)
    tally.check()


def files_of_study(study: Path) -> list[str]:
    """But for those that have a random name."""
    return sorted(name for name in contents(study) if "/checkpoints/" not in name and "/tensorboard/" not in name)


def test_a_killed_study(place: Path, tmp_path: Path):
    out, draw = tmp_path / "out", random.Random(1)
    seconds = seconds_of("study", place, out)
    whole = files_of_study(out / "study")
    shutil.rmtree(out)
    tally = Tally("SIGKILL of a study, then the same command again; what it ran has ended")
    for _ in range(KILLS_OF_A_STUDY):
        command = begin("study", place, out)
        time.sleep(seconds * draw.random())
        command.kill()
        tally.add("", silent=not command.wait_for_children())
    code, error = begin("study", place, out).finish(900)
    tally.add(error, lost=code != 0 or files_of_study(out / "study") != whole, tries=0)
    tally.check()
