"""The plan of a room from above, as SVG: the floor, every object's box, its name, and a metre to compare with."""

from __future__ import annotations

import collections
import zlib
from collections.abc import Collection

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull, Delaunay, QhullError

from jaxvsr.data.alpha_shape import circumradii
from jaxvsr.data.categories import is_structural
from jaxvsr.data.scannet import Scene
from jaxvsr.report.markup import text

PIXELS_PER_METRE = 90
MARGIN_METRES = 0.3
FLOOR_GRID_METRES = 0.05  # one floor point is kept of each such square
FLOOR_RADIUS_METRES = 0.25  # wider gaps in the floor stay open
FILLS = ("#bcd3f2", "#f6d3b0", "#c4e3cf", "#efc6d3", "#d5cbee", "#e3ddc3", "#c9d6da", "#e8cfe6")


def plan_svg(scene: Scene, highlight: Collection[str] = ()) -> str:
    """The room seen from above; x points right, y up, as in the scan's aligned frame.

    Objects whose category is in `highlight` (those that a question asks about) are drawn with a strong outline.
    """
    objects = [one for one in scene.objects if not is_structural(one.category)]
    footprints = [_hull(np.asarray(one.obb.corners[:, :2])) for one in objects]
    floor = np.asarray(scene.floor_points[:, :2], np.float64)
    everything = np.concatenate([floor, *footprints]) if len(floor) or footprints else np.zeros((1, 2))
    low, high = everything.min(axis=0) - MARGIN_METRES, everything.max(axis=0) + MARGIN_METRES
    width, height = (high - low) * PIXELS_PER_METRE

    def place(points: Float[np.ndarray, "N 2"]) -> str:
        """SVG path data of a closed outline; y is turned upwards."""
        pixels = (points - low) * PIXELS_PER_METRE
        return "M" + "L".join(f"{x:.1f} {height - y:.1f}" for x, y in pixels) + "Z"

    parts = [f'<path d="{"".join(place(loop) for loop in _outline(floor))}" fill="#f4f2ee" stroke="#b9b4aa"/>']
    # From the floor up, as one would see them from above.
    for index in sorted(range(len(objects)), key=lambda index: float(objects[index].aabb.maximum[2])):
        category = objects[index].category
        fill = FILLS[zlib.crc32(category.encode()) % len(FILLS)]
        asked = category in highlight
        outline = 'stroke="#b4305a" stroke-width="3"' if asked else 'stroke="#5c6670" stroke-width="1"'
        parts.append(f'<path d="{place(footprints[index])}" fill="{fill}" fill-opacity="0.85" {outline}/>')
    for one, footprint in zip(objects, footprints, strict=True):
        x, y = (footprint.mean(axis=0) - low) * PIXELS_PER_METRE
        weight = "700" if one.category in highlight else "400"
        parts.append(
            f'<text x="{x:.1f}" y="{height - y + 4:.1f}" font-weight="{weight}" text-anchor="middle" stroke="#fff"'
            f' stroke-width="3" paint-order="stroke" fill="#1c2126">{text(one.category)}</text>'
        )
    bar = f"M10 {height - 10:.1f}h{PIXELS_PER_METRE}"
    parts.append(f'<path d="{bar}" stroke="#1c2126" stroke-width="3"/>')
    parts.append(f'<text x="{10 + PIXELS_PER_METRE + 6}" y="{height - 6:.1f}">1 m</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="12">{"".join(parts)}</svg>\n'
    )


def _hull(points: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "M 2"]:
    """Corners of the convex hull in order; points on one line come back as the two farthest apart."""
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:
        order = np.lexsort(points.T)
        return points[[order[0], order[-1]]]


def _outline(points: Float[np.ndarray, "P 2"]) -> list[Float[np.ndarray, "N 2"]]:
    """Closed boundary loops of the points' alpha shape."""
    if len(points) == 0:
        return []
    cells = np.floor(points / FLOOR_GRID_METRES).astype(np.int64)
    points = points[np.unique(cells, axis=0, return_index=True)[1]]
    try:
        triangulation = Delaunay(points)
    except (QhullError, ValueError):  # fewer than three points, or all on a line
        return []
    inside = circumradii(points[triangulation.simplices]) <= FLOOR_RADIUS_METRES
    # A boundary edge lies between a triangle of the shape and one outside; edge k is opposite to corner k.
    neighbours = triangulation.neighbors
    outer = inside[:, None] & ((neighbours < 0) | ~inside[neighbours])
    after: dict[int, list[int]] = collections.defaultdict(list)
    for triangle, corner in np.argwhere(outer):
        corners = triangulation.simplices[triangle]
        after[int(corners[(corner + 1) % 3])].append(int(corners[(corner + 2) % 3]))
    loops = []
    while after:
        start = next(iter(after))
        loop, here = [start], after[start].pop()
        while here != start and after.get(here):
            loop.append(here)
            here = after[here].pop()
        after = collections.defaultdict(list, {node: behind for node, behind in after.items() if behind})
        loops.append(points[loop])
    return loops
