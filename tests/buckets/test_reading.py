"""Data and models that are read from buckets."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.buckets import fetching
from jaxvsr.buckets.fetching import fetched
from jaxvsr.buckets.places import named, place
from jaxvsr.data.frames import FrameStore
from jaxvsr.data.questions import read_questions
from jaxvsr.data.splits import read_splits
from jaxvsr.errors import InputError
from tests.support.files import contents


def test_a_data_folder_in_a_bucket_is_the_one_on_disk(bucket, data_folder):
    here = fetched(bucket.put_folder(data_folder, "a/data"))
    assert read_questions(here / "questions.jsonl") == read_questions(data_folder / "questions.jsonl")
    assert read_splits(here) == read_splits(data_folder)
    assert FrameStore(here).scenes() == FrameStore(data_folder).scenes()
    for scene in FrameStore(here).scenes():
        np.testing.assert_array_equal(
            FrameStore(here).read(scene, 2).pixels, FrameStore(data_folder).read(scene, 2).pixels
        )
    pixels = {f"frames/{scene}/c/0/0/0/0" for scene in FrameStore(here).scenes()}  # stay in the bucket
    assert set(contents(here)) == set(contents(data_folder)) - pixels
    assert named(f"{here / 'questions.jsonl'} line 3") == f"{bucket.url}/a/data/questions.jsonl line 3"


def test_only_what_has_changed_is_brought_again(bucket, data_folder):
    url = bucket.put_folder(data_folder, "b/data")
    brought = {path: path.stat().st_ino for path in fetched(url).rglob("*.json*")}
    bucket.put("b/data/questions.jsonl", (data_folder / "questions.jsonl").read_bytes().replace(b"3?", b"4!"))
    bucket.remove("b/data/frames/scene0000_00/zarr.json")
    fetching.fetched.cache_clear()
    here = fetched(url)
    assert [row.question for row in read_questions(here / "questions.jsonl")].count("4!") == 7
    assert FrameStore(here).scenes() == FrameStore(data_folder).scenes()[1:]
    again = [path.name for path, inode in brought.items() if path.exists() and path.stat().st_ino != inode]
    assert again == ["questions.jsonl"]


@pytest.mark.parametrize("fault", ["503", "close", "cut"])
def test_a_read_that_fails_twice_is_made_again(bucket, data_folder, fault):
    url = bucket.put_folder(data_folder, "c/data")
    failed: Counter[str] = Counter()

    def twice(method, path):
        name = path.partition("?")[0]
        failed[name] += 1
        return fault if name.endswith("questions.jsonl") and failed[name] <= 2 else None

    bucket.fault = twice
    here = fetched(url)
    assert max(count for name, count in failed.items() if name.endswith("questions.jsonl")) == 3
    assert read_questions(here / "questions.jsonl") == read_questions(data_folder / "questions.jsonl")


def test_what_a_bucket_refuses_is_one_line(bucket, data_folder):
    url = bucket.put_folder(data_folder, "d/data")
    for missing in (f"{bucket.url}/nothing", f"{url[:5]}no-such-bucket/data"):
        with pytest.raises(InputError, match=f"^{missing}: "):
            fetched(missing)
    bucket.fault = lambda method, path: "403"
    with pytest.raises(InputError, match=f"^{url}: no permission"):
        fetched(url)


def test_frames_that_went_or_were_written_again_are_no_batch(bucket, data_folder, tmp_path):
    url = bucket.put_folder(data_folder, "e/data")
    store = FrameStore(fetched(url))
    bucket.remove("e/data/frames/scene0001_00/c/0/0/0/0")
    with pytest.raises(InputError, match="cannot read the frames"):
        store.read("scene0001_00", 2)
    other = data_folder / "frames" / "scene0003_00"
    shutil.copytree(other, tmp_path / "other")
    bucket.put_folder(tmp_path / "other", "e/data/frames/scene0002_00")
    with pytest.raises(InputError, match="written again since"):
        store.read("scene0002_00", 2)
    bucket.fault = lambda method, path: "403" if "/c" in path else None
    with pytest.raises(InputError, match="no permission"):
        store.read("scene0004_00", 2)
    assert json.loads((other / "zarr.json").read_text())["attributes"]["scene"] == "scene0003_00"


FETCH = "import sys; from jaxvsr.buckets.fetching import fetched; fetched(sys.argv[1]); print(flush=True); input()"


@pytest.mark.slow
def test_beyond_its_bound_what_was_used_longest_ago_goes_and_nothing_that_is_used(
    bucket, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv(fetching.BOUND_VARIABLE, "2.5e-6")  # 2,500 bytes
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    urls = [f"{bucket.url}/bound/{name}" for name in "abcd"]
    for name in "abcd":
        bucket.put(f"bound/{name}/model", bytes(1000))

    def other(url):
        command = [sys.executable, "-c", FETCH, url]
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def here():
        return [name for name in "abcd" if (place(f"{bucket.url}/bound/{name}", "read") / "model").exists()]

    living = other(urls[0])
    assert living.stdout.readline() == "\n"
    other(urls[1]).communicate("\n")
    assert here() == ["a", "b"]
    fetched(urls[2])
    assert here() == ["a", "c"], "a was used before, and is in use"
    living.communicate("\n")
    fetched(urls[3])
    assert here() == ["c", "d"]
    for wrong in ("much", "nan", "-1"):
        monkeypatch.setenv(fetching.BOUND_VARIABLE, wrong)
        with pytest.raises(InputError, match=f"JAXVSR_BUCKET_CACHE_GB={wrong}: expected a number of gigabytes"):
            fetched(urls[0])
