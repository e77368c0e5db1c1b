"""Read a ScanNet scan as a `ScannedScene` of labelled objects in its axis-aligned frame.

A scan has ScanNet's layout, `<root>/scans/<scene>/` or `<root>/<scene>/`:

    <scene>.sens                                 colour, depth and poses            sens.py
    <scene>_vh_clean_2.ply                       the mesh                           ply.py
    <scene>_vh_clean_2.0.010000.segs.json        a segment id per vertex
    <scene>.aggregation.json                     labelled objects, as lists of segments
    <scene>.txt                                  axisAlignment and camera facts
    <scene>_2d-instance-filt.zip                 8-bit masks, objectId + 1          instance_masks.py

The formats are those of ScanNet's repository. Known flaws of real scans are worked around, and counted in
`ScannedScene.flaws`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from jaxvsr.data.geometry.boxes import AxisAlignedBox, OrientedBox, axis_aligned_box, minimal_oriented_box
from jaxvsr.data.scannet.categories import category_of
from jaxvsr.data.scannet.instance_masks import PixelCounts
from jaxvsr.data.scannet.ply import read_ply
from jaxvsr.data.video.video_sources import color_folder
from jaxvsr.errors import InputError, one_line

# For cards of data made from scans.
SCANNET_TERMS = "http://kaldir.vc.in.tum.de/scannet/ScanNet_TOS.pdf"
_TEXT_LIMIT_BYTES = 1 << 28  # ScanNet's largest text file (segs.json) has a few MB
_COORDINATE_LIMIT_METRES = 1e4  # no indoor scan is larger
# ScanNet's 8-bit masks allow 255; questions about pairs and triples of thousands of objects would fill the memory.
_MOST_OBJECTS = 1000
_RIGID_TOLERANCE = 1e-3  # axisAlignment is printed with six decimals


@dataclasses.dataclass(frozen=True, eq=False)
class SceneObject:
    """One annotated instance: furniture, but also walls and floors (see `categories.STRUCTURAL`).

    `id` is ScanNet's objectId (the masks have id + 1); `category` is `raw_label` after the synonym table; `points` are
    the instance's mesh vertices in the axis-aligned frame, metres, z up; there is at least one.
    """

    id: int
    category: str
    raw_label: str
    points: Float64[np.ndarray, "P 3"]

    @functools.cached_property
    def aabb(self) -> AxisAlignedBox:
        """The axis-aligned box in the aligned frame."""
        return axis_aligned_box(self.points)

    @functools.cached_property
    def obb(self) -> OrientedBox:
        """The minimal oriented box."""
        return minimal_oriented_box(self.points)


@dataclasses.dataclass(frozen=True, eq=False)
class ScannedScene:
    """One scan in its axis-aligned frame: metres, z up.

    `objects` are all labelled instances that have points, structural ones too, in order of id. `floor_points` are the
    points of all instances labelled floor (maybe none). `axis_alignment` maps the stored frame, which is also that of
    the poses in the `.sens`, to the aligned one. `flaws` counts what was wrong and worked around. `pixel_counts`, from
    the 2D instance masks, is set if a recipe needs it and the scan has masks.
    """

    name: str
    objects: tuple[SceneObject, ...]
    vertices: Float32[np.ndarray, "V 3"]
    floor_points: Float64[np.ndarray, "F 3"]
    axis_alignment: Float64[np.ndarray, "4 4"]
    has_axis_alignment: bool
    scan_dir: Path
    flaws: dict[str, int]
    pixel_counts: PixelCounts | None = None


def sens_path(scan_dir: Path) -> Path:
    """Colour, depth and poses of a scan."""
    return scan_dir / f"{scan_dir.name}.sens"


def mesh_path(scan_dir: Path) -> Path:
    """The cleaned mesh, at the resolution of the annotation."""
    return scan_dir / f"{scan_dir.name}_vh_clean_2.ply"


def segments_path(scan_dir: Path) -> Path:
    """A segment id per vertex of the mesh."""
    return scan_dir / f"{scan_dir.name}_vh_clean_2.0.010000.segs.json"


def aggregation_path(scan_dir: Path) -> Path:
    """The annotation: which segments make up which object."""
    return scan_dir / f"{scan_dir.name}.aggregation.json"


def info_path(scan_dir: Path) -> Path:
    """Lines of `key = value`, such as axisAlignment."""
    return scan_dir / f"{scan_dir.name}.txt"


def instance_masks_path(scan_dir: Path) -> Path:
    """Filtered 2D instances, one 8-bit PNG per frame."""
    return scan_dir / f"{scan_dir.name}_2d-instance-filt.zip"


def geometry_paths(scan_dir: Path) -> tuple[Path, ...]:
    """What `read_scene` reads."""
    return (mesh_path(scan_dir), segments_path(scan_dir), aggregation_path(scan_dir), info_path(scan_dir))


def is_procedural(scan_dir: Path) -> bool:
    """Whether `<scene>.txt` says that the scan is a procedural room; the names are like ScanNet's."""
    try:
        text = info_path(scan_dir).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    pairs = (line.partition("=") for line in text.splitlines())
    return any(key.strip() == "generator" and value.strip().startswith("jaxvsr rooms") for key, _, value in pairs)


