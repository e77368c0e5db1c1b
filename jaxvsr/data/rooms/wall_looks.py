"""Looks of a procedural room's walls: plain, striped, with a wainscot or one in a strong colour; pictures on them."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

from jaxvsr.data.rooms.floor_plans import FloorPlan
from jaxvsr.data.rooms.furniture_layout import Piece
from jaxvsr.data.rooms.furniture_parts import shaded
from jaxvsr.data.rooms.openings import Opening
from jaxvsr.data.rooms.solids import Color, Patch, Solid, box

_STYLES = ("plain", "stripes", "wainscot", "accent")
_STRIPE_METRES = 0.35
_ACCENTS = ((0.62, 0.70, 0.62), (0.60, 0.68, 0.76), (0.78, 0.64, 0.56), (0.74, 0.68, 0.52), (0.64, 0.58, 0.68))
_WHITE = (0.94, 0.93, 0.91)
MOST_PICTURES = 3
_PICTURE_TRIES = 12
_PICTURE_GAP_METRES = 0.15  # from doors, windows, tall furniture, corners and other pictures
_PICTURE_FRAMES = ((0.10, 0.09, 0.08), (0.85, 0.68, 0.30), (0.38, 0.24, 0.14))
_MOUNT = (0.96, 0.94, 0.90)
_PICTURE_PALETTES: tuple[tuple[Color, Color, Color], ...] = (
    ((0.95, 0.78, 0.50), (0.76, 0.33, 0.22), (0.20, 0.26, 0.38)),
    ((0.72, 0.85, 0.88), (0.24, 0.45, 0.52), (0.88, 0.72, 0.42)),
    ((0.93, 0.72, 0.68), (0.50, 0.26, 0.42), (0.30, 0.20, 0.30)),
    ((0.90, 0.86, 0.70), (0.42, 0.55, 0.36), (0.80, 0.46, 0.24)),
)


def draw_wall_color(rng: np.random.Generator) -> Color:
    """Off-white with a tint of some colour."""
    red, green, blue = 0.84 + rng.uniform(-0.07, 0.07, 3)
    return float(red), float(green), float(blue)


def wall_patches(rng: np.random.Generator, plan: FloorPlan, height: float, color: Color) -> list[tuple[Patch, ...]]:
    """The patches of each wall: its surface and, some millimetres in front of it, skirting board and cornice."""
    style = str(rng.choice(_STYLES))
    accent = _ACCENTS[rng.integers(len(_ACCENTS))]
    accented = rng.integers(len(plan.walls))
    skirting = _WHITE if rng.random() < 0.6 else (0.45, 0.32, 0.22)
    walls = []
    for number, (start, end) in enumerate(plan.walls):
        own = accent if style == "accent" and number == accented else color
        stripes = _stripes(start, end, height, color) if style == "stripes" else [_strip(start, end, 0, height, 0, own)]
        trim = [_strip(start, end, 0, 0.10, 0.008, skirting), _strip(start, end, height - 0.07, height, 0.008, _WHITE)]
        if style == "wainscot":
            trim += [_strip(start, end, 0, 0.84, 0.004, accent), _strip(start, end, 0.84, 0.89, 0.006, _WHITE)]
        walls.append((*stripes, *trim))
    return walls


def _stripes(
    start: Float64[np.ndarray, " 2"], end: Float64[np.ndarray, " 2"], height: float, color: Color
) -> list[Patch]:
    """Wallpaper: upright stripes about _STRIPE_METRES wide, in turn a little lighter and darker."""
    count = max(2, round(float(np.linalg.norm(end - start)) / _STRIPE_METRES))
    edges = start + np.linspace(0, 1, count + 1)[:, None] * (end - start)
    shades = (color, shaded(color, 0.945))
    return [_strip(edges[i], edges[i + 1], 0, height, 0, shades[i % 2]) for i in range(count)]


def _strip(
    start: Float64[np.ndarray, " 2"],
    end: Float64[np.ndarray, " 2"],
    low: float,
    high: float,
    forward: float,
    color: Color,
) -> Patch:
    """The part of a wall from height `low` to `high`, `forward` metres into the room (to the left of the wall)."""
    along = (end - start) / np.linalg.norm(end - start)
    (x1, y1), (x2, y2) = (point + forward * np.array([-along[1], along[0]]) for point in (end, start))
    return Patch(np.array([[x1, y1, low], [x2, y2, low], [x2, y2, high], [x1, y1, high]]), color)


def draw_pictures(
    rng: np.random.Generator, plan: FloorPlan, openings: list[Opening], pieces: list[Piece]
) -> list[tuple[Solid, ...]]:
    """The solids of up to MOST_PICTURES pictures, none behind tall furniture."""
    starts, ends = plan.walls[:, 0], plan.walls[:, 1]
    lengths = np.linalg.norm(ends - starts, axis=1)
    taken = [opening.ends for opening in openings]
    taken += [piece.footprint for piece in pieces if piece.height > 1.1]
    pictures: list[tuple[Solid, ...]] = []
    wanted = rng.integers(MOST_PICTURES + 1)
    for _ in range(_PICTURE_TRIES):
        if len(pictures) == wanted:
            break
        width, height = rng.uniform(0.5, 0.95), rng.uniform(0.45, 0.7)
        wall = rng.choice(len(lengths), p=lengths / lengths.sum())
        slide = rng.uniform(-1, 1) * (lengths[wall] / 2 - width / 2 - _PICTURE_GAP_METRES)
        along = (ends[wall] - starts[wall]) / lengths[wall]
        middle = (starts[wall] + ends[wall]) / 2 + slide * along
        if lengths[wall] < width + 2 * _PICTURE_GAP_METRES or not _free(middle, along, width / 2, taken):
            continue
        taken.append(middle + np.array([[-1], [1]]) * width / 2 * along)
        solids = _picture(rng, width, height)
        yaw = math.atan2(along[1], along[0])
        pictures.append(tuple(s.moved(middle[0], middle[1], 1.62 - height / 2, yaw) for s in solids))
    return pictures


def _free(
    middle: Float64[np.ndarray, " 2"],
    along: Float64[np.ndarray, " 2"],
    half_width: float,
    taken: list[Float64[np.ndarray, "C 2"]],
) -> bool:
    """Whether nothing that is given by its corners stands in the first 70 cm in front of a piece of wall."""
    inward = np.array([-along[1], along[0]])
    for corners in taken:
        x, y = (corners - middle) @ along, (corners - middle) @ inward
        beside = x.min() > half_width + _PICTURE_GAP_METRES or x.max() < -half_width - _PICTURE_GAP_METRES
        if not beside and y.min() < 0.7 and y.max() > -0.05:
            return False
    return True


def _picture(rng: np.random.Generator, width: float, height: float) -> list[Solid]:
    """An abstract or a landscape in a frame, its back on the wall, its front towards +y, bottom at z = 0."""
    half = width / 2
    frame = _PICTURE_FRAMES[rng.integers(len(_PICTURE_FRAMES))]
    sky, hill, ground = _PICTURE_PALETTES[rng.integers(len(_PICTURE_PALETTES))]
    solids = [
        box((-half, half), (0, 0.010), (0, height), frame),
        box((-half + 0.035, half - 0.035), (0.010, 0.012), (0.035, height - 0.035), _MOUNT),
    ]
    inner, low, high = half - 0.08, 0.08, height - 0.08
    solids.append(box((-inner, inner), (0.012, 0.013), (low, high), sky))
    share = rng.uniform(-0.4, 0.4) * inner
    rise = rng.uniform(0.55, 0.85) * (high - low)
    if rng.random() < 0.5:
        foot, peak = box((-inner, inner), (0.013, 0.014), (0, 1), hill), (share - 0.02, share + 0.02)
        top = box(peak, (0.013, 0.014), (0, 1), hill).top
        solids.append(Solid(foot.bottom, top, low, low + rise, hill))
        solids.append(box((-inner, inner), (0.014, 0.015), (low, low + 0.3 * (high - low)), ground))
    else:
        solids.append(box((-inner, share), (0.013, 0.014), (low, low + rise), hill))
        solids.append(box((share - 0.4 * inner, inner), (0.014, 0.015), (low, low + 0.6 * rise), ground))
    return solids
