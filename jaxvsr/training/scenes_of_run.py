"""Which scenes and questions of its data folders a run asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.questions import Question
from jaxvsr.data.scene_pools import ScenePool, read_pools


def read_run_pools(config: TrainConfig, split: str | None = None) -> tuple[ScenePool, ...]:
    """What the data folders offer for training; `split` another than that: for held-out questions, which are never
    mirrored."""
    data = config.data
    return read_pools(
        [(Path(folder), weight) for folder, weight in data.weighted_folders()],
        split=split or data.split,
        questions=data.questions,
        frames=data.frames,
        question_types=data.question_types,
        skip_short_scenes=data.skip_short_scenes,
        mirror=data.mirror if split is None else "none",
    )


def asked_questions(pools: Sequence[ScenePool]) -> Iterator[Question]:
    """All questions that may be asked, mirror images included."""
    for pool in pools:
        for scene in pool.scenes:
            yield from (*scene.questions, *scene.mirrored)
