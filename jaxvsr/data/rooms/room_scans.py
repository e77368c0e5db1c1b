"""Procedural rooms on disk as ScanNet scans: move a camera through each room and write ScanNet's files.

    from pathlib import Path
    from jaxvsr.data.rooms.room_scans import write_rooms
    write_rooms(Path("data/rooms"), scenes=8, seed=0, workers=2)

The bytes of a scan are a pure function of (seed, index, frames, size). As in real scans are formats, names, a stored
frame that is not the aligned one, invalid poses and spellings of labels. There is no sensor noise, no hole, and of
clutter only pictures on walls.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from PIL import Image

from jaxvsr.data.rooms.camera_path import camera_path
from jaxvsr.data.rooms.render import Views, intrinsic_matrix, render_views
from jaxvsr.data.rooms.room import Room, build_room, room_and_scan, scene_name
from jaxvsr.data.rooms.triangles import FineMesh, fine_mesh
from jaxvsr.data.scannet import read_scan
from jaxvsr.data.scannet.instance_masks import write_instance_masks
from jaxvsr.data.scannet.ply import Mesh, write_ply
from jaxvsr.data.scannet.sens import SensFrame, SensHeader, write_sens
from jaxvsr.errors import InputError
from jaxvsr.files import partial_name
from jaxvsr.parent_process import end_worker_with_parent

GENERATOR_VERSION = 2  # goes up whenever a seed gives other bytes than before
DEFAULT_FRAMES = 16
DEFAULT_SIZE = (160, 120)
_SECONDS_A_FRAME = 1.0
_INVALID_POSE_SHARE = 0.03
_JPEG_QUALITY = 90


def write_rooms(
    root: Path,
    *,
    scenes: int,
    seed: int,
    workers: int = 1,
    frames: int = DEFAULT_FRAMES,
    size: tuple[int, int] = DEFAULT_SIZE,
    on_scene: Callable[[str], None] | None = None,
) -> list[str]:
    """Write scans 0 to `scenes` - 1 of `seed` to `root/scans/<scene>/`; returns the scene names, in order.

    Existing scans are kept if they were written with the same arguments, so a stopped run goes on. Each scan is written
    under a temporary name and renamed.

    Args:
        size: (width, height) in pixels of colour, depth and masks.
        frames: per scan.
        on_scene: called with the name of each finished scan.

    Raises:
        InputError: a number is out of range, or an existing scan was written with other arguments.
    """
    for name, value, low, high in (
        ("scenes", scenes, 1, 1_000_000),
        ("seed", seed, 0, 2**63 - 1),
        ("workers", workers, 1, 4096),
        ("frames", frames, 1, 100_000),
        ("width", size[0], 16, 4096),
        ("height", size[1], 16, 4096),
    ):
        if not low <= value <= high:
            raise InputError(f"{name} must be from {low} to {high}, found {value}")
    scans = root / "scans"
    scans.mkdir(parents=True, exist_ok=True)
    write = functools.partial(_write_scan, scans, seed, frames, size)
    names = []
    if workers == 1:
        for index in range(scenes):
            names.append(write(index))
            if on_scene is not None:
                on_scene(names[-1])
        return names
    # Spawned, not forked: threads of Open3D and JAX do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, scenes), context, end_worker_with_parent) as pool:
        for name in pool.map(write, range(scenes), chunksize=max(1, min(8, scenes // (4 * workers)))):
            names.append(name)
            if on_scene is not None:
                on_scene(name)
    return names


def _write_scan(scans: Path, seed: int, frames: int, size: tuple[int, int], index: int) -> str:
    name = scene_name(index)
    final = scans / name
    made_by = f"jaxvsr rooms {GENERATOR_VERSION}: seed {seed}, index {index}, {frames} frames of {size[0]}x{size[1]}"
    if final.exists():
        info = read_scan.info_path(final)
        if info.is_file() and f"generator = {made_by}\n" in info.read_text(encoding="utf-8"):
            return name
        raise InputError(f"{final}: exists and was not written by '{made_by}'; remove it or choose another folder")
    # The inner folder has the scan's name, because its files are named after it.
    partial = partial_name(final)
    scan_dir = partial / name
    try:
        scan_dir.mkdir(parents=True)
        room = build_room(seed, index)
        number, scan = room_and_scan(index)
        _write_files(scan_dir, room, np.random.default_rng([seed, number, 1 + scan]), frames, size, made_by)
        os.replace(scan_dir, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return name


def _write_files(
    scan_dir: Path, room: Room, rng: np.random.Generator, frames: int, size: tuple[int, int], made_by: str
) -> None:
    alignment = _draw_axis_alignment(rng)
    unalign = np.linalg.inv(alignment)
    poses = camera_path(rng, room, frames)
    views = render_views(room, poses, *size)
    mesh = fine_mesh(room)
    stored = (mesh.vertices @ unalign[:3, :3].T + unalign[:3, 3]).astype(np.float32)
    write_ply(read_scan.mesh_path(scan_dir), Mesh(stored, mesh.triangles.astype(np.int32), mesh.colors))
    _write_annotation(scan_dir, room, mesh)
    write_instance_masks(read_scan.instance_masks_path(scan_dir), views.instances)
    _write_sens(scan_dir, rng, views, unalign @ poses)
    camera = intrinsic_matrix(*size)
    numbers = " ".join(f"{value:.6f}" for value in alignment.reshape(-1))
    lines = {
        "axisAlignment": numbers,
        "colorHeight": size[1],
        "colorWidth": size[0],
        "depthHeight": size[1],
        "depthWidth": size[0],
        "fx_color": f"{camera[0, 0]:.6f}",
        "fx_depth": f"{camera[0, 0]:.6f}",
        "fy_color": f"{camera[1, 1]:.6f}",
        "fy_depth": f"{camera[1, 1]:.6f}",
        "mx_color": f"{camera[0, 2]:.6f}",
        "mx_depth": f"{camera[0, 2]:.6f}",
        "my_color": f"{camera[1, 2]:.6f}",
        "my_depth": f"{camera[1, 2]:.6f}",
        "numColorFrames": frames,
        "numDepthFrames": frames,
        "generator": made_by,
    }
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    read_scan.info_path(scan_dir).write_text(text, encoding="utf-8")


def _draw_axis_alignment(rng: np.random.Generator) -> Float64[np.ndarray, "4 4"]:
    """A rotation about z and a translation, rounded to the six decimals of the text file."""
    angle = rng.uniform(0.1, 2 * np.pi - 0.1)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = [*rng.uniform(-4, 4, 2), rng.uniform(-0.3, 0.3)]
    return matrix.round(6)


def _write_annotation(scan_dir: Path, room: Room, mesh: FineMesh) -> None:
    name = scan_dir.name
    segments = {"sceneId": name, "segIndices": mesh.segments.tolist()}
    read_scan.segments_path(scan_dir).write_text(json.dumps(segments, separators=(",", ":")), encoding="utf-8")
    starts = np.flatnonzero(mesh.segments == np.arange(len(mesh.segments)))
    groups = [
        {
            "id": item.id,
            "objectId": item.id,
            "segments": starts[mesh.object_ids[starts] == item.id].tolist(),
            "label": item.raw_label,
        }
        for item in room.objects
    ]
    document = {
        "sceneId": f"scannet.{name}",
        "segGroups": groups,
        "segmentsFile": f"scannet.{read_scan.segments_path(scan_dir).name}",
    }
    read_scan.aggregation_path(scan_dir).write_text(json.dumps(document), encoding="utf-8")


def _write_sens(scan_dir: Path, rng: np.random.Generator, views: Views, poses: Float64[np.ndarray, "F 4 4"]) -> None:
    height, width = views.depth_mm.shape[1:]
    camera, identity = intrinsic_matrix(width, height).astype(np.float32), np.eye(4, dtype=np.float32)
    lost = rng.random(len(poses)) < _INVALID_POSE_SHARE
    frames = []
    for index, (color, depth, pose) in enumerate(zip(views.color, views.depth_mm, poses, strict=True)):
        jpeg = BytesIO()
        Image.fromarray(color).save(jpeg, "jpeg", quality=_JPEG_QUALITY)
        time_us = round(index * _SECONDS_A_FRAME * 1e6)
        stored = np.full((4, 4), -np.inf) if lost[index] else pose
        payload = zlib.compress(depth.astype("<u2").tobytes(), 1)
        frames.append(SensFrame(stored.astype(np.float32), time_us, time_us, jpeg.getvalue(), payload))
    header = SensHeader(
        sensor_name="procedural room",
        intrinsic_color=camera,
        extrinsic_color=identity,
        intrinsic_depth=camera,
        extrinsic_depth=identity,
        color_compression="jpeg",
        depth_compression="zlib_ushort",
        color_width=width,
        color_height=height,
        depth_width=width,
        depth_height=height,
    )
    write_sens(read_scan.sens_path(scan_dir), header, frames)
