"""What a run will do, and what it needs: `train.py --dry-run`.

What follows from the config is arithmetic. Then the run's inputs are opened as the run itself opens them, and every
bucket of shapes that the first steps meet is compiled for the mesh on abstract values, without weights and without
running: memory is XLA's own count.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxvsr.config.reward_terms import rewards_from
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.scene_pools import ScenePool
from jaxvsr.devices.compiled import program_memory
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.compiled_step import CompiledStep, TrainState
from jaxvsr.measure.abstract_step import AbstractStep, Programs, state_on
from jaxvsr.measure.flops import StepSizes, needed_flops
from jaxvsr.measure.machine import matmul_peak
from jaxvsr.models.model_config import ModelConfig, compute_dtype
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tree_batch import TreePrompt
from jaxvsr.prompts import Prompt, prompt_from
from jaxvsr.rewards.registry import Reward
from jaxvsr.training.load_policy import load_policy
from jaxvsr.training.run_inputs import RunInputs, open_inputs

MIB = 2**20
PLANNED_STEPS = 8  # whose buckets are compiled
USUAL_SHARE_OF_PEAK = 0.35  # of the matrix-product peak over a whole step; the bench measures the real one


def plan(config: TrainConfig, mesh: Mesh) -> Iterator[str]:
    """The lines of a plan: first what follows from the config alone, then what model and data add. The first thing
    missing is said as an `InputError`, as the run itself would."""
    yield from _config_lines(config, prompt_from(config.data.prompt), rewards_from(config.rewards))
    inputs = open_inputs(config, mesh)
    yield f"model       {inputs.model.name}: {inputs.model.config.family}, {_parameters(config, inputs.model.config)}"
    yield from _data_lines(config, inputs)
    batches = first_batches(inputs)
    yield _token_line(config, batches[0].prompt)
    yield from _compiled_lines(inputs, batches)


def group_size(config: TrainConfig) -> int:
    """G of the objective: sampled rollouts, the answer, or chosen and rejected."""
    return {"grpo": config.sampling.group, "sft": 1, "dpo": 2}[config.objective]


def _config_lines(config: TrainConfig, prompt: Prompt, rewards: Sequence[Reward]) -> list[str]:
    """Sizes, prompt and rewards: no model and no data is needed for them."""
    data, group = config.data, group_size(config)
    asked = data.scenes * data.questions
    answers = {"grpo": "rollouts", "sft": "given answers", "dpo": "chosen and rejected answers"}[config.objective]
    pixels = f" of at most {data.max_pixels:,} pixels" if data.max_pixels else ""
    lines = [
        f"step        {data.scenes} scenes × {data.questions} questions × {group} answers = {asked * group:,} "
        f"{answers}, {config.update.inner_steps} update(s)",
        f"run         {config.steps:,} steps of {asked:,} questions ask {config.steps * asked:,}",
        f"prompt      {prompt.name} (made for {prompt.max_answer_tokens} tokens, its answers are read by "
        f"{prompt.extraction}), {config.sampling.answer_tokens} answer tokens; {data.frames} frames{pixels}",
    ]
    if config.objective == "grpo":
        terms = ", ".join(reward.term or f"{reward.weight:g}*{reward.name}" for reward in rewards)
        lines.append(f"rewards     {terms}")
    return lines


def _parameters(config: TrainConfig, model: ModelConfig) -> str:
    total = sum(leaf.size for leaf in parameter_shapes(model).values())
    return f"{total / 1e6:,.1f} M parameters, {_trainable(config, model) / 1e6:,.2f} M trained"


def _trainable(config: TrainConfig, model: ModelConfig) -> int:
    if config.lora is None:
        leaves = parameter_shapes(model).items()
        return sum(
            leaf.size for name, leaf in leaves if config.model.tower == "trained" or not name.startswith("visual.")
        )
    count = 0
    for name, leaf in parameter_shapes(model, config.lora).items():
        if ".lora_" in name:
            adapted = config.lora.adapted_layers(name.rpartition(".")[0], leaf.shape[0])
            count += leaf.size * sum(adapted) // len(adapted)
    return count


def _data_lines(config: TrainConfig, inputs: RunInputs) -> Iterator[str]:
    data = config.data

    def asked(pool: ScenePool) -> int:
        return sum(len(scene.questions) + len(scene.mirrored) for scene in pool.scenes)

    for pool in inputs.pools:
        updates = asked(pool) / (data.scenes * data.questions)
        views = " and their mirror images" if data.mirror == "pairs" else ""
        yield (
            f"data        {pool.folder}: {len(pool.scenes):,} scenes{views}, {asked(pool):,} questions; all of them "
            f"once is {updates:,.0f} updates, {config.steps} steps are {config.steps / updates:.2f} of that"
        )
    if inputs.features is not None:
        yield f"features    {inputs.features}: stored, so the vision tower does not run"
    for pool in inputs.heldout_pools:
        yield (
            f"held out    {pool.folder}: {len(pool.scenes):,} scenes, {asked(pool):,} questions; "
            f"{config.evaluation.questions} are answered every {config.intervals.evaluate} steps"
        )


def _token_line(config: TrainConfig, prompt: TreePrompt) -> str:
    scenes, size = prompt.scene_tokens.shape
    questions, question_size = prompt.question_tokens.shape[1:]
    group, answer = group_size(config), config.sampling.answer_tokens
    tree = scenes * (size + questions * (question_size + group * answer))
    separate = scenes * questions * group * (size + question_size + answer)
    return (
        f"tokens      scene {size:,}, question {question_size}, answer {answer}; a step has {tree:,} on the tree, "
        f"{separate:,} as separate sequences ({separate / tree:.1f} times as many)"
    )


def abstract_run(inputs: RunInputs) -> AbstractStep:
    """The step of a run on abstract values, on the mesh of its inputs."""
    config, model, mesh = inputs.config, inputs.model, inputs.mesh
    policy = load_policy(config, model, inputs.processor, mesh, abstract=True)
    state = state_on(mesh, policy.trainable, policy.optimizer, model.config)
    return abstract_step(config, policy.step(), state)


def abstract_step(config: TrainConfig, step: CompiledStep, state: TrainState) -> AbstractStep:
    """A config's step on abstract values."""
    return AbstractStep(
        step,
        state,
        config.data.scenes,
        group_size(config),
        config.sampling.answer_tokens,
        config.objective,
        reference=reads_reference(config),
    )


