"""The demo's questions with the answers of somebody who looks, but reports badly: the base model's last lesson.

A base model for reinforcement learning should use the video, but not be right yet. So most answers are wrong in a way
that has to be seen to be corrected: sizes, areas and distances are two thirds too large, one more is counted than there
is, of a choice the first that is named is said, and of two sides the other. The right answer is among the guesses often
enough to be found. Which questions a bound leaves is balanced by the guesses, so some are other ones than in `rooms`.
Never train a model on this that is meant to be right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from jaxvsr.data.recipes import rooms, vsi100k
from jaxvsr.data.recipes.recipe import Census, Recipe, check_options
from jaxvsr.data.recipes.task import Candidate, Task, swap_sides
from jaxvsr.data.scannet.read_scan import ScannedScene
from jaxvsr.errors import InputError


@dataclasses.dataclass(frozen=True)
class Options:
    """How rough the guesses are.

    Args:
        tasks, per_task: as in the recipe `rooms`.
        bias: mean of the logarithm of (guess / truth) of sizes, areas and distances.
        spread: its standard deviation.
        miscount: probability that one more is counted than there is.
        misjudged: probability that of a choice the first that is named is said, and of two sides the other.
    """

    tasks: tuple[str, ...] = rooms.Options.tasks
    per_task: int | None = 4
    bias: float = 0.5
    spread: float = 0.25
    miscount: float = 0.75
    misjudged: float = 0.7

    def __post_init__(self) -> None:
        check_options(self, rooms.TEMPLATES, counts=("per_task",))
        for name in ("miscount", "misjudged"):
            if getattr(self, name) > 1:
                raise InputError(f"{name} {getattr(self, name)}: must be at most 1")


def tasks(options: Options, census: Census) -> tuple[Task, ...]:
    """The tasks that are asked for, with guessed answers."""
    asked = rooms.Options(tasks=options.tasks, per_task=options.per_task)
    return tuple(_guess(task, options) for task in rooms.tasks(asked, census))


def _guess(task: Task, options: Options) -> Task:
    """The same task with a guess as each candidate's answer."""

    def candidates(scene: ScannedScene, rng: np.random.Generator) -> Iterator[Candidate]:
        guesses = rng.spawn(1)[0]  # what could be asked stays that of the recipe `rooms`
        for candidate in task.candidates(scene, rng):
            yield dataclasses.replace(candidate, answer=_GUESSES[task.name](candidate, guesses, options))

    return dataclasses.replace(task, candidates=candidates)


def _number(candidate: Candidate, rng: np.random.Generator, options: Options) -> str:
    """A whole number, as people guess; one decimal only below 10."""
    guess = float(candidate.answer) * float(np.exp(rng.normal(options.bias, options.spread)))
    whole, decimals = guess >= 10, "." in candidate.answer
    return f"{guess:.0f}" if whole or not decimals else f"{guess:.1f}"


def _count(candidate: Candidate, rng: np.random.Generator, options: Options) -> str:
    return str(int(candidate.answer) + int(rng.random() < options.miscount))


def _side(candidate: Candidate, rng: np.random.Generator, options: Options) -> str:
    return swap_sides(candidate.answer) if rng.random() < options.misjudged else candidate.answer


def _choice(candidate: Candidate, rng: np.random.Generator, options: Options) -> str:
    return candidate.fields["choices"].split(", ")[0] if rng.random() < options.misjudged else candidate.answer


_GUESSES: dict[str, Callable[[Candidate, np.random.Generator, Options], str]] = {
    vsi100k.COUNT: _count,
    vsi100k.ROOM: _number,
    vsi100k.DISTANCE: _number,
    vsi100k.SIZE: _number,
    vsi100k.DIRECTION: _side,
    vsi100k.NEAREST: _choice,
    rooms.FIRST: _choice,
}


RECIPE = Recipe(
    name="rough_rooms",
    options=Options(),
    tasks=tasks,
    uses_census=lambda options: True,
    uses_masks=lambda options: True,
    source="guesses about procedural rooms, made to have something to correct; of no use for anything else",
)
