"""Directions and sides for someone who stands at P, faces O and looks for Q; only x and y count."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

Side = Literal["left", "right"]
Quadrant = Literal["front-left", "front-right", "back-left", "back-right"]
Sector = Literal["left", "right", "back"]


def turn_degrees(
    stand: Float[np.ndarray, "*#N 3"], face: Float[np.ndarray, "*#N 3"], query: Float[np.ndarray, "*#N 3"]
) -> Float[np.ndarray, "..."]:
    """Counter-clockwise turn from facing `face` to facing `query`, standing at `stand`; degrees in [0, 360).

    Seen from above, z up: 90 is to the left, 270 to the right. The three arrays are broadcast against each other.
    """
    forward, toward = face[..., :2] - stand[..., :2], query[..., :2] - stand[..., :2]
    cross = forward[..., 0] * toward[..., 1] - forward[..., 1] * toward[..., 0]
    turn = np.degrees(np.arctan2(cross, (forward * toward).sum(-1))) % 360.0
    return np.asarray(np.where(turn == 360.0, 0.0, turn))  # a tiny negative angle rounds up to 360


def side(turn: float) -> Side:
    """Left or right of the line of sight (VSI-Bench: left where cross(P→O, P→Q) is positive)."""
    return "left" if turn < 180.0 else "right"


def quadrant(turn: float) -> Quadrant:
    """VSI-Bench's hard directions: front-left [0, 90), back-left [90, 180), back-right [180, 270), front-right."""
    names: tuple[Quadrant, ...] = ("front-left", "back-left", "back-right", "front-right")
    return names[int(turn // 90.0)]


def sector(turn: float) -> Sector:
    """VSI-Bench's medium directions: left [0, 135), back [135, 225), right [225, 360)."""
    if turn < 135.0:
        return "left"
    return "back" if turn < 225.0 else "right"


def degrees_from_line(turn: Float[np.ndarray, "*N"]) -> Float[np.ndarray, "*N"]:
    """Angle between a direction and the line of sight, extended to the back; in [0, 90]."""
    half = turn % 180.0
    return np.asarray(np.minimum(half, 180.0 - half))
