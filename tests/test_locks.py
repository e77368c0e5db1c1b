"""Two commands never write into one folder at once, and what a killed one had begun is gone at the next."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxvsr.errors import InputError
from jaxvsr.files import partial_name
from jaxvsr.locks import LOCK_FILE, only_maker, only_writer, remove_partials

_HOLDER = """
import sys, time
from pathlib import Path
from jaxvsr.locks import only_writer
with only_writer(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Another process that holds the lock of a folder."""
    started = []

    def start(folder: Path, how: str = "alone") -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", _HOLDER, folder, how], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "holds\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_writer_is_refused_in_one_line_that_names_the_first(tmp_path: Path, holder):
    first = holder(tmp_path / "run")
    with pytest.raises(InputError) as refused, only_writer(tmp_path / "run"):
        pass
    line = f"{tmp_path}/run: process {first.pid} on {os.uname().nodename} writes into it; wait for it, or name another"
    assert str(refused.value) == f"{line} folder"


def test_a_lock_dies_with_its_owner(tmp_path: Path, holder):
    for number in (signal.SIGKILL, signal.SIGTERM):
        first = holder(tmp_path / "run")
        first.send_signal(number)
        first.wait(timeout=30)
        with only_writer(tmp_path / "run"):
            assert (tmp_path / "run" / LOCK_FILE).is_file()


def test_shards_write_side_by_side_and_nobody_beside_them(tmp_path: Path, holder):
    holder(tmp_path, "shared")
    with only_writer(tmp_path, shared=True):
        pass
    with pytest.raises(InputError, match="another process writes into it"), only_writer(tmp_path):
        pass
    with only_writer(tmp_path, name=".other"):
        pass


def test_of_many_who_start_at_once_one_writes_at_a_time(tmp_path: Path):
    """Each adds one line by reading and writing the whole file, which loses lines where two do it at once."""
    script = """
import sys
from pathlib import Path
from jaxvsr.locks import only_writer
folder = Path(sys.argv[1])
for _ in range(40):
    with only_writer(folder / "a" / "b", wait=True):
        path = folder / "rows"
        path.write_text(path.read_text() + "row\\n")
"""
    (tmp_path / "rows").touch()
    writers = [subprocess.Popen([sys.executable, "-c", script, tmp_path]) for _ in range(4)]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 4
    assert (tmp_path / "rows").read_text() == "row\n" * 160


def test_a_folder_that_its_last_holder_removes_while_it_is_made_is_made_again(tmp_path: Path, monkeypatch):
    """`mkdir` finds the folder there, and a moment later nothing."""
    make, raced = Path.mkdir, list[Path]()

    def too_late_once(folder: Path, *arguments, **options) -> None:
        if not raced:
            raced.append(folder)
            raise FileExistsError(17, "File exists")
        make(folder, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", too_late_once)
    with only_writer(tmp_path / "a" / "b"):
        assert raced and (tmp_path / "a" / "b").is_dir()


def test_what_stays_of_a_lock_is_what_was_written(tmp_path: Path):
    with only_writer(tmp_path / "new" / "run"):
        pass
    assert list(tmp_path.iterdir()) == []
    with only_writer(tmp_path / "new" / "run"):
        (tmp_path / "new" / "run" / "config.yaml").touch()
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["config.yaml"]


def test_what_cannot_be_a_folder_is_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    says = r"file/run: cannot be a folder, because .*/file is a file"
    with pytest.raises(InputError, match=says), only_writer(tmp_path / "file" / "run"):
        pass
    with pytest.raises(InputError, match="cannot be written into"), only_writer(Path("/proc/run")):
        pass


def test_only_what_a_dead_process_had_begun_is_removed(tmp_path: Path):
    (tmp_path / "frames").mkdir()
    kept = ["frames/thesis.partial", "frames/.mine.partial", "questions.partial", f"{'0' * 12}.partial"]
    for name in kept:
        (tmp_path / name).mkdir()
    begun = [partial_name(tmp_path / "card.md"), partial_name(tmp_path / "frames" / "scene")]
    begun[0].touch()
    begun[1].mkdir()
    (begun[1] / "zarr.json").touch()
    (tmp_path / "outside").mkdir()
    link = partial_name(tmp_path / "frames" / "link")
    link.symlink_to(tmp_path / "outside")
    remove_partials(tmp_path, ["", "frames/"])
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"frames", "outside", *kept}


def test_a_new_folder_appears_whole_or_not_at_all_and_a_dead_one_is_cleaned_up(tmp_path: Path):
    dead = partial_name(tmp_path / "[out]")
    dead.mkdir()
    (dead / "weights").touch()
    with contextlib.suppress(KeyboardInterrupt), only_maker(tmp_path / "[out]") as partial:
        assert not dead.exists()
        (partial / "weights").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with only_maker(tmp_path / "[out]") as partial:
        (partial / "weights").touch()
        with pytest.raises(InputError, match="writes into it"), only_maker(tmp_path / "[out]"):
            pass
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["[out]", "[out]/weights"]
