"""The mirror image of a scene's geometry, which is what flipped frames show.

A flipped frame shows the room reflected in a vertical plane. Which plane does not matter, because no question depends
on the room's position or rotation. Here x becomes -x in the aligned frame.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float64

from jaxvsr.data.geometry.boxes import OrientedBox
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject

_FLIP = np.array([-1.0, 1.0, 1.0])


@dataclasses.dataclass(frozen=True, eq=False)
class _MirroredObject(SceneObject):
    """An object of a mirrored scene. Its oriented box is the mirror image of the original's, because a new search might
    find another box of nearly the same volume."""

    original: SceneObject

    @functools.cached_property
    def obb(self) -> OrientedBox:
        return mirrored_box(self.original.obb)


def mirrored_scene(scene: ScannedScene) -> ScannedScene:
    """The scene reflected at x = 0; names, ids, labels and times stay."""
    return dataclasses.replace(
        scene,
        objects=tuple(
            _MirroredObject(item.id, item.category, item.raw_label, mirrored_points(item.points), item)
            for item in scene.objects
        ),
        vertices=scene.vertices * _FLIP.astype(np.float32),
        floor_points=mirrored_points(scene.floor_points),
    )


def mirrored_points(points: Float64[np.ndarray, "*N 3"]) -> Float64[np.ndarray, "*N 3"]:
    """x becomes -x."""
    return points * _FLIP


def mirrored_box(box: OrientedBox) -> OrientedBox:
    """The box around the mirrored points; its last axis is reversed to keep the axes right-handed."""
    axes = mirrored_points(box.axes) * np.array([[1.0], [1.0], [-1.0]])
    return OrientedBox(mirrored_points(box.center), axes, box.extent)
