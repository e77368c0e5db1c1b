"""Procedural rooms: the construction itself."""

from __future__ import annotations

import collections
import functools
import itertools

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from scipy.spatial import ConvexHull

from jaxvsr.data.rooms.furniture import KINDS
from jaxvsr.data.rooms.render import _floor_light
from jaxvsr.data.rooms.room import Room, build_room, scene_name
from jaxvsr.data.scannet.categories import category_of, is_structural

FURNITURE = set(KINDS) - {"monitor"}


@functools.cache
def rooms() -> list[Room]:
    return [build_room(seed=3, index=index) for index in range(60)]


def furniture(room: Room) -> list:
    return [item for item in room.objects if item.category in FURNITURE]


def test_a_room_depends_only_on_seed_and_index():
    for index in (0, 5):
        again = build_room(3, index)
        assert [item.raw_label for item in again.objects] == [item.raw_label for item in rooms()[index].objects]
        for one, other in zip(again.objects, rooms()[index].objects, strict=True):
            np.testing.assert_array_equal(one.corners, other.corners)
    assert build_room(4, 0).area != rooms()[0].area


@pytest.mark.slow
def test_no_two_pieces_of_furniture_overlap():
    for room in rooms():
        hulls = [ConvexHull(item.corners[:, :2]) for item in furniture(room)]
        for one, other in itertools.combinations(hulls, 2):
            # Points all over one footprint, none of them inside the other.
            vertices = one.points[one.vertices]
            shares = np.random.default_rng(0).dirichlet(np.full(len(vertices), 0.4), 300)
            points = np.concatenate([shares @ vertices, vertices])
            outside = (points @ other.equations[:, :2].T + other.equations[:, 2] > -1e-9).any(axis=1)
            assert outside.all(), room.name


def test_furniture_stands_on_the_floor_inside_the_room():
    for room in rooms():
        outline = Outline(room.plan.outline)
        for item in furniture(room):
            assert item.aabb.minimum[2] == pytest.approx(0, abs=1e-9), item.category
            assert item.aabb.maximum[2] < room.height
            assert outline.contains_points(item.corners[:, :2]).all(), (room.name, item.category)


def test_monitors_stand_on_desks():
    monitors = 0
    for room in rooms():
        desks = [item.aabb for item in room.objects if item.category == "desk"]
        for item in room.objects:
            if item.category == "monitor":
                monitors += 1
                under = [desk for desk in desks if desk.maximum[2] == pytest.approx(item.aabb.minimum[2])]
                middle = item.aabb.center[:2]
                assert any(((d.minimum[:2] < middle) & (middle < d.maximum[:2])).all() for d in under)
    assert monitors > 5


@pytest.mark.slow
def test_doors_can_be_reached():
    for room in rooms():
        doors = [item.aabb for item in room.objects if item.category == "door"]
        assert doors
        for door in doors:
            middle = door.center[:2]
            inside = [middle + step for step in 0.4 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])]
            front = [point for point in inside if Outline(room.plan.outline).contains_point(point)]
            free = [
                all(not ((item.aabb.minimum[:2] < p) & (p < item.aabb.maximum[:2])).all() for item in furniture(room))
                for p in front
            ]
            assert any(free), room.name


def test_the_area_of_a_room_is_that_of_a_fine_grid():
    for room in rooms()[:20]:
        low, high = room.plan.outline.min(axis=0), room.plan.outline.max(axis=0)
        axes = [np.linspace(a, b, 401)[:-1] + (b - a) / 800 for a, b in zip(low, high, strict=True)]
        points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
        share = Outline(room.plan.outline).contains_points(points).mean()
        assert room.area == pytest.approx(share * np.prod(high - low), rel=0.01)
        np.testing.assert_array_equal(room.plan.contains(points), Outline(room.plan.outline).contains_points(points))


def test_rooms_differ_in_size_shape_and_in_how_many_of_each_kind_there_are():
    areas = np.array([room.area for room in rooms()])
    assert areas.min() >= 12 and areas.max() <= 80
    # Spread evenly on a logarithmic scale: a quarter of the rooms in each quarter of it.
    quarters = np.histogram(np.log(areas), np.linspace(np.log(12), np.log(80), 5))[0] / len(areas)
    assert (quarters > 0.1).all()
    assert {room.plan.shape for room in rooms()} == {"rectangle", "L", "T", "U", "two rooms"}
    counts: collections.Counter[int] = collections.Counter()
    for room in rooms():
        assert len(furniture(room)) >= 6
        counts.update(collections.Counter(item.category for item in furniture(room)).values())
    assert set(counts) == {1, 2, 3, 4}
    assert {item.category for room in rooms() for item in furniture(room)} == FURNITURE


def test_pieces_of_one_category_differ_in_size_and_colour_and_are_of_realistic_size():
    longest = {"chair": (0.7, 1.1), "bed": (1.8, 2.3), "refrigerator": (1.4, 2.0), "trash can": (0.3, 0.8)}
    for category, (low, high) in longest.items():
        builds = [KINDS[category].build(np.random.default_rng(seed)) for seed in range(30)]
        sizes = [np.ptp(np.concatenate([solid.corners for solid in solids]), axis=0).max() for solids in builds]
        assert low < min(sizes) and max(sizes) < high and np.std(sizes) > 0.02
        assert len({solids[-1].color for solids in builds} | {solids[0].color for solids in builds}) > 10
    for category, kind in KINDS.items():
        assert {category_of(label) for label in kind.raw_labels} == {category}
        assert not is_structural(category)


def test_a_second_scan_of_a_room_has_its_name_and_its_furniture():
    assert (scene_name(14), scene_name(15), scene_name(16)) == ("scene0014_00", "scene0014_01", "scene0015_00")
    assert len({scene_name(index) for index in range(200)}) == 200
    one, other = rooms()[14], rooms()[15]
    assert one.area == other.area and one.name != other.name
    assert [item.category for item in one.objects] == [item.category for item in other.objects]


def test_pictures_hang_on_the_walls_apart_from_openings_and_not_behind_tall_furniture():
    counts = collections.Counter()
    for room in rooms():
        pictures = [item.aabb for item in room.objects if item.category == "picture"]
        counts[len(pictures)] += 1
        others = [
            item.aabb for item in room.objects if item.category in ("door", "window", "bookshelf", "refrigerator")
        ]
        for number, picture in enumerate(pictures):
            foot = np.array([picture.center[:2]])
            assert room.plan.contains(foot)[0] and room.plan.distance_to_walls(foot)[0] < 0.02
            assert picture.minimum[2] > 1.1 and picture.maximum[2] < room.height
            for other in pictures[:number] + others:
                assert (np.maximum(picture.minimum - other.maximum, other.minimum - picture.maximum) > 0).any()
    assert set(counts) == {0, 1, 2, 3}


def test_the_floor_is_brighter_where_the_sun_comes_through_a_window():
    checked = 0
    for room in rooms():
        for window in room.windows:
            # From a pane, not from the bar in the middle, along the sun's rays to the floor.
            pane = window.middle + 0.5 * window.half_width * window.along
            spot = pane + (window.low + window.high) / 2 / -room.sun[2] * room.sun[:2]
            open_way = room.plan.contains(np.linspace(pane, spot, 20)[1:]).all()
            gaps = [np.linalg.norm(spot - piece.center) - np.linalg.norm(piece.half) for piece in room.pieces]
            if room.sun[:2] @ window.inward > 0.15 and open_way and min(gaps) > 0.3:
                red, _, blue = _floor_light(room, spot[None].astype(np.float32))[0]
                assert red > 1.2 and red > blue
                checked += 1
    assert checked >= 5
