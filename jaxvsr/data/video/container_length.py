"""Whether a video file is as long as its container says: what a download or a copy that stopped leaves is shorter.

Players show such a file up to where it ends, and decoders report no error if it ends between two frames.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MOST_PARTS = 1 << 20
_PADDING = b"\0\r\n "


def bytes_promised(path: Path) -> int | None:
    """How long an mp4, mov, mkv, webm or avi file is by the lengths in it; None if they do not say.

    Streams that were written as they came (browsers, `-f matroska -`) have no lengths.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            return _boxes(file, size)
        if head[:4] == b"RIFF":
            return _riff(file, size)
        if head[:4] == _EBML:
            return _matroska(file)
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
        if end - length % 2 == size:  # without the padding
            return size
    return None


def _matroska(file: BinaryIO) -> int | None:
    """The EBML header and the segment after it."""
    end = 0
    for name in (_EBML, _SEGMENT):
        file.seek(end)
        head = file.read(12)
        if head[:4] != name or not head[4:5] or not head[4]:
            return None
        width = 9 - head[4].bit_length()
        length = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:  # unknown
            return None
        end += 4 + width + length
    return end
