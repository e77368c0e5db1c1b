"""Axis-aligned boxes and minimal oriented boxes of point sets.

VSI-Bench's generators use Open3D's "minimal" oriented box, which up to Open3D 0.18 is the smallest box flush with a
face of the convex hull, and later the exact minimum (Jylänki 2015). Here the best boxes of the first kind are refined:
a box is turned about one of its axes to the smallest box with that axis, then about the next, until none of the three
makes it smaller. This needs no Open3D, and does not change with its version.

Round things have several equally small boxes, and the last digits of the coordinates would decide between them. So a
box counts as up to 1 % larger than it is, the more the farther it is turned away from a fixed direction of the aligned
frame (`_PREFERRED`, mostly upwards): of equally small boxes always the same one is found, upright ones before tilted.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float64, Int64
from scipy.spatial import ConvexHull, QhullError

from jaxvsr.data.geometry.hull_widths import hull_widths

_STARTS = 8  # face normals whose boxes are refined
_TURNS = 30  # of each box, at most
# How much larger than the smallest a preferred box may be; and the preferred direction, mostly up, about which nothing
# in a room is likely to be symmetric.
_PREFERENCE = 0.01
_PREFERRED = np.array([0.45, 0.21, 0.868]) / np.linalg.norm([0.45, 0.21, 0.868])


@dataclasses.dataclass(frozen=True, eq=False)
class AxisAlignedBox:
    """The box between two corners, metres."""

    minimum: Float64[np.ndarray, " 3"]
    maximum: Float64[np.ndarray, " 3"]

    @property
    def center(self) -> Float64[np.ndarray, " 3"]:
        """The centre of the box, metres."""
        return (self.minimum + self.maximum) / 2

    @property
    def extent(self) -> Float64[np.ndarray, " 3"]:
        """Length, width and height along x, y and z, metres."""
        return self.maximum - self.minimum

    @property
    def corners(self) -> Float64[np.ndarray, "8 3"]:
        """The eight corners, metres; corner i has the maximum of axis k if bit k of i is set."""
        return np.where(_CORNER_BITS, self.maximum, self.minimum)


@dataclasses.dataclass(frozen=True, eq=False)
class OrientedBox:
    """A box with its own axes, metres. Row k of `axes` is the unit vector along which `extent[k]` is measured.

    The axes are right-handed, longest extent first.
    """

    center: Float64[np.ndarray, " 3"]
    axes: Float64[np.ndarray, "3 3"]
    extent: Float64[np.ndarray, " 3"]

    @property
    def corners(self) -> Float64[np.ndarray, "8 3"]:
        """The eight corners, metres; corner i is on the positive side of axis k if bit k of i is set."""
        return self.center + np.where(_CORNER_BITS, 0.5, -0.5) * self.extent @ self.axes

    @property
    def volume(self) -> float:
        """Cubic metres."""
        return float(np.prod(self.extent))


_CORNER_BITS = (np.arange(8)[:, None] >> np.arange(3)) & 1 == 1


def axis_aligned_box(points: Float64[np.ndarray, "P 3"]) -> AxisAlignedBox:
    """The smallest box along x, y and z around `points` (P ≥ 1, metres)."""
    return AxisAlignedBox(points.min(axis=0), points.max(axis=0))


def minimal_oriented_box(points: Float64[np.ndarray, "P 3"]) -> OrientedBox:
    """The smallest oriented box around `points` (P ≥ 1, metres), by the rules at the head of this file.

    The box of flat points has one extent of 0, that of a single point three.
    """
    origin = points.mean(axis=0)
    centred = points - origin
    try:
        hull = ConvexHull(centred)
    except QhullError:  # fewer than four points, or all in one plane
        return _flat_box(centred, origin)
    shape = _Polyhedron.of(hull)
    best_size, best_axes = np.inf, np.eye(3)
    seen: set[float] = set()
    for axes in _starts(shape):
        axes, size = _refined(shape, axes, seen)
        if size < best_size:
            best_size, best_axes = size, axes
    return _box_along(shape.corners, origin, best_axes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Polyhedron:
    """A convex hull: corners, triangles with outward unit normals, and edges with the two triangles beside each."""

    corners: Float64[np.ndarray, "V 3"]
    triangles: Int64[np.ndarray, "F 3"]
    normals: Float64[np.ndarray, "F 3"]
    edges: Int64[np.ndarray, "E 2"]
    beside: Int64[np.ndarray, "2 E"]

    @staticmethod
    def of(hull: ConvexHull) -> _Polyhedron:
        """Qhull's hull, in which neighbour k of a triangle is opposite its corner k."""
        number = np.zeros(len(hull.points), np.int64)
        number[hull.vertices] = np.arange(len(hull.vertices))
        triangles = number[hull.simplices]
        edges = triangles[:, [[1, 2], [2, 0], [0, 1]]].reshape(-1, 2)
        beside = np.column_stack([np.repeat(np.arange(len(triangles)), 3), hull.neighbors.reshape(-1)])
        once = beside[:, 0] < beside[:, 1]
        return _Polyhedron(
            hull.points[hull.vertices], triangles, hull.equations[:, :3], edges[once], beside[once].T.astype(np.int64)
        )


