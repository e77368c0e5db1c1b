"""SR, the training set of Spatial-R1: seven tasks, answers in numbers, words and letters.

The paper (section 2) comes without a generator and names no threshold. 4,250 of its about 9,000 rows are released, none
of them about the order of appearance. Templates and numbers of decimals are those of the released rows; the template of
the order of appearance is VSI-Bench's. What is known, and what is corrected:

    count      categories with more than one instance
    size       unique labels, longest side of the axis-aligned box, centimetres to two decimals
    room       points a little above the lowest, alpha shape, sum over the triangles of a mesh that has two sides, which
               doubles every area: with a radius of 1 m this gives a released value back, and is `room_area=doubled`.
               Here the floor counts once, with what furniture hides, and without the corners that 1 m fills
    distance   unique labels, nearest of uniform points in both axis-aligned boxes, which is 1 to 13 cm too far. Here
               the exact gap between the boxes; `distance=aabb_sample` is the paper's
    nearest    unique target, four options with unique labels, nearest points of the clouds, "small objects" left out
    direction  left or right by the sign of a cross product of the centres of the axis-aligned boxes; too close, too far
               and nearly straight ahead left out. 15 % of the released triples have one label twice; here none has
    order      first frame of an object in the 2D instance masks

The released rows ask about walls, floors and "object", as `exclude_structural=false` does. 34 of their 195 scans are
ScanNet's validation scans and 10 are VSI-Bench's; here those are left out unless `--include` names the benchmark.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from jaxvsr.data.geometry.object_distance import CenterDefinition, DistanceDefinition, object_center, scene_distances
from jaxvsr.data.geometry.room_area import RoomPoints, room_area
from jaxvsr.data.recipes import common_questions
from jaxvsr.data.recipes.recipe import Census, Recipe, check_options, names_aligned_boxes
from jaxvsr.data.recipes.task import Candidate, Selection, Task
from jaxvsr.data.recipes.vsi100k import COUNT, DIRECTION, DISTANCE, NEAREST, ROOM, SIZE
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject
from jaxvsr.errors import InputError

ORDER = "obj_appearance_order"

TEMPLATES = {
    COUNT: "How many {category}(s) are in this room?",
    SIZE: "What is the length of the longest dimension (length, width, or height) of the {category}, "
    "measured in centimeters?",
    ROOM: "What is the size of this room (in square meters)? If multiple rooms are shown, estimate the size of the "
    "combined space.",
    DISTANCE: "Measuring from the closest point of each object, what is the direct distance between the {first} and "
    "the {second} (in meters)?",
    # The options follow, as every prompt writes them: "…?\nOptions:\nA. …".
    NEAREST: "Measuring from the closest point of each object, which of the following objects is the closest to the "
    "{target}?",
    DIRECTION: "If I am standing by the {stand} and facing the {face}, is the {query} to the left or the right of the "
    "{face}?",
    ORDER: "What will be the first-time appearance order of the following categories in the video: {categories}?",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Lengths in metres, areas in square metres, angles in degrees. The paper gives no thresholds; these are ours.

    Args:
        tasks: only these tasks; empty: all seven.
        exclude_structural: no questions about walls, floors and labels that name nothing (the paper says so, its
            released rows have some).
        count_minimum: ask for categories with at least this many instances.
        distance: between which points distances are measured (the paper: aabb_sample).
        distance_minimum: no pairs that are closer than this (the released rows begin at 0.10).
        nearest_distance: like `distance`, for the nearest of four.
        nearest_minimum_size: objects whose longest side is shorter are neither target nor option ("small objects").
        nearest_margin: the nearest of four is nearer than the others by at least this much.
        direction_center: which point is an object's place.
        direction_minimum_angle: how far the third object is from the line of sight at least, in front or behind.
        direction_minimum_distance, direction_maximum_distance: how far apart any two of the three are, from above.
        size_box: the box whose longest side is asked for.
        size_minimum: no question about the size of objects whose longest side is shorter (released: from 0.12).
        room_points: which points show the floor: low (the paper), labelled, or the whole scene.
        room_height: how far above the lowest point low points are at most.
        room_outliers: share of the points that may be below "the lowest" (the paper: 0).
        room_radius: largest circumradius in the alpha shape.
        room_hidden: whether floor counts that furniture hides or that is missing along walls (`hidden_floor`).
        room_fill_holes: whether holes enclosed by floor count as floor; with `room_hidden` they do.
        room_area: once; or doubled, as in the released rows: both sides of the alpha shape of low points with a radius
            of 1 m, whatever the other options of rooms but height and outliers are.
        order_minimum_share: share of a frame that an object must fill to be seen (the paper: 0, any pixel).
        order_frames: only this many frames, evenly spread; none: all frames, like the paper.
        order_margin_s: seconds by which the first appearances of any two categories are apart, exclusive.
        per_task: at most this many questions per task and scene; the released rows have about five.
        per_answer: at most this many of them with the same answer.
        balance: where a bound leaves questions out, keep the answers as evenly spread as the scene allows.
    """

    tasks: tuple[str, ...] = ()
    exclude_structural: bool = True
    count_minimum: int = 2
    distance: DistanceDefinition = "aabb_exact"
    distance_minimum: float = 0.1
    nearest_distance: DistanceDefinition = "points"
    nearest_minimum_size: float = 0.3
    nearest_margin: float = 0.15
    direction_center: CenterDefinition = "aabb"
    direction_minimum_angle: float = 10.0
    direction_minimum_distance: float = 0.3
    direction_maximum_distance: float = 5.0
    size_box: Literal["aabb", "obb"] = "aabb"
    size_minimum: float = 0.1
    room_points: RoomPoints = "low"
    room_height: float = 0.1
    room_outliers: float = 0.001
    room_radius: float = 0.2
    room_hidden: bool = True
    room_fill_holes: bool = True
    room_area: Literal["once", "doubled"] = "once"
    order_minimum_share: float = 0.001
    order_frames: int | None = None
    order_margin_s: float = 1.0
    per_task: int | None = 6
    per_answer: int | None = None
    balance: bool = True

    def __post_init__(self) -> None:
        counts = ("count_minimum", "per_task", "per_answer", "order_frames")
        ranges = (("direction_minimum_distance", "direction_maximum_distance"),)
        check_options(self, TEMPLATES, counts=counts, positive=("room_radius", "room_height"), ordered=ranges)
        if not 0 <= self.room_outliers < 1:
            raise InputError(f"room_outliers {self.room_outliers}: must be at least 0 and below 1")


