"""Small scenes made by hand: boxes of points at known places."""

from pathlib import Path

import numpy as np

from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject


def box_points(center, extent, yaw=0.0):
    """The corners of a box and the middles of its faces; their mean is the centre."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)] + [*np.eye(3), *-np.eye(3)])
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return np.asarray(center, np.float64) + signs * np.asarray(extent) / 2 @ turn.T


def make_scene(objects, name="scene0000_00", floor=None):
    """`objects`: (category, centre, extent[, yaw]) each; `floor` points [F, 3]."""
    made = tuple(
        SceneObject(number, category, category, box_points(center, extent, *yaw))
        for number, (category, center, extent, *yaw) in enumerate(objects)
    )
    floor = np.zeros((0, 3)) if floor is None else floor
    vertices = np.concatenate([item.points for item in made] + [floor]).astype(np.float32)
    return ScannedScene(name, made, vertices, floor, np.eye(4), True, Path(name), {})


def random_scene(rng, unique=7, repeated=(3, 2), name="scene0000_00"):
    """Objects of random place, size and turn in a room of 6 m; a rectangular floor; a wall."""
    categories = [f"thing{i}" for i in range(unique)]
    categories += [f"many{i}" for i, count in enumerate(repeated) for _ in range(count)]
    objects = [
        (category, rng.uniform(0, 6, 3) * [1, 1, 0.2], rng.uniform(0.2, 1.2, 3), rng.uniform(0, np.pi))
        for category in categories
    ]
    objects.append(("wall", [0, 3, 1], [0.1, 6, 2]))
    line = np.linspace(0, 6, 61)
    floor = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    return make_scene(objects, name, np.column_stack([floor, np.zeros(len(floor))]))


def transformed(scene, matrix):
    """The scene with every point p at matrix @ p."""
    objects = tuple(
        SceneObject(item.id, item.category, item.raw_label, item.points @ matrix.T) for item in scene.objects
    )
    vertices = (scene.vertices @ matrix.T).astype(np.float32)
    return ScannedScene(
        scene.name, objects, vertices, scene.floor_points @ matrix.T, np.eye(4), True, scene.scan_dir, scene.flaws
    )