def _penalty(axes: Float64[np.ndarray, "*N 3 3"]) -> Float64[np.ndarray, "*N"]:
    """The factor by which the size of a box along `axes` is multiplied: from 1 to 1 + _PREFERENCE."""
    return _penalty_of(np.abs(axes @ _PREFERRED).sum(-1))


def _penalty_of(turned: Float64[np.ndarray, "*N"]) -> Float64[np.ndarray, "*N"]:
    """The same from the sum of the preferred direction's components along the axes, which is from 1 to √3."""
    return 1 + _PREFERENCE * (turned - 1) / (np.sqrt(3) - 1)


def _starts(shape: _Polyhedron) -> Float64[np.ndarray, "K 3 3"]:
    """Axes, normal first, of the smallest boxes along the normal and an edge of a hull face: one box per normal."""
    frames = _face_frames(shape)
    sides = frames[:, :, 1:].reshape(-1, 3)
    widths = hull_widths(np.concatenate([sides, shape.normals]), shape.corners)
    across = widths[: len(sides)].reshape(-1, 3, 2)
    sizes = across[..., 0] * across[..., 1] * widths[len(sides) :, None] * _penalty(frames)
    # A degenerate face with an edge of length 0 has no frame.
    sizes[np.abs(np.linalg.norm(frames[:, :, 1], axis=-1) - 1) > 1e-6] = np.inf
    chosen: list[int] = []
    for face in np.argsort(sizes.min(axis=1), kind="stable").tolist():
        if (np.abs(shape.normals[chosen] @ shape.normals[face]) < 1 - 1e-9).all():
            chosen.append(face)
        if len(chosen) == _STARTS:
            break
    return frames[chosen, sizes.argmin(axis=1)[chosen]]


def _face_frames(shape: _Polyhedron) -> Float64[np.ndarray, "F 3 3 3"]:
    """For each edge of each face: the face's normal, the edge's direction, the direction at right angles to both."""
    normal = shape.normals[:, None]
    ends = shape.corners[shape.triangles]
    edges = ends[:, [1, 2, 0]] - ends
    # Qhull's normal has rounding errors; axes must be orthonormal.
    along = edges - (edges * normal).sum(-1, keepdims=True) * normal
    along /= np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-300)
    normal = np.broadcast_to(normal, along.shape)
    return np.stack([normal, along, np.cross(normal, along)], axis=2)


def _refined(
    shape: _Polyhedron, axes: Float64[np.ndarray, "3 3"], seen: set[float]
) -> tuple[Float64[np.ndarray, "3 3"], float]:
    """Turn a box about its first, second, third, first … axis while it becomes smaller; its axes and its size, which is
    its volume times `_penalty`.

    The sizes on the way are added to `seen`; a box that reaches a size in `seen` would go on as the earlier box did, so
    it stops with an infinite size.
    """
    size, idle = np.inf, 0
    for _ in range(_TURNS):
        along, smaller = _smallest_rectangle(shape, axes)
        if smaller < size * (1 - 1e-9):
            size, idle = smaller, 0
            across = np.array([-along[1], along[0]])
            axes = np.stack([axes[0], along @ axes[1:], across @ axes[1:]])
            # Digits after the ninth depend on the path.
            if (key := float(f"{size:.9g}")) in seen:
                return axes, np.inf
            seen.add(key)
        else:
            idle += 1
        if idle == 2:  # it was turned about the third axis just before
            break
        axes = axes[[1, 2, 0]]
    return axes, size


