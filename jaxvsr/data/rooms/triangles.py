"""A room as triangles: a coarse mesh for ray casting, a fine one for the scan's file."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8

from jaxvsr.data.rooms.floor_looks import floor_colors
from jaxvsr.data.rooms.room import Room
from jaxvsr.data.rooms.solids import Color, corner_triangles, grid_patch, join_meshes, solid_surface

# Close enough for the room's area by alpha shape, and for points on parts as thin as a chair's back.
FLOOR_SPACING_METRES = 0.15
FURNITURE_SPACING_METRES = 0.15
WALL_SPACING_METRES = 0.25
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
            colors.append(floor_colors(room.floor_look, mesh[0][:, :2]) if item.category == "floor" else plain)
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
