"""ScanNet's `.sens`, version 4: colour, depth and camera poses of one scan in one file.

    u32 version = 4 | u64 length, sensor name
    4 × 16 f32 intrinsic colour, extrinsic colour, intrinsic depth, extrinsic depth (row-major)
    i32 colour compression, depth compression | u32 colour width, height, depth width, height
    f32 depth shift (1000: depth in mm) | u64 frames, and of each:
        16 f32 camera_to_world (row-major; all -inf where tracking failed)
        u64 colour time, depth time (microseconds), colour bytes, depth bytes | the two payloads
    u64 IMU frames … (not read)

Everything is little endian. Poses are in the frame of the stored mesh, not in the axis-aligned one.
"""

from __future__ import annotations

import dataclasses
import os
import struct
import zlib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

from jaxvsr.errors import InputError, one_line
from jaxvsr.files import replacing

VERSION = 4
COLOR_COMPRESSIONS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_COMPRESSIONS = {0: "raw_ushort", 1: "zlib_ushort"}
_SENSOR_NAME_LIMIT_BYTES = 4096
_IMAGE_SIDE_LIMIT_PIXELS = 16_384
_CAMERAS = struct.Struct("<64f")
_SIZES = struct.Struct("<iiIIIIfQ")
_FRAME = struct.Struct("<16fQQQQ")


@dataclasses.dataclass(frozen=True, eq=False)
class SensHeader:
    """What all frames share; intrinsics in pixels, `depth_shift` in units per metre."""

    sensor_name: str
    intrinsic_color: Float32[np.ndarray, "4 4"]
    extrinsic_color: Float32[np.ndarray, "4 4"]
    intrinsic_depth: Float32[np.ndarray, "4 4"]
    extrinsic_depth: Float32[np.ndarray, "4 4"]
    color_compression: str
    depth_compression: str
    color_width: int
    color_height: int
    depth_width: int
    depth_height: int
    depth_shift: float = 1000.0


@dataclasses.dataclass(frozen=True, eq=False)
class SensFrame:
    """One frame as stored: compressed payloads, times in microseconds."""

    camera_to_world: Float32[np.ndarray, "4 4"]
    color_time_us: int
    depth_time_us: int
    color: bytes
    depth: bytes


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a frame's payloads are in the file."""

    color_offset: int
    color_bytes: int
    depth_bytes: int


