"""Doors and windows in the walls of a procedural room."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float64

from jaxvsr.data.rooms.floor_plans import FloorPlan
from jaxvsr.data.rooms.furniture_layout import rectangle_corners
from jaxvsr.data.rooms.solids import Solid, box

_DOOR_CLEARANCE_METRES = 0.8


@dataclasses.dataclass(frozen=True, eq=False)
class Opening:
    """A door or window, metres: its middle on the wall's line, the direction into the room, heights of its edges."""

    category: str
    solids: tuple[Solid, ...]
    middle: Float64[np.ndarray, " 2"]
    inward: Float64[np.ndarray, " 2"]
    half_width: float
    low: float
    high: float

    @property
    def along(self) -> Float64[np.ndarray, " 2"]:
        """The direction of the wall's line, with the room to its left."""
        return np.array([self.inward[1], -self.inward[0]])

    @property
    def ends(self) -> Float64[np.ndarray, "2 2"]:
        """Where it begins and ends on the wall's line, metres."""
        return self.middle + np.array([[-1], [1]]) * self.half_width * self.along


def draw_openings(
    rng: np.random.Generator, plan: FloorPlan, height: float
) -> tuple[list[Opening], Float64[np.ndarray, "D 4 2"]]:
    """One or two doors and up to three windows, each on another wall; and the floor to keep clear in front of doors."""
    lengths = np.linalg.norm(plan.walls[:, 1] - plan.walls[:, 0], axis=1)
    wall_order = [int(wall) for wall in rng.permutation(len(lengths)) if lengths[wall] > 1.3]
    doors = 2 if plan.area > 30 and rng.random() < 0.4 else 1
    windows = int(rng.integers(0, 4))
    openings: list[Opening] = []
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
        turned = tuple(solid.moved(middle[0], middle[1], 0.0, yaw) for solid in solids)
        low, high = min(solid.low for solid in solids), max(solid.high for solid in solids)
        openings.append(Opening(category, turned, middle, inward, width / 2, low, high))
        if category == "door":
            half = np.array([width / 2, _DOOR_CLEARANCE_METRES / 2])
            center = middle + inward * half[1]
            clearances.append(rectangle_corners(center[None], half, np.array([yaw]))[0])
    return openings, np.stack(clearances) if clearances else np.zeros((0, 4, 2))


def draw_sun(rng: np.random.Generator, openings: list[Opening]) -> Float64[np.ndarray, " 3"]:
    """The direction in which sunlight travels, down and into the room by most of its windows; length 1."""
    windows = [opening.inward for opening in openings if opening.category == "window"]
    level = np.sum(windows, axis=0) + rng.normal(0, 0.4, 2)
    level /= np.linalg.norm(level)
    elevation = math.radians(rng.uniform(32, 50))
    return np.array([*level * math.cos(elevation), -math.sin(elevation)])


def _door(rng: np.random.Generator, width: float) -> list[Solid]:
    """A closed door in its frame, with its back on the wall and its front towards +y."""
    height, half = float(rng.uniform(1.98, 2.1)), width / 2
    wood = float(rng.uniform(0.85, 1.1))
    leaf, frame = (0.42 * wood, 0.22 * wood, 0.12 * wood), (0.90, 0.88, 0.84)
    panel = (0.36 * wood, 0.18 * wood, 0.10 * wood)
    return [
        box((-half, -half + 0.07), (0, 0.03), (0, height), frame),
        box((half - 0.07, half), (0, 0.03), (0, height), frame),
        box((-half + 0.07, half - 0.07), (0, 0.03), (height - 0.07, height), frame),
        box((-half + 0.07, half - 0.07), (0, 0.02), (0, height - 0.07), leaf),
        *(box((-half + 0.2, half - 0.24), (0.02, 0.023), z, panel) for z in ((0.2, 0.9), (1.05, height - 0.25))),
        box((half - 0.2, half - 0.12), (0.02, 0.06), (1.0, 1.04), (0.80, 0.72, 0.35)),
    ]


def _window(rng: np.random.Generator, width: float, room_height: float) -> list[Solid]:
    """A window with two panes, only 1.5 cm thick, so that furniture can be in front of it."""
    low = float(rng.uniform(0.85, 1.05))
    high, half = min(low + float(rng.uniform(1.0, 1.3)), room_height - 0.1), width / 2
    horizon = low + 0.3 * (high - low)
    frame, sky, haze, green = (0.97, 0.97, 0.97), (0.55, 0.80, 0.98), (0.74, 0.89, 0.99), (0.42, 0.60, 0.38)
    return [
        box((-half, half), (0, 0.010), (low, horizon - 0.1), green),
        box((-half, half), (0, 0.010), (horizon - 0.1, horizon + 0.15), haze),
        box((-half, half), (0, 0.010), (horizon + 0.15, high), sky),
        box((-half, half), (0.010, 0.015), (low, low + 0.06), frame),
        box((-half, half), (0.010, 0.015), (high - 0.06, high), frame),
        *(
            box((x - 0.03, x + 0.03), (0.010, 0.015), (low + 0.06, high - 0.06), frame)
            for x in (-half + 0.03, 0, half - 0.03)
        ),
    ]
