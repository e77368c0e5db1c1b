"""What frames are read from: today a scan's `.sens`; every other kind of video fits the same few methods."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8

from jaxvsr.data.sens import SensReader
from jaxvsr.errors import InputError


@runtime_checkable
class FrameSource(Protocol):
    """A video with random access to its frames."""

    name: str
    bytes_on_disk: int

    def __len__(self) -> int: ...

    def frame(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """RGB pixels."""
        ...

    def timestamps(self, indices: Sequence[int]) -> Float64[np.ndarray, " F"]:
        """Seconds since the first frame."""
        ...

    def sha256(self, indices: Sequence[int]) -> str:
        """Hash of these frames as the source stores them, with their indices."""
        ...


class SensSource:
    """The colour frames of a `.sens`."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.bytes_on_disk = path.stat().st_size
        self._reader = SensReader(path)

    def __len__(self) -> int:
        return len(self._reader)

    def frame(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._reader.color(index)

    def timestamps(self, indices: Sequence[int]) -> Float64[np.ndarray, " F"]:
        return self._reader.timestamps[np.asarray(indices, np.int64)]

    def sha256(self, indices: Sequence[int]) -> str:
        # Only what is used: a real scan's file holds 1 to 3 GB, most of it depth.
        digest = hashlib.sha256()
        for index in indices:
            is_jpeg = self._reader.header.color_compression == "jpeg"
            payload = self._reader.color_jpeg(index) if is_jpeg else self._reader.color(index).tobytes()
            digest.update(f"{index}:{len(payload)}:".encode() + payload)
        return digest.hexdigest()


def open_source(scan_dir: Path) -> FrameSource:
    """The video of a scan folder.

    Raises:
        InputError: there is none, or it is broken.
    """
    path = scan_dir / f"{scan_dir.name}.sens"
    if not path.is_file():
        raise InputError(f"{path}: no such file; frames are read from a scan's .sens")
    return SensSource(path)
