"""What the packets of a video file say without being decoded: how many frames, when, and whether all are there."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxvsr.data.video.picture_files import IMAGE_LIMIT_PIXELS
from jaxvsr.errors import InputError, one_line

VIDEO_LIMIT_FRAMES = 1 << 24
# A packet of these codecs is one frame that is shown; of others it may be several, or none (VP8).
_FRAME_A_PACKET = frozenset(("h264", "hevc", "vp9", "av1", "mjpeg", "mpeg4", "mpeg2video", "ffv1", "prores", "dnxhd"))
_WITH_TIMES = ("mov", "matroska")  # FFmpeg's demuxers of containers with a time of display for each packet
_EMPTY_FRAME_BYTES = 16  # MPEG-4: "as before"; in some files no frame of its own
_SLACK_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class VideoPackets:
    """The packets that are to be shown. Times are in units of `time_base` seconds, and ascend.

    Args:
        count: how many packets.
        empty: how many of them may be no frame.
        frame_a_packet: whether the others are a frame each.
        times: when the frames are shown; None if no packet says it.
        untimed: how many packets do not say it, or the same time as another.
        stored_times: when they are decoded, which are the times at which they are shown, in another order and later;
            None if a packet does not say it.
        first_key: when the first key frame is shown.
        open_start: H.264 that begins with a picture that others before it in time belong to, or with one that only
            becomes whole by those after it: it was cut out of a longer video.
        rates: frames per second that the container gives.
        counted: whether `times` are known to be those of the frames.
    """

    count: int
    empty: int
    frame_a_packet: bool
    times: tuple[int, ...] | None
    untimed: int
    stored_times: tuple[int, ...] | None
    first_key: int | None
    open_start: bool
    time_base: float
    rates: tuple[float, ...]
    counted: bool


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its video stream; of several the best, which a picture of the cover is not.

    Raises:
        InputError: it is no video that FFmpeg can read.
    """
    try:
        import av
    except ImportError:
        raise InputError(f"{path}: reading video needs av: pip install 'jaxvsr[scans]'") from None
    av.logging.set_level(None)  # nothing on stderr: errors are raised
    # Titles need not be UTF-8. From PyAV 19 on they never raise, and there is no such option.
    titles: Any = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
    try:
        # A colon in a name is no protocol, and a playlist that is named .mp4 reads nothing from elsewhere.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"}, **titles)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a video that FFmpeg can read ({one_line(error)})") from None
    with container:
        stream = container.streams.best("video")
        context: Any = None if stream is None else stream.codec_context
        if context is None:
            what = "it has no video stream" if stream is None else "there is no decoder for it"
            raise InputError(f"{path}: not a video that FFmpeg can read ({what})")
        if context.width * context.height > IMAGE_LIMIT_PIXELS:
            size = f"{context.height}×{context.width}"
            raise InputError(f"{path}: has {size} pixels by its header; expected at most {IMAGE_LIMIT_PIXELS:,}")
        yield container, stream


def demuxed(path: Path, container: Any, *streams: Any) -> Iterator[Any]:
    """The packets as they are stored, of these streams or of all; `InputError` where the container is damaged."""
    import av

    try:
        yield from container.demux(*streams)
    except av.FFmpegError as error:
        raise InputError(f"{path}: is cut off or damaged ({one_line(error)})") from None


