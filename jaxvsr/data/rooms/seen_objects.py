"""What a room's video shows, from the scan: the targets of a model that learns to look.

A vision token stands for a square of a pair of frames. Of the largest object in it is said what it is, how many of its
kind have been seen so far, since which part of the video that kind is seen, where it is from the first camera, and how
long its longest side is. Of each category is said the same after the video: how many there are, since when, and, if
there is one, where and how large.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from jaxvsr.data.rooms.furniture import KINDS
from jaxvsr.data.scannet.instance_masks import InstanceMasks
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject, instance_masks_path, read_scene, sens_path
from jaxvsr.data.scannet.sens import SensReader

CATEGORIES = (*KINDS, "door", "window", "picture")
# What is said, and how many values it has; the last of a number, a distance or a size is open.
KINDS_OF_TARGET = {
    "category": 1 + len(CATEGORIES),
    "how many": 6,
    "since": 8,
    "direction": 16,
    "distance": 16,  # of half metres
    "size": 12,  # of a seventh more than the one before
}
NOT_SAID = -1
_NOWHERE = (NOT_SAID, NOT_SAID)
_LEAST_SHARE = 0.06  # of a square, for an object to be what it shows
_RANGE_METRES = 0.5
_SMALLEST_METRES, _SIZE_RATIO = 0.45, 1.15


def seen_objects(
    scan: Path, frames: Int64[np.ndarray, " F"], rows: int, columns: int
) -> tuple[Int32[np.ndarray, "tokens 6"], Int32[np.ndarray, "categories 6"]]:
    """The targets of all vision tokens, and of all CATEGORIES, in the order of KINDS_OF_TARGET.

    Args:
        scan: a procedural room's scan.
        frames: their numbers in the scan; two make a pair.
        rows, columns: of squares in a frame.

    Returns:
        Row-major over pairs, rows and columns. A category is its number in CATEGORIES plus 1, 0 is none, and then
        nothing else is said (NOT_SAID); no place either where the first frame has no pose. Of CATEGORIES the number
        is that of the room, seen or not, and a place is said of what there is one of.
    """
    scene = read_scene(scan)
    objects = {item.id: item for item in scene.objects if item.category in CATEGORIES}
    masks = InstanceMasks(instance_masks_path(scan))
    shown = _largest(np.stack([masks.read(int(frame)) for frame in frames]), objects, rows, columns)
    where = _places(scan, scene, objects, int(frames[0]))
    targets = np.full((*shown.shape, len(KINDS_OF_TARGET)), NOT_SAID, np.int32)
    targets[..., 0] = 0
    since: dict[str, int] = {}
    so_far: dict[str, set[int]] = {}
    for pair, squares in enumerate(shown):
        for number in np.unique(squares[squares >= 0]).tolist():
            category = objects[number].category
            since.setdefault(category, pair)
            so_far.setdefault(category, set()).add(number)
        for number in np.unique(squares[squares >= 0]).tolist():
            category = objects[number].category
            count = min(len(so_far[category]), KINDS_OF_TARGET["how many"] - 1)
            part = since[category] * KINDS_OF_TARGET["since"] // len(shown)
            said = (1 + CATEGORIES.index(category), count, part, *where.get(number, _NOWHERE), _size(objects[number]))
            targets[pair, squares == number] = said
    return targets.reshape(-1, len(KINDS_OF_TARGET)), _of_categories(objects, since, where, len(shown))


def _of_categories(
    objects: dict[int, SceneObject], since: dict[str, int], where: dict[int, tuple[int, int]], pairs: int
) -> Int32[np.ndarray, "categories 6"]:
    targets = np.full((len(CATEGORIES), len(KINDS_OF_TARGET)), NOT_SAID, np.int32)
    for row, category in enumerate(CATEGORIES):
        numbers = [number for number, item in objects.items() if item.category == category]
        targets[row, 0] = 1 + row
        targets[row, 1] = min(len(numbers), KINDS_OF_TARGET["how many"] - 1)
        if category in since:
            targets[row, 2] = since[category] * KINDS_OF_TARGET["since"] // pairs
        if len(numbers) == 1:
            targets[row, 3:] = *where.get(numbers[0], _NOWHERE), _size(objects[numbers[0]])
    return targets


def _largest(
    masks: UInt8[np.ndarray, "F H W"], objects: dict[int, SceneObject], rows: int, columns: int
) -> Int64[np.ndarray, "pairs squares"]:
    """The id of the object that fills most of each square, -1 where none fills enough."""
    frame, row, column = (np.arange(size) for size in masks.shape)
    square = (row[:, None] * rows // masks.shape[1]) * columns + column * columns // masks.shape[2]
    place = (frame // 2)[:, None, None] * (rows * columns) + square
    count = (len(masks) // 2) * rows * columns
    pixels = np.bincount((place * 256 + masks).reshape(-1), minlength=count * 256).reshape(count, 256)
    shares = pixels / pixels.sum(axis=1, keepdims=True)
    asked = np.zeros(256, bool)
    asked[[number + 1 for number in objects]] = True
    shares[:, ~asked] = 0
    largest = np.where(shares.max(axis=1) >= _LEAST_SHARE, shares.argmax(axis=1) - 1, -1)
    return largest.reshape(-1, rows * columns)


def _places(scan: Path, scene: ScannedScene, objects: dict[int, SceneObject], frame: int) -> dict[int, tuple[int, int]]:
    """Direction (counter-clockwise from straight ahead) and distance of each object from the camera of a frame; empty
    where its pose is lost."""
    pose = SensReader(sens_path(scan)).pose(frame)
    if pose is None:
        return {}
    camera = scene.axis_alignment @ pose
    ahead = np.arctan2(camera[1, 2], camera[0, 2])
    directions, distances = KINDS_OF_TARGET["direction"], KINDS_OF_TARGET["distance"]
    found = {}
    for number, item in objects.items():
        x, y = item.aabb.center[:2] - camera[:2, 3]
        turn = np.mod(np.arctan2(y, x) - ahead, 2 * np.pi) / (2 * np.pi)
        found[number] = int(turn * directions) % directions, min(int(np.hypot(x, y) / _RANGE_METRES), distances - 1)
    return found


def _size(item: SceneObject) -> int:
    steps = np.log(item.obb.extent.max() / _SMALLEST_METRES) / np.log(_SIZE_RATIO)
    return int(np.clip(steps, 0, KINDS_OF_TARGET["size"] - 1))
