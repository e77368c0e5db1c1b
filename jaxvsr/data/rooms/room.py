"""Procedural rooms with an exactly known construction: a floor plan, walls with doors and windows, furniture.

`build_room(seed, index)` builds a room; `room_scans.write_rooms` moves a camera through it and writes ScanNet's files.
Tests compare what is read from those files with the construction.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
from jaxtyping import Float64

from jaxvsr.data.geometry.boxes import AxisAlignedBox, axis_aligned_box
from jaxvsr.data.rooms.floor_plans import FloorPlan, draw_floor_plan
from jaxvsr.data.rooms.furniture import KINDS
from jaxvsr.data.rooms.furniture_layout import Piece, furnish, rectangle_corners
from jaxvsr.data.rooms.solids import Color, Solid, box

# The last of every sixteen scans is another scan of the room before it, like ScanNet's scene…_01: a split by scan
# instead of by room would train on held-out rooms.
_SCANS_PER_REVISIT = 16
_DOOR_CLEARANCE_METRES = 0.8
FLOOR_PATTERNS = ("planks", "tiles", "carpet")


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
    """A flat piece of wall, floor or ceiling: four corners counter-clockwise seen from inside the room, metres."""

    corners: Float64[np.ndarray, "4 3"]
    color: Color


@dataclasses.dataclass(frozen=True, eq=False)
class RoomObject:
    """One labelled object: furniture, doors and windows have solids; walls, floor and ceiling have patches."""

    id: int
    category: str
    raw_label: str
    solids: tuple[Solid, ...]
    patches: tuple[Patch, ...]

    @property
    def corners(self) -> Float64[np.ndarray, "N 3"]:
        """All corners, metres; their hull is the object's, so every box around it can be computed from them."""
        return np.concatenate([solid.corners for solid in self.solids] + [patch.corners for patch in self.patches])

    @property
    def aabb(self) -> AxisAlignedBox:
        """The axis-aligned box in the room's frame."""
        return axis_aligned_box(self.corners)


@dataclasses.dataclass(frozen=True, eq=False)
class Room:
    """A room in its own frame: metres, z up, floor at z = 0; `objects` in order of id, which is ScanNet's objectId."""

    name: str
    plan: FloorPlan
    height: float
    objects: tuple[RoomObject, ...]
    pieces: tuple[Piece, ...]
    floor_pattern: str
    floor_color: Color

    @property
    def area(self) -> float:
        """Square metres of floor."""
        return self.plan.area


def room_and_scan(index: int) -> tuple[int, int]:
    """The number of the room of scan `index`, and of the scan among those of the room, both from 0."""
    block, within = divmod(index, _SCANS_PER_REVISIT)
    if within == _SCANS_PER_REVISIT - 1:
        return block * (_SCANS_PER_REVISIT - 1) + within - 1, 1
    return block * (_SCANS_PER_REVISIT - 1) + within, 0


def scene_name(index: int) -> str:
    """A name as in ScanNet: scene0014_00 and scene0014_01 are two scans of one room."""
    room, scan = room_and_scan(index)
    return f"scene{room:04d}_{scan:02d}"


def build_room(seed: int, index: int) -> Room:
    """The room of scan `index`; a pure function of the two numbers (from 0)."""
    number, _ = room_and_scan(index)
    rng = np.random.default_rng([seed, number])
    plan = draw_floor_plan(rng)
    height = float(rng.uniform(2.35, 3.0))
    openings, keep_clear = _openings(rng, plan, height)
    pieces = furnish(rng, plan, keep_clear)
    labels = {category: str(rng.choice(kind.raw_labels)) for category, kind in KINDS.items()}
    pattern, floor_color = _floor_look(rng)
    wall_color = _wall_color(rng)

    things: list[tuple[str, str, tuple[Solid, ...], tuple[Patch, ...]]] = []
    for piece in pieces:
        things.append((piece.category, labels[piece.category], piece.solids, ()))
        if piece.category == "desk" and rng.random() < 0.6:
            things.append(("monitor", labels["monitor"], _monitor_on(rng, piece), ()))
    things += [(category, category, solids, ()) for category, solids in openings]
    things += [("wall", "wall", (), (patch,)) for patch in _wall_patches(plan, height, wall_color)]
    things.append(("floor", "floor", (), _level_patches(plan, 0.0, floor_color)))
    things.append(("ceiling", "ceiling", (), _level_patches(plan, height, (0.95, 0.95, 0.94))))
    order = rng.permutation(len(things))
    return Room(
        name=scene_name(index),
        plan=plan,
        height=height,
        objects=tuple(RoomObject(number, *things[place]) for number, place in enumerate(order)),
        pieces=tuple(pieces),
        floor_pattern=pattern,
        floor_color=floor_color,
    )


def _floor_look(rng: np.random.Generator) -> tuple[str, Color]:
    pattern = str(rng.choice(FLOOR_PATTERNS))
    shade = rng.uniform(0.85, 1.1)
    base = {"planks": (0.68, 0.50, 0.33), "tiles": (0.78, 0.77, 0.74), "carpet": (0.52, 0.50, 0.53)}[pattern]
    red, green, blue = (min(1.0, channel * shade) for channel in base)
    return pattern, (red, green, blue)


def _wall_color(rng: np.random.Generator) -> Color:
    """Off-white with a tint of some colour."""
    red, green, blue = 0.84 + rng.uniform(-0.07, 0.07, 3)
    return float(red), float(green), float(blue)


