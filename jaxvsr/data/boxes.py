"""Axis-aligned boxes and minimal oriented boxes of point sets.

The oriented box is the one VSI-Bench's generators take from Open3D (`get_minimal_oriented_bounding_box`): the smallest
box flush with a face and an edge of the convex hull. Here every edge of every hull face is tried, so the volume
is at most Open3D's, and no Open3D is needed.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float64
from scipy.spatial import ConvexHull, QhullError

# Faces tried at once: bounds memory to a few MB on hulls of thousands of faces.
_FACES_PER_CHUNK = 512


@dataclasses.dataclass(frozen=True, eq=False)
class AxisAlignedBox:
    """The box between two corners, metres."""

    minimum: Float64[np.ndarray, " 3"]
    maximum: Float64[np.ndarray, " 3"]

    @property
    def center(self) -> Float64[np.ndarray, " 3"]:
        """The middle of the box, metres."""
        return (self.minimum + self.maximum) / 2

    @property
    def extent(self) -> Float64[np.ndarray, " 3"]:
        """Length, width and height along x, y and z, metres."""
        return self.maximum - self.minimum

    @property
    def corners(self) -> Float64[np.ndarray, "8 3"]:
        """The eight corners, metres; corner i takes the maximum of axis k where bit k of i is set."""
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
        """The eight corners, metres; corner i lies on the positive side of axis k where bit k of i is set."""
        return self.center + np.where(_CORNER_BITS, 0.5, -0.5) * self.extent @ self.axes

    @property
    def volume(self) -> float:
        """Cubic metres."""
        return float(np.prod(self.extent))


_CORNER_BITS = (np.arange(8)[:, None] >> np.arange(3)) & 1 == 1


def axis_aligned_box(points: Float64[np.ndarray, "P 3"]) -> AxisAlignedBox:
    """The smallest box along x, y and z that holds `points` (P ≥ 1, metres)."""
    return AxisAlignedBox(points.min(axis=0), points.max(axis=0))


def minimal_oriented_box(points: Float64[np.ndarray, "P 3"]) -> OrientedBox:
    """The smallest box flush with a face and an edge of the convex hull of `points` (P ≥ 1, metres).

    Flat point sets get a box with a zero extent, single points one of three.
    """
    origin = points.mean(axis=0)
    centred = points - origin
    try:
        hull = ConvexHull(centred)
    except QhullError:  # fewer than four points, or all of them in one plane
        return _flat_box(centred, origin)
    corners = centred[hull.vertices]
    triangles = centred[hull.simplices]
    edges = np.roll(triangles, -1, axis=1) - triangles
    lengths = np.linalg.norm(edges, axis=-1, keepdims=True)
    along = edges / np.maximum(lengths, 1e-300)
    normal = hull.equations[:, None, :3]
    # Qhull's normal is exact to rounding only; a frame must be orthonormal.
    along -= (along * normal).sum(-1, keepdims=True) * normal
    norms = np.linalg.norm(along, axis=-1, keepdims=True)
    along = np.where(norms > 0.5, along / np.maximum(norms, 1e-300), 0.0)
    normals = np.broadcast_to(normal, along.shape)
    frames = np.stack([along, np.cross(normals, along), normals], axis=2).reshape(-1, 3, 3)
    frames = frames[norms.reshape(-1) > 0.5]
    best_volume, best_axes = np.inf, np.eye(3)
    for start in range(0, len(frames), _FACES_PER_CHUNK):
        chunk = frames[start : start + _FACES_PER_CHUNK]
        projected = chunk @ corners.T
        volumes = np.prod(projected.max(-1) - projected.min(-1), axis=-1)
        if volumes.min() < best_volume:
            best_volume, best_axes = volumes.min(), chunk[int(volumes.argmin())]
    return _box_along(corners, origin, best_axes)


def _flat_box(centred: Float64[np.ndarray, "P 3"], origin: Float64[np.ndarray, " 3"]) -> OrientedBox:
    """The smallest rectangle in the plane of the points; of a line, the segment."""
    # Principal directions as rows, strongest first; the 3 × 3 scatter matrix is cheap however many the points are.
    principal = np.linalg.eigh(centred.T @ centred)[1].T[::-1]
    plane = centred @ principal[:2].T
    try:
        outline = plane[ConvexHull(plane).vertices]
    except QhullError:
        return _box_along(centred, origin, principal)
    edges = np.roll(outline, -1, axis=0) - outline
    along = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    widths = [np.ptp(outline @ direction.T, axis=0) for direction in (along, across)]
    best = int(np.argmin(widths[0] * widths[1]))
    axes = np.stack([along[best] @ principal[:2], across[best] @ principal[:2], principal[2]])
    return _box_along(centred, origin, axes)


def _box_along(
    centred: Float64[np.ndarray, "P 3"], origin: Float64[np.ndarray, " 3"], axes: Float64[np.ndarray, "3 3"]
) -> OrientedBox:
    """The box of the points along given axes, sorted longest first and made right-handed."""
    projected = centred @ axes.T
    low, high = projected.min(axis=0), projected.max(axis=0)
    order = np.argsort(-(high - low), kind="stable")
    sorted_axes = axes[order]
    if np.linalg.det(sorted_axes) < 0:
        # Turning the last axis round leaves the box what it was: extents have no sign.
        sorted_axes = sorted_axes * np.array([[1.0], [1.0], [-1.0]])
    return OrientedBox(origin + (low + high) / 2 @ axes, sorted_axes, (high - low)[order])
