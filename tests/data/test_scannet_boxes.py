"""Boxes of point sets, against brute force and Open3D."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from jaxvsr.data.geometry import hull_widths
from jaxvsr.data.geometry.boxes import axis_aligned_box, minimal_oriented_box
from jaxvsr.data.rooms.open3d_import import open3d


def turned_box(seed: int, extent: tuple[float, float, float]) -> tuple[np.ndarray, Rotation]:
    rng = np.random.default_rng(seed)
    inside = rng.uniform(-0.5, 0.5, (300, 3))
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    turn = Rotation.random(random_state=seed)
    return turn.apply(np.concatenate([inside, corners]) * extent) + np.array([3.0, -2.0, 1.0]), turn


@pytest.mark.parametrize("seed", range(5))
def test_the_oriented_box_of_a_rotated_box_is_that_box(seed: int):
    points, turn = turned_box(seed, (0.4, 2.0, 1.1))
    box = minimal_oriented_box(points)
    np.testing.assert_allclose(box.extent, [2.0, 1.1, 0.4], atol=1e-9)
    np.testing.assert_allclose(box.center, [3.0, -2.0, 1.0], atol=1e-9)
    # The longest axis is the box's own y axis, up to its sign.
    assert abs(box.axes[0] @ turn.apply([0.0, 1.0, 0.0])) == pytest.approx(1, abs=1e-9)
    assert np.linalg.det(box.axes) == pytest.approx(1)


def smallest_box_on_a_hull_face(points: np.ndarray) -> float:
    """Its volume, by trying every edge of every face of the hull one by one."""
    best = np.inf
    for triangle in ConvexHull(points).simplices:
        for a, b, c in (points[np.roll(triangle, turn)] for turn in range(3)):
            normal = np.cross(b - a, c - a)
            axes = np.stack([b - a, np.cross(normal, b - a), normal])
            axes /= np.linalg.norm(axes, axis=1, keepdims=True)
            best = min(best, float(np.prod(np.ptp(points @ axes.T, axis=0))))
    return best


@pytest.mark.parametrize("seed", range(10))
def test_the_oriented_box_holds_all_points_and_is_as_small_as_open3ds(seed: int):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(int(rng.integers(5, 200)), 3)) * rng.uniform(0.2, 3, 3)
    box = minimal_oriented_box(points)
    inside = np.abs((points - box.center) @ box.axes.T)
    assert (inside <= box.extent / 2 + 1e-9).all()
    np.testing.assert_allclose(np.ptp((box.corners - box.center) @ box.axes.T, axis=0), box.extent)
    assert box.volume <= smallest_box_on_a_hull_face(points) * (1 + 1e-9)
    o3d = open3d()
    theirs = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points)).get_minimal_oriented_bounding_box()
    assert box.volume <= theirs.volume() * 1.02


@pytest.mark.parametrize("seed", range(4))
def test_widths_of_hulls_with_many_corners_equal_those_over_all_corners(seed: int):
    """Round things, long and flat ones; along random directions and along the axes."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(900, 3)) * rng.uniform(0.05, 3, 3)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    corners = points[ConvexHull(points).vertices] * rng.uniform(0.05, 3, 3)
    assert len(corners) >= hull_widths._MANY_CORNERS
    directions = np.concatenate([rng.normal(size=(3000, 3)), np.eye(3), -np.eye(3), [[1, 1, 0], [1, -1, 1]]])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions = np.concatenate([directions, np.zeros((1, 3))])  # of a face that is a sliver
    np.testing.assert_allclose(
        hull_widths.hull_widths(directions, corners), np.ptp(directions @ corners.T, axis=1), rtol=1e-5
    )


def test_the_oriented_box_does_not_depend_on_how_the_object_is_turned():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(60, 3)) * [1.0, 0.6, 0.3]
    extent = minimal_oriented_box(points).extent
    for seed in range(5):
        turned = Rotation.random(random_state=seed).apply(points) + rng.uniform(-5, 5, 3)
        np.testing.assert_allclose(minimal_oriented_box(turned).extent, extent, atol=1e-6)


def test_flat_straight_and_single_point_sets_have_boxes():
    points, turn = turned_box(0, (0.0, 2.0, 1.0))
    np.testing.assert_allclose(minimal_oriented_box(points).extent, [2.0, 1.0, 0.0], atol=1e-9)
    line = turn.apply(np.linspace(0, 1, 9)[:, None] * [0.0, 0.0, 3.0])
    np.testing.assert_allclose(minimal_oriented_box(line).extent, [3.0, 0.0, 0.0], atol=1e-9)
    np.testing.assert_array_equal(minimal_oriented_box(np.ones((1, 3))).extent, [0, 0, 0])
    np.testing.assert_array_equal(minimal_oriented_box(np.ones((7, 3))).center, [1, 1, 1])


def test_an_axis_aligned_box_holds_its_points_and_has_eight_corners():
    points = np.array([[0.0, 5.0, 1.0], [2.0, 4.0, -1.0], [1.0, 4.5, 0.0]])
    box = axis_aligned_box(points)
    np.testing.assert_array_equal(box.extent, [2, 1, 2])
    np.testing.assert_array_equal(box.center, [1, 4.5, 0])
    assert {tuple(corner) for corner in box.corners} == {
        (x, y, z) for x in (0.0, 2.0) for y in (4.0, 5.0) for z in (-1.0, 1.0)
    }
