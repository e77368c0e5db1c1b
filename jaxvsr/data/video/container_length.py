"""Whether a video file is as long as its container says: what a download or a copy that stopped leaves is shorter.

Players show such a file up to where it ends, and decoders report no error if it ends between two frames.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_STREAM_PACKET_BYTES = 188  # of an MPEG transport stream, each begins with a G
_MOST_PARTS = 1 << 20
_PADDING = b"\0\r\n "


def bytes_promised(path: Path) -> int | None:
    """How long an mp4, mov, mkv, webm, avi, wmv or ts file is by the lengths in it; None if they do not say.

    Of streams that were written as they came (browsers, `-f matroska -`) only the last part has a length, so that one
    that ends between two parts is whole.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            return _boxes(file, size)
        if head[:4] == b"RIFF":
            return _riff(file, size)
        if head[:4] == _EBML:
            return _matroska(file, size)
        start = head + file.read(1 << 16)
    if start.startswith(_ASF) and (at := start.find(_ASF_PROPERTIES)) >= 0:
        return int.from_bytes(start[at + 40 : at + 48], "little") or None
    if start[: 3 * _STREAM_PACKET_BYTES : _STREAM_PACKET_BYTES] == b"GGG":
        return -(-size // _STREAM_PACKET_BYTES) * _STREAM_PACKET_BYTES
    return None


def ends_as_gif(path: Path) -> bool | None:
    """Whether a GIF has its last byte, a semicolon; None if the file is no GIF."""
    with path.open("rb") as file:
        if file.read(4) != b"GIF8":
            return None
        file.seek(-min(path.stat().st_size, 1024), os.SEEK_END)
        return file.read().rstrip(_PADDING).endswith(b";")


def _boxes(file: BinaryIO, size: int) -> int | None:
    """ISO 14496-12: boxes one after another, each with its length and its kind in front."""
    end = 0
    for _ in range(_MOST_PARTS):
        file.seek(end)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if end >= size or len(head) < 8 or not (kind.isascii() and kind.isalnum()):
            return end
        if length == 0:  # to the end of the file
            return None
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            return None
        end += length
    return None


def _riff(file: BinaryIO, size: int) -> int | None:
    """AVI: one RIFF list, and more of them from a gigabyte on."""
    end = 0
    for _ in range(_MOST_PARTS):
        file.seek(end)
        head = file.read(8)
        if end >= size or head[:4] != b"RIFF" or len(head) < 8:
            return end
        length = int.from_bytes(head[4:8], "little")
        if length in (0, 0xFFFFFFFF):  # never filled in
            return None
        end += 8 + length + length % 2
        if size < end <= size + 8:  # some writers leave out the padding, or count the header too
            return size
    return None


def _matroska(file: BinaryIO, size: int) -> int | None:
    """Elements one after another; those that hold others may have no length, and are gone through."""
    end = 0
    for _ in range(_MOST_PARTS):
        if end == size:
            return size
        file.seek(end)
        head = file.read(12)
        name = head[: _width(head[:1])]
        width = _width(head[len(name) : len(name) + 1])
        if not name or not width:
            return size + 1 if end + len(head) == size else None
        length = int.from_bytes(head[len(name) : len(name) + width], "big") & ((1 << 7 * width) - 1)
        end += len(name) + width
        if length < (1 << 7 * width) - 1:
            end += length
            if name == _SEGMENT:
                return end
        elif name not in (_SEGMENT, _CLUSTER):
            return None
        if end > size:
            return end
    return None


def _width(first: bytes) -> int:
    """The length of a number in Matroska, by its first byte; 0 if there is none."""
    return 9 - first[0].bit_length() if first and first[0] else 0
