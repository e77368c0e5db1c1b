"""What a run's compiled functions need, by XLA's own count, without weights and without running: `train.py --dry-run`.

Every bucket of shapes that the first steps meet is compiled for the mesh on abstract values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.devices.compiled import ProgramMemory, program_memory
from jaxvsr.devices.mesh import replicated, scene_sharding
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.compiled_step import CompiledStep, LossInputs, start_state
from jaxvsr.grpo.objectives import Normaliser
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.measure.flops import StepSizes, needed_flops
from jaxvsr.measure.machine import matmul_peak
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.sharding import state_shardings
from jaxvsr.models.tree_batch import Rollouts, TreePrompt
from jaxvsr.runs.model_source import Model
from jaxvsr.training.policy import compute_dtype, load_policy

MIB = 2**20
USUAL_SHARE_OF_PEAK = 0.35  # of the matrix-product peak over a whole step; the bench measures the real one


def compiled_lines(
    config: TrainConfig, model: Model, processor: SceneProcessor, mesh: Mesh, batches: list[HostBatch]
) -> Iterator[str]:
    """A line for each bucket of `batches`, and one for the time of a step. Steps given by SFT and DPO data are
    compiled with the answers' own shapes."""
    make_step, trainable, optimizer = load_policy(config, model, processor, mesh, abstract=True)
    step = make_step()
    state = jax.eval_shape(lambda: start_state(_zeros(trainable), optimizer, config.seed))
    shardings = state_shardings(state, mesh, model.config)
    state = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state, shardings
    )
    seen: dict[Any, HostBatch] = {}
    for batch in batches:
        seen.setdefault(tuple(leaf.shape for leaf in jax.tree.leaves(batch.prompt)), batch)
    for number, batch in enumerate(seen.values(), 1):
        needs = _needs(config, step, state, batch, mesh)
        worst = max(needs, key=lambda name: needs[name].total)
        each = ", ".join(f"{name} {need.total / MIB:,.0f}" for name, need in needs.items())
        yield (
            f"bucket {number}    {_bucket(batch.prompt)}: {each} MiB a device; the most, {worst}: arguments "
            f"{needs[worst].arguments / MIB:,.0f}, temporary {needs[worst].temporary / MIB:,.0f}"
        )
    yield (
        f"compiling   {step.compile_count} programs for {len(seen)} bucket(s) of the first {len(batches)} steps: "
        f"{step.compile_seconds:.0f} s"
    )
    yield _time_line(config, model, mesh, max(seen.values(), key=lambda batch: batch.prompt.scene_tokens.size))


def _bucket(prompt: TreePrompt) -> str:
    rows, patches = prompt.vision.valid.shape[1:]
    return (
        f"scene {prompt.scene_tokens.shape[1]:,}, question {prompt.question_tokens.shape[2]}, "
        f"vision {rows} × {patches:,} patches"
    )


def _zeros(shapes: dict[str, Any]) -> dict[str, jax.Array]:
    return {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}


def _needs(
    config: TrainConfig, step: CompiledStep, state: Any, batch: HostBatch, mesh: Mesh
) -> dict[str, ProgramMemory]:
    everyone, by_scene = replicated(mesh), scene_sharding(mesh)
    scenes = config.data.scenes

    def of_scenes(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((scenes, *shape), dtype, sharding=by_scene)

    def number() -> Any:
        return jax.ShapeDtypeStruct((), jnp.float32, sharding=everyone)

    prompt = jax.tree.map(lambda leaf: of_scenes(leaf.shape[1:], leaf.dtype), batch.prompt)
    keys = of_scenes(batch.question_keys.shape[1:], jnp.uint32)
    questions = batch.question_keys.shape[1]
    group, length = config.sampling.group, config.sampling.answer_tokens
    if batch.targets is not None:
        group, length = batch.targets.tokens.shape[2:]
    tree = (questions, group, length)
    rollouts = Rollouts(of_scenes(tree, jnp.int32), of_scenes(tree[:2], jnp.int32))
    frozen, temperature = step.policy.frozen, number()
    executables: dict[str, Any] = {}
    logprobs = None
    if config.objective == "grpo":
        arguments = (state.trainable, frozen, prompt, keys, state.seed, state.step, temperature, None)
        executables["sample"] = step.programs["sample"].executable(*arguments)
        sampled, features = jax.eval_shape(step.programs["sample"].function, *arguments)
        assert isinstance(sampled, Sampled)
        logprobs = of_scenes(tree, sampled.logprobs.dtype)
    else:
        features = jax.eval_shape(step.programs["vision"].function, state.trainable, frozen, prompt)
    features = of_scenes(features.shape[1:], features.dtype)
    reference = None
    if config.objective == "dpo" or (config.objective == "grpo" and config.grpo.beta):
        given = (step.policy.reference_parameters(), prompt, features, rollouts, temperature)
        executables["reference"] = step.programs["reference"].executable(*given)
        reference = of_scenes(tree, jax.eval_shape(step.programs["reference"].function, *given).dtype)
    advantages = of_scenes(tree[:2], jnp.float32) if config.objective == "grpo" else None
    inputs = LossInputs(of_scenes(tree, jnp.bool_), logprobs, reference, advantages)
    normaliser = Normaliser(number(), number(), number())
    executables["update"] = step.programs["update"].executable(
        state, frozen, prompt, None if step.trains_vision and batch.targets is not None else features, rollouts, inputs,
        normaliser, temperature,
    )  # fmt: skip
    return {name: program_memory(executable) for name, executable in executables.items()}


def _time_line(config: TrainConfig, model: Model, mesh: Mesh, batch: HostBatch) -> str:
    group = config.sampling.group if config.objective == "grpo" else 1
    sizes = StepSizes.of_batch(batch.prompt, group, config.sampling.answer_tokens, config.grpo.beta)
    sizes = dataclasses.replace(sizes, scenes=config.data.scenes)
    flops = needed_flops(model.config, sizes)
    if config.objective != "grpo":
        flops = {name: flops[name] for name in ("vision", "update")}
    peak = matmul_peak(compute_dtype(config, mesh))
    seconds = sum(flops.values()) / peak / USUAL_SHARE_OF_PEAK / mesh.devices.size
    total = seconds * config.steps
    lasts = f"{total / 3600:,.1f} hours" if total >= 3600 else f"{total / 60:,.1f} minutes"
    return (
        f"time        {sum(flops.values()):.2e} FLOP a step; at {USUAL_SHARE_OF_PEAK:.0%} of the {peak:.2e} FLOP/s "
        f"that a matrix product reaches on one device here, {seconds:,.2f} s a step and {lasts} for "
        f"{config.steps:,} steps, without compiling and evaluation"
    )
