"""Area of the 2D alpha shape of points seen from above.

The alpha shape is the union of the Delaunay triangles with a small circumcircle: a gap in the points that is wider than
twice the radius stays open, so an L-shaped room keeps its corner. Each triangle counts once (the areas published with
Spatial-R1 count both sides of each, which about doubles them).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, QhullError


def alpha_shape_area(points: Float[np.ndarray, "P 2"], radius_m: float, *, fill_holes: bool = False) -> float:
    """Area in square metres; 0 for fewer than three points or points on one line.

    Args:
        points: metres, any order, duplicates allowed.
        radius_m: largest circumradius of a triangle of the shape (1 / alpha in CGAL's and alphashape's terms).
        fill_holes: count gaps that are enclosed on all sides, such as the floor under a bed.
    """
    points = np.asarray(points, np.float64)
    if fill_holes and len(points):
        points = points[near_the_outside(points, radius_m)]
    points, _ = distinct(points)
    if len(points) < 3:
        return 0.0
    try:
        triangulation = Delaunay(points - points.mean(axis=0))
    except QhullError:  # all on one line
        return 0.0
    corners = triangulation.points[triangulation.simplices]
    area = triangle_areas(corners)
    inside = circumradii(corners) <= radius_m
    if fill_holes:
        inside = ~open_to_the_outside(~inside, triangulation.neighbors)
    return float(area[inside].sum())


def distinct(points: Float64[np.ndarray, "P 2"]) -> tuple[Float64[np.ndarray, "D 2"], Int64[np.ndarray, " D"]]:
    """The points, each once, in order of x and y; and the index of the first of each."""
    order = np.lexsort(points.T[::-1])
    points = points[order]
    new = np.append(np.ones(len(points[:1]), bool), (np.diff(points, axis=0) != 0).any(axis=1))
    return points[new], order[new]


def near_the_outside(points: Float[np.ndarray, "P 2"], radius_m: float) -> Bool[np.ndarray, " P"]:
    """The points that decide about an alpha shape with filled holes; without the others its area is the same.

    Such a shape is the hull minus C, the triangles of circumradius above r that can be reached from outside through
    others of that kind. Lay squares of side s = r / 2 over the points. A circle of radius t = √2 s covers the square
    that its centre is in, so a circle without points is centred in an empty square. Call a square inner if all squares
    that a circle of radius 3 t around any place in it touches have points. No place of C is in an inner square, because
    C is covered by empty circles of radius above t. So C is in the other squares, in the part connected with the
    outside. So are all corners of the triangles next to C: the empty circle of such a triangle is either smaller than
    t, or reaches into no inner square, because that square would be within 2 t of the empty circle of a triangle of C.
    The same holds for triangles at the border of the hull. All of these stay Delaunay triangles when points elsewhere
    are left out, and nothing else decides what C is.
    """
    side = radius_m / 2
    cells = np.floor((points - points.min(axis=0)) / side) + 1  # one row of empty squares around
    shape = cells.max(axis=0) + 2
    if shape.prod() > _SQUARES_A_POINT * len(points):  # too few points to be dense anywhere, or a huge extent
        return np.ones(len(points), bool)
    row, column = cells.astype(np.int64).T
    held = np.zeros(shape.astype(np.int64), bool)
    held[row, column] = True
    # Measured between centres of squares, which are up to half a diagonal, s / √2, from any place in them.
    inner = ndimage.distance_transform_edt(held) > 4.001 * np.sqrt(2)
    together, _ = ndimage.label(~inner, structure=np.ones((3, 3)))
    return np.asarray(together[row, column] == together[0, 0])


_SQUARES_A_POINT = 4  # with more squares than this per point, hardly any place is dense


def triangle_areas(corners: Float[np.ndarray, "T 3 2"]) -> Float[np.ndarray, " T"]:
    """Area of each triangle, whatever the order of its corners."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2


def circumradii(corners: Float[np.ndarray, "T 3 2"]) -> Float[np.ndarray, " T"]:
    """Radius of each triangle's circumcircle, abc / 4A; infinite if the corners are on a line."""
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    area = triangle_areas(corners)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(area > 0, sides.prod(axis=1) / (4 * area), np.inf)


def open_to_the_outside(wide: Bool[np.ndarray, " T"], neighbors: Int[np.ndarray, "T 3"]) -> Bool[np.ndarray, " T"]:
    """The wide triangles from which a path through wide triangles leads out of the hull."""
    component = connected(wide, neighbors)
    open_components = np.unique(component[(neighbors < 0).any(axis=1) & wide])
    return wide & np.isin(component, open_components)


def connected(chosen: Bool[np.ndarray, " T"], neighbors: Int[np.ndarray, "T 3"]) -> Int[np.ndarray, " T"]:
    """The number of the connected part that each of the chosen triangles is in; every other one is a part by itself."""
    triangle, position = np.nonzero((neighbors >= 0) & chosen[:, None] & chosen[neighbors])
    edges = coo_matrix((np.ones(len(triangle)), (triangle, neighbors[triangle, position])), shape=(len(chosen),) * 2)
    return np.asarray(connected_components(edges, directed=False)[1])
