"""A room as triangles: a coarse mesh for ray casting, a fine one for the scan's file."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8

from jaxvsr.data.rooms.room import Room
from jaxvsr.data.rooms.solids import Color, corner_triangles, grid_patch, join_meshes, solid_surface

# Close enough for the room's area by alpha shape, and for points on parts as thin as a chair's back.
FLOOR_SPACING_METRES = 0.15
FURNITURE_SPACING_METRES = 0.15
WALL_SPACING_METRES = 0.25
TILE_METRES = 0.5
_PLANK_METRES = (0.16, 1.1)  # width, length
_SQUARE = np.array([[0, 1, 2], [0, 2, 3]])


@dataclasses.dataclass(frozen=True, eq=False)
class CoarseMesh:
    """Triangles with colour (RGB in 0 to 1, before lighting) and objectId."""

    vertices: Float32[np.ndarray, "V 3"]
    triangles: Int32[np.ndarray, "T 3"]
    colors: Float32[np.ndarray, "T 3"]
    object_ids: Int32[np.ndarray, " T"]


@dataclasses.dataclass(frozen=True, eq=False)
class FineMesh:
    """The mesh of a scan: vertices at most about 15 cm apart on furniture and floor, with segment and objectId.

    Every corner of every part is a vertex. As in ScanNet, the id of a segment is the index of one of its vertices.
    """

    vertices: Float64[np.ndarray, "V 3"]
    triangles: Int64[np.ndarray, "T 3"]
    colors: UInt8[np.ndarray, "V 3"]
    segments: Int64[np.ndarray, " V"]
    object_ids: Int64[np.ndarray, " V"]


def coarse_mesh(room: Room) -> CoarseMesh:
    """The mesh with the fewest triangles that shows the room."""
    meshes: list[tuple[np.ndarray, np.ndarray]] = []
    colors: list[Color] = []
    object_ids: list[int] = []
    for item in room.objects:
        for solid in item.solids:
            meshes.append((solid.corners, corner_triangles(len(solid.bottom))))
            colors.append(solid.color)
            object_ids.append(item.id)
        for patch in item.patches:
            meshes.append((patch.corners, _SQUARE))
            colors.append(patch.color)
            object_ids.append(item.id)
    vertices, triangles = join_meshes(meshes)
    counts = [len(faces) for _, faces in meshes]
    return CoarseMesh(
        vertices.astype(np.float32),
        triangles.astype(np.int32),
        np.repeat(np.array(colors, np.float32), counts, axis=0),
        np.repeat(np.array(object_ids, np.int32), counts),
    )


def fine_mesh(room: Room) -> FineMesh:
    """The mesh of a scan; each solid and each patch is one segment."""
    meshes, colors, object_ids = [], [], []
    for item in room.objects:
        for solid in item.solids:
            mesh = solid_surface(solid, FURNITURE_SPACING_METRES)
            meshes.append(mesh)
            colors.append(np.broadcast_to(np.array(solid.color), mesh[0].shape))
            object_ids.append(item.id)
        spacing = FLOOR_SPACING_METRES if item.category == "floor" else WALL_SPACING_METRES
        for patch in item.patches:
            a, b, c, d = patch.corners
            mesh = grid_patch(a, b, d, c, spacing)
            meshes.append(mesh)
            plain = np.broadcast_to(np.array(patch.color), mesh[0].shape)
            colors.append(plain * floor_pattern(room, mesh[0][:, :2])[:, None] if item.category == "floor" else plain)
            object_ids.append(item.id)
    vertices, triangles = join_meshes(meshes)
    counts = [len(points) for points, _ in meshes]
    starts = np.cumsum([0, *counts[:-1]])
    return FineMesh(
        vertices,
        triangles,
        (np.concatenate(colors).clip(0, 1) * 255).round().astype(np.uint8),
        np.repeat(starts, counts),
        np.repeat(np.array(object_ids), counts),
    )


def floor_pattern(room: Room, points: np.ndarray) -> np.ndarray:
    """Brightness of the floor at points [..., 2] (metres), a factor near 1: planks, tiles of TILE_METRES, or carpet."""
    x, y = points[..., 0], points[..., 1]
    if room.floor_pattern == "tiles":
        u, v = np.mod(x, TILE_METRES), np.mod(y, TILE_METRES)
        joint = (u < 0.02) | (v < 0.02)
        light = (np.floor(x / TILE_METRES) + np.floor(y / TILE_METRES)) % 2 == 0
        return np.where(joint, 0.62, np.where(light, 1.05, 0.93))
    if room.floor_pattern == "planks":
        width, length = _PLANK_METRES
        row = np.floor(y / width)
        column = np.floor(x / length + row * 0.37)
        return 0.86 + 0.22 * np.mod(row * 0.618034 + column * 0.414214, 1.0)
    return np.ones_like(x)
