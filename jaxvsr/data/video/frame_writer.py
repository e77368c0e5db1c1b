"""Write the frames of scenes into a data folder, in parallel and resumable; broken sources are listed.

It uses threads, because decoding, resizing and compressing release the interpreter lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxvsr.data.frames import ALL_IMAGES, SCHEMA, pixels_sha256, read_attributes, scene_frames_dir
from jaxvsr.data.stored_arrays import recover_array, write_array
from jaxvsr.data.video.frame_sampling import SIDE_OF_TOKEN, FrameRate, SamplingRule, frame_count, sample_indices
from jaxvsr.data.video.picture_files import IMAGE_LIMIT_PIXELS
from jaxvsr.data.video.scan_frames import FrameSource
from jaxvsr.data.video.scene_sources import SceneSource
from jaxvsr.errors import InputError, hits_all_files
from jaxvsr.pixel_budget import MERGED_PATCH, PixelLimits, smart_resize


@dataclasses.dataclass(frozen=True)
class FrameSettings:
    """What is stored per scene: frame counts, pixel budget per frame, sampling rule.

    `rate` adds the count that the rule takes from a video at that many frames per second. Sets of images are stored
    whole, whatever the counts.
    """

    counts: tuple[int, ...]
    max_pixels: int
    rule: SamplingRule = "linspace"
    rate: FrameRate | None = None

    def __post_init__(self) -> None:
        if not (self.counts or self.rate) or min(self.counts, default=1) < 1:
            raise InputError(f"frames {self.counts}: must be one or more counts of at least 1")
        if self.rule not in get_args(SamplingRule):
            raise InputError(f"sampling rule {self.rule!r} is not one of {', '.join(get_args(SamplingRule))}")
        PixelLimits.at_most(self.max_pixels, factor=self.side_of_token)  # refuses a budget below one merged patch
        if self.max_pixels > IMAGE_LIMIT_PIXELS:
            raise InputError(f"max_pixels {self.max_pixels}: must be at most {IMAGE_LIMIT_PIXELS}, as for images")

    @property
    def side_of_token(self) -> int:
        """Sides of stored frames are multiples of this many pixels."""
        return SIDE_OF_TOKEN.get(self.rule, MERGED_PATCH)


class Outcome(enum.IntEnum):
    """What became of a scene's frames; false if nothing was written."""

    KEPT = 0
    WRITTEN = 1
    REPLACED = 2


