"""The path of a hand-held camera through a room: it turns once around in a place, and goes on to the next.

A frame shows a part of the room, so things appear one after another. One place is enough where everything can be seen
from it; what is around a corner or behind a doorway gets a place of its own. While it turns, the camera steps back from
what it looks at. The path keeps away from walls and from furniture as tall as a person; low furniture passes under the
camera.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage

from jaxvsr.data.rooms.furniture_layout import Piece
from jaxvsr.data.rooms.room import Room

_CELL_METRES = 0.1
_WALL_CLEARANCE_METRES = 0.35
_FURNITURE_CLEARANCE_METRES = 0.3
_TALL_METRES = 1.15  # higher pieces are in the camera's way
_STEP_BACK_METRES = 1.0
_MOST_PLACES = 3
_CANDIDATES = 200  # places that are compared


def camera_path(rng: np.random.Generator, room: Room, frames: int) -> Float64[np.ndarray, "F 4 4"]:
    """camera_to_world of every frame, in the room's frame; camera axes x right, y down, z forward."""
    standing = _standing_places(room)
    places = _places_to_turn(rng, room, standing)
    turned = (np.arange(frames) + rng.random()) / frames * len(places)  # turns since the beginning
    time = np.linspace(0, 2 * np.pi, frames, endpoint=False)
    # Slow waves with random phases stand for hand and steps.
    hand = 2 * np.pi * rng.random() + _sway(rng, time, 0.05)
    bearing = rng.choice([-1, 1]) * 2 * np.pi * turned + hand
    wanted = _between(places, turned) - _STEP_BACK_METRES * np.column_stack([np.cos(bearing), np.sin(bearing)])
    nearest = ((wanted[:, None] - standing[None]) ** 2).sum(-1).argmin(axis=1)
    height = rng.uniform(1.45, 1.7) + _sway(rng, time, 0.03)
    pitch = rng.uniform(0.26, 0.36) + _sway(rng, time, 0.04)
    roll = _sway(rng, time, 0.02)
    return _poses(np.column_stack([standing[nearest], height]), bearing, pitch, roll)


def _between(places: Float64[np.ndarray, "P 2"], turned: Float64[np.ndarray, " F"]) -> Float64[np.ndarray, "F 2"]:
    """Where the camera turns: at place n during turn n, on the way to the next one in its last tenth."""
    number = np.clip(turned.astype(int), 0, len(places) - 1)
    after = np.minimum(number + 1, len(places) - 1)
    share = np.clip((turned - number - 0.9) / 0.1, 0, 1)[:, None]
    return (1 - share) * places[number] + share * places[after]


def _places_to_turn(
    rng: np.random.Generator, room: Room, standing: Float64[np.ndarray, "S 2"]
) -> Float64[np.ndarray, "P 2"]:
    """One to _MOST_PLACES places from which all pieces can be seen, where so few are enough; first the one with most in
    view."""
    candidates = rng.permutation(standing)[:_CANDIDATES]
    seen = _in_view(room, candidates, np.stack([piece.center for piece in room.pieces]))
    depth = room.plan.distance_to_walls(candidates)  # of places that see as much, the one farthest from walls
    chosen: list[int] = []
    missing = np.ones(seen.shape[1], bool)
    while missing.any() and len(chosen) < _MOST_PLACES:
        best = int(((seen & missing).sum(axis=1) + 0.1 * depth).argmax())
        if not (seen[best] & missing).any():
            break
        chosen.append(best)
        missing &= ~seen[best]
    return candidates[chosen or [int(depth.argmax())]]


def _in_view(
    room: Room, eyes: Float64[np.ndarray, "E 2"], targets: Float64[np.ndarray, "T 2"]
) -> Bool[np.ndarray, "E T"]:
    """Whether no wall is between each eye and each target, seen from above."""
    start, end = np.moveaxis(room.plan.walls, 1, 0)
    ray, along = (targets[None] - eyes[:, None])[:, :, None], end - start
    offset = (start[None] - eyes[:, None])[:, None]
    # Ray p + t·d meets wall a + s·v where t = cross(a − p, v) / cross(d, v) and s = cross(a − p, d) / cross(d, v).
    denominator = _cross(ray, along)
    denominator = np.where(np.abs(denominator) < 1e-12, 1e-12, denominator)
    t, s = _cross(offset, along) / denominator, _cross(offset, ray) / denominator
    return ~((t > 0) & (t < 1) & (s >= 0) & (s <= 1)).any(axis=-1)


def _sway(rng: np.random.Generator, time: Float64[np.ndarray, " F"], size: float) -> Float64[np.ndarray, " F"]:
    waves = [np.sin(pace * time + rng.uniform(0, 2 * np.pi)) for pace in (3, 7, 13)]
    return size * np.sum(waves, axis=0) / 2


def _standing_places(room: Room) -> Float64[np.ndarray, "P 2"]:
    """The largest connected set of grid points that are clear of walls and tall furniture."""
    low, high = room.plan.outline.min(axis=0), room.plan.outline.max(axis=0)
    axes = [np.arange(a + _CELL_METRES / 2, b, _CELL_METRES) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    tall = [piece for piece in room.pieces if piece.height > _TALL_METRES]
    for relax in (1.0, 0.6, 0.3):  # smaller clearances in a narrow room
        clear = room.plan.contains(grid) & (room.plan.distance_to_walls(grid) > relax * _WALL_CLEARANCE_METRES)
        for piece in tall:
            clear &= _distance_to(piece, grid) > relax * _FURNITURE_CLEARANCE_METRES
        if clear.any():
            break
    parts, _ = ndimage.label(clear)
    largest = np.bincount(parts[clear]).argmax()
    return grid[parts == largest]


def _distance_to(piece: Piece, points: Float64[np.ndarray, "*P 2"]) -> Float64[np.ndarray, "*P"]:
    """Metres from points to a footprint, 0 inside."""
    offset = points - piece.center
    cos, sin = math.cos(piece.yaw), math.sin(piece.yaw)
    local = np.stack(
        [offset[..., 0] * cos + offset[..., 1] * sin, -offset[..., 0] * sin + offset[..., 1] * cos], axis=-1
    )
    return np.linalg.norm(np.maximum(np.abs(local) - piece.half, 0), axis=-1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _poses(
    positions: Float64[np.ndarray, "F 3"],
    bearing: Float64[np.ndarray, " F"],
    pitch: Float64[np.ndarray, " F"],
    roll: Float64[np.ndarray, " F"],
) -> Float64[np.ndarray, "F 4 4"]:
    """Matrices from positions, bearings, pitches (down is positive) and rolls, all in metres and radians."""
    forward = np.stack([np.cos(bearing) * np.cos(pitch), np.sin(bearing) * np.cos(pitch), -np.sin(pitch)], axis=1)
    level = np.stack([np.sin(bearing), -np.cos(bearing), np.zeros_like(bearing)], axis=1)
    below = np.cross(forward, level)
    cos, sin = np.cos(roll)[:, None], np.sin(roll)[:, None]
    poses = np.zeros((len(positions), 4, 4))
    poses[:, :3, 0], poses[:, :3, 1] = level * cos + below * sin, below * cos - level * sin
    poses[:, :3, 2], poses[:, :3, 3], poses[:, 3, 3] = forward, positions, 1
    return poses