class SensReader:
    """Random access to the frames of a `.sens`.

    Opening reads all frame headers but no payload, so a truncated file is an `InputError` at once; so is, later, a
    payload that does not decode to the size in the header. No file stays open, so processes may share a reader.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self.header, count = _read_header(path, file, size)
                self._places, poses, times = _walk_frames(path, file, size, count)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); expected a .sens of version 4") from None
        self._poses = poses
        self.color_times_us = times

    def __len__(self) -> int:
        return len(self._places)

    @property
    def invalid_poses(self) -> int:
        """Frames whose pose has -inf or nan."""
        return int((~np.isfinite(self._poses).all(axis=(1, 2))).sum())

    @property
    def timestamps(self) -> Float64[np.ndarray, " N"]:
        """Seconds since the first frame; ScanNet's 30 frames per second if the stored times do not increase."""
        seconds = (self.color_times_us - self.color_times_us[:1]) / 1e6
        if len(seconds) > 1 and not (np.diff(self.color_times_us) > 0).all():
            return np.arange(len(self)) / 30.0
        return seconds

    def pose(self, index: int) -> Float64[np.ndarray, "4 4"] | None:
        """camera_to_world in the frame of the stored mesh (x right, y down, z forward); None if it is invalid."""
        pose = self._poses[self._checked(index)].astype(np.float64)
        return pose if np.isfinite(pose).all() else None

    def color_jpeg(self, index: int) -> bytes:
        """The JPEG as stored; `InputError` if the file has another compression."""
        if self.header.color_compression != "jpeg":
            raise InputError(f"{self.path}: colour is {self.header.color_compression}, not jpeg; read it as pixels")
        return self._color(index)

    def color(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """RGB pixels."""
        width, height = self.header.color_width, self.header.color_height
        payload = self._color(index)
        if self.header.color_compression == "raw":
            if len(payload) != width * height * 3:
                raise InputError(
                    f"{self.path}: frame {index}: {len(payload)} bytes of raw colour, not {width}x{height}x3"
                )
            return np.frombuffer(payload, np.uint8).reshape(height, width, 3)
        try:
            image = Image.open(BytesIO(payload), formats=[self.header.color_compression])
            if image.size == (width, height):  # checked before decoding, which takes memory according to the size
                return np.asarray(image.convert("RGB"))
        except Exception as error:  # decoders raise many kinds on broken data
            raise InputError(
                f"{self.path}: frame {index}: colour is not a {self.header.color_compression} ({one_line(error)})"
            ) from None
        raise InputError(f"{self.path}: frame {index}: colour is {image.size}, the header says {(width, height)}")

    def depth(self, index: int) -> Float32[np.ndarray, "H W"]:
        """Depth along the camera's z axis in metres; 0 where it is not known."""
        width, height = self.header.depth_width, self.header.depth_height
        place = self._places[self._checked(index)]
        payload = self._payload(index, place.color_offset + place.color_bytes, place.depth_bytes)
        needed = width * height * 2
        if self.header.depth_compression == "zlib_ushort":
            try:
                payload = zlib.decompressobj().decompress(payload, needed + 1)
            except zlib.error as error:
                raise InputError(f"{self.path}: frame {index}: depth is not zlib ({error})") from None
        if len(payload) != needed:
            raise InputError(f"{self.path}: frame {index}: depth does not have {width}x{height} 16-bit values")
        units = np.frombuffer(payload, "<u2").reshape(height, width)
        return units.astype(np.float32) / np.float32(self.header.depth_shift)

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: frame {index} of {len(self)}")
        return index

    def _color(self, index: int) -> bytes:
        place = self._places[self._checked(index)]
        return self._payload(index, place.color_offset, place.color_bytes)

    def _payload(self, index: int, offset: int, size: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise InputError(f"{self.path}: frame {index}: the file became shorter since it was opened")
        return data


def _take(path: Path, file: BinaryIO, size: int, what: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise InputError(f"{path}: truncated in {what}; a .sens of version 4 is longer")
    return data


def _read_header(path: Path, file: BinaryIO, size: int) -> tuple[SensHeader, int]:
    """The header and its number of frames, which `size` bytes can hold."""
    version, name_bytes = struct.unpack("<IQ", _take(path, file, 12, "the header"))
    if version != VERSION:
        raise InputError(f"{path}: .sens version {version}; expected version {VERSION}")
    if name_bytes > _SENSOR_NAME_LIMIT_BYTES:
        raise InputError(f"{path}: sensor name of {name_bytes} bytes; expected at most {_SENSOR_NAME_LIMIT_BYTES}")
    name = _take(path, file, name_bytes, "the sensor name").decode("utf-8", "replace").rstrip("\0")
    cameras = np.array(_CAMERAS.unpack(_take(path, file, _CAMERAS.size, "the camera matrices")), np.float32)
    color_kind, depth_kind, *sides, shift, count = _SIZES.unpack(_take(path, file, _SIZES.size, "the image sizes"))
    if color_kind not in COLOR_COMPRESSIONS:
        raise InputError(f"{path}: colour compression {color_kind}; expected one of {_table(COLOR_COMPRESSIONS)}")
    if depth_kind not in DEPTH_COMPRESSIONS:
        raise InputError(f"{path}: depth compression {depth_kind}; expected one of {_table(DEPTH_COMPRESSIONS)}")
    if not all(0 < side <= _IMAGE_SIDE_LIMIT_PIXELS for side in sides):
        raise InputError(f"{path}: image sides {sides} in the header; expected 1 to {_IMAGE_SIDE_LIMIT_PIXELS} pixels")
    if not (np.isfinite(shift) and 1e-3 <= shift <= 1e9):
        raise InputError(f"{path}: depth shift {shift} in the header; ScanNet's is 1000 units per metre")
    if count * _FRAME.size > size - file.tell():
        raise InputError(f"{path}: truncated; {count} frames do not fit into {size - file.tell()} bytes")
    matrices = cameras.reshape(4, 4, 4)
    header = SensHeader(
        sensor_name=name,
        intrinsic_color=matrices[0],
        extrinsic_color=matrices[1],
        intrinsic_depth=matrices[2],
        extrinsic_depth=matrices[3],
        color_compression=COLOR_COMPRESSIONS[color_kind],
        depth_compression=DEPTH_COMPRESSIONS[depth_kind],
        color_width=sides[0],
        color_height=sides[1],
        depth_width=sides[2],
        depth_height=sides[3],
        depth_shift=shift,
    )
    return header, count


def _table(kinds: dict[int, str]) -> str:
    return ", ".join(f"{number} ({name})" for number, name in kinds.items())


def _walk_frames(
    path: Path, file: BinaryIO, size: int, count: int
) -> tuple[list[_Place], Float32[np.ndarray, "N 4 4"], np.ndarray]:
    places: list[_Place] = []
    poses = np.empty((count, 4, 4), np.float32)
    times = np.empty(count, np.float64)
    for index in range(count):
        fields = _FRAME.unpack(_take(path, file, _FRAME.size, f"frame {index} of {count}"))
        poses[index] = np.array(fields[:16], np.float32).reshape(4, 4)
        times[index] = fields[16]
        place = _Place(file.tell(), fields[18], fields[19])
        if place.color_bytes + place.depth_bytes > size - place.color_offset:
            raise InputError(f"{path}: truncated in frame {index} of {count}")
        places.append(place)
        file.seek(place.color_bytes + place.depth_bytes, os.SEEK_CUR)
    return places, poses, times


def write_sens(path: Path, header: SensHeader, frames: Iterable[SensFrame]) -> None:
    """Write a `.sens` of version 4 with an empty IMU block."""
    kinds = {name: number for number, name in COLOR_COMPRESSIONS.items()}
    depth_kinds = {name: number for number, name in DEPTH_COMPRESSIONS.items()}
    name = header.sensor_name.encode()
    matrices = (header.intrinsic_color, header.extrinsic_color, header.intrinsic_depth, header.extrinsic_depth)
    stored = list(frames)
    parts = [
        struct.pack("<IQ", VERSION, len(name)),
        name,
        np.stack(matrices).astype("<f4").tobytes(),
        _SIZES.pack(
            kinds[header.color_compression],
            depth_kinds[header.depth_compression],
            header.color_width,
            header.color_height,
            header.depth_width,
            header.depth_height,
            header.depth_shift,
            len(stored),
        ),
    ]
    for frame in stored:
        sizes = (frame.color_time_us, frame.depth_time_us, len(frame.color), len(frame.depth))
        parts += [frame.camera_to_world.astype("<f4").tobytes(), struct.pack("<QQQQ", *sizes), frame.color, frame.depth]
    parts.append(struct.pack("<Q", 0))
    with replacing(path) as partial:
        partial.write_bytes(b"".join(parts))
