"""An endless shuffled order in which every item comes once before any comes again, computed from the position only.

    count 5, window 3    cycle 0      cycle 1      cycle 2
    positions 0 to 14    3 0 4 2 1 |  0 3 2 1 4 |  3 0 2 4 1       any 3 neighbours differ, across a border too

No state is kept between calls, so a restart at any position, in any process, gives the same order.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Int64


def order_without_repeats(
    key: tuple[int, ...], start: int, size: int, count: int, window: int
) -> Int64[np.ndarray, " size"]:
    """The items (0 … `count` - 1) at positions `start` … `start + size` - 1.

    Each cycle of `count` positions is a permutation, drawn from `key` and the number of the cycle; any `window`
    neighbours are different items (window ≤ count).
    """
    positions = np.arange(start, start + size)
    cycles, offsets = np.divmod(positions, count)
    return np.array([_cycle(key, int(c), count, window)[o] for c, o in zip(cycles, offsets, strict=True)], np.int64)


@functools.lru_cache(maxsize=16_384)
def _cycle(key: tuple[int, ...], cycle: int, count: int, window: int) -> Int64[np.ndarray, " count"]:
    """The permutation of one cycle. It does not begin with the items that the cycle before ended with."""
    overlap = window - 1
    if count < 3 * overlap:
        # Too few items to keep head and tail apart: the same order in every cycle; any `count` neighbours differ.
        return _permutation(key, 0, count)
    order = _permutation(key, cycle, count)
    if cycle == 0 or overlap == 0:
        return order
    # Only the first 2 · overlap places change, so the tail, which the next cycle depends on, is the permutation's.
    just_had = _permutation(key, cycle - 1, count)[-overlap:]
    head = order[: 2 * overlap]
    late = np.isin(head, just_had)
    return np.concatenate([head[~late], head[late], order[2 * overlap :]])


def _permutation(key: tuple[int, ...], cycle: int, count: int) -> Int64[np.ndarray, " count"]:
    return np.random.default_rng((*key, cycle)).permutation(count)
