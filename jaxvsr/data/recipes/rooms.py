"""The demo's questions about procedural rooms: counts, sizes and the room of VSI-100k, and what appears first.

These four kinds a small model can be taught to see; VSI-100k's other three compare the places of two or three objects,
and are asked with the option `tasks` (docs/base-model.md). What appears first is VSI-Bench's order of appearance in
VSI-100k's way: options removed, the answer one word. Also categories that a room has once or not at all are counted, so
that few counts can be guessed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from jaxvsr.data.recipes import common_questions, vsi100k
from jaxvsr.data.recipes.recipe import Census, Recipe, check_options
from jaxvsr.data.recipes.task import Candidate, Selection, Task
from jaxvsr.data.scannet.read_scan import ScannedScene

FIRST = "obj_appearance_order"
TEMPLATES = {
    **vsi100k.TEMPLATES,
    FIRST: "Which of these objects ({choices})appears first in the video?",
}
# As a share of a frame; what fills less is not seen in a small picture.
SEEN_SHARE = 0.003


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked.

    Args:
        tasks: these tasks, of seven.
        per_task: at most this many questions per task and scene.
        first_margin_s: seconds by which the first object is seen before the others, exclusive.
    """

    tasks: tuple[str, ...] = (vsi100k.COUNT, vsi100k.SIZE, vsi100k.ROOM, FIRST)
    per_task: int | None = 4
    first_margin_s: float = 1.0

    def __post_init__(self) -> None:
        check_options(self, TEMPLATES, counts=("per_task",))


def tasks(options: Options, census: Census) -> tuple[Task, ...]:
    """The tasks that are asked for."""
    asked = vsi100k.Options(
        count_minimum=1, count_absent=True, per_task=options.per_task, direction_per_scene=options.per_task
    )

    def firsts(scene: ScannedScene, rng: np.random.Generator) -> Iterator[Candidate]:
        yield from _firsts(scene, rng, options)

    every = (
        *vsi100k.tasks(asked, census),
        Task(FIRST, "word", TEMPLATES[FIRST], firsts, Selection(options.per_task)),
    )
    return tuple(task for task in every if task.name in options.tasks)


def _firsts(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    """Every four categories of which one is seen before the others; their order in the question is random."""
    named = common_questions.objects_by_category(scene, exclude_structural=True)
    times = common_questions.seconds_of_appearance(scene, named, SEEN_SHARE, None)
    for chosen in itertools.combinations(sorted(times), 4):
        first, second, *_ = sorted(chosen, key=times.__getitem__)
        if times[second] - times[first] > options.first_margin_s:
            yield Candidate({"choices": ", ".join(rng.permutation(chosen))}, first)


RECIPE = Recipe(
    name="rooms",
    options=Options(),
    tasks=tasks,
    uses_census=lambda options: True,
    uses_masks=lambda options: FIRST in options.tasks,
    source="kinds of VSI-100k, and what appears first",
)
