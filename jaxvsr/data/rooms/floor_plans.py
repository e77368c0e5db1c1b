"""Floor plans of procedural rooms: rectangles, L, T and U shapes, and two rooms with an open doorway; 12 to 80 m²."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64

AREA_RANGE_SQUARE_METRES = (12.0, 80.0)
_SHAPES = ("rectangle", "L", "T", "U", "two rooms")
_SHAPE_SHARES = (0.46, 0.2, 0.08, 0.06, 0.2)
_PARTITION_METRES = 0.12
_DOORWAY_CLEARANCE_METRES = 0.7  # of the floor on both sides of the doorway
_NARROWEST_ARM_METRES = 1.7  # nobody can walk in a narrower part of a room
_NARROWEST_NOTCH_METRES = 0.8  # a narrower notch is hardly visible


@dataclasses.dataclass(frozen=True, eq=False)
class FloorPlan:
    """A rectilinear outline, counter-clockwise, metres, with the origin at the centre of its bounding rectangle.

    `blocked` are the rectangles where no furniture may stand: the wall between two rooms and the floor at its doorway.
    """

    shape: str
    outline: Float64[np.ndarray, "N 2"]
    blocked: Float64[np.ndarray, "B 4 2"] = dataclasses.field(default_factory=lambda: np.zeros((0, 4, 2)))

    @property
    def area(self) -> float:
        """Square metres, by the shoelace formula."""
        x, y = self.outline.T
        return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)

    @property
    def walls(self) -> Float64[np.ndarray, "N 2 2"]:
        """Start and end of every wall; the room is to the left of it."""
        return np.stack([self.outline, np.roll(self.outline, -1, axis=0)], axis=1)

    def contains(self, points: Float64[np.ndarray, "*P 2"]) -> Bool[np.ndarray, "*P"]:
        """Whether points are inside, by the parity of the walls that a ray towards +x crosses."""
        x, y = points[..., 0, None], points[..., 1, None]
        start, end = self.walls[:, 0], self.walls[:, 1]
        spans = (start[:, 1] > y) != (end[:, 1] > y)
        rise = np.where(end[:, 1] == start[:, 1], 1.0, end[:, 1] - start[:, 1])
        crossing = start[:, 0] + (y - start[:, 1]) / rise * (end[:, 0] - start[:, 0])
        return (spans & (crossing > x)).sum(axis=-1) % 2 == 1

    def distance_to_walls(self, points: Float64[np.ndarray, "*P 2"]) -> Float64[np.ndarray, "*P"]:
        """Metres to the nearest wall, from inside or outside."""
        start, end = self.walls[:, 0], self.walls[:, 1]
        along = end - start
        offset = points[..., None, :] - start
        share = np.clip((offset * along).sum(-1) / (along * along).sum(-1), 0, 1)
        return np.linalg.norm(offset - share[..., None] * along, axis=-1).min(axis=-1)


def draw_floor_plan(rng: np.random.Generator) -> FloorPlan:
    """A floor plan whose area is uniform on a logarithmic scale over AREA_RANGE_SQUARE_METRES."""
    area = float(np.exp(rng.uniform(*np.log(AREA_RANGE_SQUARE_METRES))))
    while True:
        shape = _SHAPES[rng.choice(len(_SHAPES), p=_SHAPE_SHARES)]
        plan = _draw_shape(rng, shape, area)
        if plan is not None:
            return plan


def _draw_shape(rng: np.random.Generator, shape: str, area: float) -> FloorPlan | None:
    """One try; None if an arm or a notch is too narrow."""
    if shape == "two rooms":
        return _two_rooms(rng, area)
    width, depth = 1.0, rng.uniform(0.5, 1.0)
    cuts = rng.uniform(0.25, 0.6, 2)  # of the width and of the depth
    # Corners of the outline, then the widths of its arms and notches, both as shares of the bounding rectangle.
    if shape == "rectangle":
        outline: list[tuple[float, float]] = [(0, 0), (1, 0), (1, 1), (0, 1)]
        arms, notches = [width, depth], []
    elif shape == "L":
        a, b = 1 - cuts
        outline = [(0, 0), (1, 0), (1, b), (a, b), (a, 1), (0, 1)]
        arms, notches = [a * width, b * depth], [cuts[0] * width, cuts[1] * depth]
    else:
        a = rng.uniform(0.2, 0.8) * cuts[0]  # the stem of the T, or the notch of the U, need not be centred
        c, b = a + 1 - cuts[0], 1 - cuts[1]
        if shape == "T":
            outline = [(0, 0), (1, 0), (1, b), (c, b), (c, 1), (a, 1), (a, b), (0, b)]
            arms, notches = [(c - a) * width, b * depth], [a * width, (1 - c) * width, cuts[1] * depth]
        else:
            a, c = rng.uniform(0.28, 0.4), rng.uniform(0.6, 0.72)
            outline = [(0, 0), (1, 0), (1, 1), (c, 1), (c, b), (a, b), (a, 1), (0, 1)]
            arms = [a * width, (1 - c) * width, b * depth]
            notches = [(c - a) * width, cuts[1] * depth]
    corners = (np.array(outline, dtype=np.float64) - 0.5) * [width, depth]
    scale = np.sqrt(area / FloorPlan(shape, corners).area)
    if min(arms) * scale < _NARROWEST_ARM_METRES or (notches and min(notches) * scale < _NARROWEST_NOTCH_METRES):
        return None
    return FloorPlan(shape, corners * scale @ _quarter_turns(rng))


def _two_rooms(rng: np.random.Generator, area: float) -> FloorPlan | None:
    """A rectangle with a wall across it and a doorway as high as the room; None if a room would be too narrow."""
    depth = np.sqrt(area * rng.uniform(0.4, 0.75))
    door = rng.uniform(0.9, 1.4)
    width = (area + (depth - door) * _PARTITION_METRES) / depth
    left = width * rng.uniform(0.35, 0.65)
    right = left + _PARTITION_METRES
    low = rng.uniform(0.1, 0.9) * (depth - door)
    high = low + door
    if min(left, width - right, depth) < _NARROWEST_ARM_METRES:
        return None
    outline = [
        (0, 0), (left, 0), (left, low), (right, low), (right, 0), (width, 0),
        (width, depth), (right, depth), (right, high), (left, high), (left, depth), (0, depth),
    ]  # fmt: skip
    clear = _DOORWAY_CLEARANCE_METRES
    blocked = [
        [(left, 0), (right, 0), (right, low), (left, low)],
        [(left, high), (right, high), (right, depth), (left, depth)],
        [(left - clear, low), (right + clear, low), (right + clear, high), (left - clear, high)],
    ]
    turn, middle = _quarter_turns(rng), np.array([width, depth]) / 2
    return FloorPlan("two rooms", (np.array(outline) - middle) @ turn, (np.array(blocked) - middle) @ turn)


def _quarter_turns(rng: np.random.Generator) -> Float64[np.ndarray, "2 2"]:
    """A matrix that turns points, as rows, by none to three quarters, counter-clockwise."""
    return np.linalg.matrix_power(np.array([[0.0, 1.0], [-1.0, 0.0]]), rng.integers(4))
