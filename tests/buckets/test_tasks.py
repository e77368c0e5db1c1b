"""Several tasks of a cluster that make one data folder in a bucket."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from jaxvsr.buckets import lease, publishing
from jaxvsr.buckets.objects import names_below, objects
from jaxvsr.buckets.own_folders import own_folder
from jaxvsr.buckets.places import below
from jaxvsr.buckets.publishing import alone_in, published
from jaxvsr.data.data_folder import adding_to, write_card_section
from jaxvsr.data.rooms.room_scans import write_rooms
from jaxvsr.errors import InputError
from launch.build_data import main
from tests.support.faults import start
from tests.support.files import contents

TASKS = 3
QUESTIONS = ("questions", "--recipe", "vsi100k", "--workers", "1")
FRAMES = ("frames", "--frames", "3", "--max-pixels", "4000", "--workers", "1")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in (("RENEW_SECONDS", 0.05), ("DEAD_SECONDS", 0.6), ("_LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_rooms(root, scenes=5, seed=4, frames=30, size=(48, 36))
    return root


def objects_of(url: str) -> dict[str, bytes]:
    """All objects below a URL, with what is in them."""
    return {name: objects(url).read(name).result().value for name in names_below(url)}


def variables(number: int) -> dict[str, str]:
    return {
        "SLURM_ARRAY_TASK_MIN": "0",
        "SLURM_ARRAY_TASK_MAX": str(TASKS - 1),
        "SLURM_ARRAY_TASK_COUNT": str(TASKS),
        "SLURM_ARRAY_TASK_ID": str(number),
    }


@pytest.fixture
def task(monkeypatch, capsys):
    def run(number: int, scans: object, out: str, *flags: str) -> str:
        for name, value in variables(number).items():
            monkeypatch.setenv(name, value)
        where = [out] if scans is None else [str(scans), out]
        assert main([flags[0], *where, *flags[1:], "--shard", "auto"]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_the_last_task_puts_the_questions_together_in_the_bucket_and_lost_ones_are_named(
    bucket, rooms, tmp_path, task, capsys
):
    scans, url = bucket.put_folder(rooms, "tasks/scans"), f"{bucket.url}/tasks/data"
    whole = tmp_path / "data"
    assert main([*QUESTIONS[:1], str(rooms), str(whole), *QUESTIONS[1:]]) == 0
    capsys.readouterr()
    assert "shard 1/3: 2 of 5 scans asked; not done yet: shards 2, 3 of 3 (3 scans)" in task(0, scans, url, *QUESTIONS)
    assert "not done yet: shard 2 of 3 (2 scans)" in task(2, scans, url, *QUESTIONS)
    assert "questions.jsonl" not in names_below(url)
    assert "shard 2/3: 2 of 5 scans asked, the last: put together" in task(1, scans, url, *QUESTIONS)
    there = objects_of(url)
    there.pop("questions.partial/vsi100k.asked.json")
    assert there == contents(whole)
    assert f"all are in {url} already" in task(2, scans, url, *QUESTIONS)


@pytest.mark.slow
def test_of_tasks_that_end_at_once_one_puts_all_together(bucket, rooms, tmp_path, capsys):
    url, whole = f"{bucket.url}/at-once/data", tmp_path / "whole" / "data"
    for name, *flags in (QUESTIONS, FRAMES):
        assert main([name, str(rooms), str(whole), *flags]) == 0
    tasks = [
        start("build_data.py", name, rooms, url, *flags, "--shard", "auto", cwd=tmp_path, environment=variables(number))
        for name, *flags in (QUESTIONS, FRAMES)
        for number in range(TASKS)
    ]
    ends = [(task, *task.communicate(timeout=300)) for task in tasks]
    assert [task.returncode for task, *_ in ends] == [0] * len(tasks), ends
    said = [out for _, out, _ in ends]
    assert sum("the last: put together" in text for text in said[:TASKS]) == 1, said
    assert any("the others are done too" in text for text in said[TASKS:]), said
    there = objects_of(url)
    there.pop("questions.partial/vsi100k.asked.json")
    wanted = contents(whole)
    assert parts_of_card(there) == parts_of_card(wanted)
    assert there == wanted


def parts_of_card(folder: dict[str, bytes]) -> list[str]:
    """The sections, which tasks write in any order; they are taken out of the folder."""
    return sorted(part.strip() for part in folder.pop("card.md").decode().split("\n## "))


def in_threads(count: int, work) -> list[BaseException]:
    raised: list[BaseException] = []

    def catching(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=catching, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_what_all_write_is_written_by_one_after_the_other(bucket):
    url = f"{bucket.url}/card"

    def work(number: int) -> None:
        with own_folder() as own, adding_to(below(own / "out", url), shared=True):
            write_card_section(below(own / "out", url), f"Task {number}", "- done")

    assert in_threads(4, work) == []
    (name,) = names_below(url)
    assert objects_of(url)[name].decode().count("- done") == 4


def test_a_command_alone_and_one_of_several_exclude_each_other(bucket):
    url = f"{bucket.url}/both"
    with own_folder() as own:
        alone, shared = below(own / "alone", url), below(own / "shared", url)
        with published(shared, shared=True), pytest.raises(InputError, match="writes into it; wait for it"):
            published(alone).__enter__()
        with published(alone), pytest.raises(InputError, match="writes into it; wait for it"):
            published(shared, shared=True).__enter__()
        bucket.put("both/.sharing/dead", b"12 on a-host-that-is-gone, id")
        with published(alone):
            pass
    assert names_below(url) == []


def test_who_has_been_taken_for_dead_puts_nothing_together(bucket):
    url = f"{bucket.url}/paused"
    with own_folder() as own:
        here = below(own / "out", url)
        with (
            pytest.raises(InputError, match="process 7 on other writes into it"),
            published(here, shared=True) as sending,
        ):
            assert sending is not None
            with alone_in(here, ".questions.lock"):
                here.mkdir(parents=True, exist_ok=True)
                (here / "questions.jsonl").write_text("mine")
                for _ in range(100):  # again where the owner has just written it
                    bucket.put("paused/.questions.lock", b"7 on other, id")
                    time.sleep(0.02)
        bucket.remove("paused/.questions.lock")
    assert publishing._shared == {}


@pytest.mark.slow
def test_features_of_a_data_folder_in_a_bucket_are_those_on_disk(bucket, data_folder, tiny_model, tmp_path, task):
    url, disk = bucket.put_folder(data_folder, "features/data"), tmp_path / "data"
    shutil.copytree(data_folder, disk)
    flags = ("--model", str(tiny_model()), "--frames", "2")
    assert main(["features", str(disk), *flags]) == 0
    assert main(["features", f"{bucket.url}/nothing", *flags]) == 2
    for number in range(TASKS):
        said = task(number, None, url, "features", *flags)
    assert "the others are done too" in said
    assert objects_of(url) == contents(disk)
