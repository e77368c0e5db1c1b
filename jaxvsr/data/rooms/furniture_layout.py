"""The furniture of a procedural room: the kind of room, how many pieces of each category, and their places.

Nothing overlaps: footprints are oriented rectangles, kept apart by the separating axis test with a margin.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float64

from jaxvsr.data.rooms.floor_plans import FloorPlan
from jaxvsr.data.rooms.furniture import KINDS
from jaxvsr.data.rooms.solids import Solid

FEWEST_PIECES = 6
_TALLEST_METRES = 2.1
_FLOOR_SHARE = 0.42  # with furniture on more of the floor there is no room to walk
_GAP_METRES = 0.06
_CANDIDATES = 48

# What is typical of each kind of room. How many there are of a category does not depend on it, and each room has
# something that one does not expect, so that answers have to be seen rather than guessed.
_ROOM_KINDS: dict[str, tuple[str, ...]] = {
    "office": ("desk", "chair", "cabinet", "bookshelf", "trash can", "plant"),
    "living room": ("sofa", "coffee table", "armchair", "lamp", "plant", "bookshelf"),
    "bedroom": ("bed", "nightstand", "dresser", "lamp", "chair", "box"),
    "dining room": ("table", "chair", "dresser", "plant", "stool", "lamp"),
    "kitchen": ("refrigerator", "table", "cabinet", "stool", "trash can", "sink"),
    "bathroom": ("toilet", "sink", "bathtub", "washing machine", "trash can", "stool"),
    "storage": ("box", "bookshelf", "cabinet", "washing machine", "refrigerator", "trash can"),
    "lounge": ("armchair", "sofa", "table", "stool", "bookshelf", "lamp"),
}
_TYPICAL, _UNEXPECTED = 5, 3  # categories of a room
_SEVERAL = (2, 3, 4, 2, 3)  # how many there are of those that are not alone
# A design is scaled so that its longest side is between these, metres, and half to three times as long as it was: a
# category says little about size.
_LONGEST_METRES = (0.45, 2.4)
_SCALES = (0.5, 3.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """One piece of furniture in its place, with solids in the frame of the room.

    `center` is the centre of the footprint on the floor, `half` its half width and half depth before turning by `yaw`,
    which is also the direction of its front.
    """

    category: str
    solids: tuple[Solid, ...]
    center: Float64[np.ndarray, " 2"]
    half: Float64[np.ndarray, " 2"]
    yaw: float
    height: float

    @property
    def footprint(self) -> Float64[np.ndarray, "4 2"]:
        """The corners of the footprint, metres, counter-clockwise."""
        return rectangle_corners(self.center[None], self.half, np.array([self.yaw]))[0]


def rectangle_corners(
    centers: Float64[np.ndarray, "C 2"], half: Float64[np.ndarray, " 2"], yaws: Float64[np.ndarray, " C"]
) -> Float64[np.ndarray, "C 4 2"]:
    """Corners of rotated rectangles, counter-clockwise."""
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * half
    cos, sin = np.cos(yaws)[:, None], np.sin(yaws)[:, None]
    x, y = corners.T
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1) + centers[:, None]


def rectangles_apart(
    a: Float64[np.ndarray, "A 4 2"], b: Float64[np.ndarray, "B 4 2"], gap: float
) -> Bool[np.ndarray, "A B"]:
    """Whether each pair of rectangles is `gap` metres apart along an axis of either: the separating axis test."""
    apart = np.zeros((len(a), len(b)), bool)
    for first, second, flip in ((a, b, False), (b, a, True)):
        sides = first[:, 1:3] - first[:, 0:2]
        axes = sides / np.linalg.norm(sides, axis=-1, keepdims=True)
        own = np.einsum("akc,anc->akn", axes, first)
        other = np.einsum("akc,bnc->abkn", axes, second)
        clear = (other.min(-1) > own.max(-1)[:, None] + gap) | (other.max(-1) < own.min(-1)[:, None] - gap)
        apart |= clear.any(-1).T if flip else clear.any(-1)
    return apart


def draw_wishes(rng: np.random.Generator, area_square_metres: float) -> list[str]:
    """The categories wanted in a room, one entry per piece."""
    typical = _ROOM_KINDS[str(rng.choice(list(_ROOM_KINDS)))]
    others = [category for category in KINDS if category not in typical and category != "monitor"]
    chosen = [*rng.permutation(typical)[:_TYPICAL], *rng.permutation(others)[:_UNEXPECTED]]
    several = 2 if area_square_metres < 20 else 3
    counts = np.ones(len(chosen), int)
    counts[rng.choice(len(chosen), several, replace=False)] = rng.permutation(_SEVERAL)[:several]
    return [str(category) for category, count in zip(chosen, counts, strict=True) for _ in range(count)]


def furnish(rng: np.random.Generator, plan: FloorPlan, keep_clear: Float64[np.ndarray, "D 4 2"]) -> list[Piece]:
    """Furnish a room: FEWEST_PIECES pieces or more, apart from each other and from `keep_clear` rectangles.

    Pieces without a place are left out; small ones are added to a room that would be too empty.
    """
    wishes = draw_wishes(rng, plan.area)
    styles = {category: int(rng.integers(2**31)) for category in KINDS}
    designs = []
    for category in wishes:
        # Chairs match in most rooms, but not in all.
        style = styles[category] if rng.random() < 0.7 else int(rng.integers(2**31))
        designs.append((category, *_design(category, style)))
    designs.sort(key=lambda design: -float(np.prod(design[2])))
    placed: list[Piece] = []
    taken, used = [*keep_clear, *plan.blocked], 0.0
    for category, solids, half, height in designs:
        footprint = 4 * float(np.prod(half))
        if used + footprint > _FLOOR_SHARE * plan.area:
            continue
        if (piece := _place(rng, plan, taken, placed, category, solids, half, height)) is not None:
            placed.append(piece)
            taken.append(piece.footprint)
            used += footprint
    fillers = ("stool", "trash can", "plant", "box", "lamp")
    for _ in range(100):
        if len(placed) >= FEWEST_PIECES:
            break
        category = str(rng.choice(fillers))
        solids, half, height = _design(category, styles[category])
        if (piece := _place(rng, plan, taken, placed, category, solids, half, height)) is not None:
            placed.append(piece)
            taken.append(piece.footprint)
    return placed


def _design(category: str, style: int) -> tuple[list[Solid], Float64[np.ndarray, " 2"], float]:
    """Solids with the footprint's centre at the origin, half width and half depth, height."""
    rng = np.random.default_rng(style)
    solids = KINDS[category].build(rng)
    low, high = _extent(solids)
    longest = float((high - low).max())
    least, most = (
        pick(scale, metres / longest) for pick, scale, metres in zip((max, min), _SCALES, _LONGEST_METRES, strict=True)
    )
    scale = float(min(np.exp(rng.uniform(np.log(least), np.log(most))), _TALLEST_METRES / high[2]))
    solids = [solid.scaled(scale) for solid in solids]
    low, high = _extent(solids)
    middle = (low + high) / 2
    moved = [solid.moved(-middle[0], -middle[1], 0.0, 0.0) for solid in solids]
    return moved, (high - low)[:2] / 2, float(high[2])


