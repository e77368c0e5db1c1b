"""Colour, depth and instance masks of a room along a camera path, with Open3D's ray casting."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16
from scipy import ndimage

from jaxvsr.data.rooms.open3d_import import open3d
from jaxvsr.data.rooms.room import Room
from jaxvsr.data.rooms.triangles import coarse_mesh, floor_pattern

FIELD_OF_VIEW_DEGREES = 80.0  # wider than ScanNet's 58°, so that a few small frames show most of a room
_LIGHT = np.array([0.35, 0.2, 0.91])
_SHADOW_CELL_METRES = 0.05


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
    color.reshape(-1, 3)[on_floor] *= (floor_pattern(room, points) * _floor_shadow(room, points))[:, None]
    # A faint lamp at the camera: far things are darker, which shows depth in flat colours.
    color *= (285 - 6.4 * distance)[..., None]
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


def _floor_shadow(room: Room, points: np.ndarray) -> np.ndarray:
    """Brightness of floor points [N, 2]: soft shadows under furniture and along walls."""
    low = room.plan.outline.min(axis=0) - 0.5
    shape = np.ceil((room.plan.outline.max(axis=0) + 0.5 - low) / _SHADOW_CELL_METRES).astype(int)
    cells = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1) * _SHADOW_CELL_METRES + low
    dark = ~room.plan.contains(cells)
    for piece in room.pieces:
        offset = cells - piece.center
        cos, sin = math.cos(piece.yaw), math.sin(piece.yaw)
        across = np.abs(offset[..., 0] * cos + offset[..., 1] * sin)
        along = np.abs(-offset[..., 0] * sin + offset[..., 1] * cos)
        dark |= (across < piece.half[0]) & (along < piece.half[1])
    soft = ndimage.gaussian_filter(dark.astype(np.float32), 0.12 / _SHADOW_CELL_METRES)
    place = ((points - low) / _SHADOW_CELL_METRES).round().astype(int).clip(0, shape - 1)
    return 1 - 0.45 * soft[place[:, 0], place[:, 1]]
