"""Widths of a convex hull along many directions.

In a hull with many corners, only those are used that can be outermost along some direction near the given one:
directions are grouped into cells, and each cell has its corners. In float32, because widths are only compared.
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

_CELLS_A_SIDE = 6
_MANY_CORNERS = 600  # hulls with fewer corners are measured without cells
_DIRECTIONS_AT_ONCE = 256  # of such hulls; so many fit into the processor's cache


def hull_widths(
    directions: Float64[np.ndarray, "N 3"], corners: Float64[np.ndarray, "V 3"]
) -> Float32[np.ndarray, " N"]:
    """The extent of a convex hull's corners along unit vectors (along a zero vector: 0), in the corners' unit."""
    points = corners.astype(np.float32)
    widths = np.empty(len(directions), np.float32)
    if len(corners) < _MANY_CORNERS:
        vectors = directions.astype(np.float32)
        for start in range(0, len(vectors), _DIRECTIONS_AT_ONCE):
            reach = vectors[start : start + _DIRECTIONS_AT_ONCE] @ points.T
            widths[start : start + _DIRECTIONS_AT_ONCE] = reach.max(axis=1) - reach.min(axis=1)
        return widths
    highest, lowest = _outermost(corners, 1), _outermost(corners, -1)
    cell, ahead = _cell_of(directions)
    vectors = np.where(ahead[:, None], directions, -directions).astype(np.float32)
    order = np.argsort(cell, kind="stable")
    bounds = np.searchsorted(cell[order], np.arange(len(_CELLS) + 1))
    for number, (start, end) in enumerate(itertools.pairwise(bounds.tolist())):
        if start < end:
            asked = order[start:end]
            near = vectors[asked]
            above, below = near @ points[highest[number]].T, near @ points[lowest[number]].T
            widths[asked] = above.max(axis=1) - below.min(axis=1)
    return widths


def _outermost(corners: Float64[np.ndarray, "V 3"], sign: int) -> Bool[np.ndarray, "C V"]:
    """For each cell of directions, the corners that can be outermost along some direction in it, or (sign -1) against
    it.

    Let v be outermost along the centre c of a cell, whose directions are at most an angle t from c. Along any of them
    another corner w can be farther out than v only if (v - w)·c ≤ sin t · |v - w|.
    """
    height = sign * (_CELLS @ corners.T)
    best = height.argmax(axis=1)
    squares = (corners * corners).sum(axis=1)
    apart = squares + squares[best, None] - 2 * corners[best] @ corners.T
    drop = height.max(axis=1, keepdims=True) - height
    return np.asarray(drop <= _CELL_SINES[:, None] * np.sqrt(np.maximum(apart, 0)) + 1e-6)


def _cell_of(directions: Float64[np.ndarray, "N 3"]) -> tuple[Int64[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """The number of the cell that each direction (True), or its opposite (False), is in."""
    largest = np.abs(directions).argmax(axis=1)
    turned = np.take_along_axis(directions, (largest[:, None] + [0, 1, 2]) % 3, axis=1)
    place = (turned[:, 1:] / np.where(turned[:, :1] == 0, 1, turned[:, :1]) + 1) * (_CELLS_A_SIDE / 2)
    row, column = np.minimum(place.astype(np.int64), _CELLS_A_SIDE - 1).T
    return (largest * _CELLS_A_SIDE + row) * _CELLS_A_SIDE + column, turned[:, 0] > 0


def _cells() -> tuple[Float64[np.ndarray, "C 3"], Float64[np.ndarray, " C"]]:
    """Half of all directions as the cells of a grid on three sides of a cube: the centre of each cell, and the sine of
    the angle from there to its farthest corner."""
    lines = np.linspace(-1, 1, _CELLS_A_SIDE + 1)
    corners = np.stack(np.meshgrid(lines, lines, indexing="ij"), axis=-1)
    corners = np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, :-1], corners[1:, 1:]], axis=2)
    corners = corners.reshape(-1, 4, 2)
    rays = np.concatenate([np.ones((*corners.shape[:2], 1)), corners], axis=2)
    rays = np.concatenate([np.roll(rays, side, axis=2) for side in range(3)])
    middles = rays.mean(axis=1)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    cosines = (rays @ middles[:, :, None])[..., 0] / np.linalg.norm(rays, axis=2)
    return middles, np.sqrt(1 - cosines.min(axis=1) ** 2)


_CELLS, _CELL_SINES = _cells()
