"""The phases of a training step, each timed: place, sample, draw again, reference, reward, score, update."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float, Int32

from jaxvsr.config.algorithm import Objective
from jaxvsr.devices.mesh import replicated
from jaxvsr.grpo.advantages import gather_informative
from jaxvsr.grpo.batches import HostBatch, TokenCount, count_tokens, tokens_of_scenes
from jaxvsr.grpo.compiled_step import LossInputs, TrainState
from jaxvsr.grpo.dynamic_sampling import draw_until_informative
from jaxvsr.grpo.objectives import Normaliser, step_normaliser
from jaxvsr.grpo.rollouts import RewardedRollouts, ScoredRollouts, reward_rollouts, score_rollouts
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.grpo.step_context import PlacedBatch, StepContext
from jaxvsr.models.tree_batch import RolloutTokens


def place(run: StepContext, batch: HostBatch) -> PlacedBatch:
    """The prompt on the mesh: pixels, or stored features."""
    with run.clock("data"), run.clock.own_work():
        return PlacedBatch(*run.scenes.place((batch.prompt, batch.question_keys)))


def sample(run: StepContext, state: TrainState, placed: PlacedBatch) -> tuple[Sampled, PlacedBatch]:
    """G rollouts of every question, and the batch with the vision features for the passes that follow."""
    with run.clock("sample"):
        sampled, prompt = run.compiled.sample(state, placed.prompt, placed.question_keys)
        return jax.block_until_ready(sampled), dataclasses.replace(placed, prompt=prompt)


def draw_again(
    run: StepContext, state: TrainState, batch: HostBatch, placed: PlacedBatch, sampled: Sampled
) -> tuple[Sampled, RewardedRollouts | None]:
    """Dynamic sampling, with its rewards; the rollouts as they are where `sampling.max_draws` is 1."""
    if run.config.sampling.max_draws == 1:
        return sampled, None
    with run.clock("draw_again"):
        return draw_until_informative(run, state, batch, placed, sampled)


def reference(run: StepContext, placed: PlacedBatch, rollouts: RolloutTokens) -> Float[Array, "S Q G R"] | None:
    """Log-probabilities under the reference policy, dispatched but not waited for; None where beta is 0."""
    if not run.config.grpo.beta:
        return None
    with run.clock.standing("reference"):
        logprobs = run.compiled.reference(placed.prompt, rollouts)
    run.clock.reference_starts(logprobs)
    return logprobs


def reward(run: StepContext, batch: HostBatch, sampled: Sampled) -> RewardedRollouts:
    """Every reward of every rollout, on the host."""
    with run.clock("reward"):
        return reward_rollouts(run, batch, sampled)


def score(run: StepContext, batch: HostBatch, rewarded: RewardedRollouts) -> ScoredRollouts:
    """Each rollout against the others to its question."""
    with run.clock("reward"):
        return score_rollouts(run, batch, rewarded)


def update(
    run: StepContext,
    state: TrainState,
    placed: PlacedBatch,
    sampled: Sampled,
    reference: Float[Array, "S Q G R"] | None,
    scored: ScoredRollouts,
) -> tuple[TrainState, dict[str, float]]:
    """`update.inner_steps` optimizer steps on the same rollouts; `state` is donated.

    Metrics are those of the last step, but `logprob_gap` of the first: only there is the policy the one that
    sampled.
    """
    with run.clock("update"):
        inputs = loss_inputs(run, sampled, reference, scored)
        first: dict[str, jax.Array] = {}
        for _ in range(run.config.update.inner_steps):
            state, metrics = run.compiled.update(state, placed.prompt, sampled.rollouts, inputs)
            first = first or metrics
        metrics |= {name: first[name] for name in ("logprob_gap",) if name in first}
        row = {name: float(value) for name, value in jax.device_get(metrics).items()}
    return state, {**row, "update_questions": float(inputs.mask.shape[1])}


def loss_inputs(
    run: StepContext, sampled: Sampled, reference: Float[Array, "S Q G R"] | None, scored: ScoredRollouts
) -> LossInputs:
    """The update's inputs. Without KL, groups that have no advantage are left out."""
    mask, advantages, index = scored.mask, scored.advantages, None
    objective, own = run.config.grpo, run.scenes.own
    if not objective.beta:
        bucket = gather_informative(scored.informative)
        if bucket.index.shape != scored.informative.shape:
            mask, advantages = bucket.take(mask) & bucket.real[..., None, None], bucket.take(advantages)
            index = bucket.index[own]
    normaliser = step_normaliser_on_mesh(run, scored.mask, objective, mask)
    mask, advantages, index = run.scenes.place((mask[own], advantages[own], index))
    return LossInputs(normaliser, mask, sampled.logprobs, reference, advantages, index)


def step_normaliser_on_mesh(
    run: StepContext, mask: np.ndarray, objective: Objective, updated: np.ndarray | None = None
) -> Normaliser:
    """The step's normaliser on the mesh, from the mask [S, Q, G, R] of all processes and that of the updated groups."""
    normaliser = step_normaliser(mask, objective, run.config.sampling.answer_tokens, updated)
    everywhere = replicated(run.scenes.mesh)
    return jax.tree.map(lambda leaf: jax.device_put(leaf, everywhere), normaliser)


def token_metrics(
    run: StepContext, batch: HostBatch, length: Int32[np.ndarray, "s Q G"], answer_tokens: int
) -> dict[str, float]:
    """`tokens` of the step's trees, and `padding_share`."""
    # All processes pad alike; those that hold parts of the same scenes (`tensor`) count them once.
    padded = count_tokens(batch.prompt, length, answer_tokens, run.scenes.size // len(length)).padded
    real = int(run.scenes.all_rows(tokens_of_scenes(batch.prompt, length)).sum())
    count = TokenCount(real, padded)
    return {"tokens": float(count.real), "padding_share": count.padding_share}
