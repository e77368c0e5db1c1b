"""Frames as pictures for a page."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8

FRAME_HEIGHT = 132  # pixels on the page
JPEG_QUALITY = 85


def jpegs(pixels: UInt8[np.ndarray, "F H W 3"], most: int) -> list[bytes]:
    """At most `most` of the frames, evenly spread, at twice the page's height where they are larger."""
    from PIL import Image

    chosen = np.linspace(0, len(pixels) - 1, min(most, len(pixels))).round().astype(int)
    encoded = []
    for index in chosen:
        picture = Image.fromarray(pixels[index])
        picture.thumbnail((8 * FRAME_HEIGHT, 2 * FRAME_HEIGHT))
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=JPEG_QUALITY)
        encoded.append(out.getvalue())
    return encoded
