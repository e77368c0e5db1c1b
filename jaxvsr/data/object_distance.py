"""The definitions of the distance of two objects that the papers use, by name."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float64

from jaxvsr.data import geometry
from jaxvsr.data.scannet import SceneObject

# Which depend on what: `center` with centre "points" on how densely a scan samples each side of an object, `aabb_*` on
# how the room is turned. `obb_*` and `points` change with neither (`points` by no more than the spacing of the points).
DistanceDefinition = Literal["center", "aabb_exact", "aabb_sample", "obb_exact", "obb_grid", "points"]
CenterDefinition = Literal["points", "aabb", "obb"]


def object_center(item: SceneObject, definition: CenterDefinition = "points") -> Float64[np.ndarray, " 3"]:
    """The mean of the object's points (vsGRPO's "geometric center of the point cloud"), or the middle of a box."""
    if definition == "points":
        return item.points.mean(axis=0)
    return item.aabb.center if definition == "aabb" else item.obb.center


def object_distance(
    first: SceneObject,
    second: SceneObject,
    definition: DistanceDefinition,
    center: CenterDefinition,
    rng: np.random.Generator,
) -> float:
    """Distance in metres.

    `center`: of the centres (vsGRPO). `aabb_exact`: gap of the axis-aligned boxes. `aabb_sample`: nearest of points
    drawn in them (Spatial-R1, the only one that uses `rng`). `obb_exact`: gap of the minimal oriented boxes.
    `obb_grid`: nearest grid points of them (VSI-Bench). `points`: nearest points of the two clouds.
    """
    if definition == "center":
        return geometry.center_distance(object_center(first, center), object_center(second, center))
    if definition == "aabb_exact":
        return geometry.aabb_gap(first.aabb, second.aabb)
    if definition == "aabb_sample":
        return geometry.aabb_sample_distance(first.aabb, second.aabb, rng)
    if definition == "obb_exact":
        return geometry.obb_gap(first.obb, second.obb)
    if definition == "obb_grid":
        return geometry.obb_grid_distance(first.obb, second.obb)
    return geometry.point_cloud_distance(first.points, second.points)
