"""An mp4 written byte by byte (ISO 14496-12): one track of JPEG pictures, every one a key frame."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box: its length, its kind, its content."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    """A box with version 0 and flags."""
    return box(kind, struct.pack(">I", flags), *parts)


def jpeg(pixels: np.ndarray) -> bytes:
    """The pixels as a JPEG of high quality, colour not subsampled."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=98, subsampling=0)
    return buffer.getvalue()


def mp4_bytes(frames: list[np.ndarray], fps: int = 10) -> bytes:
    """The frames as an mp4 of `fps` frames a second."""
    pictures = [jpeg(frame) for frame in frames]
    height, width = frames[0].shape[:2]
    count, matrix = len(frames), struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    head = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isom", b"mp41")
    media = box(b"mdat", *pictures)
    starts = len(head) + 8 + np.cumsum([0, *map(len, pictures)])[:-1]
    decoder = bytes([0x04, 13, 0x6C, 0x11]) + b"\0\0\0" + struct.pack(">II", 0, 0)  # 0x6C: JPEG, 0x11: visual stream
    elementary = bytes([0x03, 3 + len(decoder) + 3]) + b"\0\1\0" + decoder + b"\6\1\2"
    visual = struct.pack(">6xH16xHHIIIH32sHh", 1, width, height, 72 << 16, 72 << 16, 0, 1, b"\0" * 32, 24, -1)
    table = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), box(b"mp4v", visual, full(b"esds", elementary))),
        full(b"stts", struct.pack(">III", 1, count, 1)),
        full(b"stsc", struct.pack(">IIII", 1, 1, 1, 1)),
        full(b"stsz", struct.pack(">II", 0, count), struct.pack(f">{count}I", *map(len, pictures))),
        full(b"stco", struct.pack(">I", count), struct.pack(f">{count}I", *starts)),
    )
    data = box(b"dinf", full(b"dref", struct.pack(">I", 1), full(b"url ", flags=1)))
    information = box(b"minf", full(b"vmhd", struct.pack(">4H", 0, 0, 0, 0), flags=1), data, table)
    handler = full(b"hdlr", struct.pack(">I4s12x", 0, b"vide"), b"video\0")
    media_header = full(b"mdhd", struct.pack(">IIIIHH", 0, 0, fps, count, 0x55C4, 0))
    track_header = full(
        b"tkhd", struct.pack(">IIIII8xHHHH", 0, 0, 1, 0, count * 1000 // fps, 0, 0, 0, 0), matrix,
        struct.pack(">II", width << 16, height << 16), flags=3,
    )  # fmt: skip
    track = box(b"trak", track_header, box(b"mdia", media_header, handler, information))
    movie_header = full(
        b"mvhd", struct.pack(">IIIIIHH8x", 0, 0, 1000, count * 1000 // fps, 1 << 16, 1 << 8, 0), matrix, b"\0" * 24,
        struct.pack(">I", 2),
    )  # fmt: skip
    return head + media + box(b"moov", movie_header, track)


def write_mp4(path: Path, greys: tuple[int, ...], height: int = 56, width: int = 84, fps: int = 10) -> Path:
    """An mp4 with one plain frame for each grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mp4_bytes([np.full((height, width, 3), grey, np.uint8) for grey in greys], fps))
    return path
