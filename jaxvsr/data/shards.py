"""Scenes dealt out to several tasks of one data folder, each of which does every n-th.

What is done lies in the folder, so nobody keeps a list: a task that is started again goes on with what its share lacks,
in an array of any size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


@dataclasses.dataclass(frozen=True)
class Shard:
    """The `index`-th of `count` shares, counted from 1; `by_cluster` where the cluster has said which, and all tasks
    see one folder."""

    index: int = 1
    count: int = 1
    by_cluster: bool = False

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, things: Sequence[Thing]) -> Sequence[Thing]:
        """This share; each thing is in exactly one."""
        return things[self.index - 1 :: self.count]

    def lacking(self, things: Sequence[Thing], is_done: Callable[[Thing], bool]) -> dict[int, int]:
        """The other shares that are not done → how many things each of them lacks."""
        counts = {
            index: sum(not is_done(thing) for thing in things[index - 1 :: self.count])
            for index in range(1, self.count + 1)
            if index != self.index
        }
        return {index: lacks for index, lacks in counts.items() if lacks}


def lacking_line(lacking: dict[int, int], count: int, what: str) -> str:
    """What to print about shares that are not done; `what` names the things.

    >>> lacking_line({2: 25, 5: 25}, 8, "scans")
    'not done yet: shards 2, 5 of 8 (50 scans); where their tasks have died, start the same command again'
    """
    shards = ", ".join(map(str, lacking))
    name = "shard" if len(lacking) == 1 else "shards"
    return (
        f"not done yet: {name} {shards} of {count} ({sum(lacking.values()):,} {what}); where their tasks have died, "
        "start the same command again"
    )
