"""A run on chips that are not here: `train.py --dry-run --target v5p:2x2x1`.

Where model and data are here, every bucket of the first steps is compiled. Otherwise the model is a published shape,
and the batch is one that the config describes, without reading anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvsr.buckets.urls import bucket_url
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.devices.choose_devices import choose_devices
from jaxvsr.devices.mesh import make_mesh, replicated
from jaxvsr.devices.mesh_shape import MeshShape, check_mesh
from jaxvsr.devices.targets import GIB, Target
from jaxvsr.grpo.compiled_step import PolicyWeights
from jaxvsr.grpo.optimizer import make_optimizer
from jaxvsr.grpo.sampler import SamplingOptions
from jaxvsr.measure.abstract_step import AbstractStep, Programs, parameters_on, state_on
from jaxvsr.measure.dry_run import (
    abstract_run,
    abstract_step,
    bucket_programs,
    buckets_of,
    describe_bucket,
    first_batches,
    group_size,
    reads_reference,
    step_sizes,
)
from jaxvsr.measure.flops import StepSizes
from jaxvsr.measure.named_shapes import shape_named, shape_of_model
from jaxvsr.measure.step_bench import Workload, random_prompt
from jaxvsr.measure.target_costs import (
    StepOnTarget,
    TargetProgram,
    as_json,
    compiled_programs,
    device_bytes,
    program_lines,
    step_seconds,
    target_mesh,
    times_run,
)
from jaxvsr.models.model_config import ModelConfig, compute_dtype
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tree_batch import TreePrompt
from jaxvsr.runs.model_source import open_model
from jaxvsr.training.load_policy import config_step
from jaxvsr.training.run_inputs import open_inputs

ASSUMED_QUESTION_TOKENS = 96  # where no data says how long questions are
ASSUMED_MAX_PIXELS = 224 * 224  # where the config takes frames as stored
UNUSED_ROWS = 284  # of Qwen2-VL's vocabulary, from <|vision_start|> on: never drawn


def plan_on_target(config: TrainConfig, target: Target, shape: str | None, results: dict[str, Any]) -> Iterator[str]:
    """The lines of a plan; what they say is also put into `results`.

    Args:
        shape: name of a model's shape; then neither model nor data is read. None: that of a hub id in
            `model.path`, where the data is not here either.
    """
    mesh = target_mesh(target, config.mesh.spec)
    dtype = compute_dtype(config.model.dtype, mesh.devices.flat[0].platform)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype))
    shape = resolved_shape(config, shape)
    if shape is None:
        model, abstract, planned = _of_run(config, mesh)
    else:
        model, abstract, planned = _of_shape(config, shape_named(shape), mesh)
    name = shape or config.model.path
    yield from target_lines(target, mesh, results)
    yield f"model       {f'shape {name}' if shape else name}, {dtype}, remat {config.model.remat}"
    results |= {"model": name, "buckets": []}
    if config.objective == "grpo":
        yield f"sampling    {abstract.step.decode_plan}"
        results["sampling"] = str(abstract.step.decode_plan)
    for number, (prompt, programs) in enumerate(planned, 1):
        group, length = group_size(config), config.sampling.answer_tokens
        sizes = step_sizes(config, prompt, abstract.step.trains_vision)
        step = on_target(target, mesh, model, abstract, sizes)
        assumed = f" (assumed: question of {ASSUMED_QUESTION_TOKENS})" if shape else ""
        what = f"S {config.data.scenes}, Q {sizes.questions}, G {group}, R {length}"
        yield f"bucket {number}    {what}, {describe_bucket(prompt)}{assumed}"
        bucket: dict[str, Any] = {"sizes": dataclasses.asdict(step.sizes)}
        yield from step_lines(step, programs, bucket, steps=config.steps, updates=config.update.inner_steps)
        results["buckets"].append(bucket)
    buckets = results["buckets"]
    largest = max(buckets, key=lambda bucket: max(one["memory_bytes"] for one in bucket["programs"].values()))
    results |= {key: value for key, value in largest.items() if key != "sizes"}
    results["fits"] = all(bucket["fits"] for bucket in buckets)


def resolved_shape(config: TrainConfig, shape: str | None) -> str | None:
    """The shape's name; of a hub id where the data is not here, its own. None: model and data are read."""
    folders = [folder for folder, _ in config.data.weighted_folders()]
    if shape is None and not any(bucket_url(folder) or Path(folder).exists() for folder in folders):
        return shape_of_model(config.model.path)
    return shape


