"""ScanNet scans: one scan's files to a `Scene` of labelled objects in its axis-aligned frame.

A scan lies in ScanNet's own layout, `<root>/scans/<scene>/` or `<root>/<scene>/`:

    <scene>.sens                                 colour, depth and poses            jaxvsr/data/sens.py
    <scene>_vh_clean_2.ply                       the mesh                           jaxvsr/data/ply.py
    <scene>_vh_clean_2.0.010000.segs.json        a segment id for every vertex
    <scene>.aggregation.json                     segments to labelled objects
    <scene>.txt                                  axisAlignment and camera facts
    <scene>_2d-instance-filt.zip                 8-bit masks, objectId + 1          jaxvsr/data/instance_masks.py

The formats are those of ScanNet's own repository; flaws that real scans are known for are worked around and counted in
`Scene.flaws`.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from jaxvsr.data.boxes import AxisAlignedBox, OrientedBox, axis_aligned_box, minimal_oriented_box


@dataclasses.dataclass(frozen=True, eq=False)
class SceneObject:
    """One annotated instance: furniture, and also walls and floors (`categories.STRUCTURAL` names those).

    `id` is ScanNet's objectId (the masks hold id + 1); `category` is `raw_label` after the synonym table; `points` are
    the instance's mesh vertices in the axis-aligned frame, metres, z up, at least one of them.
    """

    id: int
    category: str
    raw_label: str
    points: Float64[np.ndarray, "P 3"]

    @functools.cached_property
    def aabb(self) -> AxisAlignedBox:
        """The box along x, y and z of the aligned frame."""
        return axis_aligned_box(self.points)

    @functools.cached_property
    def obb(self) -> OrientedBox:
        """The minimal oriented box."""
        return minimal_oriented_box(self.points)


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """One scan in its axis-aligned frame: metres, z up.

    `objects` holds every labelled instance that has points, structural ones too, in order of id. `floor_points` are the
    points of all instances labelled floor (none of them: an empty array). `axis_alignment` maps the stored frame, which
    is also that of the poses in the `.sens`, to the aligned one. `flaws` counts what was wrong and worked around.
    """

    name: str
    objects: tuple[SceneObject, ...]
    vertices: Float32[np.ndarray, "V 3"]
    floor_points: Float64[np.ndarray, "F 3"]
    axis_alignment: Float64[np.ndarray, "4 4"]
    has_axis_alignment: bool
    scan_dir: Path
    flaws: dict[str, int]
