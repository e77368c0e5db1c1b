"""Batches of scene trees: S scenes, Q questions of each, in an order that is a pure function of (seed, step).

An epoch of a folder has each of its scenes once. Each time Q of the scene's questions are asked, and none comes again
before all have been used. Folders with weights are interleaved (`a:2,b:1` gives a b a a b a …), each with its own
epochs. With paired views, scenes 2i and 2i + 1 of a step are a scene and its mirror image with the mirrored questions.
The order does not depend on workers, processes or where a run started: the step is the only state.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grain
import numpy as np
from absl import flags
from jaxtyping import Float, Float64, UInt8

from jaxvsr.data.features import FeatureStore
from jaxvsr.data.frames import FrameStore
from jaxvsr.data.questions import Question
from jaxvsr.data.scene_order import order_without_repeats
from jaxvsr.data.scene_pools import ScenePool, folder_pattern
from jaxvsr.errors import InputError
from jaxvsr.parent_process import end_worker_with_parent

T = TypeVar("T")
MID_GREY = 128
_ENDLESS = 2**40  # steps; Grain needs a length


@dataclasses.dataclass(frozen=True, eq=False)
class SceneSample:
    """One scene of a step: its frames (timestamps in seconds) and the Q questions asked of it.

    `mirrored`: frames and questions are those of the mirror image. `features`: the vision tower's, if they are stored;
    the frames are then zeros, of which only the shape is used.
    """

    scene: str
    frames: UInt8[np.ndarray, "F h w 3"]
    timestamps: Float64[np.ndarray, " F"]
    questions: tuple[Question, ...]
    mirrored: bool = False
    features: Float[np.ndarray, "rows units W"] | None = None
    images: bool = False  # the frames are a set of images, not a video


@dataclasses.dataclass(frozen=True, eq=False)
class SceneBatch:
    """This process's scenes of a step, in the order of the whole batch."""

    step: int
    scenes: tuple[SceneSample, ...]


@dataclasses.dataclass(frozen=True)
class ScheduledScene:
    """One scene of one step before its frames are read."""

    folder: Path
    scene: str
    questions: tuple[Question, ...]
    mirrored: bool = False


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which scenes and questions each step has, computed from its number."""

    pools: tuple[ScenePool, ...]
    scenes: int  # S; with paired views a scene and its mirror image are two
    questions: int
    seed: int

    @property
    def paired(self) -> bool:
        """Whether scenes 2i and 2i + 1 are a scene and its mirror image."""
        return bool(self.pools[0].scenes[0].mirrored)

    @property
    def rooms(self) -> int:
        """Scenes of a step, where a scene and its mirror image are one."""
        return self.scenes // 2 if self.paired else self.scenes

    def step_scenes(self, step: int) -> list[ScheduledScene]:
        """The S scenes of `step`, in the order of the whole batch."""
        pattern = folder_pattern([pool.weight for pool in self.pools])
        start = step * self.rooms
        scheduled = []
        for position in range(start, start + self.rooms):
            turn, offset = divmod(position, len(pattern))
            folder = pattern[offset]
            earlier = turn * pattern.count(folder) + pattern[:offset].count(folder)
            scheduled += self._views(folder, earlier)
        return scheduled

    def _views(self, folder: int, position: int) -> list[ScheduledScene]:
        """The scene at `position` of a folder's order, followed by its mirror image if views are paired."""
        pool = self.pools[folder]
        epoch, count = position // len(pool.scenes), len(pool.scenes)
        window = min(self.rooms, count)
        scene = pool.scenes[order_without_repeats((self.seed, folder), position, 1, count, window)[0]]
        # A scene comes once per epoch, so `epoch` times Q of its questions have been asked before.
        key, start, count = (self.seed, folder, _number(scene.name)), epoch * self.questions, len(scene.questions)
        asked = order_without_repeats(key, start, self.questions, count, self.questions)
        views = [ScheduledScene(pool.folder, scene.name, tuple(scene.questions[i] for i in asked))]
        if self.paired:
            views.append(
                ScheduledScene(pool.folder, scene.name, tuple(scene.mirrored[i] for i in asked), mirrored=True)
            )
        return views


