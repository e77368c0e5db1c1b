"""VSI-100k, the training set of vsGRPO: six tasks, options removed, answers in words and numbers.

The paper (section 3.1 and Figure 2) releases no generator. Its templates stand here to the letter, spacing as printed.
What it says, and what it leaves open:

    count      "object labels included in the annotations"; 6.4k questions on 1.5k scans are 4 a scan, which fits
               categories with more than one instance
    distance   categories that occur once, "geometric centers of … point clouds"; 75k are 50 a scan: all pairs
    nearest    one target and four others by absolute distance; 13k are 9 a scan: one a target
    direction  left or right "based on their geometric centers"; 8k are 5 a scan
    size       "longest dimension" of "the 3D bounding box", not said which; 13k are 9 a scan: all that occur once
    room       "alpha shape algorithm", parameter not said

Corrections, each an option with the paper's variant reachable: walls, floors and labels that name nothing are not asked
about, answers too close to call are left out, and the floor under furniture counts as floor.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from jaxvsr.data.geometry import directions, distances
from jaxvsr.data.geometry.alpha_shape import alpha_shape_area
from jaxvsr.data.geometry.object_distance import CenterDefinition, DistanceDefinition, object_center, object_distance
from jaxvsr.data.recipes import common_questions
from jaxvsr.data.recipes.recipe import Census, Recipe, check_options
from jaxvsr.data.recipes.task import Draft, Selection, Task
from jaxvsr.data.scannet.categories import is_structural
from jaxvsr.data.scannet.read_scan import Scene, SceneObject

COUNT, SIZE, ROOM = "object_counting", "object_size_estimation", "room_size_estimation"
DISTANCE, NEAREST, DIRECTION = "object_abs_distance", "object_rel_distance", "object_rel_direction_easy"

TEMPLATES = {
    COUNT: "How many {category}(s)in the room?",
    ROOM: "What is the size of this room (in square meters)?",
    DISTANCE: "What is the distance between the {first} and the {second} (in meters)?",
    SIZE: "What is the length of the longest dimension (length,width, or height) of the {category}, "
    "measured in centimeters?",
    DIRECTION: "If I am standing by the {stand} and facing the {face} is the {query} to the left or the right of the "
    "{face}?",
    NEAREST: "Which of these objects ({choices})is the closest to the {target}?",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Lengths in metres, areas in square metres, angles in degrees.

    Args:
        tasks: only these; empty takes all six.
        exclude_structural: leave walls, floors and labels that name nothing out of every question.
        count_minimum: a category is counted where it has at least so many instances, one or more.
        count_absent: also ask for categories that the scene does not have, as many as it has; the answer is 0. They are
            drawn so that a category's zeros are in proportion to the scans that have it.
        distance: between which points distances are measured, also for the nearest of four.
        center: which point is an object's centre, for distances between centres and for directions.
        distance_minimum: pairs that are closer than this (after rounding) are not asked about.
        nearest_margin: the nearest of four is nearer than the others by at least this much.
        direction_minimum_angle: the third object is at least so far from the line of sight, in front or behind.
        direction_minimum_distance: any two of the three objects are at least so far apart, seen from above.
        size_box: the box whose longest side is asked for.
        size_minimum: objects with a shorter longest side get no question about their size.
        room_radius: largest circumradius in the alpha shape of the floor (0.2 is VSI-Bench's alpha of 5).
        room_fill_holes: floor that is closed in by floor counts, such as that under a bed.
        per_task: at most so many questions of each task and scene.
        per_answer: at most so many of them with the same answer.
        direction_per_scene: a bound for left and right of its own, because all triples of objects are very many.
        balance: where a bound leaves some out, keep the answers as evenly spread as the scene allows.
    """

    tasks: tuple[str, ...] = ()
    exclude_structural: bool = True
    count_minimum: int = 2
    count_absent: bool = False
    distance: DistanceDefinition = "center"
    center: CenterDefinition = "points"
    distance_minimum: float = 0.2
    nearest_margin: float = 0.15
    direction_minimum_angle: float = 10.0
    direction_minimum_distance: float = 0.3
    size_box: Literal["obb", "aabb"] = "obb"
    size_minimum: float = 0.0
    room_radius: float = 0.2
    room_fill_holes: bool = True
    per_task: int | None = None
    per_answer: int | None = None
    direction_per_scene: int | None = 5
    balance: bool = True

    def __post_init__(self) -> None:
        counts = ("count_minimum", "per_task", "per_answer", "direction_per_scene")
        check_options(self, TEMPLATES, counts=counts, positive=("room_radius",))


def tasks(options: Options, census: Census) -> tuple[Task, ...]:
    """The six tasks; the census is looked at for `count_absent` alone."""
    selection = Selection(options.per_task, options.per_answer, options.balance)
    bounds = [bound for bound in (options.per_task, options.direction_per_scene) if bound is not None]
    direction = dataclasses.replace(selection, per_scene=min(bounds, default=None))

    def counts(scene: Scene, rng: np.random.Generator) -> Iterator[Draft]:
        yield from _counts(scene, rng, options, census)

    def bind(make: Callable[[Scene, np.random.Generator, Options], Iterator[Draft]]):
        return lambda scene, rng: make(scene, rng, options)

    every = (
        Task(COUNT, "number", TEMPLATES[COUNT], counts, selection),
        Task(ROOM, "number", TEMPLATES[ROOM], bind(_rooms), selection),
        Task(DISTANCE, "number", TEMPLATES[DISTANCE], bind(_distances), selection),
        Task(SIZE, "number", TEMPLATES[SIZE], bind(_sizes), selection),
        Task(DIRECTION, "word", TEMPLATES[DIRECTION], bind(_directions), direction, swaps_sides=True),
        Task(NEAREST, "word", TEMPLATES[NEAREST], bind(_nearest), selection),
    )
    return tuple(task for task in every if not options.tasks or task.name in options.tasks)


