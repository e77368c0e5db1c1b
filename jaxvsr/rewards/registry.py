"""The built-in rewards by name, and what a reward is: a function of completions, with a name and a weight."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

from jaxvsr.errors import InputError
from jaxvsr.rewards import hacking, spatial_r1, svqa_r1, vsgrpo, vsi_bench

# TRL's signature: reward(completions, **columns), the columns being lists as long as completions.
RewardFunction = Callable[..., Sequence[float | None]]

REWARDS: dict[str, RewardFunction] = {
    function.__name__: function
    for function in (
        vsgrpo.vsgrpo_accuracy,
        vsgrpo.vsgrpo_format_think,
        vsgrpo.vsgrpo_format_observe,
        vsgrpo.vsgrpo_length,
        spatial_r1.spatial_r1_nar,
        spatial_r1.spatial_r1_mar,
        spatial_r1.spatial_r1_format,
        svqa_r1.svqa_semantic,
        svqa_r1.svqa_format,
        vsi_bench.vsi_bench,
        hacking.robust_format,
    )
}

# `reward/<name>` of the weighted sum in the log (jaxvsr.grpo.advantages).
_NAMES_OF_THE_SUM = ("mean", "std")


@dataclasses.dataclass(frozen=True)
class Reward:
    """One reward of a run. `name` is the one in metrics (`reward/<name>`), `term` the text that it was asked for by."""

    name: str
    function: RewardFunction
    weight: float = 1.0
    term: str = ""


def check_reward_names(rewards: Sequence[Reward]) -> None:
    """`InputError` where two rewards, or a reward and the sum, would have one name in the metrics."""
    names = [reward.name for reward in rewards]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"rewards: {name!r} is listed twice; each may appear once")
        if name in _NAMES_OF_THE_SUM:
            raise InputError(f"rewards: {name!r} is the name of the sum in the log (reward/{name}); call it another")


def check_rewards(rewards: Sequence[Reward]) -> None:
    """`InputError` where there is no reward, or what one computes with cannot be loaded: said before anything is
    sampled.
    """
    if not rewards:
        raise InputError(f"rewards: none are given, and GRPO needs one; the built-in ones are {', '.join(REWARDS)}")
    check_reward_names(rewards)
    for reward in rewards:
        given = reward.function  # of a term with options a partial
        bound = given if isinstance(given, functools.partial) else functools.partial(given)
        if bound.func is svqa_r1.svqa_semantic:
            svqa_r1.check_model(**bound.keywords)
