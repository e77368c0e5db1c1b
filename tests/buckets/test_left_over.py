"""What a command has left on this machine that was killed, or could not send."""

import contextlib
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from jaxvsr.buckets import lease, publishing
from jaxvsr.buckets.fetching import CHECKPOINT_MARK
from jaxvsr.buckets.objects import names_below, objects
from jaxvsr.buckets.places import place
from jaxvsr.buckets.publishing import published
from jaxvsr.errors import InputError
from jaxvsr.locks import LOCK_FILE

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, sys
from jaxvsr.buckets.places import place
from jaxvsr.buckets.publishing import published
here = place(sys.argv[1], "written")
entered = published(here)  # kept: its end would send all
entered.__enter__().send()
(here / "checkpoints" / "3").mkdir(parents=True)
for name in ("weights", "_CHECKPOINT_METADATA"):
    (here / "checkpoints" / "3" / name).write_text("3")
(here / "metrics.jsonl").write_text("1\\n2\\n3\\n")
os._exit(9)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in (("RENEW_SECONDS", 0.05), ("DEAD_SECONDS", 0.6), ("_LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture
def killed(bucket) -> str:
    """The URL of a run with two checkpoints, after a command was killed that had made a third and not sent it."""
    url = f"{bucket.url}/{uuid.uuid4().hex}"
    with published(place(url, "written")):
        for step in ("1", "2"):
            folder = place(url, "written") / "checkpoints" / step
            folder.mkdir(parents=True)
            for name in ("weights", CHECKPOINT_MARK):
                (folder / name).write_text(step)
        (place(url, "written") / "metrics.jsonl").write_text("1\n2\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", KILLED, url], env=environment).returncode == 9
    assert "checkpoints/3/weights" not in names_below(url)
    return url


def rows(url: str) -> bytes:
    return objects(url).read("metrics.jsonl").result().value


def whole(*steps: int) -> list[str]:
    return [f"checkpoints/{step}/{name}" for step in steps for name in (CHECKPOINT_MARK, "weights")] + ["metrics.jsonl"]


@pytest.mark.slow
def test_what_a_killed_command_had_not_sent_is_sent_by_the_next(bucket, killed, capsys):
    with published(place(killed, "written")):
        assert [name for name in names_below(killed) if name != LOCK_FILE] == whole(1, 2, 3)
    assert rows(killed) == b"1\n2\n3\n"
    line = capsys.readouterr().err
    assert line.startswith(f"{killed}: sending 3 files that an earlier command has left") and line.count("\n") == 1
    with published(place(killed, "written")):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("change", ["written", "removed", "added"])
def test_what_others_have_written_since_is_not_overwritten(bucket, killed, capsys, change):
    name = f"{killed.partition('://')[2].partition('/')[2]}/"
    if change == "removed":
        bucket.remove(f"{name}checkpoints/2/weights")
    else:
        bucket.put(name + {"written": "metrics.jsonl", "added": "checkpoints/9/weights"}[change], b"theirs")
    before = {one: objects(killed).read(one).result().value for one in names_below(killed) if one != LOCK_FILE}
    with published(place(killed, "written")):
        pass
    after = {one: objects(killed).read(one).result().value for one in names_below(killed)}
    assert after == before
    line = capsys.readouterr().err
    assert line.startswith(f"{killed}: has been written by others since, such as ") and line.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"1\n2\n3\n", b"1\n2\n3"])
def test_a_kill_in_the_midst_of_sending_is_no_writing_by_others(bucket, killed, capsys, sent):
    bucket.put(f"{killed.partition('://')[2].partition('/')[2]}/metrics.jsonl", sent)
    with published(place(killed, "written")):
        pass
    assert names_below(killed) == whole(1, 2, 3) and "sending 3 files" in capsys.readouterr().err
    assert rows(killed) == b"1\n2\n3\n"


@pytest.mark.slow
def test_what_was_deleted_from_the_cache_by_hand_stays_in_the_bucket(bucket, killed):
    here = place(killed, "written")
    for step in (1, 3):
        (here / "checkpoints" / str(step) / "weights").unlink()
    with published(here):
        assert (here / "checkpoints" / "1" / "weights").read_text() == "1"
    assert set(whole(1, 2)) <= set(names_below(killed)) and rows(killed) == b"1\n2\n3\n"


def test_what_cannot_be_sent_at_the_end_is_sent_by_the_next(bucket, capsys):
    url = f"{bucket.url}/end"
    here = place(url, "written")
    with pytest.raises(InputError, match=r"report\.html: no permission .*the next command sends it$"), published(here):
        here.mkdir(parents=True)
        (here / "report.html").write_text("page")
        bucket.fault = lambda method, path: "403" if "report" in path else None
    bucket.fault = lambda method, path: None
    assert names_below(url) == []
    with published(here):
        assert names_below(url) == [LOCK_FILE, "report.html"]
    assert "sending 1 files" in capsys.readouterr().err and not here.exists()


def test_a_file_that_s3_does_not_take_is_a_line_and_nothing_is_sent(bucket, monkeypatch):
    monkeypatch.setattr(publishing, "S3_MOST_BYTES", 1000)
    url = f"{bucket.url}/large"
    here, refused = place(url, "written"), pytest.raises(InputError, match=r"weights: has .* GiB, and S3 takes at most")
    with refused if url.startswith("s3") else contextlib.nullcontext(), published(here):
        here.mkdir(parents=True)
        (here / "metrics.jsonl").write_text("1")
        (here / "weights").write_bytes(bytes(1001))
    assert names_below(url) == ([] if url.startswith("s3") else ["metrics.jsonl", "weights"])
    assert here.exists() == url.startswith("s3")