def make_loader(
    pools: Sequence[ScenePool],
    *,
    scenes: int,
    questions: int,
    frames: int,
    seed: int,
    start_step: int = 0,
    steps: Sequence[int] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    transform: Callable[[SceneBatch], T] | None = None,
    blank: bool = False,
    features: str | None = None,
) -> grain.DatasetIterator:
    """An endless iterator of `SceneBatch`, or of what `transform` makes of it; `close()` ends its threads and workers.

    Args:
        pools: from `read_pools` with the same `questions` and `frames`; their weights need not sum to 1.
        scenes: S of the whole step; each process gets `scenes / process_count` consecutive ones.
        questions: Q, per scene.
        frames: F, per scene; the count must be stored.
        start_step: the step of the first batch.
        steps: only these, in this order, in place of all from `start_step` on.
        workers: processes that read and transform ahead; 0: threads of this process do.
        transform: applied to each batch where it is read; picklable if there are workers.
        blank: mid-grey frames of the same shape instead of the scene's, for the control run.
        features: name of a set of stored vision features to read instead of frames.

    Raises:
        InputError: S, Q and the number of processes do not fit together; raised before the first batch.
    """
    for name, value in (("scenes", scenes), ("questions", questions), ("frames", frames)):
        if value < 1:
            raise InputError(f"{name} {value}: must be at least 1")
    if seed < 0 or start_step < 0:
        raise InputError(f"seed {seed}, start_step {start_step}: must not be negative")
    if blank and features is not None:
        raise InputError("blank frames have no stored features: take data.features=off")
    schedule = Schedule(tuple(pools), scenes, questions, seed)
    if schedule.paired and scenes % (2 * process_count):
        raise InputError(
            f"scenes {scenes}: must be a multiple of {2 * process_count}, because a scene and its mirror image belong "
            "to one process (data.mirror=pairs)"
        )
    if scenes % process_count:
        raise InputError(f"scenes {scenes}: must be a multiple of the {process_count} processes")
    _check_enough_scenes(schedule)
    share = scenes // process_count
    reader = _Reader(
        schedule,
        frames=frames,
        share=slice(process_index * share, (process_index + 1) * share),
        blank=blank,
        features=features,
        transform=transform,
    )
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags, which are parsed only in absl.app
    numbers = grain.MapDataset.range(start_step, _ENDLESS) if steps is None else grain.MapDataset.source(list(steps))
    read = numbers.map(reader)
    if workers == 0:
        return iter(read.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))
    batches = read.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    return iter(batches.mp_prefetch(options, worker_init_fn=end_worker_with_parent))


def _check_enough_scenes(schedule: Schedule) -> None:
    pattern = folder_pattern([pool.weight for pool in schedule.pools])
    for index, pool in enumerate(schedule.pools):
        most = max(
            sum(pattern[(start + k) % len(pattern)] == index for k in range(schedule.rooms))
            for start in range(len(pattern))
        )
        if most > len(pool.scenes):
            pairs = " and their mirror images" if schedule.paired else ""
            raise InputError(
                f"{pool.folder}: {len(pool.scenes)} scenes, but a step of {schedule.scenes} takes {most} of them{pairs}"
            )


def _number(name: str) -> int:
    """A number for a scene's name, the same in every process (unlike Python's `hash`)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Step → batch. It is pickled for worker processes, so it has no open files."""

    schedule: Schedule
    frames: int
    share: slice
    blank: bool
    features: str | None
    transform: Callable[[SceneBatch], Any] | None

    def __call__(self, step: int) -> Any:
        scheduled = self.schedule.step_scenes(int(step))[self.share]
        batch = SceneBatch(int(step), tuple(self._read(one) for one in scheduled))
        return batch if self.transform is None else self.transform(batch)

    def _read(self, one: ScheduledScene) -> SceneSample:
        store = FrameStore(one.folder)
        if self.features is not None:
            features = FeatureStore(one.folder, self.features).read(one.scene, self.frames, mirrored=one.mirrored)
            height, width = store.attributes(one.scene)["height_width"]
            unseen = np.zeros((self.frames, height, width, 3), np.uint8)
            times = store.timestamps(one.scene, self.frames)
            return SceneSample(one.scene, unseen, times, one.questions, one.mirrored, features)
        frames = store.read(one.scene, self.frames)
        if one.mirrored:
            frames = frames.mirrored()
        pixels = np.full_like(frames.pixels, MID_GREY) if self.blank else frames.pixels
        images = store.is_image_set(one.scene)
        return SceneSample(one.scene, pixels, frames.timestamps, one.questions, one.mirrored, images=images)
