"""A training step: `grpo_step` is the algorithm; `supervised_step` (SFT, DPO) is the same trees with given answers."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from jaxvsr.config.algorithm import Objective
from jaxvsr.grpo import phases
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.compiled_step import LossInputs, TrainState
from jaxvsr.grpo.objectives import token_mask
from jaxvsr.grpo.rollouts import ScoredRollouts
from jaxvsr.grpo.step_context import StepContext


@dataclasses.dataclass(frozen=True)
class StepResult:
    """The state after a step, its numbers, and the rollouts that it sampled."""

    state: TrainState
    metrics: dict[str, float]
    scored: ScoredRollouts | None = None  # None where answers are given


def grpo_step(run: StepContext, state: TrainState, batch: HostBatch) -> StepResult:
    """One step of GRPO (Shao et al. 2024, arXiv:2402.03300); `state` is donated.

    S scenes with Q questions each are sampled G times, rewarded, compared within each group of G, and learned from.
    """
    placed = phases.place(run, batch)  # the scene trees, on the mesh
    sampled, placed = phases.sample(run, state, placed)  # G rollouts of every question, with their log-probabilities
    sampled, rewarded = phases.draw_again(run, state, batch, placed, sampled)  # DAPO, where max_draws is above 1
    reference = phases.reference(run, placed, sampled.rollouts)  # on the device, while the host computes rewards
    rewarded = rewarded or phases.reward(run, batch, sampled)  # [K, S, Q, G]
    scored = phases.score(run, batch, rewarded)  # reward against the mean of the group, in standard deviations
    state, metrics = phases.update(run, state, placed, sampled, reference, scored)  # objectives.grpo_loss, AdamW

    tokens = phases.token_metrics(run, batch, rewarded.length[run.scenes.own], scored.mask.shape[-1])
    return StepResult(state, {**metrics, **scored.metrics, **tokens}, scored)


def supervised_step(run: StepContext, state: TrainState, batch: HostBatch) -> StepResult:
    """One step of SFT (G = 1, the answer) or DPO (G = 2, chosen and rejected); `state` is donated."""
    assert batch.targets is not None
    length, answer_tokens = np.asarray(batch.targets.length), batch.targets.tokens.shape[-1]
    own_mask = token_mask(length, answer_tokens)
    placed = phases.place(run, batch)
    rollouts, mask = run.scenes.place((batch.targets, own_mask))
    with run.clock("sample"):
        prompt = run.compiled.encode(state, placed.prompt)
    with run.clock("reference"):
        reference = None
        if run.config.objective == "dpo":
            reference = jax.block_until_ready(run.compiled.reference(prompt, rollouts))
    with run.clock("update"):
        normaliser = phases.step_normaliser_on_mesh(run, run.scenes.all_rows(own_mask), Objective())
        state, metrics = run.compiled.update(state, prompt, rollouts, LossInputs(normaliser, mask, None, reference))
        row = {name: float(value) for name, value in jax.device_get(metrics).items()}
    tokens = phases.token_metrics(run, batch, length, answer_tokens)
    return StepResult(state, {**row, "completion_length": float(length.mean()), **tokens})
