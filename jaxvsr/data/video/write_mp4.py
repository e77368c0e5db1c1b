"""Frames of a scan or of images as an mp4 (H.264) that players, browsers and other tools read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from jaxvsr.data.video.scan_frames import FrameSource
from jaxvsr.files import replacing

TICKS = 1000  # of a time, per second
QUALITY = "18"  # H.264's constant rate factor: 0 is without loss, 18 looks like it


def write_mp4(source: FrameSource, path: Path) -> None:
    """Write all frames at their times. The file has even sides: an odd last row or column is cut off.

    Raises:
        InputError: a frame cannot be read, or the file not be written.
    """
    import av

    indices = list(range(len(source)))
    times = [round(TICKS * float(second)) for second in source.timestamps(indices)]
    with replacing(path) as partial, av.open(f"file:{partial}", "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(source.fps or 1).limit_denominator(1001))
        stream.options, stream.pix_fmt = {"crf": QUALITY}, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        for time, pixels in zip(times, source.frames(indices), strict=True):
            height, width = (side // 2 * 2 for side in pixels.shape[:2])
            if not stream.codec_context.is_open:
                stream.height, stream.width = height, width
            frame = av.VideoFrame.from_ndarray(pixels[:height, :width].copy(), format="rgb24")
            frame.pts, frame.time_base = time, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
