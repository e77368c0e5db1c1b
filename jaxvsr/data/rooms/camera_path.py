"""The path of a hand-held camera through a room: once around it near the walls, looking across.

A few frames show most of a room from near its walls. The path keeps away from walls and from furniture as tall as a
person; low furniture passes under the camera.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64
from scipy import ndimage

from jaxvsr.data.rooms.furniture_layout import Piece
from jaxvsr.data.rooms.room import Room

_CELL_METRES = 0.1
_WALL_CLEARANCE_METRES = 0.35
_FURNITURE_CLEARANCE_METRES = 0.3
_TALL_METRES = 1.15  # higher pieces are in the camera's way
_DIRECTIONS = 72


def camera_path(rng: np.random.Generator, room: Room, frames: int) -> Float64[np.ndarray, "F 4 4"]:
    """camera_to_world of every frame, in the room's frame; camera axes x right, y down, z forward."""
    share = (np.arange(frames) + rng.random()) / frames
    clockwise = rng.random() < 0.5
    positions = _walk(room, (-share if clockwise else share) + rng.random())
    bearing = _towards_the_open(room, positions)
    time = np.linspace(0, 2 * np.pi, frames, endpoint=False)
    # A person sweeps the camera from side to side; slow waves with random phases stand for hand and steps.
    bearing = bearing + 0.25 * np.sin(5 * time + rng.uniform(0, 2 * np.pi)) + _sway(rng, time, 0.04)
    height = rng.uniform(1.45, 1.7) + _sway(rng, time, 0.03)
    pitch = rng.uniform(0.26, 0.36) + _sway(rng, time, 0.04)
    roll = _sway(rng, time, 0.02)
    return _poses(np.column_stack([positions, height]), bearing, pitch, roll)


def _sway(rng: np.random.Generator, time: Float64[np.ndarray, " F"], size: float) -> Float64[np.ndarray, " F"]:
    waves = [np.sin(pace * time + rng.uniform(0, 2 * np.pi)) for pace in (3, 7, 13)]
    return size * np.sum(waves, axis=0) / 2


def _walk(room: Room, share: Float64[np.ndarray, " F"]) -> Float64[np.ndarray, "F 2"]:
    """Positions at shares of the way around the walls, each moved to the nearest place where a person can stand."""
    start, end = room.plan.walls[:, 0], room.plan.walls[:, 1]
    lengths = np.linalg.norm(end - start, axis=1)
    travelled = np.concatenate([[0.0], np.cumsum(lengths)])
    way = np.mod(share, 1.0) * travelled[-1]
    wall = np.clip(np.searchsorted(travelled, way, "right") - 1, 0, len(lengths) - 1)
    along = (way - travelled[wall]) / lengths[wall]
    points = start[wall] + along[:, None] * (end - start)[wall]
    standing = _standing_places(room)
    nearest = ((points[:, None] - standing[None]) ** 2).sum(-1).argmin(axis=1)
    return standing[nearest]


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


def _towards_the_open(room: Room, positions: Float64[np.ndarray, "F 2"]) -> Float64[np.ndarray, " F"]:
    """The bearing from each position with most of the room in front of the camera, in radians.

    "Most" is the floor area in a view 70° wide: the squared distances to the first wall or tall piece.
    """
    segments = [room.plan.walls]
    for piece in room.pieces:
        if piece.height > _TALL_METRES:
            corners = piece.footprint
            segments.append(np.stack([corners, np.roll(corners, -1, axis=0)], axis=1))
    start, end = np.moveaxis(np.concatenate(segments), 1, 0)
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    direction = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    along = end - start
    # Ray p + t·d meets segment a + s·v where t = cross(a − p, v) / cross(d, v) and s = cross(a − p, d) / cross(d, v).
    offset = start[None] - positions[:, None]
    denominator = _cross(direction[:, None], along[None])
    denominator = np.where(np.abs(denominator) < 1e-12, 1e-12, denominator)
    t = _cross(offset, along[None])[:, None] / denominator[None]
    s = _cross(offset[:, None], direction[None, :, None]) / denominator[None]
    seen = np.where((t > 0) & (s >= 0) & (s <= 1), t, np.inf).min(axis=-1).clip(max=15)
    window = round(_DIRECTIONS * 70 / 360 / 2)
    floor = ndimage.uniform_filter1d(seen**2, 2 * window + 1, axis=1, mode="wrap")
    # The steeply weighted mean over directions is close to the best one, without a jump where two are equally good.
    weight = (floor / floor.max(axis=1, keepdims=True)) ** 16
    return np.arctan2(weight @ direction[:, 1], weight @ direction[:, 0])


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
