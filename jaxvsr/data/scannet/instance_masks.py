"""ScanNet's `_2d-instance-filt.zip`: an 8-bit PNG per frame whose pixels are objectId + 1, or 0 without an object."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image

from jaxvsr.errors import InputError, one_line
from jaxvsr.files import replacing

# A 1296×968 mask has about 20 kB.
_PNG_LIMIT_BYTES = 1 << 24
_IMAGE_LIMIT_PIXELS = 1 << 24
# A fixed time, the earliest in a zip, so that the same masks always give the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclasses.dataclass(frozen=True, eq=False)
class PixelCounts:
    """How much of each frame each object fills.

    `frames` are the indices of the frames with a mask, ascending, `times_s` their seconds; `object_ids` are the
    objectIds of the objects that are seen at all; `shares` of a frame's pixels are from 0 to 1.
    """

    frames: Int64[np.ndarray, " F"]
    times_s: Float64[np.ndarray, " F"]
    object_ids: Int64[np.ndarray, " K"]
    shares: Float64[np.ndarray, "F K"]


class InstanceMasks:
    """The masks of one scan, read one at a time. `frames` are the indices of the frames with a mask, ascending."""

    entry = re.compile(r"instance(?:-filt)?/(\d{1,9})\.png")
    modes: tuple[str, ...] = ("L",)
    expected = "instance-filt/{frame}.png, an 8-bit PNG"

    def __init__(self, path: Path):
        self.path = path
        self._entries: dict[int, str] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except Exception as error:  # broken archives raise many kinds
            raise InputError(f"{path}: not a readable zip ({one_line(error)})") from None
        for name in names:
            if ".." in PurePosixPath(name).parts or name.startswith("/") or "\\" in name:
                raise InputError(f"{path}: entry {name[:80]!r} points outside the archive; refused")
            if match := self.entry.fullmatch(name):
                self._entries[int(match[1])] = name
        self.frames = tuple(sorted(self._entries))

    def read(self, frame: int) -> UInt8[np.ndarray, "H W"]:
        """The mask of one frame; `InputError` if there is none or it is not an 8-bit PNG."""
        with self._open() as archive:
            return np.asarray(self._image(archive, frame))

    def count_pixels(self) -> Int64[np.ndarray, "F 256"]:
        """The number of pixels with each value, in every frame of `frames`; the archive is opened once.

        Raises:
            InputError: a mask is not an 8-bit PNG.
        """
        counts = np.zeros((len(self.frames), 256), np.int64)
        with self._open() as archive:
            for row, frame in enumerate(self.frames):
                # Pillow's histogram takes half the time of counting an array.
                counts[row] = self._image(archive, frame).histogram()
        return counts

    def fingerprint(self) -> str:
        """A hash of the names, sizes and checksums of all entries."""
        with self._open() as archive:
            entries = [f"{info.filename}:{info.file_size}:{info.CRC}" for info in archive.infolist()]
        return hashlib.sha256("\n".join(entries).encode("utf-8", "surrogatepass")).hexdigest()

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except Exception as error:  # changed since `__init__`
            raise InputError(f"{self.path}: not a readable zip ({one_line(error)})") from None

    def _image(self, archive: zipfile.ZipFile, frame: int) -> Image.Image:
        expected = self.expected.format(frame=frame)
        if frame not in self._entries:
            raise InputError(f"{self.path}: no mask for frame {frame}; expected {expected}")
        name = self._entries[frame]
        try:
            with archive.open(name) as entry:
                data = entry.read(_PNG_LIMIT_BYTES + 1)
            image = Image.open(BytesIO(data), formats=["png"])
            if image.mode in self.modes and image.width * image.height <= _IMAGE_LIMIT_PIXELS:
                image.load()
                return image
        except Exception as error:  # the zip and PNG decoders raise many kinds on broken data
            raise InputError(f"{self.path}: {name} cannot be decoded ({one_line(error)})") from None
        found = f"{image.width}x{image.height} {image.mode}"
        raise InputError(f"{self.path}: {name} is a {found}; expected {expected}")


def write_instance_masks(path: Path, masks: Iterable[UInt8[np.ndarray, "H W"]]) -> None:
    """Write the masks of frames 0, 1, …"""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for frame, mask in enumerate(masks):
            png = BytesIO()
            Image.fromarray(mask).save(png, "png", compress_level=1)
            info = zipfile.ZipInfo(f"instance-filt/{frame}.png", _ZIP_TIME)
            info.create_system, info.external_attr = 3, 0o644 << 16  # the same on every machine
            archive.writestr(info, png.getvalue())
