"""Batches of scene trees: S scenes, Q questions of each, in an order that is a pure function of (seed, step).

An epoch of a folder visits each of its scenes once. A visit deals Q of the scene's questions, and none of them comes
again before all have been used. Folders with weights are interleaved (`a:2,b:1` gives a b a a b a …), each with its own
epochs. Nothing about the order depends on workers, processes or where a run started: the step alone is the state.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import grain
import numpy as np
from absl import flags
from jaxtyping import Float64, UInt8

from jaxvsr.data.dealing import deal
from jaxvsr.data.folder import QUESTIONS_FILE
from jaxvsr.data.frames import FrameStore
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.splits import SPLITS, SPLITS_FILE, read_splits
from jaxvsr.errors import InputError

T = TypeVar("T")
MID_GREY = 128
_ENDLESS = 2**40  # steps: a range for Grain, not a list
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class SceneSample:
    """One scene of a step: its frames (timestamps in seconds) and the Q questions asked of it."""

    scene: str
    frames: UInt8[np.ndarray, "F H W 3"]
    timestamps: Float64[np.ndarray, " F"]
    questions: tuple[Question, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class SceneBatch:
    """This process's share of the S scenes of a step, in the order of the whole batch."""

    step: int
    scenes: tuple[SceneSample, ...]


@dataclasses.dataclass(frozen=True)
class ScenePool:
    """What one folder offers: its scenes of a split, each with the questions that may be asked."""

    folder: Path
    weight: float
    scenes: tuple[tuple[str, tuple[Question, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Visit:
    """One scene of one step before its frames are read."""

    folder: Path
    scene: str
    questions: tuple[Question, ...]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which scenes and questions a step holds: arithmetic on the step, nothing else."""

    pools: tuple[ScenePool, ...]
    scenes: int
    questions: int
    seed: int

    def visits(self, step: int) -> list[Visit]:
        """The S visits of `step`, in the order of the whole batch."""
        pattern = folder_pattern([pool.weight for pool in self.pools])
        start = step * self.scenes
        visits = []
        for position in range(start, start + self.scenes):
            turn, offset = divmod(position, len(pattern))
            folder = pattern[offset]
            earlier = turn * pattern.count(folder) + pattern[:offset].count(folder)
            visits.append(self._visit(folder, earlier))
        return visits

    def _visit(self, folder: int, position: int) -> Visit:
        """Visit number `position` to the scenes of one folder."""
        pool = self.pools[folder]
        epoch, count = position // len(pool.scenes), len(pool.scenes)
        window = min(self.scenes, count)
        scene, questions = pool.scenes[deal((self.seed, folder), position, 1, count, window)[0]]
        # A scene has its turn once an epoch, so this is its visit number `epoch`.
        asked = deal(
            (self.seed, folder, _number(scene)), epoch * self.questions, self.questions, len(questions), self.questions
        )
        return Visit(pool.folder, scene, tuple(questions[i] for i in asked))


def make_loader(
    folders: Sequence[tuple[Path, float]],
    *,
    split: str,
    scenes: int,
    questions: int,
    frames: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    transform: Callable[[SceneBatch], T] | None = None,
    blank: bool = False,
    question_types: Sequence[str] | None = None,
    skip_short_scenes: bool = False,
) -> grain.DatasetIterator:
    """An endless iterator of `SceneBatch`, or of what `transform` makes of it; `close()` ends its threads and workers.

    Args:
        folders: data folders, each with its share of the scenes (weights need not sum to 1).
        split: "train" or "heldout".
        scenes: S, of the whole step; each process gets a contiguous `scenes / process_count` of them.
        questions: Q of each scene.
        frames: how many frames of each scene; this count must be stored.
        start_step: the first batch is that of this step.
        workers: processes that read and transform ahead; 0 reads ahead in threads.
        transform: runs where the batch is read; with workers it has to be picklable.
        blank: mid-grey frames of the same shape instead of the scenes' own: the control run.
        question_types: only these; None takes all.
        skip_short_scenes: leave out scenes with fewer than `questions` questions (their number is logged).

    Raises:
        InputError: anything missing, or S, Q and the processes do not fit; always before the first batch.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    for name, value, least in (("scenes", scenes, 1), ("questions", questions, 1), ("frames", frames, 1)):
        if value < least:
            raise InputError(f"{name} {value}: must be at least {least}")
    if seed < 0 or start_step < 0:
        raise InputError(f"seed {seed}, start_step {start_step}: must not be negative")
    if scenes % process_count:
        raise InputError(f"scenes {scenes}: must be a multiple of the {process_count} processes")
    pools = tuple(
        scene_pool(Path(folder), weight, split, questions, frames, question_types, skip_short_scenes)
        for folder, weight in folders
    )
    if not pools:
        raise InputError("no data folder given; expected DIR or DIR:weight,…")
    _check_enough_scenes(pools, scenes)
    share = scenes // process_count
    reader = _Reader(
        Schedule(pools, scenes, questions, seed),
        frames=frames,
        share=slice(process_index * share, (process_index + 1) * share),
        blank=blank,
        transform=transform,
    )
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain asks absl's flags, which nobody parses outside of absl.app
    steps = grain.MapDataset.range(start_step, _ENDLESS).map(reader)
    if workers == 0:
        return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))
    batches = steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    return iter(batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)))


