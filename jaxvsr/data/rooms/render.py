"""Colour, depth and instance masks of a room along a camera path, with Open3D's ray casting."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8, UInt16
from scipy import ndimage

from jaxvsr.data.rooms.floor_looks import floor_colors
from jaxvsr.data.rooms.open3d_import import open3d
from jaxvsr.data.rooms.openings import Opening
from jaxvsr.data.rooms.room import Room
from jaxvsr.data.rooms.triangles import coarse_mesh

FIELD_OF_VIEW_DEGREES = 80.0  # wider than ScanNet's 58°, so that a few small frames show most of a room
_LIGHT = np.array([0.35, 0.2, 0.91])
_LOW_METRES = 0.6  # below, things are darker, as far from a ceiling lamp
# Of the light on the floor:
_CELL_METRES = 0.05
_SHADOW_METRES = 0.12  # how soft edges are
_SUN_EDGE_METRES = 0.05
_SUN = np.array([0.72, 0.57, 0.28], np.float32)
_FRAME_METRES = 0.06


@dataclasses.dataclass(frozen=True, eq=False)
class Views:
    """What a camera sees: RGB, depth along its z axis in millimetres, and objectId + 1 (0 without an object)."""

    color: UInt8[np.ndarray, "F H W 3"]
    depth_mm: UInt16[np.ndarray, "F H W"]
    instances: UInt8[np.ndarray, "F H W"]


def intrinsic_matrix(width: int, height: int) -> Float64[np.ndarray, "4 4"]:
    """The pinhole camera with FIELD_OF_VIEW_DEGREES across; pixel centres at whole numbers, as in ScanNet."""
    focal = width / 2 / math.tan(math.radians(FIELD_OF_VIEW_DEGREES) / 2)
    matrix = np.eye(4)
    matrix[0, 0] = matrix[1, 1] = focal
    matrix[0, 2], matrix[1, 2] = (width - 1) / 2, (height - 1) / 2
    return matrix


def render_views(room: Room, poses: Float64[np.ndarray, "F 4 4"], width: int, height: int) -> Views:
    """Render a room from camera_to_world poses in the room's frame, on one thread."""
    o3d = open3d()
    mesh = coarse_mesh(room)
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(o3d.core.Tensor(mesh.vertices), o3d.core.Tensor(mesh.triangles.astype(np.uint32)))
    # Not by create_rays_pinhole, whose `up` turns frames upside down. Directions have length 1 along z, so the distance
    # that Open3D returns is depth.
    camera = intrinsic_matrix(width, height)
    right, down, ahead, position = np.moveaxis(poses[:, None, None, :3, :], -1, 0)
    u = ((np.arange(width) - camera[0, 2]) / camera[0, 0])[None, None, :, None]
    v = ((np.arange(height) - camera[1, 2]) / camera[1, 1])[None, :, None, None]
    rays = np.empty((len(poses), height, width, 6), np.float32)
    rays[..., :3] = position
    np.add((u * right + ahead).astype(np.float32), (v * down).astype(np.float32), out=rays[..., 3:])
    hits = scene.cast_rays(o3d.core.Tensor(rays), nthreads=1)
    distance = hits["t_hit"].numpy()
    # Rays that pass between two walls hit no triangle; they get the black one that is added at the end.
    triangle = np.minimum(hits["primitive_ids"].numpy(), np.uint32(len(mesh.triangles)))
    lit = mesh.colors * _light(mesh.vertices[mesh.triangles])[:, None]
    color = np.concatenate([lit, np.zeros((1, 3), np.float32)])[triangle]
    distance[triangle == len(mesh.triangles)] = 0
    instances = np.append(mesh.object_ids + 1, 0).astype(np.uint8)[triangle]

    floor_id = next(item.id for item in room.objects if item.category == "floor")
    on_floor = np.flatnonzero(instances == floor_id + 1)
    floor_rays = rays.reshape(-1, 6)[on_floor]
    points = floor_rays[:, :2] + distance.reshape(-1)[on_floor, None] * floor_rays[:, 3:5]
    color.reshape(-1, 3)[on_floor] = floor_colors(room.floor_look, points) * _floor_light(room, points)
    # A faint lamp at the camera: far things are darker, which shows depth in flat colours. So are low ones.
    height = rays[..., 2] + distance * rays[..., 5]
    color *= ((285 - 6.4 * distance) * np.minimum(0.9 + 0.1 / _LOW_METRES * height, 1))[..., None]
    return Views(
        np.clip(color, 0, 255, out=color).astype(np.uint8),
        np.round(distance * 1000).clip(0, 65535).astype(np.uint16),
        instances,
    )


