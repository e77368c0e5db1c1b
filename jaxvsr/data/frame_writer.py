"""Writes the frames of scans into a data folder: resumable, in parallel, broken sources by name.

Threads suffice: decoding, resizing and compressing release the interpreter lock.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tensorstore as ts
from jaxtyping import UInt8

from jaxvsr.data.frame_sampling import SamplingRule, sample_indices
from jaxvsr.data.frame_sources import open_source
from jaxvsr.data.frames import FRAMES_DIR, SCHEMA, pixels_sha256, read_attributes, scene_frames_dir
from jaxvsr.data.resize import resize_frame, smart_resize
from jaxvsr.errors import InputError


@dataclasses.dataclass(frozen=True)
class FrameSettings:
    """What is stored of every scene: the frame counts, the pixel budget of one frame, the sampling rule."""

    counts: tuple[int, ...]
    max_pixels: int
    rule: SamplingRule = "linspace"

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1:
            raise InputError(f"frames {self.counts}: must be one or more counts of at least 1")
        if self.rule not in get_args(SamplingRule):
            raise InputError(f"sampling rule {self.rule!r} is not one of {', '.join(get_args(SamplingRule))}")
        smart_resize(480, 640, self.max_pixels)  # refuses a budget below one patch


@dataclasses.dataclass(frozen=True)
class FrameReport:
    """What a run did: scans written now, scans that lay there already, and broken ones with the reason."""

    written: tuple[str, ...]
    kept: tuple[str, ...]
    broken: dict[str, str]


def write_frames(
    scan_dirs: Sequence[Path],
    folder: Path,
    settings: FrameSettings,
    *,
    workers: int | None = None,
    on_done: Callable[[str], object] = lambda scene: None,
) -> FrameReport:
    """Store the frames of all scans; goes on past broken ones and lists them. `on_done` is called after each scan."""
    (folder / FRAMES_DIR).mkdir(parents=True, exist_ok=True)

    def write(scan_dir: Path) -> bool | str:
        try:
            return write_scene_frames(scan_dir, folder, settings)
        except (InputError, OSError) as error:
            return " ".join(str(error).split())

    outcomes: dict[str, bool | str] = {}
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            for scan_dir, outcome in zip(scan_dirs, pool.map(write, scan_dirs), strict=True):
                outcomes[scan_dir.name] = outcome
                on_done(scan_dir.name)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return FrameReport(
        written=tuple(scene for scene, outcome in outcomes.items() if outcome is True),
        kept=tuple(scene for scene, outcome in outcomes.items() if outcome is False),
        broken={scene: outcome for scene, outcome in outcomes.items() if isinstance(outcome, str)},
    )


def write_scene_frames(scan_dir: Path, folder: Path, settings: FrameSettings) -> bool:
    """Store the frames of one scan; False where they lie there already, from a source of the same size.

    Counts stored before are kept: the array is written anew with the union, all of it from the source as it is now.

    Raises:
        InputError: the source is broken or too short, or frames of another budget or rule lie there.
    """
    scene = scan_dir.name
    source = open_source(scan_dir)
    counts = set(settings.counts)
    target = scene_frames_dir(folder, scene)
    if (target / "zarr.json").exists():
        before = read_attributes(folder, scene)
        for name, asked in (("max_pixels", settings.max_pixels), ("rule", settings.rule)):
            if before[name] != asked:
                raise InputError(f"{target} was written with {name} {before[name]}, not {asked}; take another folder")
        stored = {int(count) for count in before["index_sets"]}
        if before["source_bytes"] == source.bytes_on_disk and counts <= stored:
            return False
        counts |= stored
    wanted = {count: sample_indices(len(source), count, settings.rule).tolist() for count in sorted(counts)}
    indices = sorted(set().union(*wanted.values()))
    first = source.frame(indices[0])
    height, width = smart_resize(first.shape[0], first.shape[1], settings.max_pixels)
    pixels = np.stack([resize_frame(source.frame(index), height, width) for index in indices])
    attributes = {
        "schema": SCHEMA,
        "scene": scene,
        "source": source.name,
        "source_bytes": source.bytes_on_disk,
        "source_frames": len(source),
        "source_height_width": list(first.shape[:2]),
        "source_frames_sha256": source.sha256(indices),
        "rule": settings.rule,
        "max_pixels": settings.max_pixels,
        "height_width": [height, width],
        "resize": "bicubic",
        "indices": indices,
        "timestamps": [round(float(t), 6) for t in source.timestamps(indices)],
        "index_sets": {str(count): chosen for count, chosen in wanted.items()},
        "pixels_sha256": pixels_sha256(pixels),
    }
    _write_array(target, pixels, attributes)
    return True


def _array_metadata(shape: Sequence[int], attributes: Mapping[str, Any]) -> dict[str, Any]:
    crc32c = {"name": "crc32c"}
    inner = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}, crc32c]
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, crc32c]
    sharding = {"chunk_shape": [1, *shape[1:]], "codecs": inner, "index_codecs": index}
    return {
        "shape": list(shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": dict(attributes),
    }


def _write_array(target: Path, pixels: UInt8[np.ndarray, "F H W 3"], attributes: Mapping[str, Any]) -> None:
    """Write beside `target`, then rename: an interrupted run leaves nothing that looks whole."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{partial}{os.sep}"},
        "metadata": _array_metadata(pixels.shape, attributes),
        "create": True,
        "store_data_equal_to_fill_value": True,  # black frames are data; a missing chunk is an error
    }
    ts.open(spec).result().write(pixels).result()
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
