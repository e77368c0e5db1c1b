"""Frame size under a pixel budget, as Qwen2-VL's processors choose it."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxvsr.errors import InputError

# Patch 14 × merge 2: sides are whole numbers of merged patches in Qwen2-VL and Qwen2.5-VL alike.
SIDE_FACTOR = 28
MIN_PIXELS = 56 * 56


def smart_resize(
    height: int, width: int, max_pixels: int, min_pixels: int = MIN_PIXELS, factor: int = SIDE_FACTOR
) -> tuple[int, int]:
    """Height and width in pixels: multiples of `factor`, area within the budget, aspect kept as nearly as that allows.

    The rule of transformers' `smart_resize` (models/qwen2_vl), rounding included.

    Raises:
        InputError: aspect ratio over 200, or a budget below one merged patch.
    """
    if max_pixels < factor * factor:
        raise InputError(f"max_pixels {max_pixels}: must be at least {factor * factor}, one patch of {factor}²")
    if max(height, width) > 200 * min(height, width):
        raise InputError(f"frame of {height}×{width} pixels: the aspect ratio must be at most 200")
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt((height * width) / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def resize_frame(frame: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Bicubic with antialiasing (PIL), the filter of Qwen's image processor; untouched where the size is right."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
