"""What a step of a given size costs by XLA's own count, on abstract values: without weights and without running.

The counterpart of the formulas in `flops`; also how long a published shape takes to compile.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvsr.devices.compiled import ProgramMemory, program_memory
from jaxvsr.grpo.compiled_step import CompiledStep, LossInputs, start_state
from jaxvsr.grpo.objectives import step_normaliser
from jaxvsr.measure.step_bench import Workload, bench_step, random_prompt
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tree import ForwardOptions
from jaxvsr.models.tree_batch import RolloutTokens


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """One compiled function of a step on one device."""

    compile_seconds: float  # tracing and lowering included
    need: ProgramMemory
    flops: float  # of matrix products and elementwise operations, recomputation and padding included


def program_costs(config: ModelConfig, work: Workload, forward: ForwardOptions) -> dict[str, ProgramCost]:
    """`sample`, `reference` (unless beta is 0) and `update`, each compiled as in training."""
    step, flops = _abstract_step(config, work, forward), program_flops(config, work, forward)
    costs = {}
    for name, given in _arguments(step, work).items():
        need = program_memory(step.programs[name].executable(*given))
        costs[name] = ProgramCost(step.programs[name].seconds, need, flops[name])
    return costs


def program_flops(config: ModelConfig, work: Workload, forward: ForwardOptions) -> dict[str, float]:
    """XLA's count for each program before fusion. XLA counts the body of a loop once, so layers are unrolled here and
    the decode loop is multiplied by its number of tokens.
    """
    forward = dataclasses.replace(forward, unroll=True)
    step = _abstract_step(config, work, forward)
    flops = _flops(step, _arguments(step, work))
    first = dataclasses.replace(work, answer_tokens=1)
    unlooped = _abstract_step(config, first, forward)
    prefill = _flops(unlooped, {"sample": _arguments(unlooped, first)["sample"]})["sample"]
    flops["sample"] = prefill + max(work.answer_tokens - 1, 0) * (flops["sample"] - prefill)
    return flops


def _abstract_step(config: ModelConfig, work: Workload, forward: ForwardOptions) -> CompiledStep:
    return bench_step(config, dict(parameter_shapes(config, work.lora, forward.compute_dtype)), work, forward)


def _arguments(step: CompiledStep, work: Workload) -> dict[str, tuple[Any, ...]]:
    """Arguments of each program: zeros, and shapes in place of base weights."""
    config, frozen = step.policy.config, step.policy.frozen
    adapters = {name: shape for name, shape in parameter_shapes(config, work.lora).items() if "lora_" in name}
    state = start_state({name: jnp.zeros(x.shape, x.dtype) for name, x in adapters.items()}, step.optimizer, 0)
    prompt, temperature = random_prompt(config, work), jnp.float32(1.0)
    tree = (work.scenes, work.questions, work.rollouts, work.answer_tokens)
    keys = np.zeros(tree[:2], np.uint32)
    features = jax.eval_shape(step.programs["vision"].function, state.trainable, frozen, prompt)
    seen = prompt.with_features(jnp.zeros(features.shape, features.dtype))
    rollouts = RolloutTokens(np.zeros(tree, np.int32), np.zeros(tree[:3], np.int32))
    logprobs = jnp.zeros(tree, jnp.float32)
    programs: dict[str, tuple[Any, ...]] = {
        "sample": (state.trainable, frozen, prompt, keys, state.seed, state.step, temperature)
    }
    if work.beta:
        programs["reference"] = (step.policy.reference_parameters(), seen, rollouts, temperature)
    normaliser = step_normaliser(np.ones(tree, bool), work.objective)
    inputs = LossInputs(normaliser, np.ones(tree, bool), logprobs, logprobs if work.beta else None, jnp.zeros(tree[:3]))
    programs["update"] = (state, frozen, seen, rollouts, inputs, temperature)
    return programs


def _flops(step: CompiledStep, arguments: dict[str, tuple[Any, ...]]) -> dict[str, float]:
    return {name: step.programs[name].lowered(*given).cost_analysis()["flops"] for name, given in arguments.items()}