def _extent(solids: list[Solid]) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
    """The least and the greatest coordinates."""
    corners = np.concatenate([solid.corners for solid in solids])
    return corners.min(axis=0), corners.max(axis=0)


def _place(
    rng: np.random.Generator,
    plan: FloorPlan,
    taken: list[Float64[np.ndarray, "4 2"]],
    placed: list[Piece],
    category: str,
    solids: list[Solid],
    half: Float64[np.ndarray, " 2"],
    height: float,
) -> Piece | None:
    """The piece in the first of twice _CANDIDATES random places that is inside the room and free, or None."""
    for _ in range(2):
        centers, yaws = _candidates(rng, plan, placed, category, half)
        corners = rectangle_corners(centers, half, yaws)
        free = _inside(plan, corners)
        if taken:
            free &= rectangles_apart(corners, np.stack(taken), _GAP_METRES).all(axis=1)
        if free.any():
            best = int(free.argmax())
            center, yaw = centers[best], float(yaws[best])
            turned = tuple(solid.moved(center[0], center[1], 0.0, yaw) for solid in solids)
            return Piece(category, turned, center, half, yaw, height)
    return None


def _inside(plan: FloorPlan, corners: Float64[np.ndarray, "C 4 2"]) -> Bool[np.ndarray, " C"]:
    """Whether rectangles are in the room: points along their borders are, and no corner of the room is in them."""
    share = np.linspace(0, 1, 9)[:-1, None]
    ends = np.roll(corners, -1, axis=1)
    border = corners[:, :, None] * (1 - share) + ends[:, :, None] * share
    inside = plan.contains(border).all(axis=(1, 2))
    sides = corners[:, 1:3] - corners[:, 0:2]
    offset = plan.outline[None, :, None] - corners[:, None, 0:2]
    shares = (offset * sides[:, None]).sum(-1) / (sides * sides).sum(-1)[:, None]
    return inside & ~((shares > 0) & (shares < 1)).all(axis=-1).any(axis=-1)