def _monitor_on(rng: np.random.Generator, desk: Piece) -> tuple[Solid, ...]:
    """A monitor at the back of a desk, with the screen towards the desk's front."""
    solids = KINDS["monitor"].build(rng)
    slide = rng.uniform(-0.5, 0.5) * (desk.half[0] - 0.35)
    back = -desk.half[1] + 0.14
    cos, sin = math.cos(desk.yaw), math.sin(desk.yaw)
    x, y = desk.center + np.array([slide * cos - back * sin, slide * sin + back * cos])
    return tuple(solid.moved(float(x), float(y), desk.height, desk.yaw) for solid in solids)


def _wall_patches(plan: FloorPlan, height: float, color: Color) -> list[Patch]:
    patches = []
    for start, end in plan.walls:
        corners = np.array([[*end, 0.0], [*start, 0.0], [*start, height], [*end, height]])
        patches.append(Patch(corners[::-1].copy(), color))
    return patches


def _level_patches(plan: FloorPlan, z: float, color: Color) -> tuple[Patch, ...]:
    """Floor or ceiling as the rectangles into which the lines of the walls divide the plan."""
    xs, ys = (np.unique(plan.outline[:, axis].round(9)) for axis in (0, 1))
    patches = []
    for left, right in itertools.pairwise(xs):
        for low, high in itertools.pairwise(ys):
            if plan.contains(np.array([[(left + right) / 2, (low + high) / 2]]))[0]:
                corners = np.array([[left, low, z], [right, low, z], [right, high, z], [left, high, z]])
                patches.append(Patch(corners if z == 0 else corners[::-1].copy(), color))
    return tuple(patches)


def _openings(
    rng: np.random.Generator, plan: FloorPlan, height: float
) -> tuple[list[tuple[str, tuple[Solid, ...]]], Float64[np.ndarray, "D 4 2"]]:
    """One or two doors and up to three windows, each on another wall; and the floor to keep clear in front of doors."""
    lengths = np.linalg.norm(plan.walls[:, 1] - plan.walls[:, 0], axis=1)
    wall_order = [int(wall) for wall in rng.permutation(len(lengths)) if lengths[wall] > 1.3]
    doors = 2 if plan.area > 30 and rng.random() < 0.4 else 1
    windows = int(rng.integers(0, 4))
    openings: list[tuple[str, tuple[Solid, ...]]] = []
    clearances = []
    for number, wall in enumerate(wall_order[: doors + windows]):
        category = "door" if number < doors else "window"
        width = float(rng.uniform(0.8, 0.95) if category == "door" else rng.uniform(0.8, min(1.7, lengths[wall] - 0.4)))
        solids = _door(rng, width) if category == "door" else _window(rng, width, height)
        start, end = plan.walls[wall]
        along = (end - start) / lengths[wall]
        inward = np.array([-along[1], along[0]])
        slide = rng.uniform(-1, 1) * (lengths[wall] / 2 - width / 2 - 0.1)
        middle = (start + end) / 2 + slide * along
        yaw = math.atan2(inward[1], inward[0]) - math.pi / 2
        openings.append((category, tuple(solid.moved(middle[0], middle[1], 0.0, yaw) for solid in solids)))
        if category == "door":
            half = np.array([width / 2, _DOOR_CLEARANCE_METRES / 2])
            center = middle + inward * half[1]
            clearances.append(rectangle_corners(center[None], half, np.array([yaw]))[0])
    return openings, np.stack(clearances) if clearances else np.zeros((0, 4, 2))


def _door(rng: np.random.Generator, width: float) -> list[Solid]:
    """A closed door in its frame, with its back on the wall and its front towards +y."""
    height, half = float(rng.uniform(1.98, 2.1)), width / 2
    wood = float(rng.uniform(0.85, 1.1))
    leaf, frame = (0.42 * wood, 0.22 * wood, 0.12 * wood), (0.90, 0.88, 0.84)
    return [
        box((-half, -half + 0.07), (0, 0.03), (0, height), frame),
        box((half - 0.07, half), (0, 0.03), (0, height), frame),
        box((-half + 0.07, half - 0.07), (0, 0.03), (height - 0.07, height), frame),
        box((-half + 0.07, half - 0.07), (0, 0.02), (0, height - 0.07), leaf),
        box((half - 0.2, half - 0.12), (0.02, 0.06), (1.0, 1.04), (0.80, 0.72, 0.35)),
    ]


def _window(rng: np.random.Generator, width: float, room_height: float) -> list[Solid]:
    """A window with two panes, only 1.5 cm thick, so that furniture can be in front of it."""
    low = float(rng.uniform(0.85, 1.05))
    high, half = min(low + float(rng.uniform(1.0, 1.3)), room_height - 0.1), width / 2
    frame, sky = (0.97, 0.97, 0.97), (0.55, 0.80, 0.98)
    return [
        box((-half, half), (0, 0.010), (low, high), sky),
        box((-half, half), (0.010, 0.015), (low, low + 0.06), frame),
        box((-half, half), (0.010, 0.015), (high - 0.06, high), frame),
        *(
            box((x - 0.03, x + 0.03), (0.010, 0.015), (low + 0.06, high - 0.06), frame)
            for x in (-half + 0.03, 0, half - 0.03)
        ),
    ]
