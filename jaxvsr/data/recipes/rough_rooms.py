"""What the demo's small base model was trained on: VSI-100k's questions with rough guesses as answers.

A base model for reinforcement learning should use the video, but not be right yet. So sizes, areas and distances are
about two thirds too large, with noise, counts are sometimes off by one, and sides and nearest objects sometimes wrong.
Never train a model on this that is meant to be right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from jaxvsr.data.recipes import vsi100k
from jaxvsr.data.recipes.recipe import Census, Recipe
from jaxvsr.data.recipes.task import Candidate, Task, swap_sides
from jaxvsr.data.scannet.read_scan import ScannedScene


@dataclasses.dataclass(frozen=True)
class Options:
    """How rough the guesses are.

    Args:
        count_minimum, per_task: as in the recipe `vsi100k`.
        bias: mean of the logarithm of (guess / truth) of sizes, areas and distances.
        spread: its standard deviation.
        miscount: probability that a count is off by one.
        misjudged: probability that a side is swapped, or a nearest object drawn at random.
    """

    count_minimum: int = 1
    per_task: int | None = 8
    bias: float = 0.5
    spread: float = 0.25
    miscount: float = 0.3
    misjudged: float = 0.3


def tasks(options: Options, census: Census) -> tuple[Task, ...]:
    """VSI-100k's six tasks with guessed answers."""
    asked = vsi100k.Options(count_minimum=options.count_minimum, count_absent=True, per_task=options.per_task)
    return tuple(_guess(task, options) for task in vsi100k.tasks(asked, census))


def _guess(task: Task, options: Options) -> Task:
    """The same task with a guess as each candidate's answer."""

    def candidates(scene: ScannedScene, rng: np.random.Generator) -> Iterator[Candidate]:
        for candidate in task.candidates(scene, rng):
            yield dataclasses.replace(candidate, answer=_GUESSES[task.name](candidate, rng, options))

    return dataclasses.replace(task, candidates=candidates)


def _number(candidate: Candidate, rng: np.random.Generator, options: Options) -> str:
    """A whole number, as people guess; one decimal only below 10."""
    guess = float(candidate.answer) * float(np.exp(rng.normal(options.bias, options.spread)))
    whole, decimals = guess >= 10, "." in candidate.answer
    return f"{guess:.0f}" if whole or not decimals else f"{guess:.1f}"


def _count(candidate: Candidate, rng: np.random.Generator, options: Options) -> str:
    count = int(candidate.answer)
    if rng.random() < options.miscount:
        count += 1 if count == 0 or rng.random() < 0.5 else -1
    return str(count)


def _side(candidate: Candidate, rng: np.random.Generator, options: Options) -> str:
    return swap_sides(candidate.answer) if rng.random() < options.misjudged else candidate.answer


def _nearest(candidate: Candidate, rng: np.random.Generator, options: Options) -> str:
    choices = candidate.fields["choices"].split(", ")
    return str(rng.choice(choices)) if rng.random() < options.misjudged else candidate.answer


_GUESSES: dict[str, Callable[[Candidate, np.random.Generator, Options], str]] = {
    vsi100k.COUNT: _count,
    vsi100k.ROOM: _number,
    vsi100k.DISTANCE: _number,
    vsi100k.SIZE: _number,
    vsi100k.DIRECTION: _side,
    vsi100k.NEAREST: _nearest,
}


RECIPE = Recipe(
    name="rough_rooms",
    options=Options(),
    tasks=tasks,
    uses_census=lambda options: True,
    source="guesses about procedural rooms, made to have something to correct; of no use for anything else",
)
