"""Small scans in ScanNet's layout: a geometry written by hand, and frames of random pictures."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvsr.data.scannet import read_scan
from jaxvsr.data.scannet.ply import Mesh, read_ply, write_ply
from jaxvsr.data.scannet.sens import SensFrame, SensHeader, write_sens

NAME = "scene0123_00"
# Six vertices of a quarter turn's frame; aligned, (x, y) becomes (-y, x) + (1, 2).
VERTICES = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (2, 2, 0.5), (2, 3, 0.5), (2, 2, 1.5)]
ALIGNMENT = "0 -1 0 1 1 0 0 2 0 0 1 0 0 0 0 1"
ALIGNED = [(1, 2, 0), (1, 3, 0), (0, 2, 0), (-1, 4, 0.5), (-2, 4, 0.5), (-1, 4, 1.5)]
SEGMENTS = [0, 0, 2, 30, 30, 5]
GROUPS: list[dict[str, Any]] = [
    {"id": 0, "objectId": 0, "segments": [0, 2], "label": "floor"},
    {"id": 1, "objectId": 1, "segments": [30, 5], "label": "Couch"},
]


def write_scan(
    root: Path,
    *,
    name: str = NAME,
    vertices: Any = VERTICES,
    segments: Any = SEGMENTS,
    groups: Any = GROUPS,
    info: str = f"axisAlignment = {ALIGNMENT}\nsceneType = Apartment\n",
) -> Path:
    """A scan of a few points in `root/scans/<name>`; every part may be replaced."""
    scan = root / "scans" / name
    scan.mkdir(parents=True)
    header = f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    body = "".join(" ".join(map(str, vertex)) + "\n" for vertex in vertices) + "3 0 1 2\n"
    (scan / f"{name}_vh_clean_2.ply").write_text(header + body)
    document = {"params": {"kThresh": "0.0001"}, "sceneId": name, "segIndices": segments}
    (scan / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(document))
    (scan / f"{name}.aggregation.json").write_text(json.dumps({"sceneId": f"scannet.{name}", "segGroups": groups}))
    (scan / f"{name}.txt").write_text(info)
    return scan


def png(pixels: np.ndarray) -> bytes:
    """The pixels as a PNG file."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_zip(path: Path, entries: dict[str, bytes]) -> Path:
    """A zip with these entries."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def write_sens_scan(root: Path, name: str, frames: int = 40, height: int = 96, width: int = 128, seed: int = 0) -> Path:
    """A `.sens` of smooth random pictures as JPEG, 30 a second."""
    rng = np.random.default_rng(seed)
    scan = root / "scans" / name
    scan.mkdir(parents=True)
    eye = np.eye(4, dtype=np.float32)
    header = SensHeader("test", eye, eye, eye, eye, "jpeg", "raw_ushort", width, height, 2, 1)
    stored = []
    for index in range(frames):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        buffer = BytesIO()
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
        stored.append(SensFrame(eye, 1_000_000 + index * 33_333, index, buffer.getvalue(), b"\0\0\0\0"))
    write_sens(scan / f"{name}.sens", header, stored)
    return scan


def move_scans(root: Path, out: Path) -> Path:
    """The same scans in `out`, stored in another frame each, with the axisAlignment that goes with it."""
    rng = np.random.default_rng(0)
    for scan in read_scan.list_scans(root):
        target = out / "scans" / scan.name
        shutil.copytree(scan, target)
        angle = rng.uniform(0, 2 * np.pi)
        motion = np.eye(4)
        motion[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        motion[:3, 3] = rng.uniform(-5, 5, 3)
        mesh = read_ply(read_scan.mesh_path(scan))
        vertices = (mesh.vertices.astype(np.float64) @ motion[:3, :3].T + motion[:3, 3]).astype(np.float32)
        write_ply(read_scan.mesh_path(target), Mesh(vertices, mesh.faces, mesh.colors))
        aligned = read_scan.read_axis_alignment(read_scan.info_path(scan))
        assert aligned is not None
        alignment = aligned @ np.linalg.inv(motion)
        numbers = " ".join(f"{value:.12f}" for value in alignment.reshape(-1))
        text = read_scan.info_path(scan).read_text()
        read_scan.info_path(target).write_text(re.sub(r"axisAlignment = .*", f"axisAlignment = {numbers}", text))
    return out