def _candidates(
    rng: np.random.Generator, plan: FloorPlan, placed: list[Piece], category: str, half: Float64[np.ndarray, " 2"]
) -> tuple[Float64[np.ndarray, "C 2"], Float64[np.ndarray, " C"]]:
    """Centres and directions to try: at a wall, at a table, in front of a sofa or anywhere, according to category."""
    if KINDS[category].at_wall:
        walls = plan.walls[rng.choice(len(plan.outline), _CANDIDATES, p=_wall_shares(plan))]
        along = walls[:, 1] - walls[:, 0]
        lengths = np.linalg.norm(along, axis=1, keepdims=True)
        along = along / lengths
        inward = np.stack([-along[:, 1], along[:, 0]], axis=1)
        share = rng.uniform(0, 1, (_CANDIDATES, 1))
        reach = np.maximum(lengths / 2 - half[0] - 0.02, 0)
        middle = walls.mean(axis=1) + (2 * share - 1) * reach * along
        centers = middle + inward * (half[1] + rng.uniform(0.02, 0.06, (_CANDIDATES, 1)))
        return centers, np.arctan2(inward[:, 1], inward[:, 0]) - np.pi / 2
    low, high = plan.outline.min(axis=0), plan.outline.max(axis=0)
    centers = rng.uniform(low, high, (_CANDIDATES, 2))
    yaws = rng.integers(4, size=_CANDIDATES) * (np.pi / 2) + rng.normal(0, 0.12, _CANDIDATES)
    hosts = [
        piece
        for piece in placed
        if piece.category in {"chair": ("table", "desk"), "coffee table": ("sofa",)}.get(category, ())
    ]
    if hosts:
        for number in range(0, _CANDIDATES, 4):  # three of four; a chair may also be away from any table
            for candidate in range(number, number + 3):
                host = hosts[int(rng.integers(len(hosts)))]
                side = int(rng.integers(4)) if host.category == "table" else 2
                outward = host.yaw + np.pi / 2 * (side + 3)  # side 2 is the front, towards the host's +y
                normal, across = (
                    np.array([math.cos(outward), math.sin(outward)]),
                    np.array([-math.sin(outward), math.cos(outward)]),
                )
                reach, width = (host.half[1], host.half[0]) if side % 2 == 0 else (host.half[0], host.half[1])
                slide = rng.uniform(-1, 1) * max(width - half[0], 0)
                distance = reach + half[1] + rng.uniform(0.07, 0.2) + (0.2 if category == "coffee table" else 0.0)
                centers[candidate] = host.center + normal * distance + across * slide
                yaws[candidate] = outward + np.pi / 2 + rng.normal(0, 0.15)
    return centers, yaws


def _wall_shares(plan: FloorPlan) -> Float64[np.ndarray, " N"]:
    lengths = np.linalg.norm(plan.walls[:, 1] - plan.walls[:, 0], axis=1)
    return lengths / lengths.sum()
