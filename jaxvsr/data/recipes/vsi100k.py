"""VSI-100k, the training set of vsGRPO: six tasks, options removed, answers in words and numbers.

The paper (section 3.1 and Figure 2) comes without a generator. Its templates are copied exactly, spacing as printed.
What the paper says, and what it leaves open:

    count      "object labels included in the annotations"; 6.4k questions on 1.5k scans are 4 per scan, which fits
               categories with more than one instance
    distance   categories that occur once, "geometric centers of … point clouds"; 75k are 50 per scan: all pairs
    nearest    one target and four others by absolute distance; 13k are 9 per scan: one per target
    direction  left or right "based on their geometric centers"; 8k are 5 per scan
    size       "longest dimension" of "the 3D bounding box", which is left open; 13k are 9 per scan: all that occur once
    room       "alpha shape algorithm", points and parameter left open; here the floor as annotated, with what furniture
               hides and what is missing along walls

Corrections, each an option that can be set back: no questions about walls, floors and labels that name nothing, none
whose answer is too close to call, and hidden floor counts as floor.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from jaxvsr.data.geometry import distances
from jaxvsr.data.geometry.object_distance import CenterDefinition, DistanceDefinition, object_center, object_distance
from jaxvsr.data.geometry.room_area import room_area
from jaxvsr.data.recipes import common_questions
from jaxvsr.data.recipes.recipe import Census, Recipe, check_options, names_aligned_boxes
from jaxvsr.data.recipes.task import Candidate, Selection, Task
from jaxvsr.data.scannet.categories import is_structural
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject

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
        tasks: only these tasks; empty: all six.
        exclude_structural: no questions about walls, floors and labels that name nothing.
        count_minimum: ask for categories with at least this many instances, one or more.
        count_absent: also ask for categories that the scene does not have, as many as it has; the answer is 0. They are
            drawn so that a category's zeros are in proportion to the scans that have it.
        distance: between which points distances are measured, also for the nearest of four.
        center: which point is an object's centre, for distances between centres and for directions.
        distance_minimum: no pairs that are closer than this after rounding.
        nearest_margin: the nearest of four is nearer than the others by at least this much.
        direction_minimum_angle: how far the third object is from the line of sight at least, in front or behind.
        direction_minimum_distance: how far apart any two of the three objects are at least, seen from above.
        size_box: the box whose longest side is asked for.
        size_minimum: no question about the size of objects whose longest side is shorter.
        room_radius: largest circumradius in the alpha shape of the floor (0.2 is VSI-Bench's alpha of 5).
        room_hidden: whether floor counts that furniture hides or that is missing along walls (`hidden_floor`).
        room_fill_holes: whether holes enclosed by floor count as floor; with `room_hidden` they do.
        per_task: at most this many questions per task and scene.
        per_answer: at most this many of them with the same answer.
        direction_per_scene: a bound for directions only, because there are very many triples of objects.
        balance: where a bound leaves questions out, keep the answers as evenly spread as the scene allows.
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
    room_hidden: bool = True
    room_fill_holes: bool = True
    per_task: int | None = None
    per_answer: int | None = None
    direction_per_scene: int | None = 5
    balance: bool = True

    def __post_init__(self) -> None:
        counts = ("count_minimum", "per_task", "per_answer", "direction_per_scene")
        check_options(self, TEMPLATES, counts=counts, positive=("room_radius",))


def tasks(options: Options, census: Census) -> tuple[Task, ...]:
    """The six tasks; only `count_absent` uses the census."""
    selection = Selection(options.per_task, options.per_answer, options.balance)
    bounds = [bound for bound in (options.per_task, options.direction_per_scene) if bound is not None]
    direction = dataclasses.replace(selection, per_scene=min(bounds, default=None))

    def counts(scene: ScannedScene, rng: np.random.Generator) -> Iterator[Candidate]:
        yield from _counts(scene, rng, options, census)

    def bind(make: Callable[[ScannedScene, np.random.Generator, Options], Iterator[Candidate]]):
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


# Counts, distances and the nearest of four are not those of `common_questions`, which go through a scene in another
# order: the same seed would ask other questions. Nor do they take a distance of 0.0 m (`distance_minimum=0`), and their
# nearest has lettered options where VSI-100k names the choices in the question.


def _named(scene: ScannedScene, options: Options) -> dict[str, tuple[SceneObject, ...]]:
    return common_questions.objects_by_category(scene, exclude_structural=options.exclude_structural)


def _unique(scene: ScannedScene, options: Options) -> list[SceneObject]:
    return [item for _, item in common_questions.once(_named(scene, options))]


def _counts(scene: ScannedScene, rng: np.random.Generator, options: Options, census: Census) -> Iterator[Candidate]:
    named = _named(scene, options)
    asked = [category for category, items in sorted(named.items()) if len(items) >= options.count_minimum]
    for category in asked:
        yield Candidate({"category": category}, str(len(named[category])))
    if options.count_absent:
        structural = options.exclude_structural
        absent = [c for c in sorted(census.scans_with) if c not in named and not (structural and is_structural(c))]
        for category in _draw_absent(absent, census, len(asked), rng):
            yield Candidate({"category": category}, "0")


def _draw_absent(absent: list[str], census: Census, wanted: int, rng: np.random.Generator) -> list[str]:
    """`wanted` of the categories that a scene lacks, at random.

    A category in n of N scans can be drawn in N - n of them; odds of n / (N - n) make its zeros as frequent as its
    other counts, so that its name says little about the answer.
    """
    if not absent or not wanted:
        return []
    having = np.array([census.scans_with[category] for category in absent])
    odds = having / np.maximum(census.scans - having, 1)
    drawn = rng.choice(len(absent), size=min(wanted, len(absent)), replace=False, p=odds / odds.sum())
    return [absent[i] for i in sorted(drawn.tolist())]


def _rooms(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    area = room_area(
        scene,
        "labelled",
        radius_m=options.room_radius,
        fill_holes=options.room_fill_holes,
        hidden=options.room_hidden,
    )
    yield from common_questions.area_candidates(area, 1)


def _distances(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    for first, second in itertools.combinations(_unique(scene, options), 2):
        metres = round(object_distance(first, second, options.distance, options.center, rng), 1)
        if metres >= options.distance_minimum:
            yield Candidate({"first": first.category, "second": second.category}, f"{metres:.1f}")


def _sizes(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    for item in _unique(scene, options):
        box = item.obb if options.size_box == "obb" else item.aabb
        centimetres = round(float(box.extent.max()) * 100)
        if centimetres >= max(options.size_minimum * 100, 1):
            yield Candidate({"category": item.category}, str(centimetres))


def _directions(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    objects = _unique(scene, options)
    yield from common_questions.side_candidates(
        [item.category for item in objects],
        np.array([object_center(item, options.center) for item in objects]).reshape(-1, 3),
        rng,
        minimum=options.direction_minimum_distance,
        maximum=np.inf,
        minimum_angle=options.direction_minimum_angle,
    )


def _nearest(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    """One question per target. Where four others are too close to call, other fours are tried."""
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
                yield Candidate({"choices": ", ".join(names), "target": target.category}, names[index])
                break


_TRIES = 20

RECIPE = Recipe(
    name="vsi100k",
    options=Options(),
    tasks=tasks,
    uses_census=lambda options: options.count_absent,
    uses_axes=names_aligned_boxes,
    source="vsGRPO's VSI-100k, built anew from its paper",
    paper_counts={COUNT: 6_400, DISTANCE: 75_000, NEAREST: 13_000, DIRECTION: 8_000, SIZE: 13_000, ROOM: 1_500},
)
