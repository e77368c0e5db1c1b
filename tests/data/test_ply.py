"""PLY meshes, against bytes written by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.scannet.ply import Mesh, read_ply, write_ply
from jaxvsr.errors import InputError

VERTICES = [(0.0, 0.5, -1.25), (1.0, 0.0, 2.0), (3.5, -2.0, 0.0), (0.25, 0.25, 0.25)]
COLORS = [(255, 0, 1), (2, 3, 4), (5, 6, 7), (250, 251, 252)]
FACES = [(0, 1, 2), (0, 2, 3)]

HEADER = """ply
format {form} 1.0
comment MLIB generated
element vertex 4
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
property uchar alpha
element face 2
property list uchar int vertex_indices
end_header
"""


def binary_bytes() -> bytes:
    body = b"".join(struct.pack("<3f4B", *v, *c, 255) for v, c in zip(VERTICES, COLORS, strict=True))
    body += b"".join(struct.pack("<B3i", 3, *face) for face in FACES)
    return HEADER.format(form="binary_little_endian").encode() + body


def ascii_bytes() -> bytes:
    lines = [" ".join(map(str, (*v, *c, 255))) for v, c in zip(VERTICES, COLORS, strict=True)]
    lines += [" ".join(map(str, (3, *face))) for face in FACES]
    return (HEADER.format(form="ascii") + "\n".join(lines) + "\n").encode()


@pytest.mark.parametrize("data", [binary_bytes(), ascii_bytes()], ids=["binary", "ascii"])
def test_scannets_vertex_layout_is_read_from_hand_written_bytes(tmp_path: Path, data: bytes):
    path = tmp_path / "mesh.ply"
    path.write_bytes(data)
    mesh = read_ply(path)
    np.testing.assert_array_equal(mesh.vertices, np.array(VERTICES, np.float32))
    np.testing.assert_array_equal(mesh.faces, FACES)
    np.testing.assert_array_equal(mesh.colors, COLORS)
    assert mesh.labels is None


def test_a_written_mesh_has_the_bytes_of_the_format(tmp_path: Path):
    path = tmp_path / "mesh.ply"
    write_ply(path, Mesh(np.array(VERTICES, np.float32), np.array(FACES, np.int32), np.array(COLORS, np.uint8)))
    assert path.read_bytes() == binary_bytes().replace(b"comment MLIB generated\n", b"")
    assert [child.name for child in tmp_path.iterdir()] == ["mesh.ply"]


def test_labels_of_the_labelled_mesh_are_read(tmp_path: Path):
    header = HEADER.format(form="binary_little_endian").replace(
        "property uchar alpha\n", "property uchar alpha\nproperty ushort label\n"
    )
    labels = [0, 50, 149, 40]
    body = b"".join(struct.pack("<3f4BH", *v, *c, 255, n) for v, c, n in zip(VERTICES, COLORS, labels, strict=True))
    body += b"".join(struct.pack("<B3i", 3, *face) for face in FACES)
    path = tmp_path / "labels.ply"
    path.write_bytes(header.encode() + body)
    np.testing.assert_array_equal(read_ply(path).labels, labels)


@pytest.mark.slow
def test_open3d_reads_what_we_write(tmp_path: Path):
    from jaxvsr.data.rooms.open3d_import import open3d

    path = tmp_path / "mesh.ply"
    write_ply(path, Mesh(np.array(VERTICES, np.float32), np.array(FACES, np.int32), np.array(COLORS, np.uint8)))
    theirs = open3d().io.read_triangle_mesh(str(path))
    np.testing.assert_array_equal(np.asarray(theirs.vertices), np.array(VERTICES))
    np.testing.assert_array_equal(np.asarray(theirs.triangles), FACES)
    np.testing.assert_allclose(np.asarray(theirs.vertex_colors) * 255, COLORS, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"element vertex 4", b"element vertex 4000000000", "truncated"),
        (b"element vertex 4", b"element vertex 999999999999999999999", "more than the file can hold"),
        (b"element face 2", b"element face 3", "truncated"),
        (b"binary_little_endian", b"binary_big_endian", "expected ascii or"),
        (b"property float x", b"property float w", "expected x, y and z"),
        (b"property float x", b"property list uchar float x", "not a scalar"),
        (b"property list uchar int", b"property list float int", "list of integers"),
        (b"ply\n", b"plx\n", "not a PLY"),
        (b"element face 2\n", b"element strip 2\n", "expected vertex, then face"),
        (b"end_header", b"end_footer", "not a PLY"),
    ],
)
def test_a_wrong_header_is_refused_with_file_and_reason(tmp_path: Path, old: bytes, new: bytes, reason: str):
    path = tmp_path / "broken.ply"
    path.write_bytes(binary_bytes().replace(old, new, 1))
    with pytest.raises(InputError, match=reason) as error:
        read_ply(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [1, 13, 40, 150])
@pytest.mark.parametrize("data", [binary_bytes(), ascii_bytes()], ids=["binary", "ascii"])
def test_a_truncated_mesh_is_refused(tmp_path: Path, data: bytes, cut: int):
    path = tmp_path / "short.ply"
    path.write_bytes(data[:-cut] if cut > 1 or b"ascii" not in data else data[:-3])
    with pytest.raises(InputError, match=r"short\.ply"):
        read_ply(path)


def test_a_face_that_names_no_vertex_is_refused(tmp_path: Path):
    path = tmp_path / "mesh.ply"
    path.write_bytes(ascii_bytes().replace(b"3 0 2 3", b"3 0 2 4"))
    with pytest.raises(InputError, match="vertex number 4, but the mesh has 4"):
        read_ply(path)


def test_a_face_with_four_corners_is_refused(tmp_path: Path):
    path = tmp_path / "mesh.ply"
    path.write_bytes(binary_bytes().replace(struct.pack("<B3i", 3, 0, 1, 2), struct.pack("<B3i", 4, 0, 1, 2)))
    with pytest.raises(InputError, match="4 corners"):
        read_ply(path)
