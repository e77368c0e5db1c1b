"""The papers' definitions of the distance between two objects, by name."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
from jaxtyping import Float64
from scipy.spatial import cKDTree

from jaxvsr.data.geometry import distances
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject

# `center` with centre "points" depends on how densely a scan samples each side of an object, `aabb_*` on the room's
# rotation, `obb_grid` by some centimetres too (`shell_grid` says why); `obb_exact` and `points` on neither (`points` by
# no more than the spacing of the points).
DistanceDefinition = Literal["center", "aabb_exact", "aabb_sample", "obb_exact", "obb_grid", "points"]
CenterDefinition = Literal["points", "aabb", "obb"]


def object_center(item: SceneObject, definition: CenterDefinition = "points") -> Float64[np.ndarray, " 3"]:
    """The mean of the object's points (vsGRPO's "geometric center of the point cloud"), or the centre of a box."""
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

    `center`: between centres (vsGRPO). `aabb_exact`: gap between the axis-aligned boxes. `aabb_sample`: nearest of
    random points in them (Spatial-R1, the only one that uses `rng`). `obb_exact`: gap between the minimal oriented
    boxes. `obb_grid`: nearest grid points in them (VSI-Bench). `points`: nearest points of the two clouds.
    """
    if definition == "center":
        return distances.center_distance(object_center(first, center), object_center(second, center))
    if definition == "aabb_exact":
        return distances.aabb_gap(first.aabb, second.aabb)
    if definition == "aabb_sample":
        return distances.aabb_sample_distance(first.aabb, second.aabb, rng)
    if definition == "obb_exact":
        return distances.obb_gap(first.obb, second.obb)
    if definition == "obb_grid":
        return distances.obb_grid_distance(first.obb, second.obb)
    return distances.point_cloud_distance(first.points, second.points)


class SceneDistances:
    """Distances between the objects of one scene in metres, each pair measured once.

    The definitions are those of `object_distance`, with one search tree per object instead of one per pair. The random
    points of `aabb_sample` depend on scene and pair, so all questions about a pair have the same ones.
    """

    def __init__(self, scene: str, definition: DistanceDefinition, center: CenterDefinition = "points") -> None:
        self._scene = scene
        self._definition = definition
        self._center = center
        self._clouds: dict[int, tuple[Float64[np.ndarray, "P 3"], cKDTree]] = {}
        self._metres: dict[tuple[int, int], float] = {}

    def __call__(self, first: SceneObject, second: SceneObject) -> float:
        """The distance between two objects, in either order."""
        if first.id > second.id:
            first, second = second, first
        pair = (first.id, second.id)
        if pair not in self._metres:
            self._metres[pair] = self._measure(first, second)
        return self._metres[pair]

    def _measure(self, first: SceneObject, second: SceneObject) -> float:
        if self._definition not in ("points", "obb_grid"):
            rng = np.random.default_rng([*self._scene.encode(), first.id, second.id])
            return object_distance(first, second, self._definition, self._center, rng)
        (small_cloud, _), (large_cloud, tree) = sorted(
            map(self._cloud, (first, second)), key=lambda cloud: len(cloud[0])
        )
        return distances.tree_distance(small_cloud, large_cloud, tree)

    def _cloud(self, item: SceneObject) -> tuple[Float64[np.ndarray, "P 3"], cKDTree]:
        """An object's points, or the grid of its box, with their search tree."""
        if item.id not in self._clouds:
            points = item.points if self._definition == "points" else distances.shell_grid(item.obb)
            self._clouds[item.id] = (points, distances.search_tree(points))
        return self._clouds[item.id]


@functools.lru_cache(maxsize=4)
def scene_distances(
    scene: ScannedScene, definition: DistanceDefinition, center: CenterDefinition = "points"
) -> SceneDistances:
    """The distances in a scene, shared by the tasks that use them."""
    return SceneDistances(scene.name, definition, center)
