"""What the scene tree saves in a run, against the same rollouts as separate sequences that each have the video."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.errors import InputError
from jaxvsr.grpo.batches import count_tokens
from jaxvsr.grpo.compiled_step import CompiledStep, LossInputs, TrainState
from jaxvsr.grpo.objectives import step_normaliser, token_mask
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt
from jaxvsr.runs.run_folder import RunFolder
from jaxvsr.training.load_policy import load_policy
from jaxvsr.training.run_inputs import open_inputs


@dataclasses.dataclass(frozen=True)
class TreeSavings:
    """Loss and gradients of the same rollouts, vision tower included, as a tree and as separate sequences."""

    rollouts: int
    tree_tokens: int  # tokens of the forward pass, without padding
    separate_tokens: int
    tree_seconds: float  # median of three
    separate_seconds: float
    gradient_difference: float  # norm of the difference over the norm, of all trainable weights together

    @property
    def line(self) -> str:
        """The result in one sentence."""
        return (
            f"The scene tree read {self.tree_tokens:,} tokens where {self.rollouts} separate sequences read "
            f"{self.separate_tokens:,} ({self.separate_tokens / self.tree_tokens:.1f} times as many); "
            f"loss and gradients took {self.tree_seconds:.2f} s instead of {self.separate_seconds:.2f} s "
            f"({self.separate_seconds / self.tree_seconds:.1f} times as long), "
            f"and the gradients differ by {self.gradient_difference:.1e} of their norm."
        )


def separate_sequences(prompt: TreePrompt, group: int) -> TreePrompt:
    """S·Q·G scenes with one question and one rollout each, in the order (scene, question, rollout)."""
    scenes, questions = prompt.question_tokens.shape[:2]
    scene = np.repeat(np.arange(scenes), questions * group)
    return dataclasses.replace(
        jax.tree.map(lambda leaf: leaf[scene], prompt),
        question_tokens=jnp.repeat(_rows(prompt.question_tokens, 2), group, axis=0)[:, None],
        question_length=jnp.repeat(_rows(prompt.question_length, 2), group, axis=0)[:, None],
    )


def measure_tree_savings(
    step: CompiledStep,
    state: TrainState,
    prompt: TreePrompt,
    rollouts: RolloutTokens,
    inputs: LossInputs,
) -> TreeSavings:
    """Time loss and gradients of these rollouts as a tree and as separate sequences, and compare the gradients."""
    group = rollouts.tokens.shape[2]

    def gradients(trainable: Any, frozen: Any, prompt: TreePrompt, rollouts: RolloutTokens, inputs: LossInputs) -> Any:
        return jax.grad(step.loss, has_aux=True)(trainable, frozen, prompt, rollouts, inputs, step.temperature)[0]

    def of_one_rollout(leaf: Any) -> jax.Array:
        return leaf if jnp.ndim(leaf) == 0 else _rows(leaf, 3)[:, None, None]  # the normaliser is the step's

    separate_rollouts, separate_inputs = jax.tree.map(of_one_rollout, (rollouts, inputs))
    program = CompiledFunction("loss and gradients", gradients)
    parameters = (state.trainable, step.policy.frozen)
    separate = separate_sequences(prompt, group)
    tree_gradients, tree_seconds = _timed(lambda: program(*parameters, prompt, rollouts, inputs))
    separate_gradients, separate_seconds = _timed(
        lambda: program(*parameters, separate, separate_rollouts, separate_inputs)
    )
    difference = jax.tree.map(lambda a, b: a - b, tree_gradients, separate_gradients)
    length = np.asarray(rollouts.length)
    return TreeSavings(
        rollouts=length.size,
        tree_tokens=count_tokens(prompt, length, 0).real,
        separate_tokens=count_tokens(separate, np.asarray(separate_rollouts.length), 0).real,
        tree_seconds=tree_seconds,
        separate_seconds=separate_seconds,
        gradient_difference=_norm(difference) / _norm(separate_gradients),
    )


def savings_of_run(run: Path, scenes: int) -> TreeSavings:
    """`measure_tree_savings` of the first scenes of a GRPO run's first step, with the rollouts sampled there.

    Raises:
        InputError: not a run folder, or not a GRPO run.
    """
    config = RunFolder(run).read_config()
    if config.objective != "grpo":
        raise InputError(f"{run}: objective {config.objective}; only GRPO runs sample rollouts")
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    with_tower = dataclasses.replace(config, data=dataclasses.replace(config.data, features="off"))
    inputs = open_inputs(with_tower, mesh, evaluates=False, trains=False)
    policy = load_policy(config, inputs.model, inputs.processor, mesh)
    batches = inputs.batches()
    batch = next(batches)
    batches.close()
    prompt, keys = jax.tree.map(lambda leaf: jnp.asarray(leaf[:scenes]), (batch.prompt, batch.question_keys))
    step, state = policy.step(), policy.start()
    sampled, seen = step.sample(state, prompt, keys)
    reference = step.reference(seen, sampled.rollouts) if config.grpo.beta else None
    advantages = np.random.default_rng(0).normal(size=sampled.rollouts.length.shape)  # equal ones have no gradient
    mask = token_mask(sampled.rollouts.length, config.sampling.answer_tokens)
    normaliser = step_normaliser(mask, config.grpo)
    loss_inputs = LossInputs(normaliser, mask, sampled.logprobs, reference, jnp.asarray(advantages, jnp.float32))
    return measure_tree_savings(step, state, prompt, sampled.rollouts, loss_inputs)


def _rows(leaf: Any, axes: int) -> jax.Array:
    """The first `axes` axes flattened to one."""
    return jnp.asarray(leaf).reshape(-1, *leaf.shape[axes:])


def _norm(tree: Any) -> float:
    return float(np.sqrt(sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(tree))))


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the median seconds of three runs after one that compiles."""
    result = jax.block_until_ready(run())
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)