def model_of(config: TrainConfig, shape: str | None) -> ModelConfig:
    """The model that `plan_on_target` compiles."""
    name = resolved_shape(config, shape)
    if name is not None:
        return shape_named(name)
    return open_model(config.model.path, config.model.revision, config.model.base).config


def target_lines(target: Target, mesh: Mesh, results: dict[str, Any]) -> Iterator[str]:
    """What is compiled for, and by what."""
    chip, tpu = target.chip, target.chip.kind == "tpu"
    package = "libtpu" if tpu else "jax-cuda12-pjrt"
    compiler = f"{'TPU' if tpu else 'NVIDIA'} compiler ({package} {metadata.version(package)})"
    shape = MeshShape(**dict(mesh.shape))
    devices = f", {target.devices} devices" if target.devices != target.chips else ""
    yield (
        f"target      {target}: {target.chips} chip(s){devices}, mesh {shape}; a device has "
        f"{target.memory / GIB:,.2f} GiB, {chip.peak / chip.devices / 1e12:,.0f} TFLOP/s, "
        f"{chip.bandwidth / chip.devices / 1e9:,.0f} GB/s ({chip.source})"
    )
    yield f"compiled by the {compiler} without a device; nothing is run, and all seconds are estimates"
    results |= {
        "target": str(target),
        "mesh": str(shape),
        "chip": {
            "name": chip.name, "devices": chip.devices, "memory_bytes": chip.memory, "flops_per_second": chip.peak,
            "bytes_per_second": chip.bandwidth, "interconnect_bytes_per_second": 2 * target.interconnect * chip.devices,
            "source": chip.source,
        },
        "compiler": compiler,
        "seconds_by": "the compiler's cycles at the chip's clock, loops counted" if tpu else "roofline",
        "versions": {"jax": metadata.version("jax")},
    }  # fmt: skip


def on_target(target: Target, mesh: Mesh, model: ModelConfig, abstract: AbstractStep, sizes: StepSizes) -> StepOnTarget:
    """A step that is not compiled yet."""
    policy = abstract.step.policy
    kept = (policy.frozen, policy.reference or {})
    return StepOnTarget(
        target, mesh, model, sizes,
        item_size=jnp.dtype(abstract.step.forward.dtype).itemsize,
        weights=sum(device_bytes(leaf) for leaves in kept for leaf in leaves.values()),
        state=sum(device_bytes(leaf) for leaf in jax.tree.leaves(abstract.state)),
        remat=abstract.step.forward.remat,
        accumulation=abstract.step.accumulate,
    )  # fmt: skip


def step_lines(
    step: StepOnTarget, programs: Programs, results: dict[str, Any], *, steps: int | None = None, updates: int = 1
) -> Iterator[str]:
    """Compile a step's programs: lines for each, then for the step.

    Args:
        steps: of the run, which then has a line too.
        updates: on the same rollouts.
    """
    yield f"held        weights {step.weights / GIB:.3g} GiB a device, state {step.state / GIB:.3g} GiB"
    compiled: dict[str, TargetProgram] = {}
    for name, program in compiled_programs(step, programs):
        compiled[name] = program
        yield from program_lines(step, name, program)
    seconds, asked = step_seconds(compiled, updates), step.sizes.scenes * step.sizes.questions
    sent = sum(program.collective_seconds * times_run(name, updates) for name, program in compiled.items())
    results |= {
        **as_json(compiled),
        "fits": all(program.fits for program in compiled.values()),
        "weights_bytes": step.weights,
        "state_bytes": step.state,
        "needed_flops": {name: step.flops(name) for name in compiled},
        "roofline_seconds": {name: step.roofline(name) for name in compiled},
        "seconds_per_step": seconds,
        "seconds_per_question": seconds and seconds / asked,
        "hours": seconds and steps and seconds * steps / 3600,
    }
    if seconds is None:
        yield "step        no time: not all of it fits"
        return
    flops = sum(step.flops(name) * times_run(name, updates) for name in compiled)
    run = f"; {steps:,} steps {seconds * steps / 3600:,.2f} hours" if steps else ""
    yield (
        f"step        needs {flops:.3g} FLOP; estimated {seconds:.3g} s, {seconds / asked:.3g} s a question{run}; "
        f"at most {sent:.3g} s more where nothing hides what the chips send each other"
    )


