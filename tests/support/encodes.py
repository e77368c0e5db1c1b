"""Videos as encoders write them, and the frames that the ffmpeg program shows of them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FPS = 30
GREYS = tuple(2 * index for index in range(120))

# Kinds of groups: name → encoder, its options, B-frames in a row and length of a group where the encoder takes them so.
ENCODINGS: dict[str, tuple[str, dict[str, str], int | None, int | None]] = {
    "mpeg4-b": ("mpeg4", {"b": "2M"}, 2, 12),
    "mpeg4": ("mpeg4", {"b": "2M"}, 0, 12),
    "mpeg2-b": ("mpeg2video", {"b": "4M"}, 2, 12),
    "h264": ("libx264", {"crf": "10"}, None, None),
    "h264-closed": ("libx264", {"crf": "10", "x264-params": "keyint=24:scenecut=0"}, None, None),
    "h264-open": ("libx264", {"crf": "10", "x264-params": "keyint=24:open-gop=1:b-adapt=0:scenecut=0"}, None, None),
    "h264-intra": ("libx264", {"crf": "10"}, None, 1),
    "h264-refresh": ("libx264", {"crf": "10", "x264-params": "intra-refresh=1:keyint=24"}, None, None),
    "hevc-open": ("libx265", {"crf": "10", "x265-params": "keyint=24:open-gop=1:bframes=4:log-level=none"}, None, None),
    "hevc-closed": ("libx265", {"crf": "10", "x265-params": "keyint=24:open-gop=0:log-level=none"}, None, None),
    "vp8": ("libvpx", {"b": "2M", "crf": "4", "auto-alt-ref": "1", "lag-in-frames": "16"}, None, None),
    "vp9": ("libvpx-vp9", {"b": "2M", "crf": "4", "auto-alt-ref": "1", "lag-in-frames": "16"}, None, None),
    "mjpeg": ("mjpeg", {"q": "2"}, None, None),
    "ffv1": ("ffv1", {"level": "3", "slicecrc": "1"}, None, None),
}  # fmt: skip


def encode(
    path: Path,
    encoding: str = "h264",
    greys: Sequence[int] = GREYS,
    *,
    noise: int = 0,
    times_ms: Sequence[int] | None = None,
    width: int = 64,
    height: int = 48,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A video of plain frames, one of each grey, with up to `noise` added to it; 30 a second, or at `times_ms`."""
    codec, options, b_frames, group = ENCODINGS[encoding]
    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        stream: Any = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if group is not None:
            stream.codec_context.gop_size = group
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, grey in enumerate(greys):
            pixels = np.full((height, width, 3), grey, np.uint8)
            if noise:
                pixels += rng.integers(0, noise, (height, width, 1), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run the ffmpeg program; what it writes to stdout."""
    command = [FFMPEG, "-v", "error", "-y", "-nostdin", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout


def shown_by_ffmpeg(path: Path, height: int = 48, width: int = 64) -> np.ndarray:
    """All frames [F, H, W, 3] as the ffmpeg program decodes them: no other library of ours reads the file."""
    raw = ffmpeg("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-sws_flags", "neighbor", "-f", "rawvideo",
                 "-pix_fmt", "rgb24", "-")  # fmt: skip
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def packet_places(path: Path) -> list[tuple[int, int, int]]:
    """Place and length in the file of each packet as stored, and the number of its frame as shown; for files with
    times.
    """
    with av.open(str(path)) as container:
        packets: list[Any] = [(p.pos, p.size, p.pts) for p in container.demux(video=0) if p.size]
    times = sorted(pts for _, _, pts in packets)
    return [(place, size, times.index(pts)) for place, size, pts in packets]
