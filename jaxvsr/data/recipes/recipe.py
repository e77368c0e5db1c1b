"""A recipe defines a data set: its tasks, its options, and how many questions the paper reports.

Each recipe is a Python file with a `RECIPE`: one of `jaxvsr/data/recipes/`, or a user's (`--recipe path/to/file.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxvsr.data.geometry.mirrored_scene import mirrored_scene
from jaxvsr.data.questions import Question
from jaxvsr.data.recipes.task import Task, task_rng
from jaxvsr.data.scannet.read_scan import ScannedScene
from jaxvsr.errors import InputError

RECIPES = {
    "vsi100k": "vsi100k",
    "spatial-r1": "sr",
    "vsi-bench": "vsi_bench_tasks",
    "rooms": "rooms",
    "rough-rooms": "rough_rooms",
}


@dataclasses.dataclass(frozen=True)
class Census:
    """In how many scans of a data set each category occurs."""

    scans: int = 0
    scans_with: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One data set.

    Args:
        name: prefix of the ids of its questions; letters, digits and underscores.
        options: a frozen dataclass with the defaults; `--set field=value` changes a field.
        tasks: (options, census of the scans) → the tasks.
        uses_census: whether `tasks` needs the census (a pass over all annotations); else it is empty.
        uses_masks: whether a task needs `ScannedScene.pixel_counts` (a pass over the 2D instance masks).
        uses_axes: whether a task measures along the axes of the room; scans without axisAlignment are then left out.
        source: what the recipe follows, for the card; the terms of the scans are added to it.
        paper_counts: questions per task in the paper.
    """

    name: str
    options: Any
    tasks: Callable[[Any, Census], tuple[Task, ...]]
    uses_census: Callable[[Any], bool] = lambda options: False
    uses_masks: Callable[[Any], bool] = lambda options: False
    uses_axes: Callable[[Any], bool] = lambda options: False
    source: str = ""
    paper_counts: Mapping[str, int] = dataclasses.field(default_factory=dict)


def names_aligned_boxes(options: Any) -> bool:
    """Whether an option names axis-aligned boxes: a distance, centre or size whose value begins with "aabb"."""
    values = (getattr(options, field.name) for field in dataclasses.fields(options))
    return any(isinstance(value, str) and value.startswith("aabb") for value in values)


def check_options(
    options: Any,
    tasks: Collection[str],
    *,
    counts: Sequence[str] = (),
    positive: Sequence[str] = (),
    ordered: Sequence[tuple[str, str]] = (),
) -> None:
    """Check a recipe's options; whatever else a number is, it must be at least 0.

    Args:
        options: a dataclass; its field `tasks` names some of the recipe's tasks.
        tasks: names of all the recipe's tasks.
        counts: fields that must be at least 1, or None.
        positive: fields that must be above 0.
        ordered: pairs of fields of which the second must be larger.

    Raises:
        InputError: names the field and says what would be right.
    """
    for task in options.tasks:
        if task not in tasks:
            raise InputError(f"tasks: {task!r} is not one of {', '.join(tasks)}")
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name in counts and value is not None and value < 1:
            raise InputError(f"{field.name} {value}: must be at least 1")
        if field.name in positive and not value > 0:
            raise InputError(f"{field.name} {value}: must be above 0")
        if isinstance(value, int | float) and not value >= 0:  # nan is neither
            raise InputError(f"{field.name} {value}: must be at least 0")
    for low, high in ordered:
        if not getattr(options, low) < getattr(options, high):
            raise InputError(f"{high} {getattr(options, high)}: must be above {low}, {getattr(options, low)}")


def load_recipe(name_or_path: str) -> Recipe:
    """A recipe by name, or the `RECIPE` of a Python file.

    Raises:
        InputError: no such recipe, the file fails to import, or its `RECIPE` is missing or malformed.
    """
    if name_or_path.endswith(".py"):
        module = _load_file(Path(name_or_path))
    elif name_or_path in RECIPES:
        module = importlib.import_module(f"jaxvsr.data.recipes.{RECIPES[name_or_path]}")
    else:
        raise InputError(f"recipe {name_or_path!r} is not one of {', '.join(RECIPES)}, nor a .py file")
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise InputError(f"{name_or_path}: defines no RECIPE (an object of jaxvsr.data.recipes.recipe.Recipe)")
    if not recipe.name.isidentifier():
        raise InputError(f"{name_or_path}: recipe name {recipe.name!r} must be letters, digits and underscores")
    if not dataclasses.is_dataclass(recipe.options):
        raise InputError(f"{name_or_path}: the options of its RECIPE must be a dataclass, found {recipe.options!r:.60}")
    return recipe


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path}: no such recipe file")
    spec = importlib.util.spec_from_file_location(f"jaxvsr_recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    return module


@contextlib.contextmanager
def own_mistakes(recipe: str, where: str) -> Iterator[None]:
    """Turn an exception in a user's recipe file into an `InputError` that names file, line and `where`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not recipe.endswith(".py"):
            raise
        file = Path(recipe).resolve()
        lines = [
            one.lineno for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).resolve() == file
        ]
        line = f" line {lines[-1]}" if lines else ""
        raise InputError(f"{recipe}{line}: {where}: {type(error).__name__}: {error}") from error


def ask_scene(recipe: Recipe, tasks: tuple[Task, ...], scene: ScannedScene, seed: int) -> list[Question]:
    """All questions of a recipe about one scene; a pure function of (recipe, scene, seed)."""
    rows = []
    for task in tasks:
        for row in task.generate(scene, task_rng(seed, scene.name, task.name)):
            rows.append(dataclasses.replace(row, id=f"{recipe.name}-{row.id}"))
    return rows


def mirror_questions(
    tasks: tuple[Task, ...], scene: ScannedScene, seed: int, rows: Sequence[Question]
) -> tuple[list[Question], int]:
    """The mirror images of `rows`, which were asked of `scene` with `seed`; and how many rows have none.

    A task says what a mirror makes of its rows. Its questions are also asked of the mirrored geometry, and a row that
    has another answer there gets no mirror image. Numbers are not compared: they differ only by how points are sampled.
    """
    by_name = {task.name: task for task in tasks}
    image = mirrored_scene(scene)
    answers = {
        (task.name, row.question, row.options): row.answer
        for task in tasks
        if task.answer_kind != "number"
        for row in task.generate(image, task_rng(seed, scene.name, task.name))
    }
    mirrored = [by_name[row.question_type].mirror(row) for row in rows]
    right = [
        row for row in mirrored if answers.get((row.question_type, row.question, row.options), row.answer) == row.answer
    ]
    return right, len(mirrored) - len(right)
