"""What the demo's small base model learns before it answers questions: to say what the video shows.

Answers to questions are a weak signal: from them alone a small model learns what is likely, and does not begin to look.
A list of what each part of the video shows has many words, and each has to be seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from jaxvsr.data.recipes import common_questions
from jaxvsr.data.recipes.recipe import Census, Recipe, check_options
from jaxvsr.data.recipes.rooms import SEEN_SHARE
from jaxvsr.data.recipes.task import Candidate, Selection, Task
from jaxvsr.data.scannet.read_scan import ScannedScene

PARTS, INVENTORY, WHEN, HOW_MANY = "look_parts", "look_inventory", "look_when", "look_how_many"
TEMPLATES = {
    PARTS: "What is in the video, part by part?",
    INVENTORY: "What is in the room, in the order of appearance?",
    WHEN: "In which part of the video does the {category} appear?",
    HOW_MANY: "How many {category}(s)in part {part} of the video?",
}
PART_COUNT = 8  # of a video; with 16 frames one for each pair that the model sees as one
_LISTED = 4  # objects of a part, the largest ones


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked.

    Args:
        tasks: only these tasks; empty: all four.
        per_task: at most this many questions per task and scene.
    """

    tasks: tuple[str, ...] = ()
    per_task: int | None = 4

    def __post_init__(self) -> None:
        check_options(self, TEMPLATES, counts=("per_task",))


def tasks(options: Options, census: Census) -> tuple[Task, ...]:
    """The four tasks."""
    selection = Selection(options.per_task)
    every = (
        Task(PARTS, "word", TEMPLATES[PARTS], _parts, selection),
        Task(INVENTORY, "word", TEMPLATES[INVENTORY], _inventory, selection),
        Task(WHEN, "number", TEMPLATES[WHEN], _when, selection),
        Task(HOW_MANY, "number", TEMPLATES[HOW_MANY], _how_many, selection),
    )
    return tuple(task for task in every if not options.tasks or task.name in options.tasks)


def _shown(scene: ScannedScene) -> list[list[str]]:
    """The category of each object that each part of the video shows, the largest in the picture first."""
    counts = scene.pixel_counts
    if counts is None:
        return []
    category = {
        item.id: name
        for name, items in common_questions.objects_by_category(scene, exclude_structural=True).items()
        for item in items
    }
    shown = []
    for rows in np.array_split(counts.shares, PART_COUNT):
        share = rows.max(axis=0, initial=0.0)
        order = [int(column) for column in np.argsort(-share, kind="stable") if share[column] >= SEEN_SHARE]
        ids = [int(counts.object_ids[column]) for column in order]
        shown.append([category[number] for number in ids if number in category])
    return shown


def _parts(scene: ScannedScene, rng: np.random.Generator) -> Iterator[Candidate]:
    if shown := _shown(scene):
        yield Candidate({}, "; ".join(" ".join(part[:_LISTED]) or "nothing" for part in shown))


def _inventory(scene: ScannedScene, rng: np.random.Generator) -> Iterator[Candidate]:
    named = common_questions.objects_by_category(scene, exclude_structural=True)
    times = common_questions.seconds_of_appearance(scene, named, SEEN_SHARE, None)
    if times:
        yield Candidate({}, " ".join(f"{len(named[name])} {name}" for name in sorted(times, key=times.__getitem__)))


def _when(scene: ScannedScene, rng: np.random.Generator) -> Iterator[Candidate]:
    shown = _shown(scene)
    for category in sorted({name for part in shown for name in part}):
        first = next(number for number, part in enumerate(shown, start=1) if category in part)
        yield Candidate({"category": category}, str(first))


def _how_many(scene: ScannedScene, rng: np.random.Generator) -> Iterator[Candidate]:
    shown = _shown(scene)
    for category in sorted({name for part in shown for name in part}):
        for number, part in enumerate(shown, start=1):
            yield Candidate({"category": category, "part": str(number)}, str(part.count(category)))


RECIPE = Recipe(
    name="look_rooms",
    options=Options(),
    tasks=tasks,
    uses_masks=lambda options: True,
    source="what procedural rooms show, part by part, for the pretraining of a small model",
)