def list_scans(root: Path) -> list[Path]:
    """The scan folders in `root/scans/` or else in `root`, sorted by name; `InputError` if there are none."""
    folder = root / "scans" if (root / "scans").is_dir() else root
    if not folder.is_dir():
        raise InputError(f"{root}: no such folder; expected one with scans/<scene>/<scene>_vh_clean_2.ply")
    scans = sorted(path for path in folder.iterdir() if path.is_dir() and _looks_like_a_scan(path))
    if not scans:
        raise InputError(f"{root}: no scans in it; expected scans/<scene>/<scene>_vh_clean_2.ply and <scene>.sens")
    return scans


def _looks_like_a_scan(path: Path) -> bool:
    files = (mesh_path, sens_path, info_path, aggregation_path)
    return any(file(path).is_file() for file in files) or color_folder(path) is not None


def read_scene(scan_dir: Path) -> ScannedScene:
    """Read one scan's geometry and labels.

    Worked around and counted in `ScannedScene.flaws`: `no_axis_alignment` (test scans; the stored frame is used as it
    is), `unusable_vertices` (not finite; left out), `empty_labels` and `objects_without_points` (left out),
    `repeated_objects` (scene0217_00 lists every object twice), `unknown_segments`, `shared_segments`.

    Raises:
        InputError: names the file that is missing or broken, and the reason.
    """
    if not scan_dir.is_dir():
        raise InputError(f"{scan_dir}: no such scan folder; expected ScanNet's scans/<scene>/")
    flaws: collections.Counter[str] = collections.Counter()
    alignment = read_axis_alignment(info_path(scan_dir))
    if alignment is None:
        flaws["no_axis_alignment"] = 1
    matrix = np.eye(4) if alignment is None else alignment
    stored = read_ply(mesh_path(scan_dir)).vertices
    segments = _read_segments(segments_path(scan_dir), len(stored))
    groups = _read_groups(aggregation_path(scan_dir), flaws)

    usable = (np.abs(stored) < _COORDINATE_LIMIT_METRES).all(axis=1)  # also false for nan
    flaws["unusable_vertices"] = int((~usable).sum())
    points = np.where(usable[:, None], stored, 0).astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    vertices_of = _vertices_by_object(segments, groups, flaws)
    objects = []
    for (object_id, raw_label, _), vertices in zip(groups, vertices_of, strict=True):
        kept = vertices[usable[vertices]]
        category = category_of(raw_label)
        flaws["objects_without_points"] += len(kept) == 0
        flaws["empty_labels"] += category == ""
        if len(kept) and category:
            objects.append(SceneObject(object_id, category, raw_label, points[kept]))
    objects.sort(key=lambda item: item.id)
    floors = [item.points for item in objects if item.category == "floor"]
    return ScannedScene(
        name=scan_dir.name,
        objects=tuple(objects),
        vertices=points[usable].astype(np.float32),
        floor_points=np.concatenate(floors) if floors else np.zeros((0, 3)),
        axis_alignment=matrix,
        has_axis_alignment=alignment is not None,
        scan_dir=scan_dir,
        flaws={name: count for name, count in sorted(flaws.items()) if count},
    )


def read_axis_alignment(path: Path) -> Float64[np.ndarray, "4 4"] | None:
    """axisAlignment of `<scene>.txt`, from the stored frame to the aligned one; None if the file has none."""
    for line in _read_text(path, "lines of 'key = value'").splitlines():
        key, separator, value = line.partition("=")
        if key.strip() != "axisAlignment" or not separator:
            continue
        try:
            matrix = np.array([float(word) for word in value.split()]).reshape(4, 4)
        except ValueError:
            raise InputError(f"{path}: axisAlignment must be 16 numbers, found {value.strip()[:60]!r}") from None
        # The limits first, because squares of huge numbers overflow.
        rigid = (np.abs(matrix) < _COORDINATE_LIMIT_METRES).all() and (
            np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max() < _RIGID_TOLERANCE
            and np.abs(matrix[3] - [0, 0, 0, 1]).max() < _RIGID_TOLERANCE
            and np.linalg.det(matrix[:3, :3]) > 0  # a reflection would swap left and right
        )
        if not rigid:
            raise InputError(
                f"{path}: axisAlignment must be a rotation and a translation, found {value.strip()[:60]!r}"
            )
        return matrix
    return None


