"""The frames of a video file by number: frame i is the i-th that a player shows, at its own time, in every run.

PyAV decodes, forward from the first packet, and never seeks. A decoder that seeks counts frames from a key frame on,
and that frame is not what it seems: in an open group frames that are shown before it follow it, a key frame of
periodic intra refresh is no whole picture, AVI has no times of display, and a clip that was cut without encoding
begins with frames that are not to be shown. decord, which seeks, gives other frames than asked for in such files, and
neither the packets nor the container tell which files they are. It is one of the decoders that tests compare with.

Decoding everything also finds damage. A decoder hides it behind copies of the last good frame; here errors that
FFmpeg detects end in an `InputError` with the frame's number. Codecs with little redundancy (HEVC, VP8, VP9, AV1, and
H.264 in places) decode changed bits to other pixels, and no decoder notices.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from jaxvsr.data.video.container_length import bytes_promised, ends_as_gif
from jaxvsr.data.video.picture_files import on_white
from jaxvsr.data.video.scan_frames import average_fps
from jaxvsr.data.video.video_packets import VIDEO_LIMIT_FRAMES, demuxed, opened, read_packets
from jaxvsr.errors import InputError, one_line, prefixed

_CHUNK_BYTES = 1 << 20
_SAME_RATE = 0.02
_SLANT = 0.01  # how far a turn may be from a quarter turn, as a tangent
_TIES = 0.1  # of the frames may have the time of the one before, as a bad muxer writes it; more are no times at all


class VideoFileSource:
    """The frames of a video file (mp4, mkv, webm, avi, gif, and what else FFmpeg reads), upright, as RGB.

    Transparent pixels lie on white. Every reading opens the file anew, so that threads share nothing.

    Raises:
        InputError: it is no video, is cut off, or holds fewer frames than it says; when frames are read: one of them
            is damaged, has another size than the first, or is not of colour.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.bytes_on_disk = path.stat().st_size
        self.flaws: dict[str, int] = {}
        self._path = path
        self._check_length()
        self._packets = read_packets(path)
        self._sound = False  # all of it was decoded without an error
        if self._packets.times is not None and self._packets.counted:
            self._ticks: Sequence[int] = self._packets.times
        else:
            self._ticks = self._count_by_decoding()
        if not 0 < len(self._ticks) <= VIDEO_LIMIT_FRAMES:
            raise InputError(f"{path}: has {len(self._ticks)} frames; expected 1 to {VIDEO_LIMIT_FRAMES}")

    def __len__(self) -> int:
        return len(self._ticks)

    @functools.cached_property
    def fps(self) -> float:
        measured = average_fps(self._seconds)
        near = [rate for rate in self._packets.rates if abs(rate / measured - 1) < _SAME_RATE]
        return min(near, key=lambda rate: abs(rate / measured - 1), default=measured)

    @functools.cached_property
    def _seconds(self) -> Float64[np.ndarray, " N"]:
        return (np.asarray(self._ticks, np.float64) - self._ticks[0]) * self._packets.time_base

    def frame(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        (pixels,) = self.frames([index])
        return pixels

    def frames(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Ascending indices. The first time, the file is decoded to its end: an error there is raised after the last
        of the frames.
        """
        wanted = [int(index) for index in indices]
        if wanted != sorted(set(wanted)) or not 0 <= min(wanted) <= max(wanted) < len(self):
            raise InputError(f"{self._path}: frames {wanted}: expected ascending numbers below {len(self)}")
        from av.video.reformatter import VideoReformatter

        converter = VideoReformatter()  # has threads; a picture's own would live as long as Python lets the picture
        size: tuple[int, ...] | None = None
        remaining = iter(wanted)
        following = next(remaining)
        shown = 0
        # H.264 that was cut begins with pictures that only concealing makes whole; its errors were looked for at first.
        with contextlib.closing(self._decode(strict=not self._packets.open_start)) as pictures:
            for picture in pictures:
                if shown >= len(self._ticks) or (self._packets.counted and picture.pts != self._ticks[shown]):
                    break
                if size is None:
                    size = (picture.height, picture.width)
                elif size != (picture.height, picture.width):
                    raise InputError(
                        f"{self._path}: frame {shown} has {picture.height}×{picture.width} pixels, but the first one "
                        f"has {size[0]}×{size[1]}"
                    )
                if shown == following:
                    yield self._pixels(picture, shown, converter)
                    following = next(remaining, -1)
                shown += 1
                if following < 0 and self._sound:
                    return
            else:
                if shown == len(self._ticks):
                    self._sound = True
                    return
        raise InputError(f"{self._path}: frame {shown} of {len(self)} is lost: the file is damaged")

    def timestamps(self, indices: Sequence[int]) -> Float64[np.ndarray, " F"]:
        return self._seconds[np.asarray(indices, np.int64)]

    def sha256(self, indices: Sequence[int]) -> str:
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        digest.update(",".join(map(str, indices)).encode())
        return digest.hexdigest()

    def _check_length(self) -> None:
        promised = bytes_promised(self._path)
        if promised is not None and promised > self.bytes_on_disk:
            raise InputError(
                f"{self._path}: is cut off: {promised:,} bytes by its header, {self.bytes_on_disk:,} in the file"
            )
        if ends_as_gif(self._path) is False:
            raise InputError(f"{self._path}: is cut off: a GIF ends with a semicolon")

    def _count_by_decoding(self) -> Sequence[int]:
        """The times of all frames that the decoder shows; leaves no doubt, and takes as long as showing them."""
        packets, times = self._packets, [picture.pts for picture in self._decode(strict=True)]
        self._sound = True
        rising = None not in times and all(a <= b for a, b in itertools.pairwise(times))
        rising = rising and len(times) - len(set(times)) <= len(times) * _TIES
        if packets.frame_a_packet and (number := self._first_lost(times if rising else None, len(times))) is not None:
            raise InputError(f"{self._path}: frame {number} of {packets.count} is lost: the file is damaged")
        if rising:
            return times
        if packets.stored_times is not None and len(packets.stored_times) == len(times):
            return packets.stored_times
        step = 1 / packets.time_base / (packets.rates or (1.0,))[0]
        return [round(index * step) for index in range(len(times))]

    def _first_lost(self, times: Sequence[int] | None, count: int) -> int | None:
        """The number of a packet that should have been a frame, after `count` frames at `times` were decoded.

        Frames before the first one that is shown may be missing, if what they need was cut away with their group.
        """
        packets = self._packets
        lost = packets.count - count
        if lost <= packets.empty or not count:
            return None if count else 0
        if times is None:
            return None if packets.open_start else count
        if packets.times is None:  # then these are times of storing, and grow by one at each packet
            steps = {b - a for a, b in itertools.pairwise(times)}
            return None if packets.open_start or len(steps) <= 1 else count
        begin = times[0] if packets.open_start else min(times[0], packets.first_key or times[0])
        expected = [time for time in packets.times if time >= begin]
        known = set(times)
        missing = [time for time in expected if time not in known]
        return packets.times.index(missing[0]) if len(missing) > packets.empty else None

    def _decode(self, *, strict: bool) -> Generator[Any, None, None]:
        """All pictures that a player shows, in the order in which it shows them; with `strict`, errors that the decoder
        could conceal are raised, and change what it shows.
        """
        import av

        with opened(self._path) as (container, stream):
            context = stream.codec_context
            context.thread_count = 1  # an error belongs to the packet that was just given
            if strict:
                context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            order = shown = 0
            for packet in demuxed(self._path, container, stream):
                try:
                    pictures = packet.decode()
                except av.FFmpegError as error:
                    if self._packets.open_start and not shown:
                        continue
                    number = self._number(packet, order, shown)
                    raise InputError(
                        f"{self._path}: frame {number} is damaged: it cannot be decoded ({one_line(error)})"
                    ) from None
                order += packet.size > 0 and not packet.is_discard
                for picture in pictures:
                    if picture.is_corrupt:
                        raise InputError(f"{self._path}: frame {shown} is damaged: the decoder conceals a part of it")
                    yield picture
                    shown += 1

    def _number(self, packet: Any, order: int, shown: int) -> int:
        if self._packets.times is None or packet.pts is None:
            return order if packet.size else shown
        return bisect.bisect_left(self._packets.times, packet.pts)

    def _pixels(self, picture: Any, index: int, converter: Any) -> UInt8[np.ndarray, "H W 3"]:
        """Upright RGB; each pixel has the colour of its own block, as in FFmpeg's conversion of 8-bit video."""
        components = picture.format.components
        if len(components) == 1 and components[0].bits > 8 and not picture.format.has_palette:
            raise InputError(
                f"{self._path}: frame {index} has one channel of {components[0].bits} bits: is this depth? Expected "
                "colour"
            )
        try:
            if any(component.is_alpha for component in components) or picture.format.has_palette:
                rgba = converter.reformat(picture, format="rgba", interpolation="POINT").to_ndarray()
                pixels = np.asarray(on_white(Image.fromarray(rgba)))
            else:
                pixels = converter.reformat(picture, format="rgb24", interpolation="POINT").to_ndarray()
        except Exception as error:  # FFmpeg has no conversion, or no memory
            raise InputError(f"{self._path}: frame {index} cannot be read as RGB ({one_line(error)})") from None
        with prefixed(str(self._path)):
            return _upright(pixels, picture)


def _upright(pixels: UInt8[np.ndarray, "h w 3"], picture: Any) -> UInt8[np.ndarray, "H W 3"]:
    """Turned and mirrored by quarters as the container's display matrix says.

    Raises:
        InputError: it turns by another angle.
    """
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)[:2, :2].tolist()
    straight, crossed = abs(a) + abs(d), abs(b) + abs(c)
    if min(straight, crossed) > _SLANT * max(straight, crossed):
        degrees = math.degrees(math.atan2(b, a))
        raise InputError(f"is to be shown turned by {degrees:.0f} degrees; expected quarter turns: encode it upright")
    if straight >= crossed:
        turned, down, right = pixels, d, a
    else:
        turned, down, right = pixels.transpose(1, 0, 2), b, c
    return np.ascontiguousarray(turned[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])
