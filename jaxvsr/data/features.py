"""Vision features of scenes in TensorStore, computed once for a frozen vision tower.

    DATA/features/<set>/<scene>/<count>[-mirrored]/        [rows, units, W]: a row is a temporal patch (two frames),
                                                           with its merged tokens in the language model's order

W is the width of the language model, or with DeepStack (Qwen3-VL) several times it: the arrays that the tower gives for
each token, side by side. The attribute `parts` names what made each.

A set belongs to one vision tower's weights and one compute dtype; both are in its name. The attributes of an array say
which frames, at which size, the features were made from; `stale_reason` compares them with the frames as they are now.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxvsr.data.data_folder import bullets, write_card_section
from jaxvsr.data.frames import FrameStore, pixels_sha256
from jaxvsr.data.scene_names import check_scene_name
from jaxvsr.data.stored_arrays import array_attributes, read_array, write_array

FEATURES_DIR = "features"
SCHEMA = 1
_WHAT = "the features"
# Attributes of the frames that features depend on, besides the pixels.
_FRAME_FACTS = ("source", "source_bytes", "source_frames", "rule", "resize", "height_width")


@dataclasses.dataclass(frozen=True)
class FeatureStore:
    """One set of features of a data folder; safe to share between threads and to send to worker processes."""

    folder: Path
    name: str

    def path(self, scene: str, frames: int, *, mirrored: bool) -> Path:
        """The folder of a scene's array."""
        check_scene_name(scene)
        return self.folder / FEATURES_DIR / self.name / scene / (f"{frames}-mirrored" if mirrored else str(frames))

    def has(self, scene: str, frames: int, *, mirrored: bool) -> bool:
        """Whether a scene's array is there, whatever it was made from."""
        return (self.path(scene, frames, mirrored=mirrored) / "zarr.json").exists()

    def read(self, scene: str, frames: int, *, mirrored: bool) -> Float[np.ndarray, "rows units W"]:
        """The features of a scene, in the dtype of their computation.

        Raises:
            InputError: they are not stored, or a chunk fails its checksum.
        """
        return read_array(self.path(scene, frames, mirrored=mirrored), _WHAT)

    def write(
        self,
        scene: str,
        frames: int,
        features: Float[np.ndarray, "rows units W"],
        *,
        mirrored: bool,
        size: tuple[int, int],
        model: str,
        parts: Sequence[str] = ("merger",),
    ) -> None:
        """Store the features of a scene's `frames` frames, which the model saw at `size` (height, width; pixels).

        `parts`: what made each of the arrays that stand side by side.
        """
        target = self.path(scene, frames, mirrored=mirrored)
        target.parent.mkdir(parents=True, exist_ok=True)
        attributes = {
            "schema": SCHEMA,
            "scene": scene,
            "model": model,
            "parts": list(parts),
            "mirrored": mirrored,
            "model_height_width": list(size),
            **_frame_key(FrameStore(self.folder), scene, frames),
            "features_sha256": hashlib.sha256(np.ascontiguousarray(features).view(np.uint8).data).hexdigest(),
        }
        write_array(target, features, attributes, compress=False)

    def attributes(self, scene: str, frames: int, *, mirrored: bool) -> Mapping[str, Any]:
        """What a scene's features were made from, and their checksum.

        Raises:
            FileNotFoundError: they are not stored.
            InputError: their `zarr.json` was not written by jaxvsr.
        """
        return array_attributes(self.path(scene, frames, mirrored=mirrored), _WHAT, SCHEMA)

    def stale_reason(self, scene: str, frames: int, *, mirrored: bool, size: tuple[int, int]) -> str | None:
        """Why the features of a scene do not fit its frames at `size`; None if they fit.

        Frames that were rewritten are read and compared, so that adding another frame count keeps the features valid.
        """
        try:
            stored = self.attributes(scene, frames, mirrored=mirrored)
        except FileNotFoundError:
            return "not stored"
        if stored["model_height_width"] != list(size):
            return f"made at {_pixels(stored['model_height_width'])} pixels, but the model sees {_pixels(size)}"
        frame_store = FrameStore(self.folder)
        attributes = frame_store.attributes(scene)
        if any(stored[name] != attributes[name] for name in _FRAME_FACTS):
            return "made from other frames"
        same = stored["all_frames_sha256"] == attributes["pixels_sha256"]
        if not same and stored["frames_sha256"] != pixels_sha256(frame_store.read(scene, frames).pixels):
            return "made from other frames"
        return None


def stored_sets(folder: Path) -> dict[str, str]:
    """The name of each set in a data folder → the model that made it."""
    sets = {}
    for path in sorted((folder / FEATURES_DIR).glob("*/*/[!.]*/zarr.json")):
        name = path.parents[2].name
        if name not in sets:
            sets[name] = str(array_attributes(path.parent, _WHAT, SCHEMA)["model"])
    return sets


def write_features_section(folder: Path, name: str, model: str, dtype: str, max_pixels: int | None) -> None:
    """Write the card's section about a set of features, with the arrays that are stored now."""

    def section() -> str:
        arrays = sum(1 for _ in (folder / FEATURES_DIR / name).glob("*/[!.]*/zarr.json"))
        return bullets({"model": model, "dtype": dtype, "max_pixels": max_pixels or "as stored", "arrays": arrays})

    write_card_section(folder, f"Features: {name}", section)


def _frame_key(store: FrameStore, scene: str, frames: int) -> dict[str, Any]:
    """Attributes that identify the frames: facts about their array, checksums of all of it and of these frames."""
    attributes = store.attributes(scene)
    return {
        "frames": frames,
        **{name: attributes[name] for name in _FRAME_FACTS},
        "all_frames_sha256": attributes["pixels_sha256"],
        "frames_sha256": pixels_sha256(store.read(scene, frames).pixels),
    }


def _pixels(size: tuple[int, ...] | list[int]) -> str:
    return "×".join(map(str, size))
