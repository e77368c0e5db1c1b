"""Colours and parts of furniture: legs, doors and drawers."""

from __future__ import annotations

import colorsys

import numpy as np

from jaxvsr.data.rooms.solids import Color, Solid, box

WHITE: Color = (0.93, 0.93, 0.92)
BLACK: Color = (0.10, 0.10, 0.11)
METAL: Color = (0.55, 0.57, 0.60)
DARK_WOOD: Color = (0.30, 0.19, 0.11)
WOOD: Color = (0.55, 0.35, 0.18)
PALE_WOOD: Color = (0.86, 0.73, 0.50)


def hue_near(rng: np.random.Generator, hue: float, saturation: float, value: float, spread: float = 0.02) -> Color:
    """A random colour near the given one: hue (0 to 1) within `spread`, the others within a tenth."""
    return colorsys.hsv_to_rgb(
        (hue + rng.uniform(-spread, spread)) % 1.0,
        min(1.0, saturation * rng.uniform(0.9, 1.1)),
        min(1.0, value * rng.uniform(0.9, 1.1)),
    )


def tint(rng: np.random.Generator, color: Color) -> Color:
    """The colour, up to a tenth darker or brighter."""
    return shaded(color, rng.uniform(0.88, 1.1))


def shaded(color: Color, factor: float) -> Color:
    """The colour times a factor."""
    red, green, blue = (min(1.0, channel * factor) for channel in color)
    return red, green, blue


def centred(width: float) -> tuple[float, float]:
    """The interval of this width around 0."""
    return -width / 2, width / 2


def legs(width: float, depth: float, height: float, thickness: float, color: Color) -> list[Solid]:
    """Four legs under a top of this size."""
    x, y = width / 2, depth / 2
    return [
        box((left, left + thickness), (back, back + thickness), (0, height), color)
        for left in (-x, x - thickness)
        for back in (-y, y - thickness)
    ]


def front_panels(
    width: float, front: float, z: tuple[float, float], rows: int, columns: int, color: Color, knob: Color
) -> list[Solid]:
    """Doors or drawers, about 1 cm in front of the piece, each with a knob."""
    parts = []
    high, wide = (z[1] - z[0]) / rows, width / columns
    for row in range(rows):
        for column in range(columns):
            left, low = -width / 2 + column * wide, z[0] + row * high
            parts.append(
                box(
                    (left + 0.015, left + wide - 0.015),
                    (front, front + 0.012),
                    (low + 0.015, low + high - 0.015),
                    color,
                )
            )
            middle = left + wide / 2
            parts.append(
                box(
                    (middle - 0.05, middle + 0.05),
                    (front + 0.012, front + 0.03),
                    (low + high * 0.72, low + high * 0.72 + 0.03),
                    knob,
                )
            )
    return parts
