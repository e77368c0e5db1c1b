"""Which frames are taken from a video: uniform sampling, by the rules of three libraries and of Qwen3-VL.

The rules differ in rounding and in the last frame. Three of seven frames, number 0 to 6, at 2 frames per second:

    linspace        0 3 6     lmms-eval: int(linspace(0, total - 1, count)), which includes the last frame
    qwen-vl-utils   0 3 6     linspace rounded to the nearest, halves to even
    huggingface     0 2 4     int(arange(0, total, total / count)), without the end of the video
    qwen3-vl        0 3 6     linspace rounded to the nearest, halves to even, in float64
    lmms-eval       0 2 6     its qwen2_vl: qwen-vl-utils at 2 frames per second (six: 0 1 2 4 5 6), linspace of these

Here a count always gives `count` frames, each once. The libraries differ from that in three cases:

- huggingface: if `total / count` is rounded down, arange gives one frame too many (4.6 % of all pairs with total up to
  1,500 and count up to 64); here the last one is left out.
- linspace: lmms-eval appends the last frame if it is missing, which is only so for a count of 1; here it is one frame.
- shorter videos: lmms-eval repeats frames, qwen-vl-utils and huggingface refuse; they are refused here.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Int64

from jaxvsr.errors import InputError

SamplingRule = Literal["linspace", "qwen-vl-utils", "huggingface", "qwen3-vl", "lmms-eval"]
# Sides of frames are multiples of this many pixels, a token's side in the models that a rule belongs to.
SIDE_OF_TOKEN: dict[SamplingRule, int] = {"qwen3-vl": 32}
# A temporal patch of Qwen2-VL and Qwen2.5-VL is two frames, so their samplers take even numbers.
_FRAME_FACTOR = 2


def sample_indices(
    total: int, count: int, rule: SamplingRule = "linspace", video_fps: float | None = None
) -> Int64[np.ndarray, " F"]:
    """Indices of `count` frames out of `total`, ascending, each once; only lmms-eval's rule needs `video_fps`.

    Raises:
        InputError: fewer than `count` frames.
    """
    if total < count:
        raise InputError(f"has {total} frames, fewer than the {count} asked for")
    if rule == "lmms-eval":
        first = _at_two_a_second(total, video_fps or 0)
        if len(first) < count:
            raise InputError(f"has {len(first)} frames at 2 per second, fewer than the {count} asked for")
        return first[sample_indices(len(first), count)]
    if rule == "linspace":
        return np.linspace(0, total - 1, count, dtype=np.int64)
    if rule == "qwen-vl-utils":
        return np.linspace(0, total - 1, count, dtype=np.float32).round().astype(np.int64)
    if rule == "qwen3-vl":
        return np.linspace(0, total - 1, count).round().astype(np.int64)
    # torch.arange(0, total, step).int(): products of index and step rounded to float32, not a running sum
    step = total / count
    return (np.arange(count) * step).astype(np.float32).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class FrameRate:
    """Sampling by frames per second instead of a count. The bounds are those of qwen-vl-utils and transformers."""

    fps: float
    min_frames: int = 4
    max_frames: int = 768

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps {self.fps}: must be above 0")
        if not 1 <= self.min_frames <= self.max_frames:
            raise InputError(
                f"min_frames {self.min_frames}, max_frames {self.max_frames}: must be at least 1, in ascending order"
            )


def frame_count(total: int, video_fps: float, rate: FrameRate, rule: SamplingRule = "linspace") -> int:
    """How many frames a rule takes from a video of `total` frames at `video_fps`, for `sample_indices`.

        linspace        lmms-eval's `load_video_stream`: int(seconds · fps), at most max_frames; there is no minimum
        qwen-vl-utils   `smart_nframes`: bounds made even (up, down), then within them and the video, then even (down)
        huggingface     `Qwen2VLVideoProcessor.sample_frames`: the same, but with the minimum unchanged
        qwen3-vl        `Qwen3VLVideoProcessor.sample_frames`: int(seconds · fps), within bounds and video, odd too
        lmms-eval       none: its rate is 2 per second, of which it takes a count

    Raises:
        InputError: the video is too short for a single frame (linspace) or pair of frames (the others).
    """
    if rule == "lmms-eval":
        raise InputError("the rule lmms-eval takes a number of frames, out of those at 2 per second: give no fps")
    if not (math.isfinite(video_fps) and video_fps > 0):
        raise InputError(f"has {video_fps} frames per second by its header; sampling by fps needs a number above 0")
    if rule == "qwen3-vl":
        count, least = min(max(int(total / video_fps * rate.fps), rate.min_frames), rate.max_frames, total), 1
    elif rule == "linspace":
        count, least = min(rate.max_frames, int(total / video_fps * rate.fps), total), 1
    else:
        low, high = rate.min_frames, rate.max_frames
        if rule == "qwen-vl-utils":
            low, high = _even_up(low), _even(high)
        else:
            high = _even(min(high, total))
        count, least = _even(min(max(total / video_fps * rate.fps, low), high, total)), _FRAME_FACTOR
    if count < least:
        raise InputError(f"has {total} frames at {video_fps:g} per second, too few for {rate.fps:g} per second")
    return count


def most_frames(total: int, video_fps: float, rule: SamplingRule) -> int:
    """The largest count that `sample_indices` gives of a video."""
    return len(_at_two_a_second(total, video_fps)) if rule == "lmms-eval" else total


def _at_two_a_second(total: int, video_fps: float) -> Int64[np.ndarray, " F"]:
    """qwen-vl-utils' own choice (`fetch_video` without nframes or fps), the first step of lmms-eval's `qwen2_vl`."""
    return sample_indices(total, frame_count(total, video_fps, FrameRate(2.0), "qwen-vl-utils"), "qwen-vl-utils")


def _even(frames: float) -> int:
    return math.floor(frames / _FRAME_FACTOR) * _FRAME_FACTOR


def _even_up(frames: float) -> int:
    return math.ceil(frames / _FRAME_FACTOR) * _FRAME_FACTOR
