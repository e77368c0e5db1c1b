"""Appliances: refrigerator, toilet, sink, bathtub, washing machine, monitor.

Built as in `furniture.py`: around the origin, bottom at z = 0, front towards +y.
"""

from __future__ import annotations

import numpy as np

from jaxvsr.data.rooms.furniture_parts import BLACK, METAL, WHITE, centred, shaded, tint
from jaxvsr.data.rooms.solids import Solid, box, round_solid

Rng = np.random.Generator


def refrigerator(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(0.6, 0.85), rng.uniform(0.62, 0.75), rng.uniform(1.55, 1.9)
    color, split, front = tint(rng, (0.80, 0.83, 0.87)), height * rng.uniform(0.3, 0.65), depth / 2 - 0.09
    handle = width / 2 - 0.12
    return [
        box(centred(width), (-depth / 2, front), (0, height), shaded(color, 0.8)),
        box(centred(width), (front, front + 0.05), (0.06, split - 0.015), color),
        box(centred(width), (front, front + 0.05), (split + 0.015, height), color),
        box(
            (handle, handle + 0.04),
            (front + 0.05, front + 0.09),
            (split + 0.06, min(split + 0.45, height - 0.05)),
            BLACK,
        ),
        box((handle, handle + 0.04), (front + 0.05, front + 0.09), (max(split - 0.45, 0.1), split - 0.06), BLACK),
    ]


def toilet(rng: Rng) -> list[Solid]:
    width, depth, seat, tank = (
        rng.uniform(0.36, 0.42),
        rng.uniform(0.64, 0.72),
        rng.uniform(0.38, 0.43),
        rng.uniform(0.74, 0.84),
    )
    back = -depth / 2
    radius = width / 2
    stretch = (depth - 0.18) / width
    middle = back + 0.18 + radius * stretch
    return [
        box(centred(width + 0.06), (back, back + 0.18), (0.32, tank), WHITE),
        round_solid((0, middle), (radius * 0.6, radius * 0.95), (0, seat - 0.04), WHITE, stretch),
        round_solid((0, middle), (radius, radius), (seat - 0.04, seat), WHITE, stretch),
        round_solid((0, middle), (radius * 0.65, radius * 0.65), (seat, seat + 0.006), (0.35, 0.55, 0.75), stretch),
    ]


def sink(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(0.5, 0.65), rng.uniform(0.42, 0.52), rng.uniform(0.8, 0.88)
    back = -depth / 2
    return [
        round_solid((0, back + 0.2), (0.12, 0.09), (0, height - 0.16), WHITE),
        box(centred(width), centred(depth), (height - 0.16, height), WHITE),
        box(centred(width - 0.1), (back + 0.12, depth / 2 - 0.05), (height, height + 0.006), (0.45, 0.65, 0.80)),
        box((-0.02, 0.02), (back + 0.03, back + 0.2), (height, height + 0.16), METAL),
    ]


def bathtub(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(1.5, 1.75), rng.uniform(0.7, 0.8), rng.uniform(0.52, 0.6)
    return [
        box(centred(width), centred(depth), (0, height), WHITE),
        box(centred(width - 0.16), centred(depth - 0.16), (height, height + 0.006), (0.35, 0.70, 0.90)),
        box((-width / 2 + 0.02, -width / 2 + 0.07), (-0.03, 0.03), (height, height + 0.2), METAL),
    ]


def washing_machine(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(0.58, 0.62), rng.uniform(0.55, 0.62), rng.uniform(0.83, 0.88)
    front = depth / 2 - 0.04
    rings = []
    for inset, color in ((0.1, METAL), (0.15, (0.10, 0.13, 0.25))):
        half = width / 2 - inset
        for cut in (1.0, 0.6):  # two crossed boxes make a rounded door
            x, z = half * cut, half * (1.6 - cut)
            y = (front, front + 0.02) if color is METAL else (front + 0.02, front + 0.04)
            rings.append(box((-x, x), y, (0.4 - z, 0.4 + z), color))
    return [
        box(centred(width), (-depth / 2, front), (0, height), WHITE),
        box(centred(width), (front, front + 0.02), (height - 0.12, height), (0.60, 0.62, 0.66)),
        *rings,
    ]


def monitor(rng: Rng) -> list[Solid]:
    width, height = rng.uniform(0.48, 0.62), rng.uniform(0.28, 0.36)
    return [
        box(centred(0.22), centred(0.16), (0, 0.015), BLACK),
        box((-0.025, 0.025), (-0.05, -0.02), (0.015, 0.2), BLACK),
        box(centred(width), (-0.02, 0.02), (0.12, 0.12 + height), BLACK),
        box(centred(width - 0.03), (0.02, 0.024), (0.135, 0.105 + height), (0.25, 0.65, 0.95)),
    ]
