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
from jaxvsr.data.rooms.floor_looks import FloorLook, draw_floor_color, draw_rug
from jaxvsr.data.rooms.floor_plans import FloorPlan, draw_floor_plan
from jaxvsr.data.rooms.furniture import KINDS
from jaxvsr.data.rooms.furniture_layout import Piece, furnish
from jaxvsr.data.rooms.openings import Opening, draw_openings, draw_sun
from jaxvsr.data.rooms.solids import Color, Patch, Solid
from jaxvsr.data.rooms.wall_looks import draw_pictures, draw_wall_color, wall_patches

# The last of every sixteen scans is another scan of the room before it, like ScanNet's scene…_01: a split by scan
# instead of by room would train on held-out rooms.
_SCANS_PER_REVISIT = 16


@dataclasses.dataclass(frozen=True, eq=False)
class RoomObject:
    """One labelled object: walls, floor and ceiling have patches, all others have solids."""

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
    floor_look: FloorLook
    windows: tuple[Opening, ...]
    sun: Float64[np.ndarray, " 3"]  # the direction in which sunlight travels

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
    openings, keep_clear = draw_openings(rng, plan, height)
    pieces = furnish(rng, plan, keep_clear)
    labels = {category: str(rng.choice(kind.raw_labels)) for category, kind in KINDS.items()}
    pattern, floor_color = draw_floor_color(rng)
    wall_color = draw_wall_color(rng)

    things: list[tuple[str, str, tuple[Solid, ...], tuple[Patch, ...]]] = []
    for piece in pieces:
        things.append((piece.category, labels[piece.category], piece.solids, ()))
        if piece.category == "desk" and rng.random() < 0.6:
            things.append(("monitor", labels["monitor"], _monitor_on(rng, piece), ()))
    things += [(opening.category, opening.category, opening.solids, ()) for opening in openings]
    looks = rng.spawn(1)[0]
    things += [("picture", "picture", solids, ()) for solids in draw_pictures(looks, plan, openings, pieces)]
    things += [("wall", "wall", (), patches) for patches in wall_patches(looks, plan, height, wall_color)]
    things.append(("floor", "floor", (), _level_patches(plan, 0.0, floor_color)))
    things.append(("ceiling", "ceiling", (), _level_patches(plan, height, (0.95, 0.95, 0.94))))
    order = rng.permutation(len(things))
    return Room(
        name=scene_name(index),
        plan=plan,
        height=height,
        objects=tuple(RoomObject(number, *things[place]) for number, place in enumerate(order)),
        pieces=tuple(pieces),
        floor_look=FloorLook(pattern, floor_color, draw_rug(looks, plan)),
        windows=tuple(opening for opening in openings if opening.category == "window"),
        sun=draw_sun(looks, openings),
    )


def _monitor_on(rng: np.random.Generator, desk: Piece) -> tuple[Solid, ...]:
    """A monitor at the back of a desk, with the screen towards the desk's front."""
    solids = KINDS["monitor"].build(rng)
    slide = rng.uniform(-0.5, 0.5) * (desk.half[0] - 0.35)
    back = -desk.half[1] + 0.14
    cos, sin = math.cos(desk.yaw), math.sin(desk.yaw)
    x, y = desk.center + np.array([slide * cos - back * sin, slide * sin + back * cos])
    return tuple(solid.moved(float(x), float(y), desk.height, desk.yaw) for solid in solids)


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