def _light(corners: Float32[np.ndarray, "T 3 3"]) -> Float32[np.ndarray, " T"]:
    """Brightness of triangles by their direction: light from above and a little from one side."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    facing = normals @ _LIGHT
    return (0.84 + 0.22 * facing - 0.05 * np.abs(normals[:, 1])).astype(np.float32)


def _floor_light(room: Room, points: np.ndarray) -> np.ndarray:
    """Brightness [N, 3] of floor points [N, 2]: soft shadows under furniture and along walls, sun through windows."""
    low = room.plan.outline.min(axis=0) - 0.5
    shape = np.ceil((room.plan.outline.max(axis=0) + 0.5 - low) / _CELL_METRES).astype(int)
    cells = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1) * _CELL_METRES + low
    dark = ~room.plan.contains(cells)
    for piece in room.pieces:
        # Only the cells around the piece.
        reach = float(np.linalg.norm(piece.half))
        first, last = (((piece.center + side * reach - low) / _CELL_METRES).astype(int) for side in (-1, 1))
        near = np.s_[max(first[0], 0) : last[0] + 2, max(first[1], 0) : last[1] + 2]
        offset = cells[near] - piece.center
        cos, sin = math.cos(piece.yaw), math.sin(piece.yaw)
        across = np.abs(offset[..., 0] * cos + offset[..., 1] * sin)
        along = np.abs(-offset[..., 0] * sin + offset[..., 1] * cos)
        dark[near] |= (across < piece.half[0]) & (along < piece.half[1])
    shade = 1 - 0.45 * ndimage.gaussian_filter(dark.astype(np.float32), _SHADOW_METRES / _CELL_METRES)
    light = np.repeat(shade[..., None], 3, axis=-1)
    if room.windows:
        sunny = np.zeros_like(dark)
        for window in room.windows:
            sunny |= _sunlit(room, window, cells)
        sun = ndimage.gaussian_filter((sunny & ~dark).astype(np.float32), _SUN_EDGE_METRES / _CELL_METRES)
        light += sun[..., None] * _SUN
    place = ((points - low.astype(points.dtype)) / _CELL_METRES + 0.5).astype(np.int32).clip(0, shape - 1)
    return light[place[:, 0], place[:, 1]]


def _sunlit(room: Room, window: Opening, cells: Float64[np.ndarray, "X Y 2"]) -> Bool[np.ndarray, "X Y"]:
    """Which floor points the sun reaches through the panes of a window: looking back from them along its rays."""
    inwards = float(room.sun[:2] @ window.inward)
    if inwards < 0.15:
        return np.zeros(cells.shape[:2], bool)
    offset = cells - window.middle
    travelled = offset @ window.inward / inwards
    side = np.abs(offset @ window.along - travelled * (room.sun[:2] @ window.along))
    height = -travelled * room.sun[2]
    lit = (side < window.half_width - _FRAME_METRES) & (side > _FRAME_METRES / 2)
    lit &= (height > window.low + _FRAME_METRES) & (height < window.high - _FRAME_METRES)
    # Around a corner of an L, T or U there is a wall between.
    share = np.array([0.25, 0.5, 0.75])[:, None, None]
    between = cells[lit] - share * (travelled[lit][:, None] * room.sun[:2])
    lit[lit] = room.plan.contains(between).all(axis=0)
    return lit