@dataclasses.dataclass(frozen=True)
class FrameReport:
    """Scenes written now, scenes that were there already, broken scenes with the reason; and the flaws of the others,
    summed over scenes. `replaced`: those written whose stored frames were of another source.
    """

    written: tuple[str, ...]
    kept: tuple[str, ...]
    broken: dict[str, str]
    flaws: dict[str, int]
    replaced: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What to print about it."""
        flaws = ", ".join(f"{name} {count}" for name, count in self.flaws.items())
        return [
            *(f"replaced: {scene}: the frames that were stored are of another source" for scene in self.replaced),
            *([f"flaws worked around: {flaws}"] if flaws else []),
            f"frames of {len(self.written)} scans written, of {len(self.kept)} there already, "
            f"{len(self.broken)} broken",
        ]


def write_frames(
    scenes: Sequence[SceneSource | Path],
    folder: Path,
    settings: FrameSettings,
    *,
    workers: int | None = None,
    on_done: Callable[[str], object] = lambda scene: None,
) -> FrameReport:
    """Store the frames of all scenes (or scan folders); broken ones are listed and skipped.

    `on_done` is called after each scene. If all scenes are broken, nothing is written.
    """
    sources = [_source_of(scene) for scene in scenes]
    workers = workers or os.cpu_count() or 1
    threads = max(workers // max(len(sources), 1), 1)  # per scene, if there are fewer scenes than workers

    def write(source: SceneSource) -> Outcome | str:
        try:
            return write_scene_frames(source, folder, settings, threads=threads)
        except (InputError, OSError) as error:
            if hits_all_files(error):
                raise
            return " ".join(str(error).split())

    outcomes: dict[str, Outcome | str] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            for source, outcome in zip(sources, pool.map(write, sources), strict=True):
                outcomes[source.scene] = outcome
                on_done(source.scene)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    flaws: Counter[str] = Counter()
    for scene, outcome in outcomes.items():
        if not isinstance(outcome, str):
            flaws.update(read_attributes(folder, scene).get("flaws", {}))
    written = (Outcome.WRITTEN, Outcome.REPLACED)
    return FrameReport(
        written=tuple(scene for scene, outcome in outcomes.items() if outcome in written),
        kept=tuple(scene for scene, outcome in outcomes.items() if outcome is Outcome.KEPT),
        broken={scene: outcome for scene, outcome in outcomes.items() if isinstance(outcome, str)},
        flaws=dict(sorted(flaws.items())),
        replaced=tuple(scene for scene, outcome in outcomes.items() if outcome is Outcome.REPLACED),
    )


def _source_of(scene: SceneSource | Path) -> SceneSource:
    return scene if isinstance(scene, SceneSource) else SceneSource(scene.name, (scene,))


def write_scene_frames(
    scene: SceneSource | Path, folder: Path, settings: FrameSettings, *, threads: int = 1
) -> Outcome:
    """Store the frames of one scene; they are kept if they are there already, from a source of the same size or one
    that was deleted.

    Counts that were stored before are kept: the array is rewritten with the union, all of it from the source as it is
    now.

    Raises:
        InputError: the source is broken or too short, or frames with another budget or rule are there.
    """
    described = _source_of(scene)
    rule = ALL_IMAGES if described.images else settings.rule
    target = scene_frames_dir(folder, described.scene)
    recover_array(target)
    before = read_attributes(folder, described.scene) if (target / "zarr.json").exists() else None
    if before is not None:
        for name, asked in (("max_pixels", settings.max_pixels), ("rule", rule)):
            if before[name] != asked:
                raise InputError(f"{target} was written with {name} {before[name]}, not {asked}; use another folder")
    stored = set() if before is None else {int(count) for count in before["index_sets"]}
    # A source may be deleted once its frames are stored.
    enough = described.images or (settings.rate is None and set(settings.counts) <= stored)
    if before is not None and enough and not described.is_there():
        return Outcome.KEPT
    if before is not None and enough and described.is_still(before["source"], before["source_bytes"]):
        return Outcome.KEPT  # in a bucket, without bringing it
    with described.opened() as source:
        return _write(source, described, target, settings, before, threads)


def _write(
    source: FrameSource,
    described: SceneSource,
    target: Path,
    settings: FrameSettings,
    before: Mapping[str, Any] | None,
    threads: int,
) -> Outcome:
    """`write_scene_frames`, from a source that is open; `before`: what is stored at `target`."""
    rule = ALL_IMAGES if described.images else settings.rule
    stored = set() if before is None else {int(count) for count in before["index_sets"]}
    counts = _counts(source, described, settings)
    outcome = Outcome.WRITTEN
    if before is not None:
        same = before["source"] == source.name and before["source_bytes"] == source.bytes_on_disk
        if same and counts <= stored:
            return Outcome.KEPT
        same = same and before["source_frames"] == len(source)
        if not same or source.sha256(before["indices"]) != before["source_frames_sha256"]:
            outcome = Outcome.REPLACED
        counts = counts if described.images else counts | stored
    if described.images:
        wanted = {count: list(range(count)) for count in counts}
    else:
        wanted = {
            count: sample_indices(len(source), count, settings.rule, source.fps).tolist() for count in sorted(counts)
        }
    indices = sorted(set().union(*wanted.values()))
    pixels, first = _read(source, indices, settings, threads)
    attributes = {
        "schema": SCHEMA,
        "scene": described.scene,
        "source": source.name,
        "source_bytes": source.bytes_on_disk,
        "source_frames": len(source),
        "source_height_width": list(first),
        "source_frames_sha256": source.sha256(indices),
        "flaws": source.flaws,
        "rule": rule,
        "max_pixels": settings.max_pixels,
        "height_width": list(pixels.shape[1:3]),
        "resize": "bicubic",
        "indices": indices,
        "timestamps": [round(float(t), 6) for t in source.timestamps(indices)],
        "index_sets": {str(count): chosen for count, chosen in wanted.items()},
        "pixels_sha256": pixels_sha256(pixels),
    }
    made = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_array(target, pixels, attributes)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # another thread may have written a scene
                target.parent.rmdir()
        raise
    return outcome


def has_frames(folder: Path, scene: SceneSource, settings: FrameSettings) -> bool:
    """Whether frames of a scene are stored with these counts, from whatever source."""
    if not (scene_frames_dir(folder, scene.scene) / "zarr.json").exists():
        return False
    stored = {int(count) for count in read_attributes(folder, scene.scene)["index_sets"]}
    return scene.images or set(settings.counts) <= stored


def _read(
    source: FrameSource, indices: Sequence[int], settings: FrameSettings, threads: int
) -> tuple[UInt8[np.ndarray, "F h w 3"], tuple[int, int]]:
    """The frames, resized, and the height and width that they had."""
    frames = source.frames(indices)
    first = next(frames)
    limits = PixelLimits.at_most(settings.max_pixels, factor=settings.side_of_token)
    height, width = smart_resize(first.shape[0], first.shape[1], limits, settings.side_of_token)
    pixels = np.empty((len(indices), height, width, 3), np.uint8)

    def resize(position: int, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        pixels[position] = _resized(frame, height, width)

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[None]] = deque()
        for position, frame in enumerate(itertools.chain([first], frames)):
            waiting.append(pool.submit(resize, position, frame))
            if len(waiting) > 2 * threads:  # whole frames are large
                waiting.popleft().result()
        for resized in waiting:
            resized.result()
    return pixels, first.shape[:2]


def _counts(source: FrameSource, described: SceneSource, settings: FrameSettings) -> set[int]:
    if described.images:
        return {len(source)}
    counts = set(settings.counts)
    if settings.rate is not None:
        counts.add(frame_count(len(source), source.fps, settings.rate, settings.rule))
    return counts


def _resized(frame: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Bicubic with antialiasing (PIL), the filter of Qwen's image processor; unchanged if the size is right."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
