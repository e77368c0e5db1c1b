"""Triangle meshes in PLY, ascii and binary little endian, as ScanNet stores them.

The files come from elsewhere, so every count in the header is checked against the size of the file before anything is
allocated; common PLY libraries do not do that.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, UInt8, UInt16

from jaxvsr.errors import InputError
from jaxvsr.files import replacing

_HEADER_LIMIT_BYTES = 65_536
_SCALARS = {
    **dict.fromkeys(("char", "int8"), "<i1"),
    **dict.fromkeys(("uchar", "uint8"), "<u1"),
    **dict.fromkeys(("short", "int16"), "<i2"),
    **dict.fromkeys(("ushort", "uint16"), "<u2"),
    **dict.fromkeys(("int", "int32"), "<i4"),
    **dict.fromkeys(("uint", "uint32"), "<u4"),
    **dict.fromkeys(("float", "float32"), "<f4"),
    **dict.fromkeys(("double", "float64"), "<f8"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh: vertices in metres, faces as vertex indices.

    `colors` are RGB, if the file has them; `labels` are the nyu40 ids of ScanNet's `_vh_clean_2.labels.ply`.
    """

    vertices: Float32[np.ndarray, "V 3"]
    faces: Int32[np.ndarray, "T 3"]
    colors: UInt8[np.ndarray, "V 3"] | None = None
    labels: UInt16[np.ndarray, " V"] | None = None


@dataclasses.dataclass(frozen=True)
class _Header:
    """What the header says. `face_types`: count type and index type of the face list."""

    ascii: bool
    bytes: int
    vertex_count: int
    vertex_fields: tuple[tuple[str, str], ...]
    face_count: int
    face_types: tuple[str, str]


