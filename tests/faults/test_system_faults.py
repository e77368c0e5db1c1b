"""What the system refuses, in all commands: disks of many sizes that fill up, read-only disks, limits of a process."""

import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.faults import Tally, disk, finish, make_read_only, start, used_kilobytes
from tests.support.forked_commands import COMMANDS, arguments_of
from tests.support.forks import fork

SIZES = 12


def run(name: str, place: Path, out: Path, **how) -> tuple[int, str]:
    """Exit code and stderr of a command that writes into `out`."""
    added_to = COMMANDS[name][2]
    if added_to is not None:
        shutil.copytree(place / added_to, out / added_to)
    return fork(*arguments_of(name, out), cwd=place, **how).finish()


def one_line(error: str) -> str:
    """What a command said, without the lines about stages that it runs as commands of their own."""
    lines = [line for line in error.splitlines() if not line.startswith("the study stopped in")]
    assert len(lines) == 1 and lines[0].startswith("error: "), error
    return lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_fills_up(name: str, place: Path, tmp_path: Path):
    added_to = COMMANDS[name][2]
    with disk(tmp_path / "whole", 10**6) as whole:
        assert run(name, place, whole) == (0, "")
        need = used_kilobytes(whole)
    least = used_kilobytes(place / added_to) + 8 if added_to else 4
    tally, lines = Tally(f"full disk, {SIZES} sizes: {name}"), set()
    for part in range(SIZES):
        size = least + round((need - least) * (part + 0.5) / SIZES) // 4 * 4
        with disk(tmp_path / "small", size) as small:
            code, error = run(name, place, small)
            assert code in (0, 2), error
            lines.add(one_line(error).replace(str(small), "") if code else "done")
            tally.add(error, silent=code == 0 and used_kilobytes(small) < 0.8 * need)
    print("", *sorted(lines), sep="\n  ")
    tally.check()
    assert any("No space left on device" in line for line in lines), lines


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_for_reading_alone(name: str, place: Path, tmp_path: Path):
    added_to, tally = COMMANDS[name][2], Tally(f"read-only disk: {name}")
    with disk(tmp_path / "small", 10**5) as small:
        if added_to is not None:
            shutil.copytree(place / added_to, small / added_to)
        make_read_only(small)
        code, error = fork(*arguments_of(name, small), cwd=place).finish()
    assert (code == 2 and "Read-only file system" in one_line(error)) or "cannot be written" in one_line(error)
    print(one_line(error))
    tally.add(error)
    tally.check()


LIMITS = {
    "file too large": (resource.RLIMIT_FSIZE, 2000),
    "too many files": (resource.RLIMIT_NOFILE, 24),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_limit_of_the_process(name: str, limit: str, place: Path, tmp_path: Path):
    kind, most = LIMITS[limit]
    tally = Tally(f"{limit}: {name}")
    code, error = run(name, place, tmp_path, limits={kind: most})
    assert code in (0, 2), (code, error)
    if code:
        print(one_line(error))
    tally.add(error)
    tally.check()


@pytest.mark.parametrize("megabytes", [200, 400, 800, 1600])
@pytest.mark.parametrize("name", ["import", "questions", "evaluate", "train"])
def test_too_little_memory(name: str, megabytes: int, place: Path, tmp_path: Path):
    tally, most = Tally(f"{megabytes} MB of memory: {name}"), megabytes << 20
    command = start(
        *arguments_of(name, tmp_path),
        cwd=place,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )
    code, error = finish(command)
    print(code, error[-300:])
    tally.add(error, silent=code == 0)
    tally.check()


def test_standard_output_on_a_full_disk(place: Path, tmp_path: Path):
    with Path("/dev/full").open("w") as full:
        command = start("build_data.py", "check", "data", cwd=place)
        command.kill()
        command.communicate()
        done = subprocess.run(command.args, cwd=place, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and one_line(done.stderr) == "error: stdout: No space left on device"
