"""When objects are first seen, from the 2D instance masks of a scan.

One pass decodes every mask and stores how many pixels of each frame each object fills. That is small, and enough for
every recipe, whatever share of whichever frames it requires for an object to be seen:

    OUT/appearances/<scene>.npz     frames [F], times_s [F], object_ids [K], pixels [F, K], frame_pixels [F], source

`source` identifies the masks by size and content: changed masks are counted again. Each scan is written when it is
done, so a stopped run goes on with the next one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from jaxvsr.data.scannet.instance_masks import InstanceMasks, PixelCounts
from jaxvsr.data.scannet.read_scan import ScannedScene, instance_masks_path, sens_path
from jaxvsr.data.scannet.sens import SensReader
from jaxvsr.data.video.frame_sampling import sample_indices
from jaxvsr.errors import InputError
from jaxvsr.files import replacing

APPEARANCES_DIR = "appearances"
FRAMES_PER_SECOND = 30.0  # of ScanNet's sensors, for scans without a .sens, which has the times
_SCHEMA = 1


def count_appearances(scan_dir: Path, cache_dir: Path | None) -> tuple[PixelCounts | None, dict[str, int]]:
    """How much of each frame each object fills, and the flaws found; counted once per scan if there is a cache folder.

    A scan without `_2d-instance-filt.zip` has None and the flaw `no_instance_masks`. The flaw `no_frame_times`: there
    is no readable `.sens`, so frames are taken to be 1/30 s apart.

    Raises:
        InputError: the masks cannot be read.
    """
    path = instance_masks_path(scan_dir)
    if not path.is_file():
        return None, {"no_instance_masks": 1}
    masks = InstanceMasks(path)
    sens_bytes = sens_path(scan_dir).stat().st_size if sens_path(scan_dir).is_file() else 0
    source = f"{_SCHEMA} {path.stat().st_size} {masks.fingerprint()} {sens_bytes}"
    cached = None if cache_dir is None else cache_dir / f"{scan_dir.name}.npz"
    stored = None if cached is None else _load(cached, source)
    if stored is None:
        stored = _count(scan_dir, masks)
        if cached is not None:
            _store(cached, source, stored)
    frame_pixels = np.maximum(stored["frame_pixels"], 1)
    counts = PixelCounts(
        frames=stored["frames"],
        times_s=stored["times_s"],
        object_ids=stored["object_ids"],
        shares=stored["pixels"] / frame_pixels[:, None],
    )
    return counts, {"no_frame_times": 1} if stored["guessed_times"].any() else {}


def _count(scan_dir: Path, masks: InstanceMasks) -> dict[str, Any]:
    counts = masks.count_pixels()
    frames = np.array(masks.frames, np.int64)
    times = frame_times(scan_dir, frames)
    seen = np.flatnonzero(counts[:, 1:].any(axis=0))
    return {
        "frames": frames,
        "times_s": frames / FRAMES_PER_SECOND if times is None else times,
        "guessed_times": np.array([times is None]),
        "object_ids": seen.astype(np.int64),
        "pixels": counts[:, 1 + seen],
        "frame_pixels": counts.sum(axis=1),
    }


def frame_times(scan_dir: Path, frames: np.ndarray) -> Float64[np.ndarray, " F"] | None:
    """Seconds since the first frame of the `.sens`; None if it is missing, broken, or has fewer frames."""
    try:
        timestamps = SensReader(sens_path(scan_dir)).timestamps
    except InputError:
        return None
    return timestamps[frames] if len(frames) == 0 or frames.max() < len(timestamps) else None


def _load(path: Path, source: str) -> dict[str, Any] | None:
    """The stored counts; None if they are missing, unreadable or of another source, and are to be counted again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["source"]) != source:
                return None
            return {name: stored[name] for name in stored.files}
    except Exception:  # a missing file, or a zip that is broken in any way
        return None


def _store(path: Path, source: str, counts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as out:
        np.savez_compressed(out, source=np.array(source), **counts)


def first_appearances(
    counts: PixelCounts, *, minimum_share: float = 0.0, sampled_frames: int | None = None
) -> dict[int, int]:
    """objectId of each object that is seen → the row of `counts.frames` in which it is first seen.

    Args:
        counts: of one scan.
        minimum_share: share of a frame that an object must fill to be seen; 0: any pixel.
        sampled_frames: use only this many frames, evenly spread from the first to the last; None: all.
    """
    seen = _seen(counts, minimum_share)
    if sampled_frames is not None and sampled_frames < len(seen):
        looked_at = np.zeros((len(seen), 1), bool)
        looked_at[sample_indices(len(seen), sampled_frames)] = True
        seen = seen & looked_at
    first = seen.argmax(axis=0) if len(seen) else np.zeros(0, np.int64)
    return {
        int(object_id): int(row)
        for object_id, row, ever in zip(counts.object_ids, first, np.asarray(seen.any(axis=0)), strict=True)
        if ever
    }


def _seen(counts: PixelCounts, minimum_share: float) -> Bool[np.ndarray, "F K"]:
    return (counts.shares > 0) & (counts.shares >= minimum_share)


def first_times(
    scene: ScannedScene, category_of_object: dict[int, str], *, minimum_share: float, sampled_frames: int | None
) -> dict[str, float]:
    """Category → seconds until any of its objects is first seen; without categories that are never seen."""
    if scene.pixel_counts is None:
        return {}
    rows = first_appearances(scene.pixel_counts, minimum_share=minimum_share, sampled_frames=sampled_frames)
    times: dict[str, float] = {}
    for object_id, category in category_of_object.items():
        if object_id in rows:
            seconds = float(scene.pixel_counts.times_s[rows[object_id]])
            times[category] = min(seconds, times.get(category, seconds))
    return times
