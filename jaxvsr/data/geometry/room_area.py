"""The floor area of a scene; the three papers differ in the points that show where the room is.

VSI-Bench's `scene` has walls and furniture among its points, which close the outline. The two others know the floor
that was seen; with `hidden`, what furniture hides and what is missing along walls is added (`hidden_floor`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float64

from jaxvsr.data.geometry.alpha_shape import alpha_shape_area
from jaxvsr.data.geometry.hidden_floor import whole_floor_area
from jaxvsr.data.scannet.read_scan import ScannedScene

# labelled: points annotated as floor. low: points a little above the lowest (Spatial-R1). scene: random points of
# everything, seen from above (VSI-Bench's generators).
RoomPoints = Literal["labelled", "low", "scene"]
_NOTHING_HIDDEN = 0.01  # a difference that noise makes, too
_SAMPLE = 10_000  # points drawn for `scene`


def room_points(
    scene: ScannedScene, definition: RoomPoints, *, low_height_m: float = 0.0, low_outliers: float = 0.0, seed: int = 0
) -> Float64[np.ndarray, "P 3"]:
    """The points that show where a room is, metres.

    Args:
        scene: one scan.
        definition: which points.
        low_height_m: how far above the lowest point the points of `low` are at most.
        low_outliers: share of all points that may be below "the lowest"; otherwise a single stray point under the floor
            would leave no floor at all.
        seed: of the points drawn for `scene`.
    """
    if definition == "labelled":
        return scene.floor_points
    vertices = scene.vertices.astype(np.float64)
    if not len(vertices):
        return np.zeros((0, 3))
    if definition == "low":
        lowest = np.quantile(vertices[:, 2], low_outliers)
        return vertices[np.abs(vertices[:, 2] - lowest) < low_height_m]
    if len(vertices) > _SAMPLE:
        # Sampled by index, so that a moved or mirrored scan has the same sample.
        vertices = vertices[np.random.default_rng(seed).choice(len(vertices), _SAMPLE, replace=False)]
    return vertices


def room_area(
    scene: ScannedScene,
    definition: RoomPoints,
    *,
    radius_m: float,
    fill_holes: bool,
    hidden: bool = False,
    low_height_m: float = 0.0,
    low_outliers: float = 0.0,
) -> float:
    """Square metres of the alpha shape of `room_points`; with `hidden` of the whole floor, holes filled."""
    points = room_points(scene, definition, low_height_m=low_height_m, low_outliers=low_outliers)
    seen = alpha_shape_area(points[:, :2], radius_m, fill_holes=fill_holes or hidden)
    if not hidden:
        return seen
    whole = whole_floor_area(points, scene.objects, radius_m)
    return whole if abs(whole - seen) > _NOTHING_HIDDEN * seen else seen