def read_raw_labels(path: Path) -> list[str]:
    """The labels in an `.aggregation.json` as annotated, one per object, repeated objects once."""
    return [label for _, label, _ in _read_groups(path, collections.Counter())]


def _read_text(path: Path, expected: str) -> str:
    try:
        if path.stat().st_size > _TEXT_LIMIT_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes; expected {expected}, at most {_TEXT_LIMIT_BYTES}")
        return path.read_text(encoding="utf-8-sig")  # some editors add a byte order mark
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; expected {expected}") from None


def _read_json(path: Path, key: str) -> list[Any]:
    """The list `key` of a JSON object."""
    text = _read_text(path, f"JSON with a list {key!r}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
        raise InputError(f"{path}: not JSON ({one_line(error)})") from None
    if not isinstance(document, dict) or not isinstance(document.get(key), list):
        raise InputError(f"{path}: expected a JSON object with a list {key!r}")
    return document[key]


def _integers(path: Path, values: list[Any], what: str) -> Int64[np.ndarray, " N"]:
    """A flat list of integers as an array; `InputError` if there is anything else in the list."""
    # By type, because numpy would convert true to 1.
    if set(map(type, values)) <= {int}:
        with contextlib.suppress(OverflowError):
            array = np.array(values, np.int64)
            if not len(array) or (array.min() >= 0 and array.max() < 2**62):
                return array
    raise InputError(f"{path}: {what} must be a list of integers of at least 0")


def _read_segments(path: Path, vertex_count: int) -> Int64[np.ndarray, " V"]:
    segments = _integers(path, _read_json(path, "segIndices"), "segIndices")
    if len(segments) != vertex_count:
        raise InputError(f"{path}: {len(segments)} segIndices, but the mesh has {vertex_count} vertices")
    return segments


def _read_groups(path: Path, flaws: collections.Counter[str]) -> list[tuple[int, str, Int64[np.ndarray, " _"]]]:
    """(objectId, label, segment ids) of every object, without repeated ones."""
    groups = []
    ids: set[int] = set()
    contents: set[bytes] = set()
    listed = _read_json(path, "segGroups")
    if len(listed) > _MOST_OBJECTS:
        raise InputError(f"{path}: {len(listed):,} objects in segGroups; expected at most {_MOST_OBJECTS:,}")
    for number, group in enumerate(listed):
        where = f"segGroups[{number}]"
        if not isinstance(group, dict) or not isinstance(group.get("segments"), list):
            raise InputError(f"{path}: {where} must be an object with objectId, label and segments")
        object_id, label = group.get("objectId"), group.get("label")
        if type(object_id) is not int or not 0 <= object_id < 2**31:
            raise InputError(
                f"{path}: {where}: objectId must be an integer of at least 0, found {str(object_id)[:40]!r}"
            )
        if not isinstance(label, str):
            raise InputError(f"{path}: {where}: label must be a string, found {str(label)[:40]!r}")
        if any("\ud800" <= letter <= "\udfff" for letter in label):
            raise InputError(f"{path}: {where}: label {ascii(label)[:60]} is not valid text (half a surrogate pair)")
        segments = np.unique(_integers(path, group["segments"], f"{where}: segments"))
        content = label.encode() + b"\0" + segments.tobytes()
        if content in contents:
            flaws["repeated_objects"] += 1
            continue
        if object_id in ids:
            raise InputError(f"{path}: {where}: objectId {object_id} already names another object")
        ids.add(object_id)
        contents.add(content)
        groups.append((object_id, label, segments))
    return groups


def _vertices_by_object(
    segments: Int64[np.ndarray, " V"],
    groups: list[tuple[int, str, Int64[np.ndarray, " _"]]],
    flaws: collections.Counter[str],
) -> list[Int64[np.ndarray, " _"]]:
    """The vertex indices of every group, ascending."""
    by_segment = np.argsort(segments, kind="stable")  # sorted once; each segment is then a slice
    ordered = segments[by_segment]
    claims = np.concatenate([ids for _, _, ids in groups]) if groups else np.zeros(0, np.int64)
    known = np.isin(claims, ordered)
    flaws["unknown_segments"] = int((~known).sum())
    flaws["shared_segments"] = len(claims) - len(np.unique(claims))
    vertices_of = []
    for _, _, ids in groups:
        starts, ends = np.searchsorted(ordered, ids, "left"), np.searchsorted(ordered, ids, "right")
        slices = [by_segment[start:end] for start, end in zip(starts, ends, strict=True)]
        vertices_of.append(np.sort(np.concatenate(slices)) if slices else np.zeros(0, np.int64))
    return vertices_of
