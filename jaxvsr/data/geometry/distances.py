"""Distances between boxes and points, in metres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64
from scipy.optimize import lsq_linear
from scipy.spatial import cKDTree

from jaxvsr.data.geometry.boxes import AxisAlignedBox, OrientedBox


def center_distance(first: Float[np.ndarray, " 3"], second: Float[np.ndarray, " 3"]) -> float:
    """Euclidean distance between two points, metres."""
    return float(np.linalg.norm(np.asarray(first, np.float64) - second))


def aabb_gap(first: AxisAlignedBox, second: AxisAlignedBox) -> float:
    """Smallest distance between points of two axis-aligned boxes, metres; 0 if they touch or overlap."""
    per_axis = np.maximum(first.minimum - second.maximum, second.minimum - first.maximum)
    return float(np.linalg.norm(np.maximum(per_axis, 0.0)))


def aabb_sample_distance(
    first: AxisAlignedBox, second: AxisAlignedBox, rng: np.random.Generator, samples: int = 1000
) -> float:
    """Smallest distance between `samples` random points in each box, metres (Spatial-R1's definition).

    Some centimetres above the exact gap; depends on `rng`.
    """
    a = rng.uniform(first.minimum, first.maximum, (samples, 3))
    b = rng.uniform(second.minimum, second.maximum, (samples, 3))
    return point_cloud_distance(a, b)


def obb_gap(first: OrientedBox, second: OrientedBox) -> float:
    """Smallest distance between points of two oriented boxes, metres; 0 if they touch or overlap.

    A point of a box is `center + axes.T @ u` with |u| ≤ extent / 2, so the gap is a least-squares problem with six
    bounded variables, of which the active-set solver finds the exact minimum.
    """
    directions = np.concatenate([first.axes, -second.axes]).T
    half = np.concatenate([first.extent, second.extent]) / 2
    half = np.maximum(half, 1e-9)  # the solver needs lower < upper; a nanometre is below any scan's accuracy
    solution = lsq_linear(directions, second.center - first.center, (-half, half), method="bvls", tol=1e-14)
    gap = float(np.linalg.norm(directions @ solution.x - (second.center - first.center)))
    return 0.0 if gap < 1e-9 else gap


def obb_grid_distance(first: OrientedBox, second: OrientedBox) -> float:
    """VSI-Bench's definition: the smallest distance between the grid points of two oriented boxes, metres."""
    return point_cloud_distance(shell_grid(first), shell_grid(second))


def shell_grid(box: OrientedBox, spacing_m: float = 0.05) -> Float64[np.ndarray, "P 3"]:
    """The grid points of the outer parts of a box, metres, as VLM-3R's generator has them; at least one.

    A side of length e has ceil(e / spacing) lines, evenly from face to face; a side that is no longer than the spacing
    has one, on its low face. Kept are the points that are more than a quarter of the extent from the centre along some
    axis and that still lie in the box after they have been turned and moved into place. Rounding puts about half of
    the points of a face just outside, so that distances may change by some centimetres when a scan is turned. If none
    is left, the grid has half the spacing.
    """
    extent = box.extent
    lines = [np.linspace(-e / 2, e / 2, max(int(np.ceil(e / spacing_m)), 1)) for e in extent]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[(np.abs(grid) > extent / 4).any(axis=1)]
    if not len(grid):  # a box without any extent is a single point
        return box.center[None]
    points = grid @ box.axes + box.center
    offset = points - box.center
    # Added up from x to z, as Open3D's `crop` does: a matrix product rounds otherwise.
    along = sum(offset[:, axis, None] * box.axes[:, axis] for axis in range(3))
    inside = (np.abs(along) <= np.maximum(extent, _FLAT_METRES) / 2).all(axis=1)
    if inside.any():
        return points[inside]
    # A box of less than a millimetre would need more points than a computer holds.
    return points if len(grid) > _MOST_POINTS else shell_grid(box, spacing_m / 2)


_FLAT_METRES = 1e-9  # Open3D's boxes are never thinner; ours are where an object's points are in one plane
_MOST_POINTS = 100_000


def point_cloud_distance(first: Float[np.ndarray, "P 3"], second: Float[np.ndarray, "R 3"]) -> float:
    """Smallest distance between points of two clouds, metres."""
    small, large = (first, second) if len(first) <= len(second) else (second, first)
    return tree_distance(small, large, search_tree(large))


def search_tree(points: Float[np.ndarray, "P 3"]) -> cKDTree:
    """A k-d tree for a few thousand queries at most: quick to build rather than to search."""
    return cKDTree(points, balanced_tree=False, compact_nodes=False)


def tree_distance(first: Float[np.ndarray, "P 3"], second: Float[np.ndarray, "R 3"], tree_of_second: cKDTree) -> float:
    """Smallest distance between points of two clouds, metres; fastest if the first has fewer points."""
    # The distance from one point that is likely to be near bounds the search for all others, most of which end at once.
    likely = np.linalg.norm(first - second.mean(axis=0), axis=1).argmin()
    bound = float(tree_of_second.query(first[likely])[0])
    near = first[((first >= tree_of_second.mins - bound) & (first <= tree_of_second.maxes + bound)).all(axis=1)]
    return min(bound, float(tree_of_second.query(near, distance_upper_bound=bound)[0].min(initial=bound)))


def nearest(distances: Sequence[float]) -> tuple[int, float]:
    """Index of the smallest of at least two distances, and how many metres the second smallest is larger."""
    order = np.argsort(distances, kind="stable")
    return int(order[0]), float(distances[order[1]] - distances[order[0]])
