"""Questions that several recipes ask, with the rules as arguments.

A recipe names the objects of a scene (`Named`: name → objects) and says how its paper measures. A function here goes
through single objects, pairs, triples or fours and yields a `Candidate` for each that passes the rules.
Lengths are in metres, angles in degrees.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from jaxvsr.data.geometry import directions
from jaxvsr.data.recipes.task import Candidate
from jaxvsr.data.scannet.appearances import first_times
from jaxvsr.data.scannet.categories import is_structural
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject

Named = Mapping[str, tuple[SceneObject, ...]]
_TRIES = 20  # draws of other options before a target is given up
_ORDERS = 60  # sets of categories per scene that are asked about in their order of appearance
_ORDERED_NAMES = 40  # categories that these sets are made of
_PLACES = 48  # objects that triples are made of; real scans have fewer with a name of their own


def name_objects(
    scene: ScannedScene, name_of: Callable[[SceneObject], str | None]
) -> dict[str, tuple[SceneObject, ...]]:
    """The objects of a scene by name, in the order in which names first occur; objects named None are left out."""
    named: dict[str, tuple[SceneObject, ...]] = {}
    for item in scene.objects:
        name = name_of(item)
        if name is not None:
            named[name] = (*named.get(name, ()), item)
    return named


def objects_by_category(scene: ScannedScene, *, exclude_structural: bool) -> dict[str, tuple[SceneObject, ...]]:
    """The objects of a scene by category, with or without walls, floors and labels that name nothing."""

    def name_of(item: SceneObject) -> str | None:
        return None if exclude_structural and is_structural(item.category) else item.category

    return name_objects(scene, name_of)


def once(named: Named) -> list[tuple[str, SceneObject]]:
    """The objects that are the only one of their name."""
    return [(name, items[0]) for name, items in named.items() if len(items) == 1]


def count_candidates(named: Named, minimum: int) -> Iterator[Candidate]:
    """How many objects there are of each name with at least `minimum`."""
    for name, items in named.items():
        if len(items) >= minimum:
            yield Candidate({"category": name}, str(len(items)))


def area_candidates(square_metres: float, decimals: int) -> Iterator[Candidate]:
    """How large a room is; no question where the area is 0 after rounding."""
    if round(square_metres, decimals) > 0:
        yield Candidate({}, f"{square_metres:.{decimals}f}")


def distance_candidates(
    objects: Sequence[tuple[str, SceneObject]],
    distance: Callable[[SceneObject, SceneObject], float],
    *,
    minimum: float,
    decimals: int,
) -> Iterator[Candidate]:
    """How far apart two objects are, for every pair whose distance after rounding is at least `minimum`."""
    for (first, item), (second, other) in itertools.combinations(objects, 2):
        metres = round(distance(item, other), decimals)
        if metres >= minimum and metres > 0:
            yield Candidate({"first": first, "second": second}, f"{metres:.{decimals}f}")


def nearest_candidates(
    targets: Sequence[tuple[str, SceneObject]],
    others: Named,
    distance: Callable[[SceneObject, SceneObject], float],
    rng: np.random.Generator,
    *,
    choices: int,
    minimum: float,
    margin: float,
    apart: Literal["nearest", "all"],
    per_target: int = 1,
) -> Iterator[Candidate]:
    """Which of some other objects is nearest to a target; of a name with several objects the nearest counts.

    Args:
        targets: what distances are measured from.
        others: names to choose from; a target is never among its own options.
        distance: metres.
        rng: draws the options; where they are too close to call, others are tried.
        choices: number of options of a question.
        minimum: no option is nearer than this, in metres.
        margin: by how many metres options have to differ.
        apart: which options: the nearest from each other one, or any two.
        per_target: at most this many questions, each with other options.
    """
    for target, item in targets:
        names = [name for name in others if name != target]
        metres = np.array([min(distance(item, other) for other in others[name]) for name in names])
        names = [name for name, far in zip(names, metres, strict=True) if far >= minimum]
        metres = metres[metres >= minimum]
        if len(names) < choices:
            continue
        asked: set[frozenset[int]] = set()
        for _ in range(_TRIES * per_target):
            chosen = rng.choice(len(names), size=choices, replace=False)
            ordered = np.sort(metres[chosen])
            gaps = np.diff(ordered) if apart == "all" else ordered[1:2] - ordered[:1]
            if gaps.min() < margin or frozenset(chosen.tolist()) in asked:
                continue
            asked.add(frozenset(chosen.tolist()))
            options = tuple(names[i] for i in chosen)
            yield Candidate({"target": target}, options[int(metres[chosen].argmin())], options)
            if len(asked) == per_target:
                break


def triples(
    places: Float[np.ndarray, "N 3"], rng: np.random.Generator, *, minimum: float, maximum: float
) -> tuple[Int[np.ndarray, "T 3"], Float[np.ndarray, " T"]]:
    """All (stand, face, query) of which any two are `minimum` to `maximum` apart seen from above, and their turns.

    Of more than 48 places only 48, drawn from `rng`, are used: the number of triples is the third power of theirs.

    Returns:
        Indices of `places`; degrees counter-clockwise by which `query` is away from straight ahead.
    """
    if len(places) < 3:
        return np.zeros((0, 3), np.int64), np.zeros(0)
    if len(places) > _PLACES:
        drawn = np.sort(rng.choice(len(places), _PLACES, replace=False))
        found, turns = triples(places[drawn], rng, minimum=minimum, maximum=maximum)
        return drawn[found], turns
    apart = np.linalg.norm(places[:, None, :2] - places[None, :, :2], axis=-1)
    fits = (apart >= minimum) & (apart <= maximum)
    found = _threes(len(places))
    stand, face, query = found.T
    found = found[fits[stand, face] & fits[face, query] & fits[query, stand]]
    turns = directions.turn_degrees(*places[found].transpose(1, 0, 2))
    return found, turns


def side_candidates(
    names: Sequence[str],
    places: Float[np.ndarray, "N 3"],
    rng: np.random.Generator,
    *,
    minimum: float,
    maximum: float,
    minimum_angle: float,
) -> Iterator[Candidate]:
    """Left or right for every triple of `triples` whose third place is `minimum_angle` or more from the line of sight,
    in front or behind."""
    found, turns = triples(places, rng, minimum=minimum, maximum=maximum)
    clear = directions.degrees_from_line(turns) >= minimum_angle
    for (stand, face, query), turn in zip(found[clear].tolist(), turns[clear].tolist(), strict=True):
        fields = {"stand": names[stand], "face": names[face], "query": names[query]}
        yield Candidate(fields, directions.side(turn))


def seconds_of_appearance(
    scene: ScannedScene, named: Named, minimum_share: float, sampled_frames: int | None
) -> dict[str, float]:
    """When each name is first seen (`appearances.first_times`)."""
    name_of = {item.id: name for name, items in named.items() for item in items}
    return first_times(scene, name_of, minimum_share=minimum_share, sampled_frames=sampled_frames)


@functools.lru_cache(maxsize=8)
def _threes(count: int) -> Int[np.ndarray, "T 3"]:
    return np.array(list(itertools.permutations(range(count), 3)))


def order_candidates(
    times_s: Mapping[str, float], rng: np.random.Generator, *, margin_s: float, choices: int = 4
) -> Iterator[Candidate]:
    """In which order four categories are first seen, any two of them more than `margin_s` apart; the wrong options are
    other orders of the same four."""
    names = sorted(times_s)
    if len(names) > _ORDERED_NAMES:
        names = [names[i] for i in sorted(rng.choice(len(names), _ORDERED_NAMES, replace=False).tolist())]
    if len(names) < choices:
        return
    seconds = np.array([times_s[name] for name in names])
    sets = np.array(list(itertools.combinations(range(len(names)), choices)))
    sets = sets[np.diff(np.sort(seconds[sets], axis=1), axis=1).min(axis=1) > margin_s]
    for chosen in rng.permutation(sets)[:_ORDERS]:
        right = chosen[np.argsort(seconds[chosen])]
        # Twelve shuffles of four contain three wrong orders in all but one of a hundred million cases.
        shuffles = rng.permuted(np.tile(right, (3 * choices, 1)), axis=1)
        orders = list(dict.fromkeys([tuple(right.tolist()), *map(tuple, shuffles.tolist())]))[:4]
        if len(orders) == 4:
            options = tuple(", ".join(names[i] for i in order) for order in orders)
            asked = ", ".join(names[i] for i in rng.permutation(chosen))
            yield Candidate({"categories": asked}, options[0], options)
