"""Reading from a bucket: the files of a folder are brought to this machine, the values of its arrays are read in place.

    folder = fetched("s3://bucket/data")        # and then as any folder: folder / "questions.jsonl"

What is there from an earlier command is brought again only where the object has changed since.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections import deque
from pathlib import Path
from typing import Any

from jaxvsr.buckets.objects import asking, names_below, objects
from jaxvsr.buckets.places import place
from jaxvsr.buckets.urls import bucket_url
from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object, replacing, write_text
from jaxvsr.locks import LOCK_FILE, only_writer

# The values of frames and features, which are read in place; `zarr.json` beside them describes them.
VALUES = re.compile(r"(?:frames/[^/]+|features/[^/]+/[^/]+/[^/]+)/c/.*")
_LEFT = ("scans/", "appearances/")  # no reader needs them
_CHECKPOINT = re.compile(r"((?:.*/)?checkpoints/\d+/).+")
CHECKPOINT_MARK = "_CHECKPOINT_METADATA"  # sent last and removed first: a checkpoint without it is not whole
_SMALL = (".json", ".jsonl", ".md", ".txt", ".yaml", ".jinja", ".tsv")
_AT_ONCE = 32  # small files that are asked for at once
_STATE = ".{}.brought.json"  # beside a place: name → generation of the object, size and time of the file
_LOCK = ".bringing.lock"


@functools.cache
def fetched(folder: Path | str) -> Path:
    """The folder of this machine that holds what a folder in a bucket does; a folder of this machine as it is.

    It is brought once a process; what a process reads does not change under it.

    Raises:
        InputError: there is no such folder, or the bucket does not give it.
    """
    url = bucket_url(folder)
    if url is None:
        return Path(folder)
    here = place(url, "read")
    with only_writer(here, name=_LOCK, wait=True):
        bring(url, here, known_beside=True)
    return here


def wanted_of(names: list[str]) -> list[str]:
    """The objects that are brought: no values of arrays, no scans, no parts of checkpoints that are not whole."""
    whole = set(names)

    def is_wanted(name: str) -> bool:
        if VALUES.fullmatch(name) or name.startswith(_LEFT) or name == LOCK_FILE:
            return False
        checkpoint = _CHECKPOINT.fullmatch(name)
        return checkpoint is None or f"{checkpoint[1]}{CHECKPOINT_MARK}" in whole

    return [name for name in names if is_wanted(name)]


def bring(url: str, here: Path, *, known_beside: bool = False, empty: bool = False) -> dict[str, list[Any]]:
    """Make the folder `here` hold the files of a bucket's folder and nothing else; returns what it holds: name →
    generation, size, time.

    Args:
        known_beside: what was brought before is noted beside the folder, and taken where it is still the same.
        empty: there may be nothing in the bucket yet.

    Raises:
        InputError: there is nothing, the bucket does not give it, or an object went while it was brought.
    """
    names = wanted_of(names_below(url))
    if not names and not empty:
        raise InputError(f"{url}: no such folder in the bucket, or nothing in it")
    noted = here.with_name(_STATE.format(here.name))
    before = read_json_object(noted) if known_beside and noted.is_file() else {}
    _remove_others(here, set(names))
    found: dict[str, list[Any]] = {}
    waiting: deque[tuple[str, list[Any] | None, Any]] = deque()

    def take() -> None:
        name, known, reading = waiting.popleft()
        path = here / name
        with asking(f"{url}/{name}"):
            read = reading.result()
        if read.state == "missing":
            raise InputError(f"{url}/{name}: went while it was read; start again when the folder is complete")
        if read.state == "value":
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                partial.write_bytes(read.value)
            known = [read.stamp.generation.hex(), *stamp(path)]
        assert known is not None  # the object is the one that is here
        found[name] = known

    for name in names:
        known = before.get(name)
        if known is not None and known[1:] != stamp(here / name):
            known = None
        generation = bytes.fromhex(known[0]) if known is not None else None
        waiting.append((name, known, objects(url).read(name, if_not_equal=generation)))
        while len(waiting) > (_AT_ONCE if name.endswith(_SMALL) else 1):
            take()
    while waiting:
        take()
    if known_beside:
        write_text(noted, json.dumps(found))
    return found


def stamp(path: Path) -> list[int]:
    """Size and time of a file; nothing where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _remove_others(here: Path, names: set[str]) -> None:
    for folder, _, files in os.walk(here, topdown=False):
        below = Path(folder)
        for file in files:
            if (below / file).relative_to(here).as_posix() not in names and file != _LOCK:
                (below / file).unlink()
        if below != here and not any(below.iterdir()):
            below.rmdir()
