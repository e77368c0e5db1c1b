"""The floor of a room with what a scan could not see of it: under furniture, and along the walls.

Areas that were weighed, against the true floor of procedural rooms (docs/data.md has the figures): the alpha shape of
the floor's points with a radius of 0.2 m loses what is hidden; with 1 m it fills the corners and bays of a room and
still loses what is hidden behind long furniture; the hull fills them all; the alpha shape of everything seen grows with
whatever is seen outside. What is counted here is the alpha shape (0.2 m, enclosed gaps filled) of three kinds of point:

    floor      as the recipe defines it
    furniture  the convex hull, seen from above, of every object that reaches down to the floor and hides most of what
               is below it
    walls      the points of annotated walls within 0.5 m of the two others

A gap at the border that is up to 2 m wide (a radius of 1 m) counts too, if a wall is on its far side, within 1 m: what
is beyond a wall is no room. Without annotated walls no such gap counts. Parts without any point of the floor do not
count.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.spatial import ConvexHull, Delaunay, QhullError, cKDTree

from jaxvsr.data.geometry.alpha_shape import (
    circumradii,
    connected,
    distinct,
    near_the_outside,
    open_to_the_outside,
    triangle_areas,
)
from jaxvsr.data.scannet.categories import is_structural
from jaxvsr.data.scannet.read_scan import SceneObject

_GAP_RADIUS_METRES = 1.0
_REACH_METRES = 0.3  # furniture that ends higher above the floor hides none
_SEEN_METRES, _SEEN_SHARE = 0.07, 0.4  # with floor this near to more of its footprint an object hides none
_GRID_METRES = 0.1
_MOST_LINES = 200  # of the grid over an object, which may be broken and very wide
_NEAR_WALL_METRES = 0.5
_AT_WALL_METRES = 0.05
_POINTS_OF_A_WALL = 3  # in a square of the grid: a wall is seen from above, so its points lie above each other
_WALLS = frozenset({"wall", "window", "closet wall", "bath walls", "shower wall", "pantry wall", "door wall"})
_NOT_STANDING = frozenset({"door", "window", "curtain", "shower curtain", "picture", "mirror"})


def whole_floor_area(floor: Float64[np.ndarray, "F 3"], objects: tuple[SceneObject, ...], radius_m: float) -> float:
    """Square metres of floor, seen or hidden, by the rules at the head of this file; 0 without floor.

    Args:
        floor: the points of the floor, metres, z up.
        objects: of the scene; furniture and walls are chosen by category.
        radius_m: of the alpha shape.
    """
    if len(floor) < 3:
        return 0.0
    seen = np.concatenate([floor[:, :2], *_footprints(floor, objects)])
    walls = _wall_places(objects)
    near = cKDTree(seen).query(walls, distance_upper_bound=_NEAR_WALL_METRES)[0]
    points = np.concatenate([seen, walls[np.isfinite(near)]])
    is_floor = np.arange(len(points)) < len(floor)
    kept = near_the_outside(points, radius_m)
    points, is_floor = points[kept], is_floor[kept]
    points, first = distinct(points)
    is_floor = is_floor[first]
    try:
        triangulation = Delaunay(points - points.mean(axis=0))
    except QhullError:  # all on one line
        return 0.0
    corners, neighbors = points[triangulation.simplices], triangulation.neighbors
    radii = circumradii(corners)
    outside = open_to_the_outside(radii > radius_m, neighbors)
    counted = ~outside
    if len(walls):
        counted |= outside & ~open_to_the_outside(radii > _GAP_RADIUS_METRES, neighbors)
        at_wall = cKDTree(walls).query(points)[0] <= _AT_WALL_METRES
        doubtful = counted & (outside | at_wall[triangulation.simplices].all(axis=1))
        beyond, far = _beyond_a_wall(corners[doubtful].mean(axis=1), seen, walls)
        counted[doubtful] = ~(beyond | (far & outside[doubtful]))
    part = connected(counted, neighbors)
    with_floor = np.unique(part[counted & is_floor[triangulation.simplices].any(axis=1)])
    return float(triangle_areas(corners)[counted & np.isin(part, with_floor)].sum())


def _footprints(
    floor: Float64[np.ndarray, "F 3"], objects: tuple[SceneObject, ...]
) -> Iterator[Float64[np.ndarray, "_ 2"]]:
    """A grid over the hull of each object that reaches down to the floor beside it, and under which little is seen."""
    beside = cKDTree(floor[:, :2])
    for item in objects:
        if is_structural(item.category) or item.category in _NOT_STANDING:
            continue
        level = floor[beside.query(item.points[:, :2].mean(axis=0))[1], 2]
        if item.points[:, 2].min() > level + _REACH_METRES:
            continue
        try:
            hull = ConvexHull(item.points[:, :2])
        except QhullError:  # fewer than three points, or all on one line
            continue
        grid = _grid_in(hull)
        if (beside.query(grid)[0] < _SEEN_METRES).mean() < _SEEN_SHARE:
            yield grid


def _grid_in(hull: ConvexHull) -> Float64[np.ndarray, "_ 2"]:
    corners = hull.points[hull.vertices]
    low, high = corners.min(axis=0), corners.max(axis=0)
    step = max(_GRID_METRES, float((high - low).max()) / _MOST_LINES)
    lines = [np.arange(*ends, step) for ends in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*lines), axis=-1).reshape(-1, 2)
    grid = grid[(grid @ hull.equations[:, :2].T + hull.equations[:, 2] <= 0).all(axis=1)]
    rim = [
        np.linspace(start, end, 2 + int(np.linalg.norm(end - start) / step))
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    return np.concatenate([grid, *rim])


def _wall_places(objects: tuple[SceneObject, ...]) -> Float64[np.ndarray, "_ 2"]:
    """Where walls are, seen from above: the mean of their points in each square of a grid that has several."""
    points = [item.points[:, :2] for item in objects if item.category in _WALLS]
    if not points:
        return np.zeros((0, 2))
    together = np.concatenate(points)
    squares = np.floor(together / _GRID_METRES).astype(np.int64)
    _, square, count = np.unique(squares, axis=0, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(square.reshape(-1), together[:, axis]) / count for axis in (0, 1)], axis=1)
    return means[count >= _POINTS_OF_A_WALL]


def _beyond_a_wall(
    places: Float64[np.ndarray, "G 2"], seen: Float64[np.ndarray, "S 2"], walls: Float64[np.ndarray, "W 2"]
) -> tuple[Bool[np.ndarray, " G"], Bool[np.ndarray, " G"]]:
    """Whether the nearest wall is between a place and the nearest floor or furniture that is not itself at a wall; and
    whether it is so far away that it says nothing."""
    inside = seen[cKDTree(walls).query(seen)[0] > _AT_WALL_METRES]
    if not len(inside) or not len(places):
        return np.zeros(len(places), bool), np.ones(len(places), bool)
    to_room = inside[cKDTree(inside).query(places)[1]] - places
    to_wall = walls[cKDTree(walls).query(places)[1]] - places
    room, wall = _length(to_room), _length(to_wall)
    same_way = (to_room * to_wall).sum(axis=1) > 0.5 * room * wall  # within 60 degrees
    return np.asarray(same_way & (wall < room + 2 * _AT_WALL_METRES)), np.asarray(wall > _GAP_RADIUS_METRES)


def _length(vectors: Float[np.ndarray, "G 2"]) -> Float[np.ndarray, " G"]:
    return np.hypot(vectors[:, 0], vectors[:, 1])
