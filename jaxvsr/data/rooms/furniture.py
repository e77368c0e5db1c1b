"""Furniture of ScanNet's categories, built from parts of random sizes and colours.

Each builder draws one design: solids around the origin, bottom at z = 0, front towards +y. Categories differ in shape,
size and palette, so that a person, or a small model, can tell them apart in a small picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from jaxvsr.data.rooms import appliances
from jaxvsr.data.rooms.furniture_parts import (
    BLACK,
    DARK_WOOD,
    METAL,
    PALE_WOOD,
    WHITE,
    WOOD,
    centred,
    front_panels,
    hue_near,
    legs,
    shaded,
    tint,
)
from jaxvsr.data.rooms.solids import Color, Solid, box, round_solid

Rng = np.random.Generator


def _chair(rng: Rng) -> list[Solid]:
    width, depth, seat, back = (
        rng.uniform(0.40, 0.54),
        rng.uniform(0.40, 0.52),
        rng.uniform(0.42, 0.48),
        rng.uniform(0.80, 1.0),
    )
    color = hue_near(rng, 0.03, 0.85, 0.85)
    return [
        *legs(width, depth, seat - 0.06, 0.045, shaded(color, 0.45)),
        box(centred(width), centred(depth), (seat - 0.06, seat), color),
        box(centred(width), (-depth / 2, -depth / 2 + 0.05), (seat, back), color),
    ]


def _table(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(1.0, 1.8), rng.uniform(0.7, 1.0), rng.uniform(0.70, 0.78)
    color = tint(rng, WOOD)
    return [
        *legs(width - 0.1, depth - 0.1, height - 0.05, 0.07, shaded(color, 0.8)),
        box(centred(width), centred(depth), (height - 0.05, height), color),
    ]


def _coffee_table(rng: Rng) -> list[Solid]:
    radius, height = rng.uniform(0.35, 0.5), rng.uniform(0.36, 0.46)
    color = tint(rng, DARK_WOOD)
    return [
        round_solid((0, 0), (0.22, 0.22), (0, 0.04), color),
        round_solid((0, 0), (0.06, 0.06), (0.04, height - 0.05), color),
        round_solid((0, 0), (radius, radius), (height - 0.05, height), color),
    ]


def _desk(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(1.1, 1.6), rng.uniform(0.6, 0.8), rng.uniform(0.71, 0.76)
    color, side = tint(rng, PALE_WOOD), rng.choice([-1, 1])
    drawers = sorted((side * (width / 2 - 0.03), side * (width / 2 - 0.43)))
    panel = sorted((-side * (width / 2 - 0.03), -side * (width / 2 - 0.06)))
    back = -depth / 2
    return [
        box(centred(width), centred(depth), (height - 0.04, height), color),
        box(drawers, (back + 0.03, depth / 2 - 0.04), (0, height - 0.04), tint(rng, METAL)),
        box(panel, (back + 0.03, depth / 2 - 0.04), (0, height - 0.04), color),
        box(centred(width - 0.12), (back + 0.03, back + 0.05), (0.25, height - 0.04), color),
    ]


def _upholstered(rng: Rng, width: float, color: Color, seats: int) -> list[Solid]:
    """A sofa or an armchair: base, seat cushions, back and two arms."""
    depth, seat, back, arm = rng.uniform(0.78, 0.95), rng.uniform(0.40, 0.46), rng.uniform(0.75, 0.92), 0.16
    inside = (width - 2 * arm) / seats
    rear = -depth / 2
    cushions = [
        box((left + 0.01, left + inside - 0.01), (rear + 0.2, depth / 2), (seat - 0.16, seat), shaded(color, 1.15))
        for left in (-width / 2 + arm + inside * number for number in range(seats))
    ]
    return [
        box(centred(width), (rear, depth / 2 - 0.03), (0.06, seat - 0.16), shaded(color, 0.75)),
        box(centred(width), (rear, rear + 0.2), (seat - 0.16, back), color),
        box((-width / 2, -width / 2 + arm), (rear + 0.2, depth / 2), (seat - 0.16, seat + 0.18), color),
        box((width / 2 - arm, width / 2), (rear + 0.2, depth / 2), (seat - 0.16, seat + 0.18), color),
        *cushions,
        *legs(width - 0.1, depth - 0.1, 0.06, 0.06, BLACK),
    ]


def _sofa(rng: Rng) -> list[Solid]:
    width = rng.uniform(1.5, 2.3)
    return _upholstered(rng, width, hue_near(rng, 0.61, 0.7, 0.62), 2 if width < 1.8 else 3)


def _armchair(rng: Rng) -> list[Solid]:
    return _upholstered(rng, rng.uniform(0.78, 0.95), hue_near(rng, 0.38, 0.65, 0.5), 1)


def _bed(rng: Rng) -> list[Solid]:
    width, length, mattress = rng.uniform(0.9, 1.7), rng.uniform(1.9, 2.1), rng.uniform(0.42, 0.55)
    frame, blanket, back = tint(rng, DARK_WOOD), hue_near(rng, 0.82, 0.55, 0.72), -length / 2
    pillows = 1 if width < 1.3 else 2
    space = width / pillows
    return [
        box(centred(width), (back, back + 0.06), (0, rng.uniform(0.85, 1.1)), frame),
        box(centred(width), (back + 0.06, length / 2), (0.08, mattress - 0.2), frame),
        *legs(width - 0.05, length - 0.05, 0.08, 0.08, frame),
        box(centred(width - 0.04), (back + 0.07, length / 2 - 0.02), (mattress - 0.2, mattress), WHITE),
        box(centred(width - 0.01), (back + 0.65, length / 2), (mattress - 0.14, mattress + 0.03), blanket),
        *(
            box(
                (left + 0.08, left + space - 0.08),
                (back + 0.1, back + 0.48),
                (mattress, mattress + 0.12),
                (0.98, 0.97, 0.90),
            )
            for left in (-width / 2 + space * number for number in range(pillows))
        ),
    ]


def _bookshelf(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(0.75, 1.2), rng.uniform(0.28, 0.38), rng.uniform(1.5, 2.05)
    color, boards = tint(rng, DARK_WOOD), int(rng.integers(4, 6))
    back, step = -depth / 2, (height - 0.03) / boards
    parts = [
        box(centred(width), (back, back + 0.02), (0, height), shaded(color, 0.7)),
        box((-width / 2, -width / 2 + 0.03), (back + 0.02, depth / 2), (0, height), color),
        box((width / 2 - 0.03, width / 2), (back + 0.02, depth / 2), (0, height), color),
    ]
    inner = width - 0.08
    for board in range(boards + 1):
        parts.append(box(centred(width - 0.06), (back + 0.02, depth / 2), (board * step, board * step + 0.03), color))
    for board in range(boards):
        left = -inner / 2
        while left < inner / 2 - 0.1 and rng.random() < 0.9:
            block = min(rng.uniform(0.1, 0.3), inner / 2 - left)
            low = board * step + 0.03
            top = low + (step - 0.03) * rng.uniform(0.6, 0.9)
            parts.append(
                box(
                    (left, left + block),
                    (back + 0.02, depth / 2 - 0.04),
                    (low, top),
                    hue_near(rng, rng.random(), 0.75, 0.75),
                )
            )
            left += block + 0.005
    return parts


def _cabinet(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(0.7, 1.2), rng.uniform(0.4, 0.55), rng.uniform(0.85, 1.3)
    color = hue_near(rng, 0.47, 0.35, 0.62)
    body = box(centred(width), (-depth / 2, depth / 2 - 0.03), (0, height), shaded(color, 0.85))
    return [body, *front_panels(width, depth / 2 - 0.03, (0.06, height), 1, 2, color, BLACK)]


def _dresser(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(0.9, 1.4), rng.uniform(0.42, 0.52), rng.uniform(0.72, 0.95)
    color = tint(rng, (0.62, 0.27, 0.12))
    body = box(centred(width), (-depth / 2, depth / 2 - 0.03), (0, height), shaded(color, 0.75))
    return [body, *front_panels(width, depth / 2 - 0.03, (0.05, height - 0.02), 3, 2, color, PALE_WOOD)]


def _nightstand(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(0.38, 0.5), rng.uniform(0.34, 0.44), rng.uniform(0.45, 0.6)
    color = hue_near(rng, 0.14, 0.75, 0.8)
    body = box(centred(width), (-depth / 2, depth / 2 - 0.03), (0.12, height), shaded(color, 0.8))
    return [
        *legs(width, depth - 0.04, 0.12, 0.04, BLACK),
        body,
        *front_panels(width, depth / 2 - 0.03, (0.14, height), 2, 1, color, BLACK),
    ]


def _stool(rng: Rng) -> list[Solid]:
    radius, height = rng.uniform(0.17, 0.22), rng.uniform(0.42, 0.68)
    color, spread = hue_near(rng, 0.5, 0.85, 0.8), radius * 1.3
    return [
        *legs(spread, spread, height - 0.06, 0.035, METAL),
        round_solid((0, 0), (radius, radius), (height - 0.06, height), color),
    ]


def _trash_can(rng: Rng) -> list[Solid]:
    radius, height = rng.uniform(0.14, 0.22), rng.uniform(0.35, 0.68)
    color = hue_near(rng, 0.27, 0.85, 0.62)
    return [
        round_solid((0, 0), (radius * 0.8, radius), (0, height - 0.05), color),
        round_solid((0, 0), (radius * 1.06, radius * 1.06), (height - 0.05, height - 0.01), BLACK),
        round_solid((0, 0), (radius * 0.9, radius * 0.9), (height - 0.01, height), BLACK),
    ]


def _lamp(rng: Rng) -> list[Solid]:
    radius, height = rng.uniform(0.2, 0.28), rng.uniform(1.35, 1.75)
    shade = rng.uniform(0.28, 0.36)
    return [
        round_solid((0, 0), (0.15, 0.15), (0, 0.04), BLACK),
        round_solid((0, 0), (0.018, 0.018), (0.04, height - shade), BLACK),
        round_solid((0, 0), (radius, radius * 0.6), (height - shade, height), (1.0, 0.88, 0.35)),
    ]


def _plant(rng: Rng) -> list[Solid]:
    radius, height = rng.uniform(0.14, 0.2), rng.uniform(0.7, 1.3)
    pot, leaf = hue_near(rng, 0.04, 0.65, 0.68), hue_near(rng, 0.33, 0.8, 0.5, 0.03)
    crown = radius * rng.uniform(1.4, 1.9)
    half = 0.3 + (height - 0.3) * 0.45
    return [
        round_solid((0, 0), (radius * 0.75, radius), (0, 0.28), pot),
        round_solid((0, 0), (0.03, 0.03), (0.28, 0.36), DARK_WOOD),
        round_solid((0, 0), (crown * 0.5, crown), (0.36, half), shaded(leaf, 0.8)),
        round_solid((0, 0), (crown, crown * 0.3), (half, height), leaf),
    ]


def _box(rng: Rng) -> list[Solid]:
    width, depth, height = rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.5)
    color = tint(rng, (0.76, 0.56, 0.34))
    return [
        box(centred(width), centred(depth), (0, height), color),
        box((-0.03, 0.03), centred(depth + 0.006), (0.0, height + 0.004), (0.92, 0.86, 0.66)),
    ]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A category: its builder, whether its back is to a wall, and ScanNet's raw labels for it."""

    build: Callable[[Rng], list[Solid]]
    at_wall: bool
    raw_labels: Sequence[str]


