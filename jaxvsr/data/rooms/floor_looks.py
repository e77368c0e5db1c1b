"""The look of a procedural room's floor: planks, tiles or carpet as a repeated texture, and a rug in some rooms."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float32, Float64
from scipy import ndimage

from jaxvsr.data.rooms.floor_plans import FloorPlan
from jaxvsr.data.rooms.solids import Color

FLOOR_PATTERNS = ("planks", "tiles", "carpet")
_TEXELS_A_METRE = 100
_TEXELS = 800  # after as many a texture repeats; whole numbers of planks and tiles
_PLANK_TEXELS = (16, 100)  # width, length
_TILE_TEXELS = 50
_RUG_SHARE = 0.6  # of rooms
# A rug's middle, border and the line inside the border.
_RUGS: tuple[tuple[Color, Color, Color], ...] = (
    ((0.50, 0.17, 0.20), (0.84, 0.76, 0.62), (0.20, 0.20, 0.30)),
    ((0.26, 0.36, 0.46), (0.86, 0.83, 0.76), (0.78, 0.50, 0.30)),
    ((0.82, 0.76, 0.66), (0.44, 0.36, 0.32), (0.62, 0.28, 0.24)),
    ((0.44, 0.48, 0.44), (0.82, 0.80, 0.72), (0.82, 0.80, 0.72)),
    ((0.60, 0.42, 0.46), (0.88, 0.82, 0.78), (0.36, 0.24, 0.32)),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Rug:
    """A rectangle along the room's axes, metres, with the colours of middle, border and line."""

    center: Float64[np.ndarray, " 2"]
    half: Float64[np.ndarray, " 2"]
    colors: tuple[Color, Color, Color]


@dataclasses.dataclass(frozen=True, eq=False)
class FloorLook:
    """One of FLOOR_PATTERNS in a colour, perhaps with a rug on it; nobody is asked about the rug."""

    pattern: str
    color: Color
    rug: Rug | None


def draw_floor_color(rng: np.random.Generator) -> tuple[str, Color]:
    """A pattern and its colour."""
    pattern = str(rng.choice(FLOOR_PATTERNS))
    shade = rng.uniform(0.85, 1.1)
    base = {"planks": (0.68, 0.50, 0.33), "tiles": (0.78, 0.77, 0.74), "carpet": (0.52, 0.50, 0.53)}[pattern]
    red, green, blue = (min(1.0, channel * shade) for channel in base)
    return pattern, (red, green, blue)


def draw_rug(rng: np.random.Generator, plan: FloorPlan) -> Rug | None:
    """A rug away from the walls, or None."""
    if rng.random() > _RUG_SHARE:
        return None
    colors = _RUGS[rng.integers(len(_RUGS))]
    for _ in range(12):
        center = rng.uniform(plan.outline.min(axis=0), plan.outline.max(axis=0))
        half = rng.permutation([rng.uniform(0.9, 1.5), rng.uniform(0.6, 1.0)])
        around = center + (half + 0.15) * np.stack(np.meshgrid([-1, -0.4, 0.4, 1], [-1, -0.4, 0.4, 1]), axis=-1)
        if plan.contains(around).all():
            return Rug(center, half, colors)
    return None


def floor_colors(look: FloorLook, points: np.ndarray) -> np.ndarray:
    """Colours of the floor [N, 3], RGB in 0 to about 1, at points [N, 2] (metres)."""
    texel = ((points + 10 * _TEXELS / _TEXELS_A_METRE) * _TEXELS_A_METRE).astype(np.int32) % _TEXELS
    row, column = texel.T
    colors = _texture(look.pattern)[row, column][:, None] * np.array(look.color, np.float32)
    if look.rug is not None:
        beyond = np.abs(points - look.rug.center.astype(points.dtype)) - look.rug.half.astype(points.dtype)
        beyond = np.maximum(beyond[:, 0], beyond[:, 1])
        on = np.flatnonzero(beyond < 0)
        # Bands from the middle outwards: middle, line, middle, border.
        band = np.array([0, 2, 0, 1])[np.searchsorted(np.array([-0.21, -0.17, -0.10], points.dtype), beyond[on])]
        colors[on] = np.array(look.rug.colors, np.float32)[band] * _texture("carpet")[row[on], column[on], None]
    return colors


@functools.cache
def _texture(pattern: str) -> Float32[np.ndarray, "T T"]:
    """Brightness of a square of floor, a factor near 1, repeated without a seam."""
    rng = np.random.default_rng(FLOOR_PATTERNS.index(pattern))
    noise = rng.standard_normal((_TEXELS, _TEXELS))
    x, y = np.arange(_TEXELS)[:, None], np.arange(_TEXELS)[None, :]
    if pattern == "planks":
        width, length = _PLANK_TEXELS
        row = y // width
        along = (x + row * 37) % _TEXELS
        tone = rng.uniform(0.88, 1.10, (_TEXELS // length, _TEXELS // width))[along // length, row]
        grain = _unit(ndimage.gaussian_filter(noise, (25, 0.8), mode="wrap"))
        joint = (y % width == 0) | (along % length == 0)
        brightness = tone * (1 + 0.04 * grain) * np.where(joint, 0.80, 1.0)
    elif pattern == "tiles":
        joint = (x % _TILE_TEXELS < 2) | (y % _TILE_TEXELS < 2)
        light = (x // _TILE_TEXELS + y // _TILE_TEXELS) % 2 == 0
        stone = _unit(ndimage.gaussian_filter(noise, 6, mode="wrap"))
        brightness = np.where(joint, 0.62, np.where(light, 1.05, 0.90) + 0.015 * stone)
    else:
        brightness = 1 + 0.035 * _unit(ndimage.gaussian_filter(noise, 1.2, mode="wrap"))
    return brightness.astype(np.float32)


def _unit(noise: np.ndarray) -> np.ndarray:
    return noise / noise.std()
