"""Videos that are not scans: files that decord reads (mp4 and others), and folders of images."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from jaxvsr.data.frame_sources import FrameSource, SensSource
from jaxvsr.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class VideoFileSource:
    """The frames of a video file, decoded by decord."""

    def __init__(self, path: Path) -> None:
        try:
            import decord
        except ImportError:
            raise InputError(f"{path}: reading video needs decord: pip install 'jaxvsr[scans]'") from None
        self.name = path.name
        self.bytes_on_disk = path.stat().st_size
        self._path = path
        try:
            self._reader: Any = decord.VideoReader(str(path), num_threads=1)
            self._length = len(self._reader)
        except Exception as error:  # decord raises its own kinds and RuntimeError
            raise InputError(f"{path}: not a video that decord can read ({_reason(error)})") from None

    def __len__(self) -> int:
        return self._length

    def frame(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return np.asarray(self._reader[int(index)].asnumpy())
        except Exception as error:
            raise InputError(f"{self._path}: cannot decode frame {index} ({_reason(error)})") from None

    def timestamps(self, indices: Sequence[int]) -> Float64[np.ndarray, " F"]:
        starts = np.asarray(self._reader.get_frame_timestamp([int(index) for index in indices]))[:, 0]
        return starts.astype(np.float64) - float(self._reader.get_frame_timestamp([0])[0, 0])

    def sha256(self, indices: Sequence[int]) -> str:
        digest = hashlib.sha256(self._path.read_bytes())
        digest.update(",".join(map(str, indices)).encode())
        return digest.hexdigest()


class ImageFolderSource:
    """The images of a folder in the order of their names, one a second; all must have the size of the first."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not self._paths:
            raise InputError(f"{folder}: no images ({', '.join(IMAGE_SUFFIXES)}) and no {folder.name}.sens in it")
        self.name = folder.name
        self.bytes_on_disk = sum(path.stat().st_size for path in self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    @functools.cached_property
    def _shape(self) -> tuple[int, ...]:
        return _read_image(self._paths[0]).shape

    def frame(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        path = self._paths[index]
        pixels = _read_image(path)
        if pixels.shape != self._shape:
            height, width, _ = self._shape
            size = f"{pixels.shape[0]}×{pixels.shape[1]}"
            raise InputError(f"{path}: has {size} pixels, the first image of the folder {height}×{width}")
        return pixels

    def timestamps(self, indices: Sequence[int]) -> Float64[np.ndarray, " F"]:
        return np.asarray(indices, np.float64)

    def sha256(self, indices: Sequence[int]) -> str:
        digest = hashlib.sha256()
        for index in indices:
            payload = self._paths[index].read_bytes()
            digest.update(f"{index}:{len(payload)}:".encode() + payload)
        return digest.hexdigest()


def open_video(path: Path) -> FrameSource:
    """A `.sens` file, a scan folder with one, a folder of images, or a video file.

    Raises:
        InputError: it does not exist, or cannot be read.
    """
    if path.is_dir():
        sens = path / f"{path.resolve().name}.sens"
        return SensSource(sens) if sens.is_file() else ImageFolderSource(path)
    if not path.is_file():
        raise InputError(f"{path}: no such video; expected an mp4, a .sens file or a folder of images")
    return SensSource(path) if path.suffix.lower() == ".sens" else VideoFileSource(path)


def _read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not an image that can be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__