def reads_reference(config: TrainConfig) -> bool:
    """Whether a step reads the reference policy's log-probabilities."""
    return config.objective == "dpo" or (config.objective == "grpo" and config.grpo.beta > 0)


def step_sizes(config: TrainConfig, prompt: TreePrompt, trains_vision: bool) -> StepSizes:
    """Those of a bucket of a run."""
    sizes = StepSizes.of_batch(
        prompt,
        group_size(config),
        config.sampling.answer_tokens,
        reference=reads_reference(config),
        trains_weights=config.lora is None,
        trains_tower=trains_vision,
    )
    return dataclasses.replace(sizes, scenes=config.data.scenes)


def buckets_of(batches: Sequence[HostBatch]) -> list[HostBatch]:
    """A batch of each bucket of shapes, in the order in which they come."""
    seen: dict[Any, HostBatch] = {}
    for batch in batches:
        seen.setdefault(tuple(leaf.shape for leaf in jax.tree.leaves(batch.prompt)), batch)
    return list(seen.values())


def bucket_programs(abstract: AbstractStep, batch: HostBatch) -> Programs:
    """The programs of a bucket. Steps on given answers (SFT, DPO) have the answers' own shapes."""
    if batch.targets is not None:
        group, length = batch.targets.tokens.shape[2:]
        abstract = dataclasses.replace(abstract, group=group, length=length)
    return abstract.programs(batch.prompt, batch.question_keys)


