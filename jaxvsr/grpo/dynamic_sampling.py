"""Dynamic sampling: a step's questions are drawn again until enough groups teach something.

A group whose answers all earn the same has no advantage (DAPO, Yu et al. 2025, arXiv:2503.14476, section 3.2). DAPO
fills the batch with other questions; here the same questions are drawn again with other random numbers, and a question
keeps the first draw that is informative. So the order of the data stays a function of (seed, step), and a run resumes
to the bit. The number of draws is bounded; questions that stay uninformative keep their first draw and count as such.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Bool, UInt32

from jaxvsr.grpo.advantages import group_advantages
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.grpo.rollouts import RewardedRollouts, reward_rollouts
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.grpo.step_context import PlacedBatch, StepContext


def draw_until_informative(
    run: StepContext, state: TrainState, batch: HostBatch, placed: PlacedBatch, first: Sampled
) -> tuple[Sampled, RewardedRollouts]:
    """Draw again, at most `sampling.max_draws` times in all, until at least `sampling.min_informative` of the groups
    have a non-zero advantage."""
    sampling = run.config.sampling
    sampled, rewarded = first, reward_rollouts(run, batch, first)
    informative, draws = informative_groups(run, rewarded), 1
    while informative.mean() < sampling.min_informative and draws < sampling.max_draws:
        keys = run.scenes.place(keys_of_draw(batch.question_keys, draws))
        again, _ = run.compiled.sample(state, placed.prompt, keys)
        draws += 1
        rewarded_again = reward_rollouts(run, batch, again)
        better = ~informative & informative_groups(run, rewarded_again)
        own = better[run.scenes.own]
        sampled = run.compiled.choose(run.scenes.place(own), again, sampled)
        rewarded = _merged(better, own, rewarded_again, rewarded)
        informative |= better
    return jax.block_until_ready(sampled), dataclasses.replace(rewarded, draws=draws)


def keys_of_draw(question_keys: UInt32[np.ndarray, "s Q"], draw: int) -> UInt32[np.ndarray, "s Q"]:
    """The questions' random keys in their draw number `draw`; draw 0 has the keys as they are."""
    return question_keys ^ np.uint32(draw * 0x9E3779B9 & 0xFFFFFFFF)  # 2**32 / golden ratio: no small differences


def informative_groups(run: StepContext, rewarded: RewardedRollouts) -> Bool[np.ndarray, "S Q"]:
    """Groups whose answers do not all earn the same."""
    weights = [reward.weight for reward in run.rewards]
    return group_advantages(rewarded.rewards, weights, run.config.advantages).informative


def _merged(
    better: Bool[np.ndarray, "S Q"], own: Bool[np.ndarray, "s Q"], again: RewardedRollouts, before: RewardedRollouts
) -> RewardedRollouts:
    group = before.length.shape[-1]
    texts = zip(np.repeat(own.reshape(-1), group), again.texts, before.texts, strict=True)
    return RewardedRollouts(
        [new if chosen else old for chosen, new, old in texts],
        np.where(better[..., None], again.rewards, before.rewards),
        np.where(better[..., None], again.length, before.length),
        np.where(better[..., None], again.truncated, before.truncated),
        before.first_rewards,
    )
