"""Frame sources of every kind: scans, colour folders, files that decord reads (mp4 and others), sets of images."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from jaxvsr.data.video.scan_frames import FrameSource, SensSource, average_fps, color_frames_promised
from jaxvsr.errors import InputError, one_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif")
# Where ScanNet's exporter and its forks put colour frames: 0.jpg, 1.jpg, … or frame-000000.color.jpg.
COLOR_FOLDERS = ("color", "exported/color")
SCANNET_FPS = 30.0
IMAGE_LIMIT_PIXELS = 1 << 26  # 8k × 8k
_VIDEO_LIMIT_FRAMES = 1 << 24
_CHUNK_BYTES = 1 << 20


_stderr = threading.Lock()


@contextlib.contextmanager
def _without_decords_log() -> Iterator[None]:
    """Discard stderr: decord writes a line about each file that it cannot open, whatever its log level."""
    with _stderr, Path(os.devnull).open("wb") as nowhere:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class VideoFileSource:
    """The frames of a video file, decoded by decord."""

    def __init__(self, path: Path) -> None:
        try:
            import decord
        except ImportError:
            raise InputError(f"{path}: reading video needs decord: pip install 'jaxvsr[scans]'") from None
        self.name = path.name
        self.bytes_on_disk = path.stat().st_size
        self.flaws: dict[str, int] = {}
        self._path = path
        self._one_at_a_time = threading.Lock()  # decord's readers are not thread-safe
        decord.logging.set_level(decord.logging.FATAL)  # errors are raised below
        try:
            with _without_decords_log():
                self._reader: Any = decord.VideoReader(str(path), num_threads=1)
            self._length = len(self._reader)
            self._fps = float(self._reader.get_avg_fps())
        except Exception as error:  # decord raises its own kinds and RuntimeError
            raise InputError(f"{path}: not a video that decord can read ({one_line(error)})") from None
        if not 0 < self._length <= _VIDEO_LIMIT_FRAMES:
            raise InputError(f"{path}: has {self._length} frames by its header; expected 1 to {_VIDEO_LIMIT_FRAMES}")

    def __len__(self) -> int:
        return self._length

    @property
    def fps(self) -> float:
        return self._fps

    def frame(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        try:
            with self._one_at_a_time:
                return np.asarray(self._reader[int(index)].asnumpy())
        except Exception as error:
            raise InputError(f"{self._path}: cannot decode frame {index} ({one_line(error)})") from None

    def timestamps(self, indices: Sequence[int]) -> Float64[np.ndarray, " F"]:
        starts = np.asarray(self._reader.get_frame_timestamp([int(index) for index in indices]))[:, 0]
        seconds = starts.astype(np.float64) - float(self._reader.get_frame_timestamp([0])[0, 0])
        if not np.isfinite(seconds).all():
            raise InputError(f"{self._path}: a frame's time is not finite")
        return seconds

    def sha256(self, indices: Sequence[int]) -> str:
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        digest.update(",".join(map(str, indices)).encode())
        return digest.hexdigest()


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
    """The images of a folder, ordered by their numbers or else by their names, one per second."""
    return open_images(folder.name, _images(folder))


def open_color_folder(scan_dir: Path, folder: Path) -> FrameSource:
    """The colour frames that were extracted from a scan's `.sens`.

    The numbers in their names are frame numbers at 30 per second (`20.jpg`, `frame-000020.color.jpg`: after two thirds
    of a second); without numbers they count as consecutive. `flaws`: `color_frames_differ` (by how many frames
    `numColorFrames` of `<scene>.txt` differs, if the numbers have no gap).
    """
    paths = _images(folder)
    numbers = [number_of(path) for path in paths]
    known = [number for number in numbers if number is not None]
    if len(known) != len(paths) or len(set(known)) != len(known):
        known = list(range(len(paths)))
    times = (np.array(known, np.float64) - known[0]) / SCANNET_FPS
    source = ImageSource(f"{scan_dir.name}/{folder.relative_to(scan_dir).as_posix()}", paths, times)
    promised = color_frames_promised(scan_dir / f"{scan_dir.name}.txt")
    if promised is not None and known[-1] - known[0] + 1 == len(paths) != promised:
        source.flaws = {"color_frames_differ": abs(promised - len(paths))}
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


def is_there(path: Path) -> bool:
    """Whether there is anything at `path` for `open_video` to read."""
    if not path.is_dir():
        return path.exists()
    if (path / f"{path.resolve().name}.sens").exists() or color_folder(path) is not None:
        return True
    return any(one.suffix.lower() in IMAGE_SUFFIXES for one in path.iterdir())


def number_of(path: Path) -> int | None:
    """The frame number in an image's name: the only number before the first dot; None if there is none or several."""
    found = re.findall(r"\d+", path.name.split(".")[0])
    return int(found[0]) if len(found) == 1 and len(found[0]) <= 9 else None


def _images(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not paths:
        raise InputError(
            f"{folder}: no such file {folder.name}.sens, no {' or '.join(COLOR_FOLDERS)} folder and no images "
            f"({', '.join(IMAGE_SUFFIXES)}) in it"
        )
    numbers = {path: number_of(path) for path in paths}
    if None in numbers.values():
        return sorted(paths)
    return sorted(paths, key=lambda path: (numbers[path], path.name))


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """RGB pixels of an image file, turned upright by its EXIF orientation; the size is checked before decoding."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height <= IMAGE_LIMIT_PIXELS:
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # decoders raise many kinds on broken data
        raise InputError(f"{path}: not an image that can be read ({one_line(error)})") from None
    raise InputError(f"{path}: has {height}×{width} pixels by its header; expected at most {IMAGE_LIMIT_PIXELS:,}")
