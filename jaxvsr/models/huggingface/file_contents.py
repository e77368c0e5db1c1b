"""What is in the files of a model folder: the SHA-256 of each as a whole, and weights that are finite.

A weight file is read once. Its hash is kept in the user's cache folder by path, size and time of the last change, so a
model of many gigabytes is opened as fast as before; `in_full` reads it again. What jaxvsr writes has its hashes beside
it in SHA256SUMS, which `sha256sum -c` understands too, and which are compared whenever a folder is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxvsr.errors import InputError
from jaxvsr.files import read_text, user_cache, write_text
from jaxvsr.models.huggingface.safetensors_io import (
    SafetensorsFile,
    TensorEntry,
    is_finite,
    open_safetensors,
)

SUMS_FILE = "SHA256SUMS"
# What people edit, and the sums themselves.
_NOT_SUMMED = re.compile(r"README|LICENSE|NOTICE|SHA256SUMS|trained_as\.json")
_SETTLED_SECONDS = 2  # a file that changed less long ago may change again and keep its time
_MOST_KEPT = 4096
_READ_HERE: dict[str, list[object]] = {}  # by this process: where the cache cannot be written, a file is read once
_CHUNK_BYTES = 2**22  # at a time
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^\0]+)")
_READ = re.compile(r"[^/]+\.(json|txt|jinja|safetensors)")  # what a model is made of; a repository may have more


def weights_sha256(file: SafetensorsFile, *, in_full: bool = False) -> str:
    """The SHA-256 of a weight file, whose numbers are all finite.

    Args:
        in_full: read the file also where its hash is kept.

    Raises:
        InputError: a number is not finite; or (`in_full`) the file holds other bytes than when its hash was kept.
    """
    path = file.path.resolve()
    before = path.stat()
    key, stamp = str(path), [before.st_size, before.st_mtime_ns]
    kept = _READ_HERE.get(key) or _kept().get(key)
    known = kept[2] if isinstance(kept, list) and len(kept) == 3 and kept[:2] == stamp else None
    known = known if isinstance(known, str) else None
    if known is not None and not in_full:
        return known
    found = _read_whole(file)
    if known is not None and known != found:
        raise InputError(f"{file.path}: its bytes have changed, though its time has not: the disk or a copy is damaged")
    if known is None and time.time() - before.st_mtime > _SETTLED_SECONDS:
        _READ_HERE[key] = [*stamp, found]
        _keep(key, [*stamp, found])
    return found


def plain_sha256(path: Path) -> str:
    """The SHA-256 of a small file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def write_sums(folder: Path) -> None:
    """Write the hashes of a folder's files into its SHA256SUMS."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not _NOT_SUMMED.match(path.name))
    lines = []
    for name in names:
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    write_text(folder / SUMS_FILE, "".join(lines))


def check_sums(folder: Path, *, in_full: bool = False) -> None:
    """Compare the files of a folder with its SHA256SUMS, if it has them.

    Raises:
        InputError: a file is missing or another one, or a line of SHA256SUMS is none.
    """
    path = folder / SUMS_FILE
    if not path.is_file():
        return
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        match = _SUM_LINE.fullmatch(line)
        if match is None:
            raise InputError(f"{path} line {number}: expected the hash and the name of a file of this folder")
        if _NOT_SUMMED.match(match[2]) or not _READ.fullmatch(match[2]):
            continue
        file = folder / match[2]
        if not file.is_file():
            raise InputError(f"{file}: missing, though {SUMS_FILE} names it; is the copy complete?")
        is_weights = file.suffix == ".safetensors"
        found = weights_sha256(open_safetensors(file), in_full=in_full) if is_weights else plain_sha256(file)
        if found != match[1]:
            raise InputError(
                f"{file}: is not the file that was written, by its hash in {SUMS_FILE}; take another copy, or if the "
                f"change is meant delete {path}"
            )


def _read_whole(file: SafetensorsFile) -> str:
    digest, memory = hashlib.sha256(), bytearray(_CHUNK_BYTES)
    with file.path.open("rb", buffering=0) as opened:

        def read(count: int, entry: TensorEntry | None = None) -> bool:
            """Read `count` bytes; whether they are finite numbers of the entry's dtype."""
            finite = True
            while count:
                part = memoryview(memory)[: min(count, len(memory))]
                got = opened.readinto(part)
                while got and got < len(part):
                    more = opened.readinto(part[got:])
                    got = 0 if not more else got + more
                if not got:
                    raise InputError(f"{file.path}: ends {count} bytes too early; did the file change?")
                digest.update(part)
                finite = finite and (entry is None or is_finite(np.frombuffer(part, entry.dtype)))
                count -= len(part)
            return finite

        read(min((entry.offset for entry in file.entries.values()), default=file.path.stat().st_size))
        for name, entry in file.entries.items():
            if not read(entry.nbytes, entry):
                raise InputError(f"{file.path}: {name!r} holds numbers that are not finite; take other weights")
    return digest.hexdigest()


def _cache_file() -> Path:
    return user_cache() / "weight_hashes.json"


def _kept() -> dict[str, Any]:
    try:
        found = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(key: str, entry: list[object]) -> None:
    """Add a file's hash; where the cache cannot be written, the file is read again next time."""
    kept = {name: value for name, value in _kept().items() if name != key}
    newest = dict([*kept.items(), (key, entry)][-_MOST_KEPT:])
    with contextlib.suppress(OSError):
        os.makedirs(_cache_file().parent, exist_ok=True)
        write_text(_cache_file(), json.dumps(newest, indent=0) + "\n")
