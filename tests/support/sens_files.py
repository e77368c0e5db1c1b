"""`.sens` files written with struct alone, from the format's description."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

WIDTH, HEIGHT, DEPTH_WIDTH, DEPTH_HEIGHT = 12, 8, 6, 4
RNG = np.random.default_rng(0)
# Smooth, so that JPEG keeps it nearly as it is.
RAMP = np.arange(WIDTH) * 9 + np.arange(HEIGHT)[:, None] * 5
PICTURE = np.stack([RAMP, RAMP + 20, RAMP + 50], axis=-1).astype(np.uint8)
DEPTH_MM = RNG.integers(0, 5000, (DEPTH_HEIGHT, DEPTH_WIDTH)).astype(np.uint16)
POSE = np.arange(16, dtype=np.float32).reshape(4, 4) / 7


def encoded(kind: int) -> bytes:
    if kind == 0:
        return PICTURE.tobytes()
    buffer = BytesIO()
    Image.fromarray(PICTURE).save(buffer, {1: "png", 2: "jpeg"}[kind], **({"quality": 98} if kind == 2 else {}))
    return buffer.getvalue()


def sens_bytes(
    *,
    version: int = 4,
    color_kind: int = 2,
    depth_kind: int = 1,
    sizes: tuple[int, int, int, int] = (WIDTH, HEIGHT, DEPTH_WIDTH, DEPTH_HEIGHT),
    shift: float = 1000.0,
    poses: tuple[np.ndarray, ...] = (POSE,),
    times: tuple[int, ...] = (0,),
    count: int | None = None,
    name: bytes = b"StructureSensor",
) -> bytes:
    data = struct.pack("<I", version) + struct.pack("<Q", len(name)) + name
    for number in range(4):
        data += struct.pack("<16f", *(np.eye(4) * (number + 1)).reshape(-1))
    data += struct.pack("<ii", color_kind, depth_kind) + struct.pack("<IIII", *sizes) + struct.pack("<f", shift)
    data += struct.pack("<Q", len(poses) if count is None else count)
    depth = DEPTH_MM.astype("<u2").tobytes()
    depth = zlib.compress(depth) if depth_kind == 1 else depth
    color = encoded(color_kind) if color_kind in (0, 1, 2) else b"?"
    for pose, time in zip(poses, times, strict=True):
        data += struct.pack("<16f", *pose.reshape(-1)) + struct.pack("<QQ", time, time)
        data += struct.pack("<QQ", len(color), len(depth)) + color + depth
    return data + struct.pack("<Q", 0)
