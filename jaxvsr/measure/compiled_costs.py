"""What a step of a given size costs by XLA's own count, on abstract values: without weights and without running.

The counterpart of the formulas in `flops`; also how long a published shape takes to compile.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxvsr.devices.compiled import ProgramMemory, program_memory
from jaxvsr.devices.mesh import replicated, scene_sharding
from jaxvsr.grpo.compiled_step import CompiledStep, LossInputs, start_state
from jaxvsr.grpo.objectives import step_normaliser
from jaxvsr.measure.step_bench import Workload, bench_step, random_prompt
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.sharding import parameter_spec
from jaxvsr.models.tree import ForwardOptions
from jaxvsr.models.tree_batch import RolloutTokens


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """One compiled function of a step on one device."""

    compile_seconds: float  # tracing and lowering included
    need: ProgramMemory
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True)
class Collective:
    """What the devices send each other in one operation of a compiled function; in a loop it runs once a round."""

    kind: str  # all-reduce, all-gather, reduce-scatter, all-to-all, collective-permute
    dtype: str  # XLA's name: bf16, f32, …
    shape: tuple[int, ...]  # of the result on one device


def program_costs(
    config: ModelConfig, work: Workload, forward: ForwardOptions, mesh: Mesh | None = None
) -> dict[str, ProgramCost]:
    """`sample`, `reference` (unless beta is 0) and `update`, each compiled as in training."""
    step = _abstract_step(config, work, forward, mesh)
    costs = {}
    for name, given in _arguments(step, work).items():
        program = step.programs[name].executable(*given)
        costs[name] = ProgramCost(step.programs[name].seconds, program_memory(program), collectives(program.as_text()))
    return costs


_COLLECTIVE = re.compile(
    r"= (?P<result>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
_ARRAY = re.compile(r"(?P<dtype>[a-z]+\d+)\[(?P<shape>[\d,]*)\]")


def collectives(program: str) -> tuple[Collective, ...]:
    """Every collective in the text of a compiled program, one for each array that it carries.

    >>> collectives("  %r = (f32[8,4]{1,0}, f32[]) all-reduce(%a, %b), to_apply=%add")
    (Collective(kind='all-reduce', dtype='f32', shape=(8, 4)), Collective(kind='all-reduce', dtype='f32', shape=()))
    """
    return tuple(
        Collective(match["kind"], array["dtype"], tuple(int(size) for size in array["shape"].split(",") if size))
        for match in _COLLECTIVE.finditer(program)
        for array in _ARRAY.finditer(match["result"])
    )


def program_flops(config: ModelConfig, work: Workload, forward: ForwardOptions) -> dict[str, float]:
    """XLA's count for each program before fusion, on all devices. XLA counts the body of a loop once, so layers are
    unrolled here and the decode loop is multiplied by its number of tokens.
    """
    forward = dataclasses.replace(forward, unroll=True)
    step = _abstract_step(config, work, forward)
    flops = _flops(step, _arguments(step, work))
    first = dataclasses.replace(work, answer_tokens=1)
    unlooped = _abstract_step(config, first, forward)
    prefill = _flops(unlooped, {"sample": _arguments(unlooped, first)["sample"]})["sample"]
    flops["sample"] = prefill + max(work.answer_tokens - 1, 0) * (flops["sample"] - prefill)
    return flops


def _abstract_step(
    config: ModelConfig, work: Workload, forward: ForwardOptions, mesh: Mesh | None = None
) -> CompiledStep:
    return bench_step(config, dict(parameter_shapes(config, work.lora, forward.compute_dtype)), work, forward, mesh)


def _arguments(step: CompiledStep, work: Workload) -> dict[str, tuple[Any, ...]]:
    """Shapes of each program's arguments, on the step's mesh where it has one."""
    config, frozen = step.policy.config, step.policy.frozen
    trained = [name for name in parameter_shapes(config, work.lora) if work.lora is None or "lora_" in name]
    shapes = {name: parameter_shapes(config, work.lora)[name].shape for name in trained}
    state = jax.eval_shape(
        lambda: start_state({name: jnp.zeros(shape) for name, shape in shapes.items()}, step.optimizer, 0)
    )
    prompt, temperature = random_prompt(config, work), np.float32(1)
    tree = (work.scenes, work.questions, work.rollouts, work.answer_tokens)
    keys = np.zeros(tree[:2], np.uint32)
    seen = prompt
    if not step.trains_vision:
        seen = prompt.with_features(jax.eval_shape(step.programs["vision"].function, state.trainable, frozen, prompt))
    rollouts = RolloutTokens(np.zeros(tree, np.int32), np.zeros(tree[:3], np.int32))
    logprobs, mask = np.zeros(tree, np.float32), np.ones(tree, bool)
    programs: dict[str, tuple[Any, ...]] = {
        "sample": (state.trainable, frozen, prompt, keys, state.seed, state.step, temperature)
    }
    if work.beta:
        programs["reference"] = (step.policy.reference_parameters(), seen, rollouts, temperature)
    normaliser = jax.tree.map(np.float32, step_normaliser(mask, work.objective))
    advantages = np.zeros(tree[:3], np.float32)
    inputs = LossInputs(normaliser, mask, logprobs, logprobs if work.beta else None, advantages)
    programs["update"] = (state, frozen, seen, rollouts, inputs, temperature)
    return {name: _on_mesh(given, step) for name, given in programs.items()}


def _on_mesh(given: tuple[Any, ...], step: CompiledStep) -> tuple[Any, ...]:
    """The shapes of arguments: parameters as their table says, the rest by scenes or, where it is a number, whole."""
    names = parameter_shapes(step.policy.config, step.policy.lora)

    def place(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        if step.mesh is None:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        parts = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
        if parts and parts[-1] in names:
            spec = parameter_spec(parts[-1], leaf.shape, step.mesh.shape, step.policy.config)
            sharding = NamedSharding(step.mesh, spec)
        else:
            sharding = scene_sharding(step.mesh) if leaf.ndim else replicated(step.mesh)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree_util.tree_map_with_path(place, given)


def _flops(step: CompiledStep, arguments: dict[str, tuple[Any, ...]]) -> dict[str, float]:
    return {name: step.programs[name].lowered(*given).cost_analysis()["flops"] for name, given in arguments.items()}
