"""Reading from a bucket: the files of a folder are brought to this machine, the values of its arrays are read in place.

    folder = fetched("s3://bucket/data")        # and then as any folder: folder / "questions.jsonl"

What is there from an earlier command is brought again only where the object has changed since. Where all that is there
has more than a bound, what was used longest ago goes, except what a living process uses.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxvsr.buckets.objects import asking, names_below, objects
from jaxvsr.buckets.places import place, places_root
from jaxvsr.buckets.urls import bucket_url
from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object, replacing, write_text
from jaxvsr.locks import is_held, only_writer

# The values of frames and features, which are read in place; `zarr.json` beside them describes them.
VALUES = re.compile(r"(?:frames/[^/]+|features/[^/]+/[^/]+/[^/]+)/c/.*")
_LOCKS = re.compile(r"(?:.*/)?\.(?:[^/]+\.)?lock|(?:.*/)?\.sharing/.*")  # of `lease`
_LEFT = ("scans/", "appearances/")  # no reader needs them
_CHECKPOINT = re.compile(r"((?:.*/)?checkpoints/\d+/).+")
CHECKPOINT_MARK = "_CHECKPOINT_METADATA"  # sent last and removed first: a checkpoint without it is not whole
_SMALL = (".json", ".jsonl", ".md", ".txt", ".yaml", ".jinja", ".tsv", ".jpg", ".png")
# Brought in parts, which asks twice for the last one.
_LARGE = re.compile(r".*(?:\.sens|\.safetensors|/d/[0-9a-f]{32})")
PART_BYTES = 2**26
_AT_ONCE = 32  # small files that are asked for at once
_STATE = ".{}.brought.json"  # beside a place: name → generation of the object, size and time of the file
_LOCK, _USED = ".bringing.lock", ".{}.used.lock"  # in a place; beside it
BOUND_VARIABLE = "JAXVSR_BUCKET_CACHE_GB"
_used = contextlib.ExitStack()  # the locks of what this process uses, until it ends


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
    noted = here.with_name(_STATE.format(here.name))
    bound = _bound()
    _used.enter_context(only_writer(here.parent, shared=True, wait=True, name=_USED.format(here.name)))
    with only_writer(here, name=_LOCK, wait=True):
        found = bring(url, here, read_json_object(noted) if noted.is_file() else {})
        write_text(noted, json.dumps(found))
    _remove_unused(bound)
    return here


def _bound() -> float:
    """Bytes that may stay here between commands."""
    given = os.environ.get(BOUND_VARIABLE, "100")
    with contextlib.suppress(ValueError):
        if float(given) >= 0:  # not of nan
            return float(given) * 1e9
    raise InputError(f"{BOUND_VARIABLE}={given}: expected a number of gigabytes, such as 100")


def _remove_unused(bound: float) -> None:
    """Remove what was used longest ago until the rest has at most `bound` bytes; what a process uses stays."""
    found = []
    for noted in (places_root() / "read").rglob(_STATE.format("*")):
        with contextlib.suppress(OSError, InputError):  # another process removes it
            size = sum(known[1] for known in read_json_object(noted).values())
            found.append((noted.stat().st_mtime_ns, size, noted))
    total = sum(size for _, size, _ in found)
    for _, size, noted in sorted(found):
        if total <= bound:
            return
        here = noted.with_name(noted.name.removeprefix(".").removesuffix(_STATE.removeprefix(".{}")))
        used = _USED.format(here.name)
        if is_held(here.parent / used):
            continue
        with contextlib.suppress(InputError), only_writer(here.parent, name=used):
            noted.unlink(missing_ok=True)
            shutil.rmtree(here, ignore_errors=True)
            total -= size


def wanted_of(names: list[str]) -> list[str]:
    """The objects that are brought: those that are kept here, but no parts of checkpoints that are not whole."""
    whole = set(names)

    def is_wanted(name: str) -> bool:
        checkpoint = _CHECKPOINT.fullmatch(name)
        return is_kept_here(name) and (checkpoint is None or f"{checkpoint[1]}{CHECKPOINT_MARK}" in whole)

    return [name for name in names if is_wanted(name)]


def is_kept_here(name: str) -> bool:
    """Whether an object is one of those that commands keep on this machine: no values of arrays, no scans, no locks."""
    return not (VALUES.fullmatch(name) or name.startswith(_LEFT) or _LOCKS.fullmatch(name))


def bring(
    url: str, here: Path, before: Mapping[str, list[Any]] | None = None, *, empty: bool = False, may_go: bool = False
) -> dict[str, list[Any]]:
    """Make the folder `here` hold the files of a bucket's folder and nothing else; returns what it holds: name →
    generation, size, time.

    Args:
        before: what it held after the last time, which is taken where it is still the same.
        empty: there may be nothing in the bucket yet.
        may_go: an object that is not there any more is left out.

    Raises:
        InputError: there is nothing, the bucket does not give it, or an object went while it was brought.
    """
    names = wanted_of(names_below(url))
    if not names and not empty:
        raise InputError(f"{url}: no such folder in the bucket, or nothing in it")
    _remove_others(here, set(names))
    return bring_names(url, here, names, before, may_go=may_go)


def bring_names(
    url: str, here: Path, names: Iterable[str], before: Mapping[str, list[Any]] | None = None, *, may_go: bool = False
) -> dict[str, list[Any]]:
    """Bring objects of a bucket's folder into the folder `here`; returns what `bring` does.

    Args:
        before: what was brought before, and is taken where it is still the same.
        may_go: an object that is not there any more is left out.

    Raises:
        InputError: the bucket does not give one, or it went while it was brought.
    """
    found: dict[str, list[Any]] = {}
    waiting: deque[tuple[str, list[Any] | None, Any]] = deque()

    def take() -> None:
        name, known, reading = waiting.popleft()
        path = here / name
        with asking(f"{url}/{name}"):
            read = reading.result()
        if read.state == "missing":
            if may_go:
                return
            raise InputError(f"{url}/{name}: went while it was read; start again when the folder is complete")
        if read.state == "value":
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                if _LARGE.fullmatch(name):
                    _bring_in_parts(url, name, partial, read.stamp.generation)
                else:
                    partial.write_bytes(read.value)
            known = [read.stamp.generation.hex(), *stamp(path)]
        assert known is not None  # the object is the one that is here
        found[name] = known

    for name in names:
        known = (before or {}).get(name)
        if known is not None and known[1:] != stamp(here / name):
            known = None
        generation = bytes.fromhex(known[0]) if known is not None else None
        part = slice(0, 0) if _LARGE.fullmatch(name) else None  # of a large one whether it is there
        waiting.append((name, known, objects(url).read(name, if_not_equal=generation, byte_range=part)))
        while len(waiting) > (_AT_ONCE if name.endswith(_SMALL) else 1):
            take()
    while waiting:
        take()
    return found


def _bring_in_parts(url: str, name: str, path: Path, generation: bytes) -> None:
    """Write an object of any size to a file, with `PART_BYTES` of it in memory."""
    store, position, is_last = objects(url), 0, False
    with path.open("wb") as file, asking(f"{url}/{name}"):
        while not is_last:
            first = max(position - 1, 0)  # one byte again, so that the last part is never empty
            try:
                read = store.read(name, byte_range=slice(first, first + PART_BYTES)).result()
            except ValueError:  # it ends before that
                read, is_last = store.read(name, byte_range=slice(first, None)).result(), True
            if read.stamp.generation != generation:
                raise InputError(f"{url}/{name}: went or was written again while it was read; start again")
            file.write(read.value[position - first :])
            position = first + len(read.value)


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
            if (below / file).relative_to(here).as_posix() not in names and not file.endswith((_LOCK, ".used.lock")):
                (below / file).unlink()
        if below != here and not any(below.iterdir()):
            below.rmdir()
