"""The parts of rooms: flat patches, and solids with a convex outline at the bottom and another at the top.

A box has the same rectangle twice, a bin a small circle below a larger one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

Color = tuple[float, float, float]
Interval = Sequence[float | int]

ROUND_SIDES = 12


@dataclasses.dataclass(frozen=True, eq=False)
class Solid:
    """Outlines of equal length, counter-clockwise seen from above, at heights `low` < `high`; metres, RGB in 0 to 1."""

    bottom: Float64[np.ndarray, "N 2"]
    top: Float64[np.ndarray, "N 2"]
    low: float
    high: float
    color: Color

    @property
    def corners(self) -> Float64[np.ndarray, "M 3"]:
        """All corners, the bottom ones first; their hull is the solid."""
        count = len(self.bottom)
        corners = np.empty((2 * count, 3))
        corners[:count, :2], corners[count:, :2] = self.bottom, self.top
        corners[:count, 2], corners[count:, 2] = self.low, self.high
        return corners

    def moved(self, x: float, y: float, z: float, yaw: float) -> Solid:
        """Rotated by `yaw` radians counter-clockwise about the z axis, then moved."""
        cos, sin = math.cos(yaw), math.sin(yaw)
        turn, shift = np.array([[cos, sin], [-sin, cos]]), np.array([x, y])
        return Solid(self.bottom @ turn + shift, self.top @ turn + shift, self.low + z, self.high + z, self.color)

    def scaled(self, factor: float) -> Solid:
        """`factor` times as large, seen from the origin."""
        return Solid(self.bottom * factor, self.top * factor, self.low * factor, self.high * factor, self.color)


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
    """A flat piece of wall, floor or ceiling: four corners counter-clockwise seen from inside the room, metres."""

    corners: Float64[np.ndarray, "4 3"]
    color: Color


def box(x: Interval, y: Interval, z: Interval, color: Color) -> Solid:
    """The box of three intervals (low, high), metres."""
    outline = np.array([[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]]], dtype=np.float64)
    return Solid(outline, outline, float(z[0]), float(z[1]), color)


def round_solid(center: Interval, radii: tuple[float, float], z: Interval, color: Color, stretch: float = 1.0) -> Solid:
    """A cylinder or cone with ROUND_SIDES sides; `radii` at bottom and top, `stretch` times as long along y."""
    angles = 2 * np.pi * (np.arange(ROUND_SIDES) + 0.5) / ROUND_SIDES
    circle = np.stack([np.cos(angles), stretch * np.sin(angles)], axis=1)
    middle = np.array(center, dtype=np.float64)
    return Solid(middle + radii[0] * circle, middle + radii[1] * circle, float(z[0]), float(z[1]), color)


@functools.cache
def corner_triangles(sides: int) -> Int64[np.ndarray, "T 3"]:
    """Triangles over `Solid.corners`, facing out: two per side, fans for top and bottom."""
    bottom, top = np.arange(sides), np.arange(sides) + sides
    next_bottom, next_top = np.roll(bottom, -1), np.roll(top, -1)
    fan = np.arange(1, sides - 1)
    zero = np.zeros_like(fan)
    return np.concatenate(
        [
            np.stack([bottom, next_bottom, next_top], axis=1),
            np.stack([bottom, next_top, top], axis=1),
            np.stack([zero + sides, fan + sides, fan + 1 + sides], axis=1),
            np.stack([zero, fan + 1, fan], axis=1),
        ]
    )


def grid_patch(
    origin: Float64[np.ndarray, " 3"],
    along: Float64[np.ndarray, " 3"],
    across: Float64[np.ndarray, " 3"],
    far: Float64[np.ndarray, " 3"],
    spacing: float,
) -> tuple[Float64[np.ndarray, "V 3"], Int64[np.ndarray, "T 3"]]:
    """A patch with the corners origin, along, far, across (in this order) as a grid no coarser than `spacing`.

    The corners are grid points, so a box around the grid is a box around the corners.
    """
    columns = 1 + max(1, math.ceil(max(math.dist(origin, along), math.dist(across, far)) / spacing))
    rows = 1 + max(1, math.ceil(max(math.dist(origin, across), math.dist(along, far)) / spacing))
    return _corner_shares(rows, columns) @ np.array([origin, along, across, far]), grid_triangles(rows, columns)


@functools.lru_cache(maxsize=4096)
def _corner_shares(rows: int, columns: int) -> Float64[np.ndarray, "V 4"]:
    """The weights of a patch's corners in each point of its grid."""
    u = np.linspace(0, 1, columns)[None, :]
    v = np.linspace(0, 1, rows)[:, None]
    return np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], axis=-1).reshape(-1, 4)


@functools.lru_cache(maxsize=4096)
def grid_triangles(rows: int, columns: int) -> Int64[np.ndarray, "T 3"]:
    """Two triangles per cell of a row-major grid of points, counter-clockwise if rows go up."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    lower = np.stack([corner, corner + 1, corner + columns + 1], axis=1)
    upper = np.stack([corner, corner + columns + 1, corner + columns], axis=1)
    return np.concatenate([lower, upper])


def solid_surface(solid: Solid, spacing: float) -> tuple[Float64[np.ndarray, "V 3"], Int64[np.ndarray, "T 3"]]:
    """The surface as a mesh with vertices at most about `spacing` metres apart, including every corner of the solid.

    A bottom on the floor is left out, because no scan sees it.
    """
    sides = len(solid.bottom)
    corners = solid.corners
    patches = []
    if sides == 4:
        for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)):
            patches.append(grid_patch(corners[a], corners[b], corners[a + 4], corners[b + 4], spacing))
        patches.append(grid_patch(corners[4], corners[5], corners[7], corners[6], spacing))
        if solid.low > 0.02:
            patches.append(grid_patch(corners[0], corners[3], corners[1], corners[2], spacing))
    else:
        rows = 1 + max(1, math.ceil((solid.high - solid.low) / spacing))
        v = np.linspace(0, 1, rows)[:, None, None]
        wall = corners[:sides] * (1 - v) + corners[sides:] * v
        wall = np.concatenate([wall, wall[:, :1]], axis=1)  # the last column repeats the first
        patches.append((wall.reshape(-1, 3), grid_triangles(rows, sides + 1)))
        caps = [(corners[sides:], False)] + [(corners[:sides], True)] * (solid.low > 0.02)
        for ring, flip in caps:
            middle = ring.mean(axis=0, keepdims=True)
            around = np.arange(sides)
            fan = np.stack([np.full(sides, sides), around, np.roll(around, -1)], axis=1)
            patches.append((np.concatenate([ring, middle]), fan[:, ::-1] if flip else fan))
    return join_meshes(patches)


def join_meshes(
    patches: Sequence[tuple[Float64[np.ndarray, "_ 3"], Int64[np.ndarray, "_ 3"]]],
) -> tuple[Float64[np.ndarray, "W 3"], Int64[np.ndarray, "U 3"]]:
    """Several meshes as one."""
    offsets = np.cumsum([0] + [len(vertices) for vertices, _ in patches])
    triangles = [faces + offset for (_, faces), offset in zip(patches, offsets[:-1], strict=True)]
    return np.concatenate([vertices for vertices, _ in patches]), np.concatenate(triangles)