def scene_pool(
    folder: Path,
    weight: float,
    split: str,
    questions: int,
    frames: int,
    question_types: Sequence[str] | None = None,
    skip_short_scenes: bool = False,
) -> ScenePool:
    """The scenes of a folder's split, sorted, with their questions; everything that a run needs is checked here.

    Raises:
        InputError: no scene, a question type that is not there, too few questions, frames not stored.
    """
    if not weight > 0:
        raise InputError(f"{folder}: weight {weight} must be above 0")
    # Questions about mirrored scenes belong beside their originals in paired batches, never on unmirrored frames.
    rows = [row for row in read_questions(folder / QUESTIONS_FILE) if row.mirror_of is None]
    present = Counter(row.question_type for row in rows)
    for name in question_types or ():
        if name not in present:
            raise InputError(f"{folder}: no question of type {name!r}; there are {', '.join(sorted(present))}")
    by_scene: dict[str, list[Question]] = {scene: [] for scene in read_splits(folder)[split]}
    for row in rows:
        if row.scene in by_scene and (question_types is None or row.question_type in question_types):
            by_scene[row.scene].append(row)
    short = {scene: len(asked) for scene, asked in by_scene.items() if len(asked) < questions}
    if short and not skip_short_scenes:
        fewest = min(short, key=lambda scene: (short[scene], scene))
        raise InputError(
            f"{folder}: {len(short)} of {len(by_scene)} {split} scenes have fewer than {questions} questions "
            f"({fewest} has {short[fewest]}); ask fewer a scene, or leave such scenes out (skip_short_scenes)"
        )
    if short:
        _LOG.warning("%s: left out %d scenes with fewer than %d questions", folder, len(short), questions)
    scenes = tuple((scene, tuple(asked)) for scene, asked in sorted(by_scene.items()) if scene not in short)
    if not scenes:
        raise InputError(f"{folder}: no {split} scene with {questions} questions in {SPLITS_FILE}")
    store = FrameStore(folder)
    for scene, _ in scenes:
        store.positions(scene, frames)
    return ScenePool(folder, float(weight), scenes)


def folder_pattern(weights: Sequence[float]) -> tuple[int, ...]:
    """Whose turn it is, over and over: folder i comes as often as its weight says, spread evenly (2, 1 → 0 1 0)."""
    shares = [Fraction(weight / sum(weights)).limit_denominator(1000) for weight in weights]
    length = max(share.denominator for share in shares)
    turns = [max(round(share * length), 1) for share in shares]
    credit = [0] * len(turns)
    pattern = []
    for _ in range(sum(turns)):
        credit = [have + gain for have, gain in zip(credit, turns, strict=True)]
        chosen = credit.index(max(credit))
        credit[chosen] -= sum(turns)
        pattern.append(chosen)
    return tuple(pattern)


def _check_enough_scenes(pools: Sequence[ScenePool], scenes: int) -> None:
    pattern = folder_pattern([pool.weight for pool in pools])
    for index, pool in enumerate(pools):
        most = max(
            sum(pattern[(start + k) % len(pattern)] == index for k in range(scenes)) for start in range(len(pattern))
        )
        if most > len(pool.scenes):
            raise InputError(f"{pool.folder}: {len(pool.scenes)} scenes, but a step of {scenes} takes {most} of them")


def _number(name: str) -> int:
    """A number of a scene's own, the same in every process (Python's `hash` is not)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Step → batch. Travels to worker processes; holds no open file."""

    schedule: Schedule
    frames: int
    share: slice
    blank: bool
    transform: Callable[[SceneBatch], Any] | None

    def __call__(self, step: int) -> Any:
        visits = self.schedule.visits(int(step))[self.share]
        batch = SceneBatch(int(step), tuple(self._read(visit) for visit in visits))
        return batch if self.transform is None else self.transform(batch)

    def _read(self, visit: Visit) -> SceneSample:
        frames = FrameStore(visit.folder).read(visit.scene, self.frames)
        pixels = np.full_like(frames.pixels, MID_GREY) if self.blank else frames.pixels
        return SceneSample(visit.scene, pixels, frames.timestamps, visit.questions)
