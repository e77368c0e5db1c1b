"""The plan of a room from above, as SVG: the floor, every object's box, its name, and a metre to compare with."""

from __future__ import annotations

import collections
import dataclasses
import zlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull, Delaunay, QhullError

from jaxvsr.data.geometry.alpha_shape import circumradii
from jaxvsr.data.scannet.categories import is_structural
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject
from jaxvsr.report.rendering import render

PIXELS_PER_METRE = 90
FONT_SHARE = 36  # the longer side is so many times the height of a letter: pages show plans at a third of their size
MARGIN_METRES = 0.5  # room for the names of what stands at a wall
FLOOR_GRID_METRES = 0.05  # one floor point is kept of each such square
FLOOR_RADIUS_METRES = 0.25  # wider gaps in the floor stay open
FILLS = ("#bcd3f2", "#f6d3b0", "#c4e3cf", "#efc6d3", "#d5cbee", "#e3ddc3", "#c9d6da", "#e8cfe6")


@dataclasses.dataclass(frozen=True, eq=False)
class Mark:
    """Something drawn into the plan: a line from `start` to `end` (metres), or only a label where there is no end.

    `arrow` puts a head at the end; `faint` lines are those that are not the answer.
    """

    start: Float[np.ndarray, " 2"]
    end: Float[np.ndarray, " 2"] | None = None
    label: str = ""
    arrow: bool = False
    dashed: bool = False
    faint: bool = False


LETTER_WIDTH = 0.6  # of a bold letter, in its height: wide enough for any sans-serif


class Labels:
    """Places for texts, so that none is cut at the edge, and none covers another while there is room above or below."""

    def __init__(self, width: float, height: float, font: float):
        self._width, self._height, self._font = width, height, font
        self._taken = [(0.0, height - 1.6 * font, PIXELS_PER_METRE + 4 * font, height)]  # the metre to compare with

    def place(self, x: float, y: float, text: str) -> tuple[float, float]:
        """The middle of the base line, as near to (x, y) as may be."""
        half = LETTER_WIDTH * self._font * len(text) / 2
        x = min(max(x, half + 4), max(self._width - half - 4, self._width / 2))
        boxes = []
        for lines in (0, 1, -1, 2, -2, 3, -3, 4, -4):
            base = min(max(y + 1.1 * lines * self._font, 1.2 * self._font), self._height - 0.4 * self._font)
            boxes.append((x - half, base - self._font, x + half, base))
        chosen = next((box for box in boxes if not any(_overlap(box, other) for other in self._taken)), boxes[0])
        self._taken.append(chosen)
        return x, chosen[3]


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


class Plan:
    """A room from above, to be drawn several times with different marks; x points right, y up, as in the scan."""

    def __init__(self, scene: ScannedScene):
        self.objects = [one for one in scene.objects if not is_structural(one.category)]
        footprints = [_hull(np.asarray(one.obb.corners[:, :2])) for one in self.objects]
        floor = np.asarray(scene.floor_points[:, :2], np.float64)
        everything = np.concatenate([floor, *footprints]) if len(floor) or footprints else np.zeros((1, 2))
        self._low = everything.min(axis=0) - MARGIN_METRES
        self._size = (everything.max(axis=0) + MARGIN_METRES - self._low) * PIXELS_PER_METRE
        self._floor = "".join(self._path(loop) for loop in _boundary(floor))
        self._drawn: list[dict[str, Any]] = [
            {
                "category": one.category,
                "top": float(one.aabb.maximum[2]),
                "path": self._path(footprint),
                "centre": self._place(footprint.mean(axis=0)),
                "fill": FILLS[zlib.crc32(one.category.encode()) % len(FILLS)],
            }
            for one, footprint in zip(self.objects, footprints, strict=True)
        ]

    def instances(self, category: str) -> list[SceneObject]:
        """The objects of a category, in order of id."""
        return [one for one in self.objects if one.category == category]

    def svg(self, highlight: Collection[str] = (), marks: Sequence[Mark] = ()) -> str:
        """The drawing as one SVG document.

        Objects whose category is in `highlight` (those that a question asks about) have a strong outline; `marks` are
        drawn above everything.
        """
        width, height = map(float, self._size)
        font = max(12.0, max(width, height) / FONT_SHARE)
        labels = Labels(width, height, font)
        named = [
            {**one, "label_at": labels.place(one["centre"][0], one["centre"][1] + font / 3, one["category"])}
            for one in self._drawn
        ]
        return render(
            "floor_plan.svg.jinja",
            width=width,
            height=height,
            font=font,
            metre=PIXELS_PER_METRE,
            floor=self._floor,
            objects=named,
            highlight=highlight,
            marks=[self._mark(mark, labels, font) for mark in marks],
        )

    def _place(self, point: Float[np.ndarray, " 2"]) -> tuple[float, float]:
        """Pixels; y is turned upwards."""
        x, y = (point - self._low) * PIXELS_PER_METRE
        return float(x), float(self._size[1] - y)

    def _path(self, points: Float[np.ndarray, "N 2"]) -> str:
        """SVG path data of a closed outline."""
        return "M" + "L".join("{:.1f} {:.1f}".format(*self._place(point)) for point in points) + "Z"

    def _mark(self, mark: Mark, labels: Labels, font: float) -> dict[str, object]:
        start = self._place(mark.start)
        end = start if mark.end is None else self._place(mark.end)
        (x0, y0), (x1, y1) = start, end
        length = float(np.hypot(x1 - x0, y1 - y0))
        head = ""
        if mark.arrow and length > 0:
            ux, uy = (x1 - x0) / length * 12, (y1 - y0) / length * 12
            head = f"M{x1:.1f} {y1:.1f}l{-ux - uy / 2:.1f} {-uy + ux / 2:.1f}l{uy:.1f} {-ux:.1f}Z"
        above = -0.8 * font if mark.end is None else -0.4 * font
        label_at = labels.place((x0 + x1) / 2, (y0 + y1) / 2 + above, mark.label) if mark.label else None
        return {"mark": mark, "start": start, "end": end, "head": head, "label_at": label_at}


def _hull(points: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "M 2"]:
    """Corners of the convex hull in order; points on one line come back as the two farthest apart."""
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:
        order = np.lexsort(points.T)
        return points[[order[0], order[-1]]]


def _boundary(points: Float[np.ndarray, "P 2"]) -> list[Float[np.ndarray, "N 2"]]:
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
    # A boundary edge is between a triangle of the shape and one outside; edge k is opposite to corner k.
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
        after = collections.defaultdict(list, {node: following for node, following in after.items() if following})
        loops.append(points[loop])
    return loops
