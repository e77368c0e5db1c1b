"""The scenes and questions of data folders that a run can ask.

With paired views only questions with a mirror image are asked: a row whose `mirror_of` is the question's id.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

from jaxvsr.data.data_folder import QUESTIONS_FILE
from jaxvsr.data.frames import FrameStore
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.splits import SPLITS, SPLITS_FILE, read_splits
from jaxvsr.errors import InputError

Mirror = Literal["none", "pairs"]
MOST_TURNS = 10_000  # after which the order of folders begins again
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class AskedScene:
    """A scene and its questions; `mirrored` has their mirror images in the same order, or is empty."""

    name: str
    questions: tuple[Question, ...]
    mirrored: tuple[Question, ...] = ()


@dataclasses.dataclass(frozen=True)
class ScenePool:
    """The scenes of a split of one folder, sorted by name."""

    folder: Path
    weight: float
    scenes: tuple[AskedScene, ...]


def read_pools(
    folders: Sequence[tuple[Path, float]],
    *,
    split: str,
    questions: int,
    frames: int,
    question_types: Sequence[str] | None = None,
    skip_short_scenes: bool = False,
    mirror: Mirror = "none",
) -> tuple[ScenePool, ...]:
    """The pools of data folders; everything that a run needs of them is checked here.

    Args:
        folders: data folders with their weights.
        split: "train" or "heldout".
        questions: Q, per scene.
        frames: F, per scene; the count must be stored.
        question_types: only these types; None: all.
        skip_short_scenes: leave out scenes with fewer than Q questions (their number is logged).
        mirror: "pairs" leaves out questions without a mirror image (their number is logged).

    Raises:
        InputError: no folder, no scene, a question type that is not there, too few questions, frames not stored.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    for name, value in (("questions", questions), ("frames", frames)):
        if value < 1:
            raise InputError(f"{name} {value}: must be at least 1")
    if not folders:
        raise InputError("no data folder given; expected DIR or DIR:weight,…")
    return tuple(
        _pool(Path(folder), weight, split, questions, frames, question_types, skip_short_scenes, mirror)
        for folder, weight in folders
    )


def _pool(
    folder: Path,
    weight: float,
    split: str,
    questions: int,
    frames: int,
    question_types: Sequence[str] | None,
    skip_short_scenes: bool,
    mirror: Mirror,
) -> ScenePool:
    if not weight > 0:
        raise InputError(f"{folder}: weight {weight} must be above 0")
    every = read_questions(folder / QUESTIONS_FILE)
    # A question about a mirrored scene is only asked with mirrored frames, as one of a pair.
    rows = [row for row in every if row.mirror_of is None]
    present = Counter(row.question_type for row in rows)
    for name in question_types or ():
        if name not in present:
            raise InputError(f"{folder}: no question of type {name!r}; there are {', '.join(sorted(present))}")
    by_scene: dict[str, list[Question]] = {scene: [] for scene in read_splits(folder)[split]}
    for row in rows:
        if row.scene in by_scene and (question_types is None or row.question_type in question_types):
            by_scene[row.scene].append(row)
    images = _mirror_images(folder, every) if mirror == "pairs" else {}
    if mirror == "pairs":
        asked = sum(map(len, by_scene.values()))
        by_scene = {scene: [row for row in asked if row.id in images] for scene, asked in by_scene.items()}
        if left_out := asked - sum(map(len, by_scene.values())):
            _LOG.warning("%s: left out %d of %d questions without a mirror image", folder, left_out, asked)
    short = {scene: len(asked) for scene, asked in by_scene.items() if len(asked) < questions}
    if short and not skip_short_scenes:
        fewest = min(short, key=lambda scene: (short[scene], scene))
        raise InputError(
            f"{folder}: {len(short)} of {len(by_scene)} {split} scenes have fewer than {questions} questions "
            f"({fewest} has {short[fewest]}); ask fewer per scene, or leave such scenes out (skip_short_scenes)"
        )
    if short:
        _LOG.warning("%s: left out %d scenes with fewer than %d questions", folder, len(short), questions)
    scenes = tuple(
        AskedScene(scene, tuple(asked), tuple(images[row.id] for row in asked) if images else ())
        for scene, asked in sorted(by_scene.items())
        if scene not in short
    )
    if not scenes:
        raise InputError(f"{folder}: no {split} scene with {questions} questions in {SPLITS_FILE}")
    store = FrameStore(folder)
    for scene in scenes:
        store.positions(scene.name, frames)
    return ScenePool(folder, float(weight), scenes)


def _mirror_images(folder: Path, rows: Sequence[Question]) -> dict[str, Question]:
    """Id of a question → the row that is its mirror image."""
    originals = {row.id: row for row in rows if row.mirror_of is None}
    images: dict[str, Question] = {}
    for row in rows:
        if row.mirror_of is None:
            continue
        original = originals.get(row.mirror_of)
        if original is None or original.scene != row.scene:
            raise InputError(
                f"{folder}: question {row.id!r} is the mirror image of {row.mirror_of!r}, which is missing"
            )
        if row.mirror_of in images:
            raise InputError(
                f"{folder}: {images[row.mirror_of].id!r} and {row.id!r} are mirror images of the same question"
            )
        images[row.mirror_of] = row
    if not images:
        raise InputError(
            f"{folder}: no question has a mirror image (a row with mirror_of); "
            "`build_data.py questions … --mirror` writes them, or set data.mirror=none"
        )
    return images


def folder_pattern(weights: Sequence[float]) -> tuple[int, ...]:
    """The order of folders, repeated for ever: folder i as often as its weight says, spread evenly (2, 1 → 0 1 0).

    Raises:
        InputError: a folder would not have one turn in `MOST_TURNS`.
    """
    return _pattern(tuple(weights))


@functools.lru_cache(maxsize=16)
def _pattern(weights: tuple[float, ...]) -> tuple[int, ...]:
    parts = [Fraction(weight).limit_denominator(1000) for weight in weights]
    whole = math.lcm(*(part.denominator for part in parts))
    counts = [int(part * whole) for part in parts]
    turns = [count // math.gcd(*counts) for count in counts] if all(counts) else []
    if not turns or sum(turns) > MOST_TURNS:
        turns = [round(MOST_TURNS * weight / sum(weights)) for weight in weights]
    if 0 in turns:
        raise InputError(
            f"data.folders: weight {min(weights):g} of {sum(weights):g} is less than one turn in {MOST_TURNS:,}"
        )
    credit = [0] * len(turns)
    pattern = []
    for _ in range(sum(turns)):
        credit = [have + gain for have, gain in zip(credit, turns, strict=True)]
        chosen = credit.index(max(credit))
        credit[chosen] -= sum(turns)
        pattern.append(chosen)
    return tuple(pattern)
