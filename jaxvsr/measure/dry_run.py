"""What a run will do, by arithmetic and one batch of its data: `train.py --dry-run`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from jax.sharding import Mesh

from jaxvsr.config.reward_terms import rewards_from
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.loader import make_loader
from jaxvsr.data.scene_pools import ScenePool
from jaxvsr.devices.mesh_shape import MeshShape, check_mesh
from jaxvsr.grpo.batches import BatchBuilder
from jaxvsr.grpo.rollouts import check_view_consistency
from jaxvsr.measure.compiled_plan import compiled_lines
from jaxvsr.models.huggingface.parameter_names import expected_shapes
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tree_batch import TreePrompt
from jaxvsr.prompts import Prompt, prompt_from
from jaxvsr.rewards.registry import Reward, check_rewards
from jaxvsr.runs.metrics_log import check_trackers
from jaxvsr.runs.model_source import open_model
from jaxvsr.training.scenes_of_run import asked_questions, read_run_pools

GIB = 2**30
MOMENTS = 2  # of Adam, float32, for each trainable number


PLANNED_STEPS = 8  # whose buckets are compiled


def plan(config: TrainConfig, mesh: Mesh) -> Iterator[str]:
    """The lines of a plan: first what follows from the config alone, then what model and data add; the first thing
    missing is said as an `InputError`, as the run itself would."""
    shape = MeshShape(**dict(mesh.shape))
    prompt, rewards = prompt_from(config.data.prompt), rewards_from(config.rewards)
    yield from _config_lines(config, prompt, rewards)
    check_view_consistency(config, rewards)
    check_trackers(config.logging)
    model = open_model(config.model.path, config.model.revision)
    check_mesh(
        shape,
        scenes=config.data.scenes,
        attention_heads=model.config.text.num_attention_heads,
        accumulation=config.update.accumulation,
    )
    processor = SceneProcessor.from_folder(model.folder.path, max_pixels=config.data.max_pixels)
    builder = BatchBuilder(processor, prompt, config.objective, config.sampling.answer_tokens, config.data.rejected)
    data = config.data
    pools = read_run_pools(config)
    loader = make_loader(
        pools,
        scenes=data.scenes,
        questions=data.questions,
        frames=data.frames,
        seed=config.seed,
        blank=data.blank,
    )
    builder.check_answers(asked_questions(pools))
    if config.objective == "grpo":
        check_rewards(rewards)
    batches = [builder(batch) for batch in itertools.islice(loader, min(PLANNED_STEPS, config.steps))]
    loader.close()
    yield f"model       {model.name}: {model.config.family}, {_parameters(config, model.config)}"
    yield from _data_lines(config, pools)
    yield _token_line(config, batches[0].prompt)
    yield from _memory_lines(config, model.config, batches[0].prompt, shape)
    yield from compiled_lines(config, model, processor, mesh, batches)


def group_size(config: TrainConfig) -> int:
    """G of the objective: sampled rollouts, the answer, or chosen and rejected."""
    return {"grpo": config.sampling.group, "sft": 1, "dpo": 2}[config.objective]


def _parameters(config: TrainConfig, model: ModelConfig) -> str:
    total = sum(math.prod(shape) for shape in expected_shapes(model).values())
    return f"{total / 1e6:,.1f} M parameters, {_trainable(config, model) / 1e6:,.2f} M trained"


def _trainable(config: TrainConfig, model: ModelConfig) -> int:
    if config.lora is None:
        shapes = expected_shapes(model).items()
        return sum(
            math.prod(shape)
            for name, shape in shapes
            if config.model.tower == "trained" or not name.startswith("visual.")
        )
    leaves = parameter_shapes(model, config.lora).items()
    return sum(math.prod(leaf.shape) for name, leaf in leaves if ".lora_" in name)


def _data_lines(config: TrainConfig, pools: Sequence[ScenePool]) -> list[str]:
    data = config.data
    lines = []
    for pool in pools:
        asked = sum(len(scene.questions) + len(scene.mirrored) for scene in pool.scenes)
        updates = asked / (data.scenes * data.questions)
        views = " and their mirror images" if data.mirror == "pairs" else ""
        lines.append(
            f"data        {pool.folder}: {len(pool.scenes):,} scenes{views}, {asked:,} questions; all of them once is "
            f"{updates:,.0f} updates, {config.steps} steps are {config.steps / updates:.2f} of that"
        )
    return lines


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


def _token_line(config: TrainConfig, prompt: TreePrompt) -> str:
    scenes, size = prompt.scene_tokens.shape
    questions, question_size = prompt.question_tokens.shape[1:]
    group, answer = group_size(config), config.sampling.answer_tokens
    tree = scenes * (size + questions * (question_size + group * answer))
    separate = scenes * questions * group * (size + question_size + answer)
    return (
        f"tokens      a scene {size:,}, a question {question_size}, an answer {answer}; a step {tree:,} on the tree, "
        f"{separate:,} as separate sequences ({separate / tree:.1f} times as many)"
    )


def _memory_lines(config: TrainConfig, model: ModelConfig, prompt: TreePrompt, mesh: MeshShape) -> list[str]:
    """Bytes of what a step keeps. Activations come on top, and depend on model.remat and update.accumulation."""
    width = {"float32": 4, "float16": 2, "bfloat16": 2}[model.dtype]
    trained = _trainable(config, model)
    weights = sum(math.prod(shape) for shape in expected_shapes(model).values()) * width
    state = trained * 4 * (1 + MOMENTS)
    text = model.text
    scenes, size = prompt.scene_tokens.shape
    questions, question_size = prompt.question_tokens.shape[1:]
    cached = scenes * (size + questions * (question_size + group_size(config) * config.sampling.answer_tokens))
    cache = cached * 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * width
    shards = mesh.fsdp * mesh.tensor
    a_device = weights / shards + state / shards + cache / mesh.devices
    return [
        f"memory      weights {weights / GIB:.2f} GiB, trained weights with Adam {state / GIB:.2f} GiB, keys and "
        f"values in sampling {cache / GIB:.2f} GiB; {a_device / GIB:.2f} GiB a device of mesh {mesh}, "
        "activations on top"
    ]