def tasks(options: Options, census: Census) -> tuple[Task, ...]:
    """The seven tasks; none uses the census."""
    selection = Selection(options.per_task, options.per_answer, options.balance)

    def bind(make: Callable[[ScannedScene, np.random.Generator, Options], Iterator[Candidate]]):
        return lambda scene, rng: make(scene, rng, options)

    every = (
        Task(COUNT, "number", TEMPLATES[COUNT], bind(_counts), selection),
        Task(SIZE, "number", TEMPLATES[SIZE], bind(_sizes), selection),
        Task(ROOM, "number", TEMPLATES[ROOM], bind(_rooms), selection),
        Task(DISTANCE, "number", TEMPLATES[DISTANCE], bind(_distances), selection),
        Task(NEAREST, "choice", TEMPLATES[NEAREST], bind(_nearest), selection),
        Task(DIRECTION, "word", TEMPLATES[DIRECTION], bind(_directions), selection, swaps_sides=True),
        Task(ORDER, "choice", TEMPLATES[ORDER], bind(_orders), selection),
    )
    return tuple(task for task in every if not options.tasks or task.name in options.tasks)


def _named(scene: ScannedScene, options: Options) -> dict[str, tuple[SceneObject, ...]]:
    return common_questions.objects_by_category(scene, exclude_structural=options.exclude_structural)


def _counts(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    yield from common_questions.count_candidates(_named(scene, options), options.count_minimum)


def _sizes(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    for name, item in common_questions.once(_named(scene, options)):
        box = item.aabb if options.size_box == "aabb" else item.obb
        centimetres = float(box.extent.max()) * 100
        if round(centimetres, 2) >= max(options.size_minimum * 100, 0.01):
            yield Candidate({"category": name}, f"{centimetres:.2f}")


def _rooms(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    released = options.room_area == "doubled"
    area = room_area(
        scene,
        "low" if released else options.room_points,
        radius_m=_RELEASED_RADIUS_METRES if released else options.room_radius,
        fill_holes=released or options.room_fill_holes,
        hidden=options.room_hidden and not released,
        low_height_m=options.room_height,
        low_outliers=options.room_outliers,
    ) * (2 if released else 1)
    yield from common_questions.area_candidates(area, 2)


_RELEASED_RADIUS_METRES = 1.0


def _distances(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    unique = common_questions.once(_named(scene, options))
    distance = scene_distances(scene, options.distance)
    yield from common_questions.distance_candidates(unique, distance, minimum=options.distance_minimum, decimals=4)


def _nearest(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    large = [
        (name, item)
        for name, item in common_questions.once(_named(scene, options))
        if item.aabb.extent.max() >= options.nearest_minimum_size
    ]
    yield from common_questions.nearest_candidates(
        large,
        {name: (item,) for name, item in large},
        scene_distances(scene, options.nearest_distance),
        rng,
        choices=4,
        minimum=0.0,
        margin=options.nearest_margin,
        apart="nearest",
    )


def _directions(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    unique = common_questions.once(_named(scene, options))
    places = np.array([object_center(item, options.direction_center) for _, item in unique]).reshape(-1, 3)
    yield from common_questions.side_candidates(
        [name for name, _ in unique],
        places,
        rng,
        minimum=options.direction_minimum_distance,
        maximum=options.direction_maximum_distance,
        minimum_angle=options.direction_minimum_angle,
    )


def _orders(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    named = _named(scene, options)
    times = common_questions.seconds_of_appearance(scene, named, options.order_minimum_share, options.order_frames)
    yield from common_questions.order_candidates(times, rng, margin_s=options.order_margin_s)


RECIPE = Recipe(
    name="spatial_r1",
    options=Options(),
    tasks=tasks,
    uses_masks=lambda options: not options.tasks or ORDER in options.tasks,
    uses_axes=names_aligned_boxes,
    source="Spatial-R1's SR, built anew from its paper and released rows",
    # The rows released in April 2025, of about 9,000 in the paper.
    paper_counts={COUNT: 995, SIZE: 648, ROOM: 56, DISTANCE: 1_000, NEAREST: 551, DIRECTION: 1_000, ORDER: 0},
)
