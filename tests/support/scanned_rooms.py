"""Procedural rooms as a scanner sees them, of known floor area: dense noisy points without what was hidden."""

from pathlib import Path

import numpy as np

from jaxvsr.data.rooms.room import Room, build_room
from jaxvsr.data.rooms.solids import grid_patch, solid_surface
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject

SPACING, NOISE, PARTITION = 0.06, 0.01, 0.15  # metres


def scanned_room(kind, index, seed=0):
    """A scene and its true floor in square metres.

    `furniture`: the floor under and behind furniture is missing, and the furniture's backs. `ragged`: irregular bites
    of up to 0.5 m along the walls are missing. `holes`: three patches of floor are missing. `all`: the three together.
    `two rooms`: like `furniture`, two of them with a wall of 15 cm between.
    """
    rng = np.random.default_rng([seed, index])
    room = build_room(seed, index)
    hidden, ragged, holes = kind not in ("ragged", "holes"), kind in ("ragged", "all"), 3 * (kind in ("holes", "all"))
    parts, area = points_of(room, rng, hidden, ragged, holes), room.area
    if kind == "two rooms":
        other = build_room(seed, index + 500)
        shift = room.plan.outline[:, 0].max() + PARTITION - other.plan.outline[:, 0].min()
        beside = points_of(other, rng, True, False, 0)
        parts += [(category, points + np.array([shift, 0, 0])) for category, points in beside]
        area += other.area
    return scene_of(parts), area


def scene_of(parts):
    """A scene of (category, points) each."""
    objects = tuple(SceneObject(number, category, category, points) for number, (category, points) in enumerate(parts))
    floor = np.concatenate([points for category, points in parts if category == "floor"])
    vertices = np.concatenate([points for _, points in parts]).astype(np.float32)
    return ScannedScene("scene0000_00", objects, vertices, floor, np.eye(4), True, Path("scene0000_00"), {})


def points_of(room: Room, rng, hidden, ragged, holes):
    """(category, points) of every object of a room that is left."""
    plan, bites = room.plan, smooth_field(rng, room.plan.outline)
    patches = [(rng.choice(room.plan.outline) * rng.uniform(0.2, 0.7), rng.uniform(0.3, 0.7)) for _ in range(holes)]
    parts = []
    for item in room.objects:
        if item.category == "ceiling":
            continue
        surfaces = [solid_surface(solid, SPACING)[0] for solid in item.solids]
        for patch in item.patches:
            a, b, c, d = patch.corners
            surfaces.append(grid_patch(a, b, d, c, SPACING)[0])
        points = np.unique(np.concatenate(surfaces).round(6), axis=0)
        flat, height = points[:, :2], points[:, 2]
        from_wall = plan.distance_to_walls(flat)
        gone = np.zeros(len(points), bool)
        if item.category == "floor":
            for center, radius in patches:
                gone |= np.linalg.norm(flat - center, axis=1) < radius
        for piece in room.pieces if hidden else ():
            if item.category == "floor":
                gone |= on(piece, flat, 0.02) | (on(piece, flat, 0.12) & (from_wall < 0.14))
            elif item.category == "wall":
                gone |= on(piece, flat, 0.12) & (height < piece.height)
        if hidden and item.category not in ("floor", "wall", "door", "window"):
            gone |= (from_wall < 0.08) & (height < height.max() - 0.03)
        if ragged:
            depth = 0.5 * np.maximum(bites(flat) - 0.45, 0) / 0.55
            if item.category == "floor":
                gone |= (from_wall < depth) & (depth > 0)
            elif item.category in ("wall", "door"):
                gone |= (height < 0.15) & (depth > 0)
        if not gone.all():
            parts.append((item.category, points[~gone] + rng.normal(0, NOISE, points[~gone].shape)))
    return parts


def on(piece, flat, margin):
    """Whether places are on the footprint of a piece of furniture or up to `margin` beside it."""
    cos, sin = np.cos(piece.yaw), np.sin(piece.yaw)
    offset = flat - piece.center
    own = np.stack([offset @ [cos, sin], offset @ [-sin, cos]], axis=1)
    return (np.abs(own) <= piece.half + margin).all(axis=1)


def smooth_field(rng, outline, cell=0.5):
    """A function of places with random values from 0 to 1 that change over half a metre."""
    low = outline.min(axis=0) - cell
    values = rng.random(tuple(np.ceil((outline.max(axis=0) - low) / cell).astype(int) + 2))

    def at(flat):
        place = np.clip((flat - low) / cell, 0, np.array(values.shape) - 1.001)
        i, j = place.astype(int).T
        s, t = (place % 1).T
        left = values[i, j] * (1 - s) + values[i + 1, j] * s
        right = values[i, j + 1] * (1 - s) + values[i + 1, j + 1] * s
        return left * (1 - t) + right * t

    return at
