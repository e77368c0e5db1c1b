"""The demo's questions and the guesses of its base model, against the construction of the rooms and their masks."""

import dataclasses
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.recipes import rooms as recipe
from jaxvsr.data.recipes import rough_rooms
from jaxvsr.data.recipes.generate_questions import QuestionSettings, generate_questions
from jaxvsr.data.rooms.room import build_room
from jaxvsr.data.rooms.room_scans import write_rooms
from jaxvsr.data.rooms.seen_objects import CATEGORIES, KINDS_OF_TARGET, NOT_SAID, seen_objects
from jaxvsr.data.scannet import read_scan
from jaxvsr.data.scannet.instance_masks import InstanceMasks
from jaxvsr.data.scannet.sens import SensReader

SEED, SCENES = 3, 8
EVERY = tuple(recipe.TEMPLATES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_rooms(root, scenes=SCENES, seed=SEED, frames=16, size=(84, 56))
    return root


def asked(folder, name, options):
    report = generate_questions(read_scan.list_scans(folder), QuestionSettings(name, options, 0), workers=1)
    assert report.broken == {}
    return report.questions


@pytest.fixture(scope="module")
def right(folder):
    return asked(folder, "rooms", recipe.Options(EVERY, per_task=None))


def named(row):
    return re.search(r"\((.*)\)", row.question)[1].split(", ")


def masks_of(folder, scene):
    masks = InstanceMasks(read_scan.instance_masks_path(folder / "scans" / scene))
    return np.stack([masks.read(frame) for frame in masks.frames])


def test_what_appears_first_fills_its_share_of_a_frame_before_the_others(folder, right):
    rows = [row for row in right if row.question_type == recipe.FIRST]
    assert len(rows) > 100
    places = Counter(named(row).index(row.answer) for row in rows)
    assert min(places.values()) > 0.18 * len(rows), "the answer's place in the question tells it"
    for index in range(SCENES):
        room = build_room(SEED, index)
        shown = masks_of(folder, room.name)
        first = {}
        for item in room.objects:
            frames = np.flatnonzero((shown == item.id + 1).mean(axis=(1, 2)) >= recipe.SEEN_SHARE)
            if len(frames):
                first[item.category] = min(first.get(item.category, 99), int(frames[0]))
        for row in rows:
            if row.scene == room.name:
                others = [first[name] for name in named(row) if name != row.answer]
                assert len(set(named(row))) == 4 and min(others) - first[row.answer] > 1


def test_counts_are_those_of_the_construction_zero_among_them(right):
    rows = [row for row in right if row.question_type == "object_counting"]
    for index in range(SCENES):
        room = build_room(SEED, index)
        there = Counter(item.category for item in room.objects)
        for row in rows:
            if row.scene == room.name:
                assert int(row.answer) == there[row.question.removeprefix("How many ").removesuffix("(s)in the room?")]
    assert {row.answer for row in rows} >= {"0", "1", "2", "3"}


def test_every_task_is_asked_and_a_bound_holds(folder):
    rows = asked(folder, "rooms", recipe.Options(EVERY, per_task=2))
    by_task = Counter(row.question_type for row in rows)
    assert set(by_task) == set(recipe.TEMPLATES)
    assert by_task["room_size_estimation"] == SCENES and max(by_task.values()) <= 2 * SCENES


def test_guesses_are_wrong_in_the_way_that_the_recipe_says(folder, right):
    truth = {(row.scene, row.question): row.answer for row in right}
    rows = asked(folder, "rough-rooms", rough_rooms.Options(EVERY, per_task=None))
    by_task: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        by_task.setdefault(row.question_type, []).append((row.answer, truth[row.scene, row.question]))
    missed = [int(guess) - int(answer) for guess, answer in by_task["object_counting"]]
    assert set(missed) == {0, 1} and 0.65 < np.mean(missed) < 0.85
    sides = by_task["object_rel_direction_easy"]
    assert 0.6 < np.mean([guess != answer for guess, answer in sides]) < 0.8
    logs = [math.log(float(guess) / float(answer)) for guess, answer in by_task["object_abs_distance"]]
    assert np.mean(logs) == pytest.approx(0.5, abs=0.05) and np.std(logs) == pytest.approx(0.25, abs=0.05)
    for task in ("object_rel_distance", recipe.FIRST):
        chosen = [row for row in rows if row.question_type == task]
        wrong = [row for row in chosen if row.answer != truth[row.scene, row.question]]
        assert all(row.answer == named(row)[0] for row in wrong)
        assert 0.4 < len(wrong) / len(chosen) < 0.65, "of seven in ten guesses three quarters are wrong"


def test_what_tokens_show_is_what_the_masks_show(folder):
    rows, columns, seen_in_all = 2, 3, 0
    for index in range(SCENES):
        room = build_room(SEED, index)
        scan = folder / "scans" / room.name
        shown, item_of = masks_of(folder, room.name), {item.id: item for item in room.objects}
        edges = 0.45 * 1.15 ** np.arange(1, KINDS_OF_TARGET["size"])
        sizes = {item.id: np.searchsorted(edges, item.obb.extent.max()) for item in read_scan.read_scene(scan).objects}
        targets, of_categories = seen_objects(scan, np.arange(16), rows, columns)
        targets = targets.reshape(8, rows, columns, len(KINDS_OF_TARGET))
        pose = SensReader(read_scan.sens_path(scan)).pose(0)
        seen_ids: dict[str, set[int]] = {}
        since: dict[str, int] = {}
        for pair in range(8):
            largest = {}
            for row in range(rows):
                for column in range(columns):
                    square = shown[2 * pair : 2 * pair + 2, row * 28 : row * 28 + 28, column * 28 : column * 28 + 28]
                    shares = {
                        number: (square == number + 1).mean()
                        for number, item in item_of.items()
                        if item.category in CATEGORIES
                    }
                    best = max(shares, key=shares.__getitem__)
                    if shares[best] >= 0.06:
                        largest[row, column] = item_of[best]
                        since.setdefault(item_of[best].category, pair)
                        seen_ids.setdefault(item_of[best].category, set()).add(best)
            for (row, column), item in largest.items():
                seen_in_all += 1
                category, count, part, direction, distance, size = targets[pair, row, column]
                assert CATEGORIES[category - 1] == item.category
                assert count == min(len(seen_ids[item.category]), 5)
                assert part == since[item.category] and size == sizes[item.id]
                if pose is None:
                    assert direction == distance == NOT_SAID
                    continue
                inverse = np.linalg.inv(read_scan.read_scene(scan).axis_alignment @ pose)
                right, _, ahead = inverse[:3, :3] @ item.aabb.center + inverse[:3, 3]
                # The camera looks a little down: what is left in its frame is left on the floor.
                if abs(right) > 1.0:
                    assert (direction < 8) == (right < 0)
                assert abs(0.5 * distance + 0.25 - math.hypot(right, ahead)) < 1.2
            nothing = [square for square in np.ndindex(rows, columns) if square not in largest]
            for square in nothing:
                assert targets[pair][square].tolist() == [0, *[NOT_SAID] * 5]
        there = Counter(item.category for item in room.objects)
        for number, (category, said) in enumerate(zip(CATEGORIES, of_categories.tolist(), strict=True), start=1):
            assert said[:3] == [number, min(there[category], 5), since.get(category, NOT_SAID)]
            assert (said[3] == NOT_SAID or there[category] == 1) and (said[5] == NOT_SAID) == (there[category] != 1)
    assert seen_in_all > 100


def test_options_out_of_range_are_refused_by_name():
    from jaxvsr.errors import InputError

    with pytest.raises(InputError, match="per_task 0"):
        dataclasses.replace(recipe.Options(), per_task=0)
    with pytest.raises(InputError, match="'order' is not one of"):
        recipe.Options(tasks=("order",))
    with pytest.raises(InputError, match="'order' is not one of"):
        rough_rooms.Options(tasks=("order",))
    with pytest.raises(InputError, match="misjudged 7: must be at most 1"):
        rough_rooms.Options(misjudged=7)
    with pytest.raises(InputError, match="spread -1: must be at least 0"):
        rough_rooms.Options(spread=-1)
