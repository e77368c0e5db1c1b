"""`.sens` files, against bytes written here with struct alone, from the format's description."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.scannet.sens import SensFrame, SensHeader, SensReader, write_sens
from jaxvsr.errors import InputError
from tests.support.sens_files import (
    DEPTH_HEIGHT,
    DEPTH_MM,
    DEPTH_WIDTH,
    HEIGHT,
    PICTURE,
    POSE,
    WIDTH,
    encoded,
    sens_bytes,
)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "scene0000_00.sens"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("color_kind", [0, 1, 2], ids=["raw", "png", "jpeg"])
@pytest.mark.parametrize("depth_kind", [0, 1], ids=["raw", "zlib"])
def test_every_compression_is_read(tmp_path: Path, color_kind: int, depth_kind: int):
    reader = SensReader(written(tmp_path, sens_bytes(color_kind=color_kind, depth_kind=depth_kind)))
    assert len(reader) == 1
    color = reader.color(0)
    assert color.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(color.astype(int) - PICTURE).max() <= (4 if color_kind == 2 else 0)
    np.testing.assert_allclose(reader.depth(0), DEPTH_MM / 1000, atol=1e-6)
    np.testing.assert_array_equal(reader.pose(0), POSE)
    np.testing.assert_array_equal(reader.header.intrinsic_depth, np.eye(4) * 3)
    assert reader.header.sensor_name == "StructureSensor"
    if color_kind == 2:
        assert reader.color_jpeg(0) == encoded(2)
    else:
        with pytest.raises(InputError, match="not jpeg"):
            reader.color_jpeg(0)


def test_invalid_poses_are_none_and_counted(tmp_path: Path):
    one_nan = POSE.copy()
    one_nan[2, 1] = np.nan
    poses = (POSE, np.full((4, 4), -np.inf, np.float32), one_nan, POSE + 1)
    reader = SensReader(written(tmp_path, sens_bytes(poses=poses, times=(0, 1, 2, 3))))
    assert [reader.pose(index) is None for index in range(4)] == [False, True, True, False]
    assert reader.invalid_poses == 2
    np.testing.assert_array_equal(reader.pose(3), POSE + 1)


def test_timestamps_are_in_seconds_and_default_to_30_frames_per_second(tmp_path: Path):
    poses = (POSE, POSE, POSE)
    reader = SensReader(written(tmp_path, sens_bytes(poses=poses, times=(5_000_000, 5_033_000, 6_000_000))))
    np.testing.assert_allclose(reader.timestamps, [0, 0.033, 1.0])
    reader = SensReader(written(tmp_path, sens_bytes(poses=poses, times=(0, 0, 0))))
    np.testing.assert_allclose(reader.timestamps, [0, 1 / 30, 2 / 30])


def test_write_sens_writes_the_bytes_of_the_format(tmp_path: Path):
    header = SensHeader(
        sensor_name="StructureSensor",
        intrinsic_color=np.eye(4, dtype=np.float32),
        extrinsic_color=2 * np.eye(4, dtype=np.float32),
        intrinsic_depth=3 * np.eye(4, dtype=np.float32),
        extrinsic_depth=4 * np.eye(4, dtype=np.float32),
        color_compression="jpeg",
        depth_compression="zlib_ushort",
        color_width=WIDTH,
        color_height=HEIGHT,
        depth_width=DEPTH_WIDTH,
        depth_height=DEPTH_HEIGHT,
    )
    depth = zlib.compress(DEPTH_MM.astype("<u2").tobytes())
    lost = np.full((4, 4), -np.inf, np.float32)
    path = tmp_path / "ours.sens"
    write_sens(path, header, [SensFrame(pose, time, time, encoded(2), depth) for pose, time in ((POSE, 7), (lost, 9))])
    assert path.read_bytes() == sens_bytes(poses=(POSE, lost), times=(7, 9))


def test_truncation_anywhere_is_refused_on_opening(tmp_path: Path):
    data = sens_bytes(poses=(POSE, POSE), times=(0, 1))
    whole = len(data) - 8  # the IMU block is not needed
    for size in [0, 3, 11, 20, 300, whole // 2, whole - 1]:
        path = written(tmp_path, data[:size])
        with pytest.raises(InputError, match="truncated") as error:
            SensReader(path)
        assert str(path) in str(error.value)
    assert len(SensReader(written(tmp_path, data[:whole]))) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 3}, "version 3"),
        ({"color_kind": -1}, "colour compression -1"),
        ({"depth_kind": 2}, "depth compression 2"),
        ({"sizes": (2**31, 2**31, 6, 4)}, "image sides"),
        ({"sizes": (12, 8, 6, 0)}, "image sides"),
        ({"shift": 0.0}, "depth shift"),
        ({"shift": float("nan")}, "depth shift"),
        ({"count": 2**60}, "frames do not fit"),
        ({"count": 3}, "truncated|frames do not fit"),
        ({"name": b"x" * 5000}, "sensor name"),
    ],
)
def test_absurd_headers_are_refused_before_anything_is_allocated(tmp_path: Path, change: dict, reason: str):
    path = written(tmp_path, sens_bytes(**change))
    with pytest.raises(InputError, match=reason):
        SensReader(path)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [((WIDTH, HEIGHT + 1, DEPTH_WIDTH, DEPTH_HEIGHT), "colour is"), ((WIDTH, HEIGHT, 7, 4), "depth does not have")],
)
def test_pictures_of_another_size_than_the_header_says_are_refused(tmp_path: Path, sizes: tuple, reason: str):
    reader = SensReader(written(tmp_path, sens_bytes(sizes=sizes)))
    with pytest.raises(InputError, match=reason):
        reader.color(0)
        reader.depth(0)


def test_a_depth_bomb_is_not_unpacked(tmp_path: Path):
    bomb = zlib.compress(bytes(50_000_000))
    data = sens_bytes(poses=(), times=())[:-16] + struct.pack("<Q", 1)
    data += struct.pack("<16f", *POSE.reshape(-1)) + struct.pack("<QQQQ", 0, 0, 0, len(bomb)) + bomb
    reader = SensReader(written(tmp_path, data))
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(InputError, match="depth does not have"):
        reader.depth(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
