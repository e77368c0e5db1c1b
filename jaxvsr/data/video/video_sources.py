"""Frame sources of every kind: scans, colour folders, video files, folders and sets of images."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8

from jaxvsr.data.video.image_order import OrderedImages, ordered_images
from jaxvsr.data.video.picture_files import IMAGE_SUFFIXES, read_image
from jaxvsr.data.video.scan_frames import FrameSource, SensSource, average_fps, color_frames_promised
from jaxvsr.data.video.video_file import VideoFileSource
from jaxvsr.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".gif")
# Where ScanNet's exporter and its forks put colour frames: 0.jpg, 1.jpg, … or frame-000000.color.jpg.
COLOR_FOLDERS = ("color", "exported/color")
SCANNET_FPS = 30.0


class ImageSource:
    """Images as frames, in the given order; all must have the size of the first.

    `times`: seconds since the first image, strictly increasing.
    """

    def __init__(self, name: str, paths: Sequence[Path], times: Float64[np.ndarray, " F"]) -> None:
        self.name = name
        self.bytes_on_disk = sum(path.stat().st_size for path in paths)
        self.flaws: dict[str, int] = {}
        self._paths = list(paths)
        self._times = times

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def fps(self) -> float:
        return average_fps(self._times)

    @functools.cached_property
    def _shape(self) -> tuple[int, ...]:
        return read_image(self._paths[0]).shape

    def frame(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        path = self._paths[index]
        pixels = read_image(path)
        if pixels.shape != self._shape:
            height, width, _ = self._shape
            size = f"{pixels.shape[0]}×{pixels.shape[1]}"
            raise InputError(f"{path}: has {size} pixels, but the first image of the folder has {height}×{width}")
        return pixels

    def frames(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        return map(self.frame, indices)

    def timestamps(self, indices: Sequence[int]) -> Float64[np.ndarray, " F"]:
        return self._times[np.asarray(indices, np.int64)]

    def sha256(self, indices: Sequence[int]) -> str:
        digest = hashlib.sha256()
        for index in indices:
            payload = self._paths[index].read_bytes()
            digest.update(f"{index}:{len(payload)}:".encode() + payload)
        return digest.hexdigest()


def open_images(name: str, paths: Sequence[Path]) -> FrameSource:
    """A set of images, one per second.

    Raises:
        InputError: one of them does not exist.
    """
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such image")
    return ImageSource(name, paths, np.arange(len(paths), dtype=np.float64))


def open_image_folder(folder: Path) -> FrameSource:
    """The images of a folder by the number in their names that changes: at their times where the names are times
    (`1305031102.175304.png`), else one per second.
    """
    images = _images(folder)
    if images.seconds is None:
        return open_images(folder.name, images.paths)
    return ImageSource(folder.name, images.paths, np.array(images.seconds))


def open_color_folder(scan_dir: Path, folder: Path) -> FrameSource:
    """The colour frames that were extracted from a scan's `.sens`.

    The numbers in their names are frame numbers at 30 per second (`20.jpg`, `frame-000020.color.jpg`: after two thirds
    of a second), or times; without them they count as consecutive. `flaws`: `color_frames_differ` (by how many frames
    `numColorFrames` of `<scene>.txt` differs, if the numbers have no gap).
    """
    images = _images(folder)
    numbers = images.numbers or tuple(range(len(images.paths)))
    frames = (np.array(numbers, np.float64) - numbers[0]) / SCANNET_FPS
    name = f"{scan_dir.name}/{folder.relative_to(scan_dir).as_posix()}"
    source = ImageSource(name, images.paths, frames if images.seconds is None else np.array(images.seconds))
    promised = color_frames_promised(scan_dir / f"{scan_dir.name}.txt")
    if promised is not None and numbers[-1] - numbers[0] + 1 == len(numbers) != promised:
        source.flaws = {"color_frames_differ": abs(promised - len(numbers))}
    return source


def color_folder(scan_dir: Path) -> Path | None:
    """`color/` or `exported/color/` of a scan folder, or None."""
    return next((scan_dir / name for name in COLOR_FOLDERS if (scan_dir / name).is_dir()), None)


def open_video(path: Path) -> FrameSource:
    """A `.sens`, a scan folder with one or with extracted colour frames, a folder of images, a video or an image.

    Raises:
        InputError: it does not exist, or cannot be read.
    """
    if path.is_dir():
        sens = path / f"{path.resolve().name}.sens"
        if sens.is_file():
            return SensSource(sens)
        colors = color_folder(path)
        return open_image_folder(path) if colors is None else open_color_folder(path, colors)
    if not path.is_file():
        raise InputError(f"{path}: no such video; expected an mp4, a .sens file or a folder of images")
    if path.suffix.lower() == ".sens":
        return SensSource(path)
    return open_images(path.name, [path]) if path.suffix.lower() in IMAGE_SUFFIXES else VideoFileSource(path)


def files_of_video(path: Path) -> Iterator[Path]:
    """The files that `open_video` may read, those with frames first; they need not be there."""
    folder, sens = path.is_dir(), path / f"{path.name}.sens" if path.is_dir() else path
    if folder and not sens.is_file():
        yield from (color_folder(path) or path).iterdir()
    else:
        yield sens
    yield sens.with_suffix(".txt")


def is_there(path: Path) -> bool:
    """Whether there is anything at `path` for `open_video` to read."""
    if not path.is_dir():
        return path.exists()
    if (path / f"{path.resolve().name}.sens").exists() or color_folder(path) is not None:
        return True
    return any(one.suffix.lower() in IMAGE_SUFFIXES for one in path.iterdir())


def _images(folder: Path) -> OrderedImages:
    images = ordered_images(folder)
    if images is None:
        raise InputError(
            f"{folder}: no such file {folder.name}.sens, no {' or '.join(COLOR_FOLDERS)} folder and no images "
            f"({', '.join(IMAGE_SUFFIXES)}) in it"
        )
    return images
