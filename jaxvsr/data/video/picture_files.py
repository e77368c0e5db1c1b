"""Pictures as RGB of 8 bits: transparent ones on white, and none whose values would be cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from jaxvsr.errors import InputError, one_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
IMAGE_LIMIT_PIXELS = 1 << 26  # 8k × 8k
# Pillow's modes with more than 8 bits; it converts them to RGB by cutting values at 255.
_WIDE_MODES = {"I;16": "16-bit", "I;16L": "16-bit", "I;16B": "16-bit", "I;16N": "16-bit", "I": "32-bit", "F": "float"}


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """RGB pixels of an image file, turned upright by its EXIF orientation, transparent ones on white.

    Raises:
        InputError: it cannot be read, is larger than IMAGE_LIMIT_PIXELS by its header, or has grey values of more than
            8 bits, which are depth more often than pictures.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            wide = _WIDE_MODES.get(image.mode)
            if width * height <= IMAGE_LIMIT_PIXELS and wide is None:
                return np.asarray(on_white(ImageOps.exif_transpose(image)))
    except Exception as error:  # decoders raise many kinds on broken data
        raise InputError(f"{path}: not an image that can be read ({one_line(error)})") from None
    if wide is not None:
        raise InputError(f"{path}: has one channel of {wide} values: is this depth? Expected a picture of 8 bits")
    raise InputError(f"{path}: has {height}×{width} pixels by its header; expected at most {IMAGE_LIMIT_PIXELS:,}")


def on_white(image: Image.Image) -> Image.Image:
    """The picture as RGB; what is transparent lies on white, as qwen-vl-utils lays it."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white
