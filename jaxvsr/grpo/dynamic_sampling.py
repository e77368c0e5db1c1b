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
from jaxtyping import Array, Bool, Float, UInt32

from jaxvsr.devices.processes import place
from jaxvsr.grpo.advantages import group_advantages
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.grpo.rollouts import RewardedRollouts, reward_rollouts
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.models.tree_batch import TreePrompt
from jaxvsr.training.run_context import Training


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """The rollouts of a step, and how often its questions were drawn for them."""

    sampled: Sampled
    rewarded: RewardedRollouts
    first: RewardedRollouts  # of the first draw, which nothing was chosen by
    draws: int


def draw_until_informative(
    training: Training,
    state: TrainState,
    batch: HostBatch,
    prompt: TreePrompt,
    features: Float[Array, "S U H"],
    temperature: Float[Array, ""],
    first: Sampled,
) -> Drawn:
    """Draw again, at most `sampling.max_draws` times in all, until `sampling.min_informative` of the groups inform."""
    sampling, scenes = training.config.sampling, training.config.data.scenes
    first_rewarded = reward_rollouts(training, batch, first)
    sampled, rewarded = first, first_rewarded
    informative, draws = informative_groups(training, rewarded), 1
    while informative.mean() < sampling.min_informative and draws < sampling.max_draws:
        keys = place(keys_of_draw(batch.question_keys, draws), training.mesh, scenes)
        again, _ = training.step.sample(state, prompt, keys, temperature, features)
        draws += 1
        rewarded_again = reward_rollouts(training, batch, again)
        better = ~informative & informative_groups(training, rewarded_again)
        own = rewarded.own(better)
        sampled = training.step.choose(place(own, training.mesh, scenes), again, sampled)
        rewarded = _merged(better, own, rewarded_again, rewarded)
        informative |= better
    return Drawn(jax.block_until_ready(sampled), rewarded, first_rewarded, draws)


def keys_of_draw(question_keys: UInt32[np.ndarray, "S Q"], draw: int) -> UInt32[np.ndarray, "S Q"]:
    """The questions' random keys in their draw number `draw`; draw 0 has the keys as they are."""
    return question_keys ^ np.uint32(draw * 0x9E3779B9 & 0xFFFFFFFF)  # 2**32 / golden ratio: no small differences


def informative_groups(training: Training, rewarded: RewardedRollouts) -> Bool[np.ndarray, "S Q"]:
    """Groups of all scenes whose answers do not all earn the same."""
    weights = [reward.weight for reward in training.rewards]
    return group_advantages(rewarded.everyone, weights, training.config.advantages).informative


def _merged(
    better: Bool[np.ndarray, "S Q"], own: Bool[np.ndarray, "s Q"], again: RewardedRollouts, before: RewardedRollouts
) -> RewardedRollouts:
    group = before.length.shape[-1]
    texts = zip(np.repeat(own.reshape(-1), group), again.answers, before.answers, strict=True)
    return RewardedRollouts(
        [new if chosen else old for chosen, new, old in texts],
        np.where(own[..., None], again.length, before.length),
        np.where(own[..., None], again.truncated, before.truncated),
        np.where(better[..., None], again.everyone, before.everyone),
        before.first,
    )