def _smallest_rectangle(
    shape: _Polyhedron, axes: Float64[np.ndarray, "3 3"]
) -> tuple[Float64[np.ndarray, " 2"], float]:
    """The smallest box with `axes[0]`: the direction of a side, in coordinates of the two other axes, and its size. A
    side is along an edge of the hull's outline as seen along the axis."""
    facing = shape.normals @ axes[0]
    outline = shape.edges[facing[shape.beside[0]] * facing[shape.beside[1]] <= 0]
    seen = shape.corners @ axes.T
    on_rim = np.zeros(len(seen), bool)
    on_rim[outline] = True
    flat = seen[:, 1:]
    along, turned_more = _best_side(flat[outline[:, 1]] - flat[outline[:, 0]], flat[on_rim], axes)
    return along, turned_more * float(seen[:, 0].max() - seen[:, 0].min())


def _best_side(
    sides: Float64[np.ndarray, "S 2"], rim: Float64[np.ndarray, "R 2"], axes: Float64[np.ndarray, "3 3"]
) -> tuple[Float64[np.ndarray, " 2"], float]:
    """The smallest rectangle around `rim` along one of `sides`, in the plane of the last two axes: the direction of its
    side, and its area times `_penalty`."""
    x, y = sides.T
    length = np.sqrt(x * x + y * y)
    there = length > 1e-9
    x, y = x[there] / length[there], y[there] / length[there]
    directions = np.stack([[x, -y], [y, x]])  # x and y of the sides, and of the directions at right angles to them
    reach = rim @ directions.reshape(2, -1)
    widths = reach.max(axis=0) - reach.min(axis=0)
    preferred = axes @ _PREFERRED
    turned = np.abs(preferred[0]) + np.abs(preferred[1:] @ directions.reshape(2, -1)).reshape(2, -1).sum(axis=0)
    areas = widths[: len(x)] * widths[len(x) :] * _penalty_of(turned)
    best = int(areas.argmin())
    return directions[:, 0, best], float(areas[best])


def _flat_box(centred: Float64[np.ndarray, "P 3"], origin: Float64[np.ndarray, " 3"]) -> OrientedBox:
    """The smallest rectangle in the plane of the points; for points on a line, the segment."""
    # Principal directions as rows, weakest first; the 3 × 3 scatter matrix is cheap for any number of points.
    principal = np.linalg.eigh(centred.T @ centred)[1].T
    plane = centred @ principal[1:].T
    try:
        rim = plane[ConvexHull(plane).vertices]
    except QhullError:
        return _box_along(centred, origin, principal)
    along, _ = _best_side(np.roll(rim, -1, axis=0) - rim, rim, principal)
    across = np.array([-along[1], along[0]])
    return _box_along(centred, origin, np.stack([principal[0], along @ principal[1:], across @ principal[1:]]))


def _box_along(
    centred: Float64[np.ndarray, "P 3"], origin: Float64[np.ndarray, " 3"], axes: Float64[np.ndarray, "3 3"]
) -> OrientedBox:
    """The box of the points along given axes, sorted longest first and made right-handed."""
    projected = centred @ axes.T
    low, high = projected.min(axis=0), projected.max(axis=0)
    order = np.argsort(-(high - low), kind="stable")
    sorted_axes = axes[order]
    if np.linalg.det(sorted_axes) < 0:
        # The box with the last axis reversed is the same.
        sorted_axes = sorted_axes * np.array([[1.0], [1.0], [-1.0]])
    return OrientedBox(origin + (low + high) / 2 @ axes, sorted_axes, (high - low)[order])
