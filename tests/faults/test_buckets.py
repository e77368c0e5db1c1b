"""Faults of buckets while batches are read: a batch is right or there is none, and a line says why."""

import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.buckets import fetching, objects
from jaxvsr.data.loader import SceneBatch, make_loader
from jaxvsr.data.scene_pools import read_pools
from jaxvsr.errors import InputError
from tests.support.buckets import SERVERS, Bucket

TRIES = 100  # of each server
TWICE, ALWAYS = ("503", "429", "cut", "close"), ("403", "404", "503")
KINDS = (*(f"{fault} twice" for fault in TWICE), *(f"{fault} always" for fault in ALWAYS), "slow", "went", "rewritten")


def batch_of(folder: Path, step: int) -> SceneBatch:
    pools = read_pools([(folder, 1.0)], split="train", questions=2, frames=2)
    batches = make_loader(pools, scenes=3, questions=2, frames=2, seed=0, start_step=step)
    try:
        return next(batches)
    finally:
        batches.close()


def same(one: SceneBatch, other: SceneBatch) -> bool:
    return len(one.scenes) == len(other.scenes) and all(
        (a.scene, a.questions) == (b.scene, b.questions) and np.array_equal(a.frames, b.frames)
        for a, b in zip(one.scenes, other.scenes, strict=True)
    )


def make_fault(bucket: Bucket, kind: str, scene: str, part: str, data: Path, drawn: random.Random) -> None:
    """One fault of an object of a scene's frames, or with `twice` and `always` of requests for it."""
    name, (fault, _, often) = f"{scene}/{part}", kind.partition(" ")
    if kind == "went":
        bucket.remove(name)
    elif kind == "rewritten":  # by the frames of another scene
        frames = drawn.choice([path for path in sorted((data / "frames").iterdir()) if path.name not in scene])
        for path in (path for path in frames.rglob("*") if path.is_file()):
            bucket.put(f"{scene}/{path.relative_to(frames)}", path.read_bytes())
    else:
        left = [{"twice": 2, "": 1, "always": 10**9}[often]]

        def asked(method: str, path: str) -> str | None:
            if name not in path or not left[0]:
                return None
            left[0] -= 1
            return fault

        bucket.fault = asked


@pytest.mark.parametrize("scheme", SERVERS)
def test_faults_make_no_wrong_batch(scheme: str, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn, outcomes = random.Random(0), Counter[tuple[str, str]]()
    monkeypatch.setattr(objects, "_RETRIES", {**objects._RETRIES, "initial_delay": "20ms", "max_delay": "100ms"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    objects.context.cache_clear()
    objects.objects.cache_clear()
    with SERVERS[scheme](monkeypatch) as bucket:
        for number in range(TRIES):
            url = bucket.put_folder(data_folder, f"t{number}/data")
            step, kind = drawn.randrange(20), KINDS[number % len(KINDS)]
            wanted = batch_of(data_folder, step)
            here = fetching.fetched(url)
            scene = drawn.choice(wanted.scenes).scene
            part = drawn.choice(("c/0/0/0/0", "zarr.json"))
            make_fault(bucket, kind, f"t{number}/data/frames/{scene}", part, data_folder, drawn)
            try:
                found = batch_of(here, step)
                outcome = "right" if same(found, wanted) else "WRONG"
            except InputError as error:
                outcome = "a line" if "\n" not in str(error) and scene in str(error) else "NO LINE"
            outcomes[kind, outcome] += 1
            bucket.fault = lambda method, path: None
            shutil.rmtree(here)
    print(f"\n{scheme}: {TRIES} faults")
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"  {kind:14} {outcome:8} {count}")
        assert outcome == ("right" if kind == "slow" or "twice" in kind else "a line")
