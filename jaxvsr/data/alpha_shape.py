"""Area of the 2D alpha shape of points seen from above.

The alpha shape is the union of those Delaunay triangles whose circumcircle is small: a gap in the points that is wider
than twice the radius stays open, so an L-shaped room keeps its corner. Every triangle counts once (the areas published
with Spatial-R1 count both sides of each and come out about twice too big).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, QhullError


def alpha_shape_area(
    points: Float[np.ndarray, "P 2"], radius_m: float, *, fill_holes: bool = False, thin_m: float = 0.0
) -> float:
    """Area in square metres; 0 for fewer than three points or points on one line.

    Args:
        points: metres, any order, duplicates allowed.
        radius_m: largest circumradius of a triangle of the shape (1 / alpha in CGAL's and alphashape's terms).
        fill_holes: count gaps that are closed in on all sides, such as the floor under a bed.
        thin_m: first keep one point of each square of this side (0: keep all); bounds time on dense scans.
    """
    points = np.asarray(points, np.float64)
    points = points[np.lexsort(points.T[::-1])]
    points = points[np.append(np.ones(len(points[:1]), bool), (np.diff(points, axis=0) != 0).any(axis=1))]
    if thin_m > 0 and len(points):
        cells = np.floor(points / thin_m).astype(np.int64)
        points = points[np.unique(cells, axis=0, return_index=True)[1]]
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
        inside |= _enclosed(inside, triangulation.neighbors)
    return float(area[inside].sum())


def triangle_areas(corners: Float[np.ndarray, "T 3 2"]) -> Float[np.ndarray, " T"]:
    """Area of each triangle, whichever way round its corners are."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2


def circumradii(corners: Float[np.ndarray, "T 3 2"]) -> Float[np.ndarray, " T"]:
    """Radius of each triangle's circumcircle, abc / 4A; infinite where the corners lie on a line."""
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    area = triangle_areas(corners)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(area > 0, sides.prod(axis=1) / (4 * area), np.inf)


def _enclosed(inside: Bool[np.ndarray, " T"], neighbors: Int[np.ndarray, "T 3"]) -> Bool[np.ndarray, " T"]:
    """Triangles outside of the shape from which no path through such triangles leads out of the hull."""
    triangle, position = np.nonzero((neighbors >= 0) & ~inside[:, None] & ~inside[neighbors])
    edges = coo_matrix((np.ones(len(triangle)), (triangle, neighbors[triangle, position])), shape=(len(inside),) * 2)
    component = connected_components(edges, directed=False)[1]
    open_components = np.unique(component[(neighbors < 0).any(axis=1) & ~inside])
    return ~inside & ~np.isin(component, open_components)
