"""Folders that are written into buckets: whole objects, marks last, one command at a time."""

import threading

import pytest

from jaxvsr.buckets import lease
from jaxvsr.buckets.fetching import CHECKPOINT_MARK, fetched
from jaxvsr.buckets.objects import names_below, objects
from jaxvsr.buckets.places import place
from jaxvsr.buckets.publishing import published
from jaxvsr.data.frames import FrameStore
from jaxvsr.errors import InputError
from jaxvsr.runs.checkpoints import Checkpoints
from launch import build_data
from tests.support.checkpoint_states import RECORD, assert_equal, state_after


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in (("RENEW_SECONDS", 0.05), ("DEAD_SECONDS", 0.6), ("_LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(lease, name, seconds)


def written_to(bucket, method):
    return [
        path.partition("?")[0] if "name=" not in path else path.rpartition("name=")[2]
        for verb, path in bucket.requests
        if verb == method
    ]


def test_what_is_written_is_sent_and_brought_back(bucket):
    url = f"{bucket.url}/runs/a"
    here = place(url, "written")
    with published(here) as sending:
        assert sending is not None and not here.exists()
        (here / "checkpoints" / "2").mkdir(parents=True)
        (here / "checkpoints" / "2" / "_CHECKPOINT_METADATA").write_text("mark")
        (here / "checkpoints" / "2" / "weights").write_text("2")
        (here / "metrics.jsonl").write_text("1\n")
        (here / "hacking.jsonl").touch()
        sending.send()
        assert [name for name in names_below(url) if name != ".lock"] == [
            "checkpoints/2/_CHECKPOINT_METADATA",
            "checkpoints/2/weights",
            "hacking.jsonl",
            "metrics.jsonl",
        ]
        with (here / "metrics.jsonl").open("a") as rows:
            rows.write("2\n")
        (here / "checkpoints" / "2" / "weights").unlink()
        (here / "checkpoints" / "2" / "_CHECKPOINT_METADATA").unlink()
    assert not here.exists() and names_below(url) == ["hacking.jsonl", "metrics.jsonl"]
    sent = [path for verb, path in bucket.requests if verb in ("PUT", "POST", "DELETE")]
    order = [
        next((i for i, path in enumerate(sent) if name in path), -1) for name in ("2/weights", "_CHECKPOINT_METADATA")
    ]
    gone = [
        next(i for i, path in reversed(list(enumerate(sent))) if name in path)
        for name in ("2/weights", "_CHECKPOINT_METADATA")
    ]
    assert order[0] < order[1] and gone[1] < gone[0]
    with published(here):
        assert (here / "metrics.jsonl").read_text() == "1\n2\n"


@pytest.mark.slow
def test_a_checkpoint_is_in_the_bucket_when_it_is_finished_and_goes_on_from_a_fresh_disk(bucket, tmp_path, monkeypatch):
    url = f"{bucket.url}/runs/state"
    with published(place(url, "written")) as sending:
        assert sending is not None
        checkpoints = Checkpoints(place(url, "written") / "checkpoints", keep=1)
        checkpoints.after_save = sending.try_to_send
        for step in (2, 3):
            checkpoints.save(step, state_after(step), RECORD)
            assert checkpoints.finished() == step
            assert f"checkpoints/{step}/{CHECKPOINT_MARK}" in names_below(url)
        checkpoints.close()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-disk"))
    here = place(url, "written")
    with published(here):
        checkpoints = Checkpoints(here / "checkpoints", keep=1)
        assert list(checkpoints.steps) == [3]
        assert_equal(checkpoints.restore(3, state_after(0), RECORD), state_after(3))
        checkpoints.close()


def test_a_checkpoint_without_its_mark_is_not_brought(bucket):
    for name in ("config.yaml", "checkpoints/2/weights", "checkpoints/1/weights", "checkpoints/1/_CHECKPOINT_METADATA"):
        bucket.put(f"runs/b/{name}", b"x")
    here = fetched(f"{bucket.url}/runs/b")
    assert sorted(path.name for path in (here / "checkpoints").iterdir()) == ["1"]


def test_of_two_that_write_into_one_folder_the_second_is_refused(bucket):
    here = place(f"{bucket.url}/runs/c", "written")
    with published(here), pytest.raises(InputError, match="writes into it; wait for it, or name another folder"):
        published(here).__enter__()
    assert names_below(f"{bucket.url}/runs/c") == []


def test_of_many_that_find_a_dead_lock_one_takes_it(bucket):
    url, inside, refused = f"{bucket.url}/runs/d", [], []
    bucket.put("runs/d/.lock", b"12 on a-host-that-is-gone, id")
    together = threading.Barrier(4)

    def enter():
        together.wait()
        try:
            with lease.only_sender(url):
                inside.append(1)
                together_again.wait(20)
        except InputError as error:
            refused.append(str(error))
            together_again.wait(20)

    together_again = threading.Barrier(4)
    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(inside), len(refused)) == (1, 3)
    assert names_below(url) == []


def test_who_has_lost_the_lock_sends_nothing(bucket):
    here = place(f"{bucket.url}/runs/e", "written")
    with pytest.raises(InputError, match="process 7 on other writes into it"), published(here) as sending:
        assert sending is not None
        here.mkdir(parents=True)
        (here / "metrics.jsonl").write_text("mine")
        for _ in range(200):
            bucket.put("runs/e/.lock", b"7 on other, id")  # again where the owner has just written it
            try:
                sending.send()
            except InputError:
                break
            threading.Event().wait(0.02)
    assert objects(f"{bucket.url}/runs/e").read(".lock").result().value == b"7 on other, id"


def test_a_checkpoint_that_cannot_be_sent_is_sent_with_the_next(bucket, capsys):
    url = f"{bucket.url}/runs/f"
    here = place(url, "written")
    with published(here) as sending:
        assert sending is not None
        here.mkdir(parents=True)
        (here / "metrics.jsonl").write_text("1")
        bucket.fault = lambda method, path: "403" if "metrics" in path else None
        sending.try_to_send()
        line = capsys.readouterr().err
        assert line.startswith(f"warning: {url}/metrics.jsonl: no permission") and line.count("\n") == 1
        bucket.fault = lambda method, path: None
        sending.try_to_send()
        assert "metrics.jsonl" in names_below(url) and capsys.readouterr().err == ""


@pytest.mark.slow
def test_frames_are_made_in_a_bucket(bucket, tmp_path, capsys):
    from tests.support.scans import write_sens_scan

    for name in ("scene0000_00", "scene0001_00"):
        write_sens_scan(tmp_path / "all", name, frames=6, height=56, width=56, seed=1)
    url = f"{bucket.url}/made"
    asked = ["frames", str(tmp_path / "all"), url, "--max-pixels", "4000", "--workers", "1", "--frames"]
    assert build_data.main([*asked, "2"]) == 0
    first = FrameStore(fetched(url)).read("scene0000_00", 2).pixels
    fetched.cache_clear()
    assert build_data.main([*asked, "3"]) == 0, capsys.readouterr().err
    again = FrameStore(fetched(url))
    assert again.counts("scene0001_00") == (2, 3) and (again.read("scene0000_00", 2).pixels == first).all()
    assert url in capsys.readouterr().out or True


def test_a_bucket_that_is_not_there_is_no_command_that_writes(bucket):
    url = f"{bucket.url[:5]}no-such-bucket/out"
    for enter in (lease.only_sender(url), lease.one_of_several(url), lease.locked(url, ".card.lock", wait=True)):
        with pytest.raises(InputError, match=r"no such bucket|is there such a bucket\?"):
            enter.__enter__()
