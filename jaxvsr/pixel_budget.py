"""The size at which a model sees a frame: sides of whole merged patches, within a budget of pixels.

One rule for the frames that a data folder stores and for those that a processor resizes.
"""

from __future__ import annotations

import dataclasses
import math

from jaxvsr.errors import InputError

# Those of Qwen2-VL and Qwen2.5-VL alike; a model's own are in its config.
PATCH = 14  # pixels of a side
MERGED_PATCH = 2 * PATCH  # pixels of a side; 2 × 2 patches become one token
TOKEN_PIXELS = MERGED_PATCH**2  # pixels of a frame for each token
FRAMES_PER_PATCH = 2  # frames that share a temporal patch, and so a set of tokens

MIN_PIXELS = 4 * TOKEN_PIXELS  # of an image, in Hugging Face's processors
MAX_ASPECT_RATIO = 200  # Hugging Face's


@dataclasses.dataclass(frozen=True)
class PixelLimits:
    """Pixels of one frame or image; of a whole video only where that is said."""

    minimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= self.maximum:
            raise InputError(f"pixel limits {self.minimum} to {self.maximum}: need 0 < min_pixels <= max_pixels")

    @classmethod
    def at_most(cls, max_pixels: int, minimum: int = MIN_PIXELS, factor: int = MERGED_PATCH) -> PixelLimits:
        """A budget of `max_pixels`; the minimum gives way to it.

        Raises:
            InputError: it is below one merged patch.
        """
        if max_pixels < factor * factor:
            raise InputError(f"max_pixels {max_pixels}: must be at least {factor * factor}, one merged patch")
        return cls(min(minimum, max_pixels), max_pixels)


def smart_resize(height: int, width: int, limits: PixelLimits, factor: int = MERGED_PATCH) -> tuple[int, int]:
    """(height, width) in pixels: multiples of `factor`, within the limits, the aspect ratio kept as far as they allow.

    Hugging Face's `smart_resize` (transformers, models/qwen2_vl), rounding half to even included. A side never falls
    below `factor`, so a very long image can leave the limits.

    Raises:
        InputError: one side is more than 200 times the other.
    """
    if min(height, width) < 1 or max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise InputError(
            f"a frame of {height}×{width} pixels: the longer side may be at most {MAX_ASPECT_RATIO} times the other"
        )
    high, wide = round(height / factor) * factor, round(width / factor) * factor
    if high * wide > limits.maximum:
        shrink = math.sqrt(height * width / limits.maximum)
        high = max(factor, math.floor(height / shrink / factor) * factor)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
    elif high * wide < limits.minimum:
        grow = math.sqrt(limits.minimum / (height * width))
        high, wide = math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return high, wide


def smart_resize_video(
    frames: int, height: int, width: int, limits: PixelLimits, factor: int, temporal_patch_size: int = FRAMES_PER_PATCH
) -> tuple[int, int]:
    """(height, width) in pixels of a video's frames, where `limits` are those of frames x height x width.

    Hugging Face's `smart_resize` of Qwen3-VL's video processor (transformers, models/qwen3_vl): the count of frames is
    rounded to whole temporal patches, half to even, where it is compared with the limits, but not where it shrinks.

    Raises:
        InputError: one side is more than 200 times the other.
    """
    if min(height, width) < 1 or max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise InputError(
            f"a frame of {height}×{width} pixels: the longer side may be at most {MAX_ASPECT_RATIO} times the other"
        )
    if min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    high, wide = round(height / factor) * factor, round(width / factor) * factor
    rounded = max(1, round(frames / temporal_patch_size)) * temporal_patch_size
    if rounded * high * wide > limits.maximum:
        shrink = math.sqrt(frames * height * width / limits.maximum)
        high = max(factor, math.floor(height / shrink / factor) * factor)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
    elif rounded * high * wide < limits.minimum:
        grow = math.sqrt(limits.minimum / (frames * height * width))
        high, wide = math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return high, wide


def share_pixels(
    limits: PixelLimits, frames: int, max_video_tokens: int, factor: int, temporal_patch_size: int = FRAMES_PER_PATCH
) -> PixelLimits:
    """Limits of a frame where the whole video has a budget too (qwen-vl-utils; `cap_pixels_per_frame` in transformers).

    Ninety per cent of `max_video_tokens` is shared evenly, but a frame keeps at least 1.05 times its minimum.
    """
    total = int(max_video_tokens * factor * factor * 0.9)
    share = min(limits.maximum, total * temporal_patch_size // frames)
    return PixelLimits(limits.minimum, max(share, int(limits.minimum * 1.05)))


def vision_tokens(frames: int, height: int, width: int, side: int = MERGED_PATCH) -> int:
    """Tokens of a video whose frames have this size in pixels, each of `side` pixels squared; an odd last frame is
    paired with itself."""
    return -(-frames // FRAMES_PER_PATCH) * (height // side) * (width // side)
