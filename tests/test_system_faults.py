"""What the system refuses is one line with the file and the reason, and exit code 2, whatever a library made of it."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.command_line import run
from jaxvsr.data.stored_arrays import write_array
from jaxvsr.errors import InputError, hits_all_files, system_fault
from jaxvsr.files import write_text
from jaxvsr.runs.checkpoints import Checkpoints
from launch import build_data, evaluate, train
from tests.support.checkpoint_states import RECORD, assert_equal, state_after
from tests.support.faults import disk, make_read_only

FULL = OSError(errno.ENOSPC, "No space left on device")


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/d/f"), "/d/f: No space left on device"),
        (OSError(errno.EMFILE, "Too many open files", b"f"), "f: Too many open files"),
        (FULL, "No space left on device"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "f"), "f: No such file or directory"),
        (raised_from(RuntimeError("task failed"), FULL), "No space left on device"),
        (ExceptionGroup("two", [ValueError("a"), raised_from(ValueError("b"), FULL)]), "No space left on device"),
        (
            ValueError(
                'RESOURCE_EXHAUSTED: Error writing local file "/d/c/0": Failed writing: "/d/c/0.__lock": Failed '
                "to write 999452 bytes to file 4: No space left on device [os_error_code='28']"
            ),
            "/d/c/0: No space left on device",
        ),
        (
            ValueError(
                'RESOURCE_EXHAUSTED: Failed writing: "/d/7": Failed to write 11143 bytes to file 30: No space left on '
                "device [os_error_code='28']"
            ),
            "/d/7: No space left on device",
        ),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device")]), "b: [Errno 28] No space left on device"),
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to allocate 9 GiB"), "out of memory (Unable to allocate 9 GiB)"),
        (ImportError("lib.so: failed to map segment from shared object"), "out of memory (lib.so: failed to map"),
        (RuntimeError("can't start new thread"), "no further thread can be started"),
        (BrokenProcessPool("terminated abruptly"), "a worker process was ended from outside or ran out of memory"),
        (ValueError("a mistake of ours"), None),
        (raised_from(KeyError("ours"), FileNotFoundError(errno.ENOENT, "No such file", "f")), None),
        (OSError("a library's own words"), None),
    ],
)
def test_a_fault_of_the_system_is_told_from_a_mistake(error: Exception, line: str | None):
    said = system_fault(error)
    assert said == line if said is None or line is None else said.startswith(line)


def test_a_fault_ends_a_command_with_one_line_and_a_mistake_does_not(capsys: pytest.CaptureFixture[str]):
    def full(argv):
        raise raised_from(RuntimeError("task\nfailed"), FULL)

    def mistaken(argv):
        raise RuntimeError("ours")

    assert run(full) == 2
    assert capsys.readouterr().err == "error: No space left on device\n"
    with pytest.raises(RuntimeError, match="ours"):
        run(mistaken)


def test_a_broken_file_is_not_a_fault_of_all_files(tmp_path: Path):
    def reading(number: int) -> Exception:
        try:
            try:
                raise OSError(number, "reason")
            except OSError:
                raise InputError("scan: cannot be read") from None
        except InputError as error:
            return error

    assert hits_all_files(reading(errno.EMFILE)) and hits_all_files(raised_from(InputError("x"), MemoryError()))
    assert not hits_all_files(reading(errno.EISDIR)) and not hits_all_files(InputError("scan: cut off"))


@pytest.mark.slow
def test_a_full_disk_names_the_file_and_leaves_nothing_half(tmp_path: Path):
    with disk(tmp_path / "small", 64) as small:
        for write in (
            lambda: write_text(small / "card.md", "x" * 100_000),
            lambda: write_array(small / "array", np.arange(99_999.0), {"schema": 1}, compress=False),
        ):
            with pytest.raises((OSError, ValueError)) as full:
                write()
            assert str(system_fault(full.value)).endswith(": No space left on device")
            assert str(small) in str(system_fault(full.value)) and list(small.iterdir()) == []


def test_a_full_disk_during_a_checkpoint_is_one_line_and_the_last_whole_one_stands(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with disk(tmp_path / "small", 200) as small:
        checkpoints = Checkpoints(small / "checkpoints", keep=5)
        with pytest.raises(InputError) as full:
            for step in range(1, 9):
                checkpoints.save(step, state_after(step), RECORD)
        last = step - 1
        reason = f"a checkpoint cannot be written (No space left on device); --resume goes on after step {last}"
        assert str(full.value) == f"{small}/checkpoints: {reason}"
        with pytest.raises(InputError, match="cannot be written"):
            checkpoints.close()
        again = Checkpoints(small / "checkpoints", keep=1)
        assert again.latest == last
        assert_equal(again.restore(last, state_after(0), RECORD), state_after(last))
        again.close()
        after = Checkpoints(small / "checkpoints", keep=1)  # the room of those beyond `keep`
        after.save(step, state_after(step), RECORD)
        assert after.steps == [step]
        after.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("command", ["import", "train", "evaluate"])
def test_a_read_only_folder_is_noticed_before_anything_is_loaded(
    command: str, tmp_path: Path, data_folder: Path, capsys: pytest.CaptureFixture[str]
):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("no row\n")
    with disk(tmp_path / "small", 64) as small:
        make_read_only(small)
        nothing = str(tmp_path / "none")
        code = {
            "import": lambda: build_data.main(["import", str(rows), str(small)]),
            "train": lambda: train.main(
                ["--model", nothing, "--data", nothing, "--run-dir", str(small), "--mesh", "1"]
            ),
            "evaluate": lambda: evaluate.main(
                ["--model", nothing, "--data", str(data_folder), "--benchmark", "vsi-bench", "--out", str(small)]
            ),
        }[command]()
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and str(small) in error
    assert "cannot be written" in error


def wait_until_gone(process_id: int, seconds: float = 30) -> None:
    """Until a process that is not ours has ended; a zombie has."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    os.kill(process_id, signal.SIGKILL)
    raise AssertionError(f"{process_id} outlives its parent")


_POOL = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from jaxvsr.parent_process import end_worker_with_parent
if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn"), end_worker_with_parent) as pool:
        pool.submit(time.sleep, 600), pool.submit(time.sleep, 600)
        print(*pool._processes, flush=True)
        time.sleep(600)
"""
_CHILD = """
import sys
from jaxvsr.command_line import run, run_child
def child(argv):
    import os, time
    print(os.getpid(), flush=True)
    time.sleep(600)
sys.exit(run(child) if sys.argv[1:] else run_child([__file__, "child"]))
"""


@pytest.mark.parametrize("script", [_POOL, _CHILD])
def test_workers_and_commands_end_with_a_parent_that_is_killed(script: str, tmp_path: Path):
    (tmp_path / "parent.py").write_text(script)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(number) for number in parent.stdout.readline().split()]
    parent.kill()
    parent.communicate()
    assert children
    for child in children:
        wait_until_gone(child)