def _askable(scene: Scene, options: Options) -> list[SceneObject]:
    return [item for item in scene.objects if not (options.exclude_structural and is_structural(item.category))]


def _unique(scene: Scene, options: Options) -> list[SceneObject]:
    """Objects that their category alone names."""
    objects = _askable(scene, options)
    instances = Counter(item.category for item in objects)
    return [item for item in objects if instances[item.category] == 1]


def _counts(scene: Scene, rng: np.random.Generator, options: Options, census: Census) -> Iterator[Draft]:
    instances = Counter(item.category for item in _askable(scene, options))
    asked = [category for category, count in sorted(instances.items()) if count >= options.count_minimum]
    for category in asked:
        yield Draft({"category": category}, str(instances[category]))
    if options.count_absent:
        structural = options.exclude_structural
        absent = [c for c in sorted(census.scans_with) if c not in instances and not (structural and is_structural(c))]
        for category in _draw_absent(absent, census, len(asked), rng):
            yield Draft({"category": category}, "0")


def _draw_absent(absent: list[str], census: Census, wanted: int, rng: np.random.Generator) -> list[str]:
    """Of the categories a scene lacks, `wanted` at random.

    A category in n of N scans can be drawn in N - n of them; odds of n / (N - n) make its zeros as frequent as its
    other counts, so that the name alone tells little about the answer.
    """
    if not absent or not wanted:
        return []
    having = np.array([census.scans_with[category] for category in absent])
    odds = having / np.maximum(census.scans - having, 1)
    drawn = rng.choice(len(absent), size=min(wanted, len(absent)), replace=False, p=odds / odds.sum())
    return [absent[i] for i in sorted(drawn.tolist())]


def _rooms(scene: Scene, rng: np.random.Generator, options: Options) -> Iterator[Draft]:
    area = alpha_shape_area(scene.floor_points[:, :2], options.room_radius, fill_holes=options.room_fill_holes)
    if round(area, 1) > 0:
        yield Draft({}, f"{area:.1f}")


def _distances(scene: Scene, rng: np.random.Generator, options: Options) -> Iterator[Draft]:
    for first, second in itertools.combinations(_unique(scene, options), 2):
        metres = round(object_distance(first, second, options.distance, options.center, rng), 1)
        if metres >= options.distance_minimum:
            yield Draft({"first": first.category, "second": second.category}, f"{metres:.1f}")


def _sizes(scene: Scene, rng: np.random.Generator, options: Options) -> Iterator[Draft]:
    for item in _unique(scene, options):
        box = item.obb if options.size_box == "obb" else item.aabb
        centimetres = round(float(box.extent.max()) * 100)
        if centimetres >= max(options.size_minimum * 100, 1):
            yield Draft({"category": item.category}, str(centimetres))


def _directions(scene: Scene, rng: np.random.Generator, options: Options) -> Iterator[Draft]:
    objects = _unique(scene, options)
    centers = np.array([object_center(item, options.center) for item in objects]).reshape(-1, 3)
    found, turns = common_questions.triples(centers, rng, minimum=options.direction_minimum_distance, maximum=np.inf)
    clear = directions.degrees_from_line(turns) >= options.direction_minimum_angle
    for (stand, face, query), turn in zip(found[clear].tolist(), turns[clear].tolist(), strict=True):
        named = {"stand": objects[stand], "face": objects[face], "query": objects[query]}
        yield Draft({role: item.category for role, item in named.items()}, directions.side(turn))


def _nearest(scene: Scene, rng: np.random.Generator, options: Options) -> Iterator[Draft]:
    """One question a target. Where four others are too close to call, other fours are tried."""
    objects = _unique(scene, options)
    if len(objects) < 5:
        return
    between = np.zeros((len(objects), len(objects)))
    for i, j in itertools.combinations(range(len(objects)), 2):
        between[i, j] = between[j, i] = object_distance(objects[i], objects[j], options.distance, options.center, rng)
    for number, target in enumerate(objects):
        others = [item for item in objects if item is not target]
        metres = np.delete(between[number], number)
        for _ in range(_TRIES):
            chosen = rng.choice(len(others), size=4, replace=False)
            index, margin = distances.nearest([metres[i] for i in chosen])
            if margin >= options.nearest_margin:
                names = [others[i].category for i in chosen]
                yield Draft({"choices": ", ".join(names), "target": target.category}, names[index])
                break


_TRIES = 20

RECIPE = Recipe(
    name="vsi100k",
    options=Options(),
    tasks=tasks,
    uses_census=lambda options: options.count_absent,
    source="vsGRPO's VSI-100k, built anew from its paper",
    paper_counts={COUNT: 6_400, DISTANCE: 75_000, NEAREST: 13_000, DIRECTION: 8_000, SIZE: 13_000, ROOM: 1_500},
)