def read_packets(path: Path) -> VideoPackets:
    """Read all packets of a video file.

    Raises:
        InputError: it is no video, or ends before it says.
    """
    with opened(path) as (container, stream):
        codec, kind = stream.codec_context.codec.canonical_name, container.format.name
        found: list[Any] = []  # (pts, dts, size, whether it is to be shown)
        keys: list[Any] = []  # pts
        open_start = False
        end = 0.0  # of all streams, in seconds
        last = 0.0  # of the video
        for packet in demuxed(path, container):
            if packet.size == 0:
                continue
            start = packet.dts if packet.pts is None else packet.pts
            seconds = 0.0 if start is None else float((start + (packet.duration or 0)) * packet.time_base)
            end = max(end, seconds)
            if packet.stream_index != stream.index:
                continue
            if packet.is_corrupt or len(found) >= VIDEO_LIMIT_FRAMES:
                what = "is not whole" if packet.is_corrupt else "is one too many for a video"
                raise InputError(f"{path}: is cut off or damaged: packet {len(found)} {what}")
            last = max(last, seconds)
            if not found and codec == "h264":
                open_start = 5 not in _kinds_of_units(bytes(packet), stream.codec_context.extradata or b"")
            found.append((packet.pts, packet.dts, packet.size, not packet.is_discard))
            if packet.is_keyframe:
                keys.append(packet.pts)
        shown = [packet for packet in found if packet[3]]
        times = tuple(sorted({pts for pts, *_ in shown if pts is not None}))
        stored = sorted({dts for _, dts, *_ in shown if dts is not None})
        empty = sum(size <= _EMPTY_FRAME_BYTES for _, _, size, _ in shown) if codec == "mpeg4" else 0
        begin = min((pts for pts, *_ in found if pts is not None), default=0) * float(stream.time_base)
        packets = VideoPackets(
            count=len(shown),
            empty=empty,
            frame_a_packet=codec in _FRAME_A_PACKET,
            times=times or None,
            untimed=len(shown) - len(times),
            stored_times=tuple(stored) if len(stored) == len(shown) else None,
            first_key=keys[0] if keys else None,
            open_start=open_start,
            time_base=float(stream.time_base),
            rates=tuple(float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate),
            counted=0 < len(times) == len(shown) == len(found)
            and not (empty or open_start)
            and codec in _FRAME_A_PACKET
            and kind.startswith(_WITH_TIMES)
            and times[:1] == tuple(keys[:1]) == (shown[0][0],),
        )
        _check_promises(path, container, stream, len(found), packets, end, begin, last)
    return packets


def _kinds_of_units(packet: bytes, header: bytes) -> set[int]:
    """The kinds of the units in a packet of H.264 (7.3.1 of its specification): 5 is a picture to begin with."""
    if header[:1] != b"\1":  # start codes between units
        return {unit[0] & 31 for unit in packet.split(b"\0\0\1")[1:] if unit}
    width, at, kinds = (header[4] & 3) + 1, 0, set()
    while at + width < len(packet):
        kinds.add(packet[at + width] & 31)
        at += width + int.from_bytes(packet[at : at + width], "big")
    return kinds


def _check_promises(
    path: Path, container: Any, stream: Any, count: int, packets: VideoPackets, end: float, begin: float, last: float
) -> None:
    """Refuse a file that holds fewer frames, or ends earlier, than its header says."""
    kind, tags = container.format.name, stream.metadata
    gaps = [b - a for a, b in itertools.pairwise(packets.times or packets.stored_times or ())]
    slack = 1.5 * max(gaps, default=0) * packets.time_base + _SLACK_SECONDS
    tagged = next((tags[name] for name in sorted(tags) if name.startswith("NUMBER_OF_FRAMES")), "")
    promised = int(tagged) if tagged.isdecimal() else 0
    if kind == "avi" and stream.duration:
        promised, count = int(stream.frames), max(count, round(last / packets.time_base))
    if count < promised:
        raise InputError(f"{path}: is cut off: {promised} frames by its header, {count} in the file")
    seconds, there = 0.0, end
    if kind.startswith("mov") and stream.duration:
        seconds = float(stream.duration * stream.time_base)
        there = last - begin  # frames that an edit list hides count in some files, and in others not
    elif kind.startswith(("matroska", "flv", "asf")) and container.duration:
        seconds = container.duration / 1e6
    if there + slack < seconds:
        raise InputError(f"{path}: is cut off: {seconds:.2f} seconds by its header, {there:.2f} in the file")
