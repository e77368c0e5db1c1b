"""Folders of scans and videos in buckets: their names are here at once, and what is in one while it is read.

with listed("s3://bucket/scans") as scans:      # a tree of empty files with the names of the objects
    for scan in list_scans(scans):
        with brought(files_of(scan)) as here:
            read(here(scan))                    # what the bucket holds; gone after the block
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from jaxvsr.buckets.fetching import bring_names
from jaxvsr.buckets.objects import asking, names_below, objects
from jaxvsr.buckets.own_folders import own_folder
from jaxvsr.buckets.places import below, places_root
from jaxvsr.buckets.urls import bucket_url
from jaxvsr.errors import InputError

_NAMES = "names"  # the part of an own folder that is such a tree


@contextlib.contextmanager
def listed(folder: Path, at_once: tuple[str, ...] = ()) -> Iterator[Path]:
    """A folder whose files are empty and have the names of what is in a bucket; a folder of this machine as it is.

    Args:
        at_once: ends of names, such as `.txt`, of small files that are there whole from the beginning.

    Raises:
        InputError: there is no such folder, or the bucket does not give it.
    """
    url = bucket_url(folder)
    if url is None:
        yield Path(folder)
        return
    names = names_below(url)
    if not names:
        raise InputError(f"{url}: no such folder in the bucket, or nothing in it")
    with own_folder() as own:
        here = below(own / _NAMES, url)
        for name in names:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).touch()
        bring_names(url, here, [name for name in names if at_once and name.endswith(at_once)])
        yield here


@contextlib.contextmanager
def brought(files: Iterable[Path]) -> Iterator[Callable[[Path], Path]]:
    """Files of a `listed` folder as they are in the bucket, inside the block; it gets where a path of that folder is.

    A path of any other folder is where it is.

    Raises:
        InputError: an object is not there any more, or the bucket does not give it.
    """
    wanted: dict[tuple[Path, str], list[str]] = {}
    for file in files:
        if (one := _object(file)) is not None and file.is_file():
            wanted.setdefault((one.own, one.bucket), []).append(one.name)
    part = uuid.uuid4().hex[:12]

    def here(path: Path) -> Path:
        one = _object(path)
        return path if one is None else below(one.own / part, one.bucket) / one.name

    try:
        for (own, bucket), names in wanted.items():
            bring_names(bucket, below(own / part, bucket), names)
        yield here
    finally:
        for own, _ in wanted:
            shutil.rmtree(own / part, ignore_errors=True)


def is_listed(path: Path) -> bool:
    """Whether a path is one of a `listed` folder of a bucket, whose file is empty whatever the object holds."""
    return _object(path) is not None


def generations_digest(files: Iterable[Path]) -> str:
    """A hash of files of a `listed` folder by the generations of their objects: another one where one was written."""
    digest = hashlib.sha256()
    found = [one for file in files if (one := _object(file)) is not None]
    asked = [objects(one.bucket).read(one.name, byte_range=slice(0, 0)) for one in found]
    for one, reading in zip(found, asked, strict=True):
        with asking(f"{one.bucket}/{one.name}"):
            digest.update(f"{one.name}\0{reading.result().stamp.generation.hex()}\0".encode())
    return digest.hexdigest()


def has_size(file: Path, size: int) -> bool:
    """Whether the object of a file of a `listed` folder has this many bytes; it is not brought."""
    one = _object(file)
    assert one is not None
    if size <= 0:
        return False
    with asking(f"{one.bucket}/{one.name}"), contextlib.suppress(ValueError):  # out of range
        return len(objects(one.bucket).read(one.name, byte_range=slice(size - 1, None)).result().value) == 1
    return False


@dataclasses.dataclass(frozen=True)
class _Object:
    """What a path of a `listed` folder stands for: `own` is the folder that this is in, `bucket` a URL."""

    own: Path
    bucket: str
    name: str


def _object(path: Path) -> _Object | None:
    with contextlib.suppress(ValueError):
        own, part, *rest = path.relative_to(places_root() / "own").parts
        if part == _NAMES and len(rest) > 2:
            scheme, bucket, *name = rest
            return _Object(places_root() / "own" / own, f"{scheme}://{bucket}", "/".join(name))
    return None
