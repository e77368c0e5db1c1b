"""A custom task: how high is an object?

    python launch/build_data.py rooms data/heights --scenes 50 --seed 0
    python launch/build_data.py questions data/heights data/heights --recipe examples/height_recipe.py --mirror
    python launch/build_data.py frames data/heights data/heights --frames 16 --max-pixels 12544
    python launch/train.py --data data/heights --set data.mirror=pairs --set data.questions=2 --run-dir runs/heights
    python launch/evaluate.py --model runs/heights --data data/heights --benchmark vsi-bench --out runs/heights/eval

A task is one object: its name, the kind of its answers (which decides about rewards and metrics), a template, and the
questions that could be asked of a scene. Heights do not change in a mirror, so the mirrored question has the same
answer; a task whose answers name sides says `swaps_sides=True`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np

from jaxvsr.data.recipes.recipe import Census, Recipe
from jaxvsr.data.recipes.task import Candidate, Selection, Task
from jaxvsr.data.scannet.categories import is_structural
from jaxvsr.data.scannet.read_scan import ScannedScene


@dataclasses.dataclass(frozen=True)
class Options:
    """`--set minimum_cm=30` changes one.

    Args:
        minimum_cm: no questions about lower objects.
        per_scene: at most this many questions per scene.
    """

    minimum_cm: int = 10
    per_scene: int | None = 8


def tasks(options: Options, census: Census) -> tuple[Task, ...]:
    """One task."""

    def candidates(scene: ScannedScene, rng: np.random.Generator) -> Iterator[Candidate]:
        """Objects that are the only one of their category. Height is that of the axis-aligned box: floors are level."""
        objects = [item for item in scene.objects if not is_structural(item.category)]
        instances = Counter(item.category for item in objects)
        for item in objects:
            height_cm = round(100 * float(item.aabb.extent[2]))
            if instances[item.category] == 1 and height_cm >= options.minimum_cm:
                yield Candidate({"category": item.category}, str(height_cm))

    template = "How high is the {category}, in centimeters?"
    return (Task("object_height", "number", template, candidates, Selection(per_scene=options.per_scene)),)


RECIPE = Recipe(
    name="heights",
    options=Options(),
    tasks=tasks,
    source="an example of jaxvsr: heights of objects, from the geometry of scans",
)
