"""Geometry against brute force: dense sampling, rotation matrices, counting of cells."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay

from jaxvsr.data.geometry import directions, distances
from jaxvsr.data.geometry.alpha_shape import alpha_shape_area, circumradii, triangle_areas
from jaxvsr.data.geometry.boxes import AxisAlignedBox, OrientedBox

seeds = st.integers(0, 2**32 - 1)


def random_rotation(rng):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def surface_and_inside(box: OrientedBox, count: int):
    """A regular grid over the whole box, faces included."""
    steps = [np.linspace(-e / 2, e / 2, count) for e in box.extent]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    return box.center + grid @ box.axes


def random_box(rng, spread=1.5):
    return OrientedBox(rng.uniform(-spread, spread, 3), random_rotation(rng), rng.uniform(0.05, 1.0, 3))


def brute_force_distance(a, b):
    return min(np.linalg.norm(a[:, None] - part[None], axis=-1).min() for part in np.array_split(b, 8))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(seeds)
def test_gap_of_oriented_boxes_equals_dense_sampling(seed):
    rng = np.random.default_rng(seed)
    first, second = random_box(rng), random_box(rng)
    gap = distances.obb_gap(first, second)
    sampled = brute_force_distance(surface_and_inside(first, 11), surface_and_inside(second, 11))
    spacing = max(first.extent.max(), second.extent.max()) / 10
    assert gap <= sampled + 1e-9
    assert sampled - gap <= spacing * np.sqrt(3)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_gap_of_axis_aligned_boxes_equals_that_of_oriented_ones(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-1, 1, (2, 2, 3))
    boxes = [AxisAlignedBox(c.min(0), c.max(0) + 0.01) for c in corners]
    oriented = [OrientedBox(b.center, np.eye(3), b.extent) for b in boxes]
    assert distances.aabb_gap(*boxes) == pytest.approx(distances.obb_gap(*oriented), abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_gap_of_oriented_boxes_does_not_depend_on_a_rigid_motion_or_the_order(seed):
    rng = np.random.default_rng(seed)
    first, second = random_box(rng), random_box(rng)
    turn, shift = random_rotation(rng), rng.normal(size=3)

    def moved(box):
        return OrientedBox(turn @ box.center + shift, box.axes @ turn.T, box.extent)

    gap = distances.obb_gap(first, second)
    assert distances.obb_gap(moved(first), moved(second)) == pytest.approx(gap, abs=1e-8)
    assert distances.obb_gap(second, first) == pytest.approx(gap, abs=1e-8)


def test_gap_of_boxes_in_known_positions_is_the_computed_one():
    unit = OrientedBox(np.zeros(3), np.eye(3), np.ones(3))
    c = np.sqrt(0.5)
    turned = OrientedBox(np.array([2.0, 0, 0]), np.array([[c, c, 0], [-c, c, 0], [0, 0, 1.0]]), np.ones(3))
    assert distances.obb_gap(unit, turned) == pytest.approx(2 - 0.5 - c)  # an edge points at a face
    assert distances.obb_gap(unit, OrientedBox(np.array([0.9, 0, 0]), np.eye(3), np.ones(3))) == 0.0
    assert distances.obb_gap(unit, OrientedBox(np.array([1.5, 1.5, 1.5]), np.eye(3), np.ones(3))) == pytest.approx(
        np.sqrt(3) / 2
    )


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_grid_and_sampled_distances_are_at_least_the_exact_gap_and_close_to_it(seed):
    rng = np.random.default_rng(seed)
    first, second = random_box(rng), random_box(rng)
    gap = distances.obb_gap(first, second)
    grid = distances.obb_grid_distance(first, second)
    assert gap - 1e-9 <= grid
    if gap > 0:  # inside of an overlap the grid is hollow
        # Lines are up to 10 cm apart, and rounding may have cost the points of a face.
        assert grid <= gap + 0.2 * np.sqrt(3)
    boxes = [AxisAlignedBox(b.center - b.extent / 2, b.center + b.extent / 2) for b in (first, second)]
    sampled = distances.aabb_sample_distance(*boxes, rng)
    assert distances.aabb_gap(*boxes) <= sampled + 1e-9
    assert sampled <= distances.aabb_gap(*boxes) + 0.6


def grid_of_vsi_bench(box: OrientedBox, spacing=0.05):
    """Point by point, in plain numbers: the grid of the outer parts of a box that is still in it after rounding."""
    lines = [np.linspace(-e / 2, e / 2, math.ceil(e / spacing)).tolist() for e in box.extent]
    outer = [p for p in itertools.product(*lines) if any(abs(x) > e / 4 for x, e in zip(p, box.extent, strict=True))]
    rotation = box.axes.T
    places = np.array(outer) @ rotation.T + box.center
    kept = []
    for place in places:
        x, y, z = place - box.center
        if all(
            abs(x * u + y * v + z * w) <= e / 2 for (u, v, w), e in zip(rotation.T.tolist(), box.extent, strict=True)
        ):
            kept.append(place)
    return np.array(kept) if kept else grid_of_vsi_bench(box, spacing / 2)


BOXES = {
    "any": lambda rng: random_box(rng),
    "upright": lambda rng: OrientedBox(rng.uniform(-4, 4, 3), upright(rng), rng.uniform(0.1, 1.2, 3)),
    "along the axes": lambda rng: OrientedBox(rng.uniform(-4, 4, 3), np.eye(3), rng.uniform(0.1, 1.2, 3)),
    "of whole spacings": lambda rng: OrientedBox(rng.uniform(-4, 4, 3), np.eye(3), rng.integers(1, 20, 3) * 0.05),
    "thin": lambda rng: OrientedBox(rng.uniform(-4, 4, 3), upright(rng), np.array([0.9, 0.6, rng.uniform(0.01, 0.08)])),
    "thin along the axes": lambda rng: OrientedBox(rng.uniform(-4, 4, 3), np.eye(3), np.array([0.03, 0.7, 0.5])),
}


def upright(rng):
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def rows(points):
    return sorted(map(tuple, np.round(points, 9).tolist()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOXES)
@pytest.mark.parametrize("seed", range(4))
def test_grids_and_their_distances_are_those_of_vsi_bench_point_by_point(kind, seed):
    rng = np.random.default_rng(seed)
    first, second = BOXES[kind](rng), BOXES[kind](rng)
    expected = [grid_of_vsi_bench(box) for box in (first, second)]
    for box, points in zip((first, second), expected, strict=True):
        assert rows(distances.shell_grid(box)) == rows(points)
    nearest = brute_force_distance(*expected)
    assert distances.obb_grid_distance(first, second) == pytest.approx(nearest, abs=1e-9)
    assert distances.obb_grid_distance(second, first) == pytest.approx(nearest, abs=1e-9)


def test_about_half_of_a_face_of_vsi_benchs_grid_is_lost_by_rounding():
    rng = np.random.default_rng(0)
    on_face = lost = 0
    for _ in range(20):
        box = OrientedBox(rng.uniform(-4, 4, 3), random_rotation(rng), rng.uniform(0.4, 1.0, 3))
        number = np.ceil(box.extent / 0.05).astype(int)
        on_face += int(number.prod() - (number - 2).prod())
        along = (distances.shell_grid(box) - box.center) @ box.axes.T
        lost += int(number.prod() - (number - 2).prod())
        lost -= int((np.abs(np.abs(along) - box.extent / 2) < 1e-9).any(axis=1).sum())
    assert 0.3 < lost / on_face < 0.7


def test_a_box_thinner_than_the_spacing_has_its_low_face_or_half_the_spacing():
    box = OrientedBox(np.zeros(3), np.eye(3), np.array([1.0, 0.5, 0.04]))
    assert set(distances.shell_grid(box)[:, 2]) == {-0.02}
    # At 3 m rounding puts both faces outside: four lines a quarter of the spacing apart, of which two are inside.
    moved = OrientedBox(np.array([0.0, 0, 3]), np.eye(3), box.extent)
    assert set(distances.shell_grid(moved)[:, 2].round(4)) == {2.9933, 3.0067}


@pytest.mark.parametrize("extent", [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1.0, 1e-12, 0], [2, 1, 1e-7], [0.03, 0, 0]])
def test_flat_boxes_have_grid_points_too(extent):
    rng = np.random.default_rng(1)
    for axes in (np.eye(3), random_rotation(rng), upright(rng)):
        box = OrientedBox(rng.uniform(-4, 4, 3), axes, np.array(extent, float))
        points = distances.shell_grid(box)
        assert len(points) and (np.abs((points - box.center) @ axes.T) <= box.extent / 2 + 1e-9).all()


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_point_cloud_distance_equals_all_pairs(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rng.integers(1, 60), 3)), rng.normal(size=(rng.integers(1, 60), 3)) + 2
    expected = np.linalg.norm(a[:, None] - b[None], axis=-1).min()
    assert distances.point_cloud_distance(a, b) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_directions_equal_the_signs_of_coordinates_in_the_observers_frame(seed):
    """Turn the plane so that the facing direction is +y, VSI-Bench's own wording; then read off signs."""
    rng = np.random.default_rng(seed)
    stand, face, query = rng.uniform(-3, 3, (3, 3))
    forward = (face - stand)[:2] / np.linalg.norm((face - stand)[:2])
    x = (query - stand)[:2] @ np.array([forward[1], -forward[0]])  # to the right
    y = (query - stand)[:2] @ forward
    turn = float(directions.turn_degrees(stand, face, query))
    assert directions.side(turn) == ("right" if x > 0 else "left")
    expected = ("front" if y > 0 else "back") + ("-right" if x > 0 else "-left")
    assert directions.quadrant(turn) == expected
    away = np.degrees(np.arccos(np.clip(y / np.hypot(x, y), -1, 1)))
    expected = "back" if away > 135 else ("right" if x > 0 else "left")
    assert directions.sector(turn) == expected
    assert directions.degrees_from_line(np.array(turn)) == pytest.approx(min(away, 180 - away), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_mirroring_swaps_only_left_and_right(seed):
    rng = np.random.default_rng(seed)
    places = rng.uniform(-3, 3, (3, 3))
    turn, mirrored = (float(directions.turn_degrees(*side)) for side in (places, places * [-1, 1, 1]))
    swap = {"left": "right", "right": "left"}
    assert directions.side(mirrored) == swap[directions.side(turn)]
    front, hand = directions.quadrant(turn).split("-")
    assert directions.quadrant(mirrored) == f"{front}-{swap[hand]}"
    assert mirrored == pytest.approx(360 - turn)


def test_left_is_counter_clockwise_in_a_view_from_above():
    origin, north, west, east = np.zeros(3), np.array([0.0, 1, 0]), np.array([-1.0, 0, 5]), np.array([1.0, 0, -5])
    assert directions.side(float(directions.turn_degrees(origin, north, west))) == "left"
    assert directions.side(float(directions.turn_degrees(origin, north, east))) == "right"
    assert directions.turn_degrees(origin, north, west) == pytest.approx(90)
    many = directions.turn_degrees(*(np.stack([p, p]) for p in (origin, north, west)))
    assert many == pytest.approx([90, 90])
    just_right = np.array([1e-20, 1.0, 0])
    assert directions.quadrant(float(directions.turn_degrees(origin, north, just_right))) == "front-left"


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_nearest_equals_the_first_of_the_sorted_distances(seed):
    metres = list(np.random.default_rng(seed).uniform(0, 5, 4))
    index, margin = distances.nearest(metres)
    ordered = sorted(metres)
    assert metres[index] == ordered[0]
    assert margin == pytest.approx(ordered[1] - ordered[0])


def floor_points(inside, rng, spacing=None, count=40000):
    """Points of [0, 6]² for which `inside(x, y)`: random ones, or a grid that reaches the border."""
    if spacing:
        line = np.arange(0, 6 + 1e-9, spacing)
        points = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    else:
        points = rng.uniform(0, 6, (count, 2))
    return points[inside(points[:, 0], points[:, 1])]


SHAPES = {
    "rectangle": (lambda x, y: (x <= 5) & (y <= 4), 20.0),
    "L": (lambda x, y: (x <= 2) | (y <= 2), 36.0 - 16.0),
    "U": (lambda x, y: (x <= 2) | (x >= 4) | (y <= 2), 36.0 - 8.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", [0.1, 0.05, None])
def test_alpha_shape_area_of_known_rooms_within_3_percent(shape, spacing):
    inside, area = SHAPES[shape]
    points = floor_points(inside, np.random.default_rng(1), spacing)
    angle = 0.4
    turned = points @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) + 100
    for cloud in (points, turned, np.concatenate([points, points])):
        assert alpha_shape_area(cloud, 0.3) == pytest.approx(area, rel=0.03)


def test_alpha_shape_fills_enclosed_holes_only_when_asked():
    ring = floor_points(lambda x, y: (np.abs(x - 3) >= 1) | (np.abs(y - 3) >= 1), np.random.default_rng(0), 0.1)
    assert alpha_shape_area(ring, 0.2) == pytest.approx(32, rel=0.01)
    assert alpha_shape_area(ring, 0.2, fill_holes=True) == pytest.approx(36, rel=0.01)
    bay = floor_points(lambda x, y: (np.abs(x - 3) >= 1) | (y <= 2), np.random.default_rng(0), 0.1)
    assert alpha_shape_area(bay, 0.2, fill_holes=True) == pytest.approx(28, rel=0.01)


@pytest.mark.parametrize("seed", range(12))
def test_a_filled_alpha_shape_is_the_hull_without_parts_open_to_the_outside(seed):
    """Triangle by triangle over all points: whatever may be left out to save time must not count."""
    rng = np.random.default_rng(seed)
    points = floor_points(lambda x, y: x + y >= 0, rng, count=int(rng.integers(2000, 12000)))
    for _ in range(6):  # furniture, bays, thin walls with a way through
        turned = (points - rng.uniform(0, 6, 2)) @ np.linalg.qr(rng.normal(size=(2, 2)))[0]
        half = rng.uniform(0.05, 1.3, 2)
        gone = (np.abs(turned) < half).all(axis=1)
        if rng.random() < 0.4:
            gone &= ~(np.abs(turned) < half - rng.uniform(0.05, 0.3)).all(axis=1)
        points = points[~gone]
    triangles = Delaunay(points)
    corners = points[triangles.simplices]
    wide = circumradii(corners) > 0.2
    is_open = [int(t) for t in np.flatnonzero(wide & (triangles.neighbors < 0).any(axis=1))]
    reached = set(is_open)
    while is_open:
        for neighbour in triangles.neighbors[is_open.pop()].tolist():
            if neighbour >= 0 and wide[neighbour] and neighbour not in reached:
                reached.add(neighbour)
                is_open.append(neighbour)
    expected = np.delete(triangle_areas(corners), list(reached)).sum()
    assert 10 < expected < 36
    assert alpha_shape_area(points, 0.2, fill_holes=True) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("points", [[], [[0, 0]], [[0, 0], [1, 1]], [[0, 0], [1, 1], [2, 2]], [[1, 1]] * 5])
def test_alpha_shape_of_too_few_points_has_no_area(points):
    assert alpha_shape_area(np.array(points, float).reshape(-1, 2), 10.0) == 0.0


def test_alpha_shape_of_one_triangle_counts_it_once():
    assert alpha_shape_area(np.array([[0.0, 0], [1, 0], [0, 1]]), 1.0) == pytest.approx(0.5)
    assert alpha_shape_area(np.array([[0.0, 0], [1, 0], [0, 1]]), 0.7) == 0.0  # its circumradius is 0.707