KINDS: dict[str, Kind] = {
    "armchair": Kind(_armchair, False, ("armchair",)),
    "bathtub": Kind(appliances.bathtub, True, ("bathtub",)),
    "bed": Kind(_bed, True, ("bed",)),
    "bookshelf": Kind(_bookshelf, True, ("bookshelf", "bookshelves")),
    "box": Kind(_box, False, ("box", "boxes")),
    "cabinet": Kind(_cabinet, True, ("cabinet", "cabinets")),
    "chair": Kind(_chair, False, ("chair",)),
    "coffee table": Kind(_coffee_table, False, ("coffee table",)),
    "desk": Kind(_desk, True, ("desk",)),
    "dresser": Kind(_dresser, True, ("dresser",)),
    "lamp": Kind(_lamp, False, ("lamp",)),
    "monitor": Kind(appliances.monitor, False, ("monitor", "computer monitor")),
    "nightstand": Kind(_nightstand, True, ("nightstand", "night stand")),
    "plant": Kind(_plant, False, ("plant", "potted plant")),
    "refrigerator": Kind(appliances.refrigerator, True, ("refrigerator", "fridge")),
    "sink": Kind(appliances.sink, True, ("sink",)),
    "sofa": Kind(_sofa, True, ("couch", "sofa")),
    "stool": Kind(_stool, False, ("stool",)),
    "table": Kind(_table, False, ("table",)),
    "toilet": Kind(appliances.toilet, True, ("toilet",)),
    "trash can": Kind(_trash_can, False, ("trash can", "trash bin", "garbage bin")),
    "washing machine": Kind(appliances.washing_machine, True, ("washing machine",)),
}
