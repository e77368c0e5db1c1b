"""The interface of all frame sources, and its implementation for a scan's `.sens`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8

from jaxvsr.data.scannet.sens import SensReader

_COLOR_FRAMES = re.compile(rb"^\s*numColorFrames\s*=\s*(\d{1,9})\s*$", re.MULTILINE)
_INFO_LIMIT_BYTES = 1 << 20


@runtime_checkable
class FrameSource(Protocol):
    """A video with random access to its frames, safe to use from several threads."""

    name: str
    bytes_on_disk: int

    def __len__(self) -> int: ...

    @property
    def fps(self) -> float:
        """Average frames per second."""
        ...

    @property
    def flaws(self) -> dict[str, int]:
        """Known flaws that were worked around, with their counts."""
        ...

    def frame(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """RGB pixels."""
        ...

    def frames(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """RGB pixels of several frames, in ascending order: faster for videos than one by one.

        Take all of them: an error that is found behind the last one is raised at the end.
        """
        ...

    def timestamps(self, indices: Sequence[int]) -> Float64[np.ndarray, " F"]:
        """Seconds since the first frame."""
        ...

    def sha256(self, indices: Sequence[int]) -> str:
        """A hash of these frames as stored, with their indices."""
        ...


class SensSource:
    """The colour frames of a `.sens`.

    `flaws`: `invalid_poses` (frames where tracking failed; their images are fine), `color_frames_differ` (by how many
    frames `numColorFrames` of `<scene>.txt` differs; the `.sens` is right).
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.bytes_on_disk = path.stat().st_size
        self._reader = SensReader(path)
        promised = color_frames_promised(path.with_suffix(".txt"))
        differ = 0 if promised is None else abs(promised - len(self._reader))
        counts = {"invalid_poses": self._reader.invalid_poses, "color_frames_differ": differ}
        self.flaws = {name: count for name, count in counts.items() if count}

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def fps(self) -> float:
        return average_fps(self._reader.timestamps)

    def frame(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._reader.color(index)

    def frames(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        return map(self._reader.color, indices)

    def timestamps(self, indices: Sequence[int]) -> Float64[np.ndarray, " F"]:
        return self._reader.timestamps[np.asarray(indices, np.int64)]

    def sha256(self, indices: Sequence[int]) -> str:
        # Only of the frames used: a real scan's file has 1 to 3 GB, most of it depth.
        digest = hashlib.sha256()
        for index in indices:
            is_jpeg = self._reader.header.color_compression == "jpeg"
            payload = self._reader.color_jpeg(index) if is_jpeg else self._reader.color(index).tobytes()
            digest.update(f"{index}:{len(payload)}:".encode() + payload)
        return digest.hexdigest()


def color_frames_promised(info: Path) -> int | None:
    """numColorFrames of a `<scene>.txt`; None without such a file or line."""
    try:
        with info.open("rb") as file:
            match = _COLOR_FRAMES.search(file.read(_INFO_LIMIT_BYTES))
    except OSError:
        return None
    return int(match[1]) if match else None


def average_fps(timestamps: Float64[np.ndarray, " N"]) -> float:
    """Frames per second over all of a video's timestamps; 1 for a single frame."""
    seconds = float(timestamps[-1] - timestamps[0]) if len(timestamps) > 1 else 0.0
    return (len(timestamps) - 1) / seconds if seconds > 0 else 1.0
