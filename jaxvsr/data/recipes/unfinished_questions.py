"""The questions of finished scans, kept until all scans are done: a stopped run goes on, machines can share the work.

    OUT/questions.partial/<recipe>/<scene>.json     {"key": …, "rows": […], "flaws": {…}}, or {"key": …, "broken": …}
    OUT/questions.partial/<recipe>.asked.json       {"rows": …, "keys": {scene: key}}, once tasks of a cluster are done

The key is a hash of everything that the rows depend on: recipe, options, seed, census, version and the bytes of the
scan's files. A part with another key is ignored, and a broken scan is read again. Machines without a shared disk copy
their parts into one folder; the command without `--shard` then writes what a single machine would have written.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from jaxvsr.buckets.scans_in_buckets import generations_digest, is_listed
from jaxvsr.data.questions import Question
from jaxvsr.data.scannet import read_scan
from jaxvsr.errors import InputError
from jaxvsr.files import write_text

PARTS_DIR = "questions.partial"
_CHUNK_BYTES = 1 << 20
_KEY_CHARACTERS = 200  # a part begins with its key, two SHA-256


def parts_folder(out: Path, recipe: str) -> Path:
    """The folder of a recipe's parts."""
    return out / PARTS_DIR / recipe


def scan_digest(scan_dir: Path) -> str:
    """A hash of the files that questions depend on: mesh, segments, annotation and alignment whole; of the masks the
    size and the end of the zip, which lists every entry with its checksum. In a bucket, of their objects' generations.
    """
    files = read_scan.geometry_paths(scan_dir)
    if is_listed(scan_dir):
        return generations_digest(file for file in (*files, read_scan.instance_masks_path(scan_dir)) if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0".encode("utf-8", "surrogateescape"))
        if file.is_file():
            digest.update(f"{file.stat().st_size}\0".encode())
            try:
                with file.open("rb") as source:
                    while chunk := source.read(_CHUNK_BYTES):
                        digest.update(chunk)
            except OSError:
                digest.update(b"unreadable")
    masks = read_scan.instance_masks_path(scan_dir)
    size = masks.stat().st_size if masks.is_file() else -1
    digest.update(f"{size}".encode())
    if size > 0:
        with masks.open("rb") as source:
            source.seek(max(size - _CHUNK_BYTES, 0))
            digest.update(source.read(_CHUNK_BYTES))
    return digest.hexdigest()


def part_key(settings_key: str, scan_dir: Path) -> str:
    """The key of a scan's part; `settings_key`: of what its rows depend on besides the scan."""
    return f"{settings_key} {scan_digest(scan_dir)}"


def load_part(folder: Path, scene: str, key: str) -> tuple[list[Question], dict[str, int]] | None:
    """The rows and flaws of a scan; None if there are none with this key, or they cannot be read."""
    try:
        part = json.loads((folder / f"{scene}.json").read_text(encoding="utf-8"))
        if part["key"] != key:
            return None
        return [Question.from_json(row) for row in part["rows"]], dict(part["flaws"])
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None


def store_part(folder: Path, scene: str, key: str, outcome: tuple[list[Question], dict[str, int]] | str) -> None:
    """Keep the rows and flaws of a scan, or why it is broken; whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(outcome, str):
        part: dict[str, object] = {"key": key, "broken": outcome}
    else:
        rows, flaws = outcome
        part = {"key": key, "rows": [row.to_json() for row in rows], "flaws": flaws}
    write_text(folder / f"{scene}.json", json.dumps(part, ensure_ascii=False))


def stored_key(folder: Path, scene: str) -> str:
    """The key of a scan's part; empty where there is none."""
    try:
        with (folder / f"{scene}.json").open(encoding="utf-8") as file:
            found = re.match(r'\{"key": "([^"]*)"', file.read(_KEY_CHARACTERS))
    except (OSError, ValueError):
        return ""
    return found[1] if found else ""


def asked_file(out: Path, recipe: str) -> Path:
    """Which scans the tasks of a cluster have put together."""
    return out / PARTS_DIR / f"{recipe}.asked.json"


def remove_parts(out: Path, recipe: str) -> None:
    """Remove a recipe's parts once `questions.jsonl` has their rows."""
    shutil.rmtree(parts_folder(out, recipe), ignore_errors=True)
    asked_file(out, recipe).unlink(missing_ok=True)
    folder = out / PARTS_DIR
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
