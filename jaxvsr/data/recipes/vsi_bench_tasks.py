"""VSI-Bench's tasks on other scans, by definitions that reproduce the benchmark's answers.

VSI-Bench comes without a generator. These are the rules of VLM-3R's, whose distances between grids of oriented boxes
reproduce almost all of the published answers. Route planning was written by hand and is not here.

    count      categories with more than one instance
    size       unique categories, longest side of the minimal oriented box, whole centimetres
    room       alpha shape (alpha 5) of 10,000 random points of the scene seen from above; enclosed gaps count, as in
               the package alphashape that it uses
    distance   unique categories, nearest points of 5 cm grids in the outer parts of the oriented boxes; rounded to
               decimetres, then left out below 0.2
    nearest    unique target, four other categories, their nearest instance; none nearer than 0.15, any two 0.15 apart
    direction  unique triples, centres of the oriented boxes, 0.3 to 5 m apart. hard: quadrants; medium: left, right,
               back (from 135 degrees); easy: medium without back. Left out within 10 degrees of a border, and where
               more than two corners of the third object's box are in another sector
    order      first of 32 sampled frames in which a category is seen in the instance masks, times in whole seconds,
               more than one second apart

Corrections, each an option: the margin for large rooms is applied (VLM-3R's first version computes it and ignores it),
and both sides of a border are kept clear in hard directions (VLM-3R: one side). Each letter is right equally often.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxvsr.data.geometry import directions
from jaxvsr.data.geometry.object_distance import DistanceDefinition, scene_distances
from jaxvsr.data.geometry.room_area import RoomPoints, room_area
from jaxvsr.data.recipes import common_questions
from jaxvsr.data.recipes.recipe import Census, Recipe, check_options, names_aligned_boxes
from jaxvsr.data.recipes.sr import ORDER
from jaxvsr.data.recipes.task import Candidate, Selection, Task, swap_sides
from jaxvsr.data.recipes.vsi100k import COUNT, DISTANCE, NEAREST, ROOM, SIZE
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject
from jaxvsr.errors import InputError

Difficulty = Literal["easy", "medium", "hard"]
DIRECTIONS: dict[Difficulty, str] = {
    "easy": "object_rel_direction_easy",
    "medium": "object_rel_direction_medium",
    "hard": "object_rel_direction_hard",
}

_NEAREST = "Measuring from the closest point of each object, which of these objects ({options}) is the closest to the "
_NOTE = "\nIf there are multiple instances of an object category, measure to the closest."
_FACING = "If I am standing by the {stand} and facing the {face}, is the {query} to "
# VSI-Bench's released questions.
TEMPLATES = {
    COUNT: "How many {category}(s) are in this room?",
    SIZE: "What is the length of the longest dimension (length, width, or height) of the {category}, "
    "measured in centimeters?",
    ROOM: "What is the size of this room (in square meters)? \nIf multiple rooms are shown, estimate the size of the "
    "combined space.",
    DISTANCE: "Measuring from the closest point of each object, what is the distance between the {first} and the "
    "{second} (in meters)?",
    NEAREST: _NEAREST + "{target}?",
    DIRECTIONS["easy"]: _FACING + "the left or the right of the {face}?",
    DIRECTIONS["medium"]: _FACING + "my left, right, or back?\nAn object is to my back if I would have to turn at "
    "least 135 degrees in order to face it.",
    DIRECTIONS["hard"]: _FACING + "my front-left, front-right, back-left, or back-right?\nThe directions refer to the "
    "quadrants of a Cartesian plane (if I am standing at the origin and facing along the positive y-axis).",
    ORDER: "What will be the first-time appearance order of the following categories in the video: {categories}?",
}

# The categories of `categories.category_of` that VSI-Bench-style generators keep, and what they call them.
KEPT: dict[str, str] = {
    **{name: name for name in (
        "bed", "chair", "sofa", "table", "window", "bookshelf", "counter", "refrigerator", "pillow", "monitor", "door",
        "lamp", "printer", "towel", "tv", "nightstand", "plant", "keyboard", "backpack", "closet", "microwave", "fan",
        "washing machine", "mirror", "piano", "radiator", "telephone", "clock", "guitar", "bicycle", "oven",
        "computer mouse",
    )},
    "desk": "table",
    "trash can": "trash bin",
    "recycling bin": "trash bin",
}  # fmt: skip

# The angles at which the answer changes, in degrees counter-clockwise from straight ahead.
_BORDERS: dict[Difficulty, tuple[float, ...]] = {
    "easy": (0.0, 135.0, 225.0), "medium": (0.0, 135.0, 225.0), "hard": (0.0, 90.0, 180.0, 270.0)
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """Lengths in metres, areas in square metres, angles in degrees.

    Args:
        tasks: only these tasks; empty: all nine.
        categories: listed: those that the generators keep, desks among the tables; all: every category that is not
            part of the building, desks and bins by their own names.
        count_minimum: ask for categories with at least this many instances.
        distance: between which points distances are measured.
        distance_minimum: no pairs that are closer than this after rounding.
        nearest_minimum: no options that are closer to the target than this.
        nearest_margin: any two options differ by at least this much.
        nearest_margin_large: the same in rooms of more than 40 square metres.
        nearest_choices: number of options.
        nearest_note: say in the question that the closest of several instances counts, as VLM-3R does.
        direction_minimum_distance, direction_maximum_distance: how far apart any two of the three are, from above.
        direction_margin: how far the centre of the third object is from a border between answers at least.
        direction_both_sides: keep both sides of a border clear in hard directions, too.
        direction_stray_corners: at most this many of the eight corners of the third object's box are in other sectors.
        room_points: which points show where the room is.
        room_radius: largest circumradius in the alpha shape (0.2 is alpha 5).
        room_fill_holes: whether enclosed gaps count as room.
        order_minimum_share: share of a frame that an object of the category must fill to be seen; 0: any pixel.
        order_frames: only this many frames, evenly spread; none: all frames.
        order_margin_s: seconds by which the first appearances of any two categories are apart, exclusive.
        per_task: at most this many questions per task and scene.
        per_answer: at most this many of them with the same answer.
        balance: where a bound leaves questions out, keep the answers as evenly spread as the scene allows.
    """

    tasks: tuple[str, ...] = ()
    categories: Literal["listed", "all"] = "listed"
    count_minimum: int = 2
    distance: DistanceDefinition = "obb_grid"
    distance_minimum: float = 0.2
    nearest_minimum: float = 0.15
    nearest_margin: float = 0.15
    nearest_margin_large: float = 0.3
    nearest_choices: int = 4
    nearest_note: bool = False
    direction_minimum_distance: float = 0.3
    direction_maximum_distance: float = 5.0
    direction_margin: float = 10.0
    direction_both_sides: bool = True
    direction_stray_corners: int = 2
    room_points: RoomPoints = "scene"
    room_radius: float = 0.2
    room_fill_holes: bool = True
    order_minimum_share: float = 0.001
    order_frames: int | None = 32
    order_margin_s: float = 1.0
    per_task: int | None = 6
    per_answer: int | None = None
    balance: bool = True

    def __post_init__(self) -> None:
        counts = ("count_minimum", "per_task", "per_answer", "order_frames")
        ranges = (("direction_minimum_distance", "direction_maximum_distance"),)
        check_options(self, TEMPLATES, counts=counts, positive=("room_radius",), ordered=ranges)
        if not 2 <= self.nearest_choices <= 26:
            raise InputError(f"nearest_choices {self.nearest_choices}: must be from 2 to 26")


LARGE_ROOM_SQUARE_METRES = 40.0


def tasks(options: Options, census: Census) -> tuple[Task, ...]:
    """The nine tasks; none uses the census."""
    selection = Selection(options.per_task, options.per_answer, options.balance)

    def bind(make: Callable[..., Iterator[Candidate]], *more: Difficulty):
        return lambda scene, rng: make(scene, rng, options, *more)

    nearest = TEMPLATES[NEAREST] + (_NOTE if options.nearest_note else "")
    every = (
        Task(COUNT, "number", TEMPLATES[COUNT], bind(_counts), selection),
        Task(SIZE, "number", TEMPLATES[SIZE], bind(_sizes), selection),
        Task(ROOM, "number", TEMPLATES[ROOM], bind(_rooms), selection),
        Task(DISTANCE, "number", TEMPLATES[DISTANCE], bind(_distances), selection),
        Task(NEAREST, "choice", nearest, bind(_nearest), selection),
        *(
            Task(name, "choice", TEMPLATES[name], bind(_directions, difficulty), selection, swaps_sides=True)
            for difficulty, name in DIRECTIONS.items()
        ),
        Task(ORDER, "choice", TEMPLATES[ORDER], bind(_orders), selection),
    )
    return tuple(task for task in every if not options.tasks or task.name in options.tasks)


def _named(scene: ScannedScene, options: Options) -> dict[str, tuple[SceneObject, ...]]:
    if options.categories == "all":
        return common_questions.objects_by_category(scene, exclude_structural=True)
    return common_questions.name_objects(scene, lambda item: KEPT.get(item.category))


def _counts(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    yield from common_questions.count_candidates(_named(scene, options), options.count_minimum)


def _sizes(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    for name, item in common_questions.once(_named(scene, options)):
        centimetres = round(float(item.obb.extent.max()) * 100)
        if centimetres >= 1:
            yield Candidate({"category": name}, str(centimetres))


@functools.lru_cache(maxsize=4)
def _area(scene: ScannedScene, options: Options) -> float:
    return room_area(
        scene, options.room_points, radius_m=options.room_radius, fill_holes=options.room_fill_holes,
        low_height_m=0.1, low_outliers=0.001,
    )  # fmt: skip


def _rooms(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    yield from common_questions.area_candidates(_area(scene, options), 1)


def _distances(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    unique = common_questions.once(_named(scene, options))
    distance = scene_distances(scene, options.distance)
    yield from common_questions.distance_candidates(unique, distance, minimum=options.distance_minimum, decimals=1)


def _nearest(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    named = _named(scene, options)
    large = _area(scene, options) > LARGE_ROOM_SQUARE_METRES
    yield from common_questions.nearest_candidates(
        common_questions.once(named),
        named,
        scene_distances(scene, options.distance),
        rng,
        choices=options.nearest_choices,
        minimum=options.nearest_minimum,
        margin=options.nearest_margin_large if large else options.nearest_margin,
        apart="all",
    )


def sector_of(turns: Float[np.ndarray, "*N"], difficulty: Difficulty) -> np.ndarray:
    """The number of the sector between borders that each turn is in, from 0."""
    return np.searchsorted(_BORDERS[difficulty], turns, side="right") - 1


def _directions(
    scene: ScannedScene, rng: np.random.Generator, options: Options, difficulty: Difficulty
) -> Iterator[Candidate]:
    unique = common_questions.once(_named(scene, options))
    places = np.array([item.obb.center for _, item in unique]).reshape(-1, 3)
    found, turns = common_questions.triples(
        places, rng, minimum=options.direction_minimum_distance, maximum=options.direction_maximum_distance
    )
    if not len(found):
        return
    sectors = sector_of(turns, difficulty)
    stand, face, query = found.T
    corners = np.stack([item.obb.corners for _, item in unique])[query]
    corner_turns = directions.turn_degrees(places[stand][:, None], places[face][:, None], corners)
    stray = (sector_of(corner_turns, difficulty) != sectors[:, None]).sum(axis=1)
    both_sides = difficulty != "hard" or options.direction_both_sides
    clear = _degrees_from_border(turns, difficulty, both_sides) >= options.direction_margin
    clear &= stray <= options.direction_stray_corners
    if difficulty == "easy":
        clear &= sectors != 1  # the back
    names = [name for name, _ in unique]
    for (first, second, third), turn in zip(found[clear].tolist(), turns[clear].tolist(), strict=True):
        fields = {"stand": names[first], "face": names[second], "query": names[third]}
        yield Candidate(fields, *_answer(turn, difficulty))


def _degrees_from_border(turns: Float[np.ndarray, " N"], difficulty: Difficulty, both_sides: bool) -> np.ndarray:
    """Degrees to the nearest border, or (with one side) to the next border counter-clockwise."""
    ahead = np.min([(border - turns) % 360 for border in _BORDERS[difficulty]], axis=0)
    behind = np.min([(turns - border) % 360 for border in _BORDERS[difficulty]], axis=0)
    return np.minimum(ahead, behind) if both_sides else ahead


def _answer(turn: float, difficulty: Difficulty) -> tuple[str, tuple[str, ...]]:
    """The answer and all options, in an order that a mirror keeps: the answer first, the others relative to it."""
    answer = directions.quadrant(turn) if difficulty == "hard" else directions.sector(turn)
    return answer, _choices(answer, directions.side(turn), difficulty)


@functools.cache
def _choices(answer: str, side: str, difficulty: Difficulty) -> tuple[str, ...]:
    if difficulty == "hard":
        end, hand = answer.split("-")
        other = {"front": "back", "back": "front"}[end]
        return answer, swap_sides(answer), f"{other}-{hand}", swap_sides(f"{other}-{hand}")
    if difficulty == "easy":
        return answer, swap_sides(answer)
    return tuple(dict.fromkeys((answer, side, swap_sides(side), "back")))


def _orders(scene: ScannedScene, rng: np.random.Generator, options: Options) -> Iterator[Candidate]:
    named = _named(scene, options)
    times = common_questions.seconds_of_appearance(scene, named, options.order_minimum_share, options.order_frames)
    seconds = {name: float(round(time)) for name, time in times.items()}
    yield from common_questions.order_candidates(seconds, rng, margin_s=options.order_margin_s)


RECIPE = Recipe(
    name="vsi_bench",
    options=Options(),
    tasks=tasks,
    uses_masks=lambda options: not options.tasks or ORDER in options.tasks,
    uses_axes=names_aligned_boxes,
    source="questions by VSI-Bench's definitions, after VLM-3R's generator",
    # VSI-Bench itself, on 288 videos.
    paper_counts={
        COUNT: 565, SIZE: 953, ROOM: 288, DISTANCE: 834, NEAREST: 710, DIRECTIONS["easy"]: 217,
        DIRECTIONS["medium"]: 378, DIRECTIONS["hard"]: 373, ORDER: 618,
    },
)  # fmt: skip