def _of_run(config: TrainConfig, mesh: Mesh) -> tuple[ModelConfig, AbstractStep, Iterator[tuple[TreePrompt, Programs]]]:
    """A run's model and its buckets; data is read for one CPU device, and compiled for the mesh."""
    local = make_mesh(MeshShape(), choose_devices("cpu", MeshShape()))
    inputs = open_inputs(config, local)
    _check(config, inputs.model.config, mesh)
    batches = first_batches(inputs)
    abstract = abstract_run(dataclasses.replace(inputs, mesh=mesh))
    buckets = ((batch.prompt, bucket_programs(abstract, batch)) for batch in buckets_of(batches))
    return inputs.model.config, abstract, buckets


def _of_shape(
    config: TrainConfig, model: ModelConfig, mesh: Mesh
) -> tuple[ModelConfig, AbstractStep, Iterator[tuple[TreePrompt, Programs]]]:
    """A shape, and one bucket of the sizes that the config says."""
    _check(config, model, mesh)
    abstract = shape_step(config, model, mesh)
    work = assumed_workload(config)
    prompt = random_prompt(model, work)
    keys = np.zeros((1, work.questions), np.uint32)
    return model, abstract, ((prompt, abstract.programs(prompt, keys)) for _ in range(1))


def assumed_workload(config: TrainConfig) -> Workload:
    """The sizes that a config says, where no data is read; of one scene, of which the shapes for all are made."""
    return Workload(
        scenes=1,
        questions=config.data.questions,
        rollouts=group_size(config),
        frames=config.data.frames,
        max_pixels=config.data.max_pixels or ASSUMED_MAX_PIXELS,
        question_tokens=ASSUMED_QUESTION_TOKENS,
        answer_tokens=config.sampling.answer_tokens,
        beta=config.grpo.beta if reads_reference(config) else 0.0,
    )


def shape_step(config: TrainConfig, model: ModelConfig, mesh: Mesh) -> AbstractStep:
    """A config's step on a shape: weights in bfloat16 as published, float32 where they are trained."""
    stored = parameter_shapes(model, config.lora, jnp.dtype(jnp.bfloat16))
    exact = parameter_shapes(model, config.lora)
    if config.lora is not None:
        trained = {name for name in exact if ".lora_" in name}
    else:
        trained = {name for name in exact if config.model.tower == "trained" or not name.startswith("visual.")}
    frozen = parameters_on(mesh, {name: leaf for name, leaf in stored.items() if name not in trained}, model)
    trainable = parameters_on(mesh, {name: exact[name] for name in exact if name in trained}, model)
    reference = None
    if config.lora is None and reads_reference(config):
        reference = parameters_on(mesh, {name: stored[name] for name in trainable}, model)
    optimizer = make_optimizer(config.optimizer, config.steps * config.update.inner_steps)
    sampling = SamplingOptions(
        group=config.sampling.group,
        answer_tokens=config.sampling.answer_tokens,
        eos_ids=(0, 1),  # which ids they are does not matter to the compiler
        suppressed_ids=tuple(range(model.text.vocab_size - UNUSED_ROWS, model.text.vocab_size)),
        top_k=config.sampling.top_k,
        top_p=config.sampling.top_p,
    )
    policy = PolicyWeights(model, config.lora, frozen, reference)
    temperature = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))
    step = config_step(config, policy, trainable, optimizer, sampling, mesh, temperature)
    return abstract_step(config, step, state_on(mesh, trainable, optimizer, model))


def _check(config: TrainConfig, model: ModelConfig, mesh: Mesh) -> None:
    check_mesh(
        MeshShape(**dict(mesh.shape)),
        scenes=config.data.scenes,
        attention_heads=model.text.num_attention_heads,
        accumulation=config.update.accumulation,
    )