def first_batches(inputs: RunInputs) -> list[HostBatch]:
    """The batches of the first steps."""
    loader = inputs.batches()
    batches = list(itertools.islice(loader, min(PLANNED_STEPS, inputs.config.steps)))
    loader.close()
    return batches


def _compiled_lines(inputs: RunInputs, batches: list[HostBatch]) -> Iterator[str]:
    """A line for each bucket of `batches`, and one for the time of a step."""
    abstract, buckets = abstract_run(inputs), buckets_of(batches)
    if inputs.config.objective == "grpo":
        yield f"sampling    {abstract.step.decode_plan}"
    for number, batch in enumerate(buckets, 1):
        programs = bucket_programs(abstract, batch)
        needs = {name: program_memory(function.executable(*given)) for name, (function, given) in programs.items()}
        worst = max(needs, key=lambda name: needs[name].total)
        each = ", ".join(f"{name} {_mib(need.total)}" for name, need in needs.items())
        yield (
            f"bucket {number}    {describe_bucket(batch.prompt)}: {each} MiB per device; the most, {worst}: arguments "
            f"{_mib(needs[worst].arguments)}, temporary {_mib(needs[worst].temporary)}"
        )
    step = abstract.step
    yield (
        f"compiling   {step.compile_count} programs for {len(buckets)} bucket(s) of the first {len(batches)} steps: "
        f"{step.compile_seconds:.0f} s"
    )
    if inputs.heldout_pools:
        greedy = load_policy(inputs.config, inputs.model, inputs.processor, inputs.mesh, abstract=True).step(
            greedy=True
        )
        loader = inputs.heldout_batches()
        batch = next(loader)
        loader.close()
        function, given = dataclasses.replace(abstract, step=greedy).sample(batch.prompt, batch.question_keys)
        yield f"held out    sample {_mib(program_memory(function.executable(*given)).total)} MiB per device"
    largest = max(buckets, key=lambda batch: batch.prompt.scene_tokens.size)
    yield _time_line(inputs.config, inputs.model.config, inputs.mesh, largest, step.trains_vision)


def _mib(count: int) -> str:
    """Bytes in MiB, with a decimal where whole ones would say too little."""
    return f"{count / MIB:,.0f}" if count >= 10 * MIB else f"{count / MIB:.2f}"


def describe_bucket(prompt: TreePrompt) -> str:
    vision = "stored vision features"
    if prompt.pixels is not None:
        rows, patches = prompt.pixels.valid.shape[1:]
        vision = f"vision {rows} × {patches:,} patches"
    return f"scene {prompt.scene_tokens.shape[1]:,}, question {prompt.question_tokens.shape[2]}, {vision}"


def _time_line(config: TrainConfig, model: ModelConfig, mesh: Mesh, batch: HostBatch, trains_vision: bool) -> str:
    flops = needed_flops(model, step_sizes(config, batch.prompt, trains_vision))
    flops["update"] *= config.update.inner_steps
    if config.objective != "grpo":
        flops = {name: flops[name] for name in ("vision", "reference", "update")}
        if trains_vision:  # as a part of the update
            del flops["vision"]
    peak = matmul_peak(compute_dtype(config.model.dtype, mesh.devices.flat[0].platform))
    seconds = sum(flops.values()) / peak / USUAL_SHARE_OF_PEAK / mesh.devices.size
    total = seconds * config.steps
    lasts = f"{total / 3600:,.1f} hours" if total >= 3600 else f"{total / 60:,.1f} minutes"
    return (
        f"time        {sum(flops.values()):.2e} FLOP per step; at {USUAL_SHARE_OF_PEAK:.0%} of the {peak:.2e} FLOP/s "
        f"that a matrix product reaches on one device here, {seconds:,.2f} s per step and {lasts} for "
        f"{config.steps:,} steps, without compiling and evaluation"
    )