def read_ply(path: Path) -> Mesh:
    """Read a triangle mesh; an `InputError` names the file and the reason why it is not one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a PLY mesh") from None
    header = _read_header(path, data)
    body = memoryview(data)[header.bytes :]
    vertex, faces = _read_ascii(path, header, body) if header.ascii else _read_binary(path, header, body)
    vertices = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float32)
    if faces.size and (faces.min() < 0 or faces.max() >= header.vertex_count):
        raise InputError(
            f"{path}: a face has vertex number {faces.max()}, but the mesh has {header.vertex_count} vertices"
        )
    colors = None
    if {"red", "green", "blue"} <= vertex.keys():
        colors = np.stack([vertex[channel] for channel in ("red", "green", "blue")], axis=1).astype(np.uint8)
    labels = vertex["label"].astype(np.uint16) if "label" in vertex else None
    return Mesh(vertices, faces.astype(np.int32), colors, labels)


def _read_header(path: Path, data: bytes) -> _Header:
    end = data.find(b"end_header", 0, _HEADER_LIMIT_BYTES)
    newline = data.find(b"\n", end, _HEADER_LIMIT_BYTES) if end >= 0 else -1
    if not data.startswith(b"ply") or newline < 0:
        raise InputError(f"{path}: not a PLY file; expected 'ply' … 'end_header' within {_HEADER_LIMIT_BYTES} bytes")
    form = ""
    counts: dict[str, int] = {}
    fields: dict[str, list[list[str]]] = {}
    for line in data[:end].decode("latin-1").splitlines()[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3:
            form = words[1]
        elif words[0] == "element" and len(words) == 3 and words[2].isascii() and words[2].isdigit():
            if len(words[2]) > 12:
                raise InputError(
                    f"{path}: the header says {words[2][:20]}… {words[1]} elements, more than the file can hold"
                )
            counts[words[1]] = int(words[2])
            fields[words[1]] = []
        elif words[0] == "property" and fields and len(words) >= 3:
            fields[list(fields)[-1]].append(words[1:])
        else:
            raise InputError(f"{path}: header line {line[:60]!r} is not PLY's format, element, property or comment")
    if form not in ("ascii", "binary_little_endian"):
        raise InputError(f"{path}: PLY format {form[:40]!r}; expected ascii or binary_little_endian")
    if list(counts) not in (["vertex"], ["vertex", "face"]):
        raise InputError(f"{path}: PLY elements {', '.join(counts) or 'none'}; expected vertex, then face")
    vertex_fields = []
    for words in fields["vertex"]:
        if len(words) != 2 or words[0] not in _SCALARS:
            raise InputError(f"{path}: vertex property {' '.join(words)[:60]!r} is not a scalar of a PLY type")
        vertex_fields.append((words[1], _SCALARS[words[0]]))
    names = [name for name, _ in vertex_fields]
    if not {"x", "y", "z"} <= set(names) or len(set(names)) != len(names):
        raise InputError(f"{path}: vertex properties {', '.join(names)[:80]!r}; expected x, y and z, each name once")
    face_types = ("<u1", "<i4")
    if "face" in counts:
        match fields["face"]:
            case [["list", count, index, "vertex_indices" | "vertex_index"]] if (
                _SCALARS.get(count, "<f4")[1] in "iu" and _SCALARS.get(index, "<f4")[1] in "iu"
            ):
                face_types = (_SCALARS[count], _SCALARS[index])
            case _:
                raise InputError(f"{path}: faces must have one property, a list of integers named vertex_indices")
    return _Header(
        form == "ascii", newline + 1, counts["vertex"], tuple(vertex_fields), counts.get("face", 0), face_types
    )


def _read_binary(path: Path, header: _Header, body: memoryview) -> tuple[dict[str, np.ndarray], np.ndarray]:
    vertex_type = np.dtype(list(header.vertex_fields))
    face_type = np.dtype([("count", header.face_types[0]), ("corners", header.face_types[1], (3,))])
    vertex_bytes = header.vertex_count * vertex_type.itemsize
    needed = vertex_bytes + header.face_count * face_type.itemsize
    if needed > len(body):
        raise InputError(
            f"{path}: truncated; {header.vertex_count} vertices and {header.face_count} triangles need {needed} bytes, "
            f"{len(body)} follow the header"
        )
    table = np.frombuffer(body, vertex_type, header.vertex_count)
    faces = np.frombuffer(body, face_type, header.face_count, vertex_bytes)
    if (faces["count"] != 3).any():
        raise InputError(
            f"{path}: a face has {faces['count'][faces['count'] != 3][0]} corners; expected triangles only"
        )
    return {name: table[name] for name, _ in header.vertex_fields}, np.ascontiguousarray(faces["corners"])


def _read_ascii(path: Path, header: _Header, body: memoryview) -> tuple[dict[str, np.ndarray], np.ndarray]:
    width = len(header.vertex_fields)
    needed = header.vertex_count * width + header.face_count * 4
    # Every number takes at least a digit and a separator.
    if 2 * needed > len(body) + 1:
        raise InputError(f"{path}: truncated; the header says {needed} numbers, {len(body)} characters follow it")
    words = bytes(body).split(maxsplit=needed)[:needed]
    try:
        numbers = np.array(words, dtype="S32").astype(np.float64)
    except ValueError:
        raise InputError(f"{path}: the body of an ascii PLY must have only numbers") from None
    if len(numbers) < needed:
        raise InputError(f"{path}: truncated; the header says {needed} numbers, the file has {len(numbers)}")
    table = numbers[: header.vertex_count * width].reshape(-1, width)
    faces = numbers[header.vertex_count * width :].reshape(-1, 4)
    vertex = {}
    for column, (name, kind) in enumerate(header.vertex_fields):
        values = table[:, column]
        limits = np.finfo(kind) if kind[1] == "f" else np.iinfo(kind)
        finite = values[np.isfinite(values)] if kind[1] == "f" else values
        if finite.size and not (limits.min <= finite.min() and finite.max() <= limits.max):
            raise InputError(f"{path}: vertex property {name!r} has a number that its type {kind[1:]} cannot hold")
        vertex[name] = values.astype(kind)
    if not (faces[:, 0] == 3).all():
        raise InputError(f"{path}: every face must be a triangle, written as '3 a b c'")
    if not ((faces == np.floor(faces)) & (np.abs(faces) < 2**31)).all():
        raise InputError(f"{path}: face corners must be vertex indices")
    return vertex, faces[:, 1:].astype(np.int64)


def write_ply(path: Path, mesh: Mesh) -> None:
    """Write binary little endian, with ScanNet's properties (colours with alpha)."""
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(mesh.vertices)}"]
    fields: list[tuple[str, str]] = [(axis, "<f4") for axis in "xyz"]
    header += [f"property float {axis}" for axis in "xyz"]
    if mesh.colors is not None:
        fields += [(channel, "u1") for channel in ("red", "green", "blue", "alpha")]
        header += [f"property uchar {channel}" for channel in ("red", "green", "blue", "alpha")]
    if mesh.labels is not None:
        fields.append(("label", "<u2"))
        header.append("property ushort label")
    header += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices", "end_header\n"]
    table = np.zeros(len(mesh.vertices), np.dtype(fields))
    for column, axis in enumerate("xyz"):
        table[axis] = mesh.vertices[:, column]
    if mesh.colors is not None:
        for column, channel in enumerate(("red", "green", "blue")):
            table[channel] = mesh.colors[:, column]
        table["alpha"] = 255
    if mesh.labels is not None:
        table["label"] = mesh.labels
    faces = np.zeros(len(mesh.faces), np.dtype([("count", "u1"), ("corners", "<i4", (3,))]))
    faces["count"], faces["corners"] = 3, mesh.faces
    with replacing(path) as partial:
        partial.write_bytes("\n".join(header).encode() + table.tobytes() + faces.tobytes())
