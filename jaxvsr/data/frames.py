"""Uniformly sampled frames of scans, decoded once and kept as uint8 in TensorStore.

    OUT/frames/<scene>/zarr.json      a zarr 3 array [F, H, W, 3]; its attributes say where the frames come from
    OUT/frames/<scene>/c/0/0/0/0      all frames in one shard, one chunk per frame, each with its CRC-32C

F is the union of the index sets of all stored frame counts; the attribute `index_sets` has each of them. The sets of 8
and of 32 frames of a video hardly overlap, so a count that is not stored cannot be read, only added. A scene that is a
set of images (an imported question about pictures) has all of them, with the rule "images".
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from jaxvsr.data.scene_names import check_scene_name
from jaxvsr.data.stored_arrays import array_attributes, read_array
from jaxvsr.errors import InputError

FRAMES_DIR = "frames"
SCHEMA = 1
_WHAT = "the frames"
# The rule of scenes that are sets of images: all are stored, and all are read for every count.
ALL_IMAGES = "images"


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
    """Frames of one scene in order of time; timestamps in seconds, `indices` into the source video."""

    pixels: UInt8[np.ndarray, "F H W 3"]
    timestamps: Float64[np.ndarray, " F"]
    indices: Int64[np.ndarray, " F"]

    def mirrored(self) -> Frames:
        """The same frames with left and right swapped."""
        return dataclasses.replace(self, pixels=np.ascontiguousarray(self.pixels[:, :, ::-1]))


class FrameStore:
    """Reads the frames of a data folder; safe to share between threads and to send to worker processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / FRAMES_DIR).is_dir():
            raise InputError(f"{self.folder}: no {FRAMES_DIR}/ folder; `build_data.py frames` writes it")

    def scenes(self) -> list[str]:
        """Names of the stored scenes, sorted."""
        return sorted(path.parent.name for path in (self.folder / FRAMES_DIR).glob("[!.]*/zarr.json"))

    def attributes(self, scene: str) -> Mapping[str, Any]:
        """Provenance of a scene's frames: source, sampling rule, index sets, timestamps, checksum."""
        return read_attributes(self.folder, scene)

    def counts(self, scene: str) -> tuple[int, ...]:
        """The frame counts that are stored."""
        return tuple(sorted(int(count) for count in self.attributes(scene)["index_sets"]))

    def positions(self, scene: str, frames: int) -> Int64[np.ndarray, " F"]:
        """Positions of a count's frames in the stored array; all positions of a set of images.

        Raises:
            InputError: this count is not stored; the message has the command that adds it.
        """
        attributes = self.attributes(scene)
        if self.is_image_set(scene):
            return np.arange(len(attributes["indices"]))
        if str(frames) not in attributes["index_sets"]:
            stored = ", ".join(map(str, self.counts(scene)))
            raise InputError(
                f"{self.folder}: {scene} has {stored} frames stored, not {frames}; add them with "
                f"python launch/build_data.py frames SCANS {self.folder} --frames {frames} "
                f"--max-pixels {attributes['max_pixels']}"
                + (f" --rule {attributes['rule']}" if attributes["rule"] != "linspace" else "")
            )
        wanted = np.asarray(attributes["index_sets"][str(frames)], np.int64)
        return np.searchsorted(np.asarray(attributes["indices"], np.int64), wanted)

    def is_image_set(self, scene: str) -> bool:
        """Whether the scene is a set of images, which the model sees as images, rather than a video."""
        return bool(self.attributes(scene)["rule"] == ALL_IMAGES)

    def timestamps(self, scene: str, frames: int) -> Float64[np.ndarray, " F"]:
        """Seconds of a count's frames in the source video."""
        positions = self.positions(scene, frames)
        return np.asarray(self.attributes(scene)["timestamps"], np.float64)[positions]

    def identity(self, scene: str, frames: int) -> list[Any]:
        """JSON values that differ where `read` would give other pixels or times, from the attributes alone; and also
        where another count was added, since the checksum is of all that is stored.
        """
        attributes, positions = self.attributes(scene), self.positions(scene, frames)
        times = self.timestamps(scene, frames)
        return [attributes["pixels_sha256"], positions.tolist(), times.tolist(), attributes["rule"]]

    def read(self, scene: str, frames: int) -> Frames:
        """The `frames` uniformly sampled frames of `scene`; all images of a set of images.

        Raises:
            InputError: the scene or this count is not stored, or a chunk fails its checksum.
        """
        positions = self.positions(scene, frames)
        attributes = self.attributes(scene)
        pixels = read_array(scene_frames_dir(self.folder, scene), _WHAT, positions)
        return Frames(pixels, self.timestamps(scene, frames), np.asarray(attributes["indices"], np.int64)[positions])

    def check(self, scene: str) -> None:
        """Read all frames; `InputError` if they differ from their checksum."""
        attributes = self.attributes(scene)
        pixels = read_array(scene_frames_dir(self.folder, scene), _WHAT)
        if pixels_sha256(pixels) != attributes["pixels_sha256"]:
            raise InputError(
                f"{scene_frames_dir(self.folder, scene)}: pixels differ from their checksum; write them again"
            )


def read_attributes(folder: Path, scene: str) -> Mapping[str, Any]:
    """The attributes of a scene's array.

    Raises:
        InputError: no frames of this scene, or its `zarr.json` was not written by jaxvsr.
    """
    try:
        return array_attributes(scene_frames_dir(Path(folder), scene), _WHAT, SCHEMA)
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no frames of {scene}; python launch/build_data.py frames SCANS {folder} adds them"
        ) from None


def scene_frames_dir(folder: Path, scene: str) -> Path:
    """The folder of a scene's array."""
    check_scene_name(scene)
    return folder / FRAMES_DIR / scene


def pixels_sha256(pixels: UInt8[np.ndarray, "F H W 3"]) -> str:
    """Checksum of decoded frames, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
