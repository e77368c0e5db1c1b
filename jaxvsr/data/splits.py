"""`splits.json`: which scenes are for training and which are held out, split by room."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxvsr.data.scene_names import check_scene_name
from jaxvsr.errors import InputError, prefixed
from jaxvsr.files import json_sha256, read_json, write_text

SPLITS_FILE = "splits.json"
SPLITS = ("train", "heldout")
SEAL = "sha256"  # in splits.json: the checksum of the rest
SCHEMA = 1  # of the folder's text files: questions.jsonl, splits.json, subsets.json
# Also within longer names: a picture taken from a scan belongs to its room.
_SCANNET_NAME = re.compile(r"(?<![A-Za-z0-9])(scene\d{4})_\d{2}(?![0-9])")


def room_of(scene: str) -> str:
    """The room of a scan: scene0000_00 and scene0000_01 are two walks through scene0000."""
    match = _SCANNET_NAME.search(scene)
    return match[1] if match else scene


def split_by_room(
    scenes: Iterable[str],
    heldout_share: float,
    *,
    seed: int = 0,
    always_heldout: Iterable[str] = (),
    before: Mapping[str, Iterable[str]] | None = None,
) -> dict[str, list[str]]:
    """{"train": […], "heldout": […]} of `scenes`, whatever their order.

    `round(heldout_share · rooms)` rooms are held out: at least those of `always_heldout` (benchmark scenes), and at
    least one if the share is not 0 and there are two rooms. Rooms in `before` stay where they were.
    """
    if not 0 <= heldout_share < 1:
        raise InputError(f"held-out share {heldout_share}: must be at least 0 and below 1")
    scenes = sorted(set(scenes))
    settled = {room_of(scene): split for split in SPLITS for scene in (before or {}).get(split, ())}
    heldout = {room for room, split in settled.items() if split == "heldout"} | {room_of(s) for s in always_heldout}
    rooms = {room_of(scene) for scene in scenes}
    wanted = round(heldout_share * len(rooms))
    if heldout_share > 0 and len(rooms) > 1:
        wanted = max(wanted, 1)
    free = sorted(rooms - set(settled) - heldout, key=lambda room: (_rank(room, seed), room))
    heldout |= set(free[: max(wanted - len(heldout & rooms), 0)])
    return {
        "train": [scene for scene in scenes if room_of(scene) not in heldout],
        "heldout": [scene for scene in scenes if room_of(scene) in heldout],
    }


def _rank(room: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{room}".encode()).hexdigest()


def read_splits(folder: Path) -> dict[str, list[str]]:
    """The splits of a data folder; `InputError` if the file is missing or malformed, or a room is in both splits."""
    path = folder / SPLITS_FILE
    splits = read_json(path, missing="`build_data.py questions` writes it")
    checksum, sealed = None, splits
    if isinstance(splits, dict):
        checksum = splits.pop(SEAL, None)
        sealed = dict(splits)
    schema = splits.pop("schema", SCHEMA) if isinstance(splits, dict) else SCHEMA
    if schema != SCHEMA:
        raise InputError(f"{path}: schema {schema!r}, but this jaxvsr reads schema {SCHEMA}; take a newer jaxvsr")
    if checksum is not None and checksum != json_sha256(sealed):
        raise InputError(
            f"{path}: is not what was written, by its {SEAL}; write it again, or delete that line if it is meant"
        )
    if not isinstance(splits, dict) or set(splits) != set(SPLITS):
        raise InputError(f'{path}: expected {{"train": [...], "heldout": [...]}}')
    for split, scenes in splits.items():
        if not isinstance(scenes, list) or not all(isinstance(scene, str) for scene in scenes):
            raise InputError(f"{path}: {split!r} must be a list of scene names")
    with prefixed(str(path)):
        for scene in (*splits["train"], *splits["heldout"]):
            check_scene_name(scene)
    both = {room_of(scene) for scene in splits["train"]} & {room_of(scene) for scene in splits["heldout"]}
    if both:
        raise InputError(f"{path}: room {min(both)} is in train and in heldout; it must be in one of them")
    return splits


def write_splits(folder: Path, splits: Mapping[str, Iterable[str]]) -> None:
    """Write a whole `splits.json`."""
    rows: dict[str, object] = {"schema": SCHEMA, **{split: sorted(splits[split]) for split in SPLITS}}
    text = json.dumps({**rows, SEAL: json_sha256(rows)}, indent=1, ensure_ascii=False)
    write_text(folder / SPLITS_FILE, text + "\n")
