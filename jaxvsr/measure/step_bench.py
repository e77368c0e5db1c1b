"""The training step on random frames and questions of a given size, timed by phase.

Needs only jax, flax, optax and numpy. In training vision, prefill and decode are one compiled function. Here they are
also compiled separately, to be timed; `step` is the step as the training loop runs it.
"""

from __future__ import annotations

import dataclasses
import math
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from jaxvsr.config.algorithm import AdvantageRule, Objective, OptimizerConfig
from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.grpo.advantages import group_advantages
from jaxvsr.grpo.compiled_step import CompiledStep, LossInputs, PolicyWeights, start_state
from jaxvsr.grpo.objectives import step_normaliser, token_mask
from jaxvsr.grpo.optimizer import make_optimizer
from jaxvsr.grpo.sampler import SamplingOptions, decode, rollout_keys
from jaxvsr.measure.flops import StepSizes
from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.inputs.pixels import pack_frames, row_layout
from jaxvsr.models.inputs.positions import MediaGrid, mrope_positions
from jaxvsr.models.lora import LANGUAGE_ATTENTION, LoraConfig
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import QwenVL, bind, model_definition
from jaxvsr.models.tree import ForwardOptions, encode_vision, tree_hidden
from jaxvsr.models.tree_batch import TreePrompt, VisionInput
from jaxvsr.pixel_budget import FRAMES_PER_PATCH

ATTENTION_LORA = LoraConfig(rank=8, alpha=16.0, target_modules=LANGUAGE_ATTENTION)
WARM_UP_RUNS = 3
TEXT_BEFORE_VIDEO = 14  # tokens of Qwen2-VL's default system prompt and the user turn's opening
VIDEO_SECONDS = 100.0  # how long a video is, where prompt or positions say times
_PRE_TOKENS = re.compile(r"<\|\w+\|>| ?[^\W\d]+|\d|[^\w\s]")  # as Qwen's tokenizers cut the text of times


@dataclasses.dataclass(frozen=True)
class Workload:
    """The size of a step. All rollouts have the full number of answer tokens: end-of-sequence is off."""

    scenes: int = 1  # S
    questions: int = 4  # Q
    rollouts: int = 14  # G
    frames: int = 16
    max_pixels: int = 224 * 224  # per frame; frames are squares, their side the largest that fits in merged patches
    question_tokens: int = 48
    answer_tokens: int = 16
    beta: float = 1e-4
    lora: LoraConfig | None = ATTENTION_LORA  # None: all weights are trained

    def frame_side(self, model: ModelConfig) -> int:
        """Pixels."""
        unit = model.vision.merged_patch
        return max(1, int(self.max_pixels**0.5) // unit) * unit

    def sizes(self, model: ModelConfig) -> StepSizes:
        tokens, _, grid = scene_tokens(model, self)
        return StepSizes(
            self.scenes, len(tokens), self.questions, self.question_tokens, self.rollouts, self.answer_tokens,
            grid.time, grid.height * grid.width, self.beta > 0, self.lora is None, self.lora is None,
        )  # fmt: skip

    @property
    def objective(self) -> Objective:
        return Objective(reduction="grpo", kl="k3", beta=self.beta)

    def separate(self) -> Workload:
        """The same rollouts as S·Q·G scenes with one question and one rollout each."""
        count = self.scenes * self.questions * self.rollouts
        return dataclasses.replace(self, scenes=count, questions=1, rollouts=1)


def scene_tokens(model: ModelConfig, work: Workload) -> tuple[Int32[np.ndarray, " V"], list[MediaGrid], MediaGrid]:
    """A scene's tokens with the video as the family writes it (text is 0), its blocks, and the whole video."""
    side = work.frame_side(model) // model.vision.patch_size
    apart = VIDEO_SECONDS / max(work.frames - 1, 1)
    grid = MediaGrid(-(-work.frames // FRAMES_PER_PATCH), side, side, True, FRAMES_PER_PATCH * apart)
    seconds = np.linspace(0, VIDEO_SECONDS, work.frames)
    text, blocks = family_of(model).video_blocks(grid, seconds, "blocks")
    special = {"<|vision_start|>": model.vision_start_token_id, "<|vision_end|>": model.vision_end_token_id}
    tokens, sizes = [0] * TEXT_BEFORE_VIDEO, iter(blocks)
    for piece in _PRE_TOKENS.findall(text):
        if piece == "<|video_pad|>":
            tokens += [model.video_token_id] * math.prod(next(sizes).merged(model.vision.spatial_merge_size))
        else:
            tokens.append(special.get(piece, 0))
    return np.array(tokens, np.int32), blocks, grid


def random_prompt(config: ModelConfig, work: Workload, seed: int = 0) -> TreePrompt:
    """Random frames and questions of exactly the given sizes: nothing is padded."""
    rng, vision = np.random.default_rng(seed), config.vision
    side = work.frame_side(config)
    frames = rng.integers(0, 256, (work.scenes, work.frames, side, side, 3), dtype=np.uint8)
    patches = np.stack([pack_frames(video, vision) for video in frames])
    layout = row_layout(side // vision.patch_size, side // vision.patch_size, vision)
    rows, units = patches.shape[1], patches.shape[2] // vision.merge_unit
    expanded, blocks, _ = scene_tokens(config, work)
    positions, question_start = mrope_positions(expanded, blocks, config)
    index = np.full(len(expanded), -1)
    index[expanded == config.video_token_id] = (np.arange(rows)[:, None] * units + layout.unit_slot).reshape(-1)
    tokens = rng.integers(0, config.text.vocab_size, (work.scenes, len(expanded)))

    def every_scene(array: np.ndarray, dtype: Any = np.int32) -> np.ndarray:
        return np.broadcast_to(array, (work.scenes, *array.shape)).astype(dtype)

    row_shape = (rows, *layout.valid.shape)
    return TreePrompt(
        vision=VisionInput(
            patches,
            every_scene(np.broadcast_to(layout.valid, row_shape), bool),
            every_scene(np.broadcast_to(layout.coordinates, (*row_shape, 2))),
        ),
        scene_tokens=tokens.astype(np.int32),
        scene_length=np.full(work.scenes, len(expanded), np.int32),
        scene_positions=every_scene(positions),
        vision_index=every_scene(index),
        question_start=np.full(work.scenes, question_start, np.int32),
        question_tokens=rng.integers(
            0, config.text.vocab_size, (work.scenes, work.questions, work.question_tokens), dtype=np.int32
        ),
        question_length=np.full((work.scenes, work.questions), work.question_tokens, np.int32),
    )


def bench_step(
    config: ModelConfig, parameters: dict[str, Any], work: Workload, forward: ForwardOptions, mesh: Mesh | None = None
) -> CompiledStep:
    """The compiled step of the training loop. `parameters` may be shapes, which are enough to compile it."""
    trainable = {name: leaf for name, leaf in parameters.items() if work.lora is None or "lora_" in name}
    frozen = {name: leaf for name, leaf in parameters.items() if name not in trainable}
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-5), total_steps=1000)
    sampling = SamplingOptions(work.rollouts, work.answer_tokens, eos_ids=())
    reference = trainable if work.lora is None and work.beta else None
    policy, one = PolicyWeights(config, work.lora, frozen, reference), jnp.float32(1.0)
    return CompiledStep(policy, trainable, work.objective, optimizer, sampling, forward, temperature=one, mesh=mesh)


class StepBench:
    """One policy and one workload, with the compiled step of the training loop."""

    def __init__(self, config: ModelConfig, parameters: dict[str, jax.Array], work: Workload, forward: ForwardOptions):
        self.config, self.work, self.forward = config, work, forward
        self.step = bench_step(config, parameters, work, forward)
        adapters = {name: jnp.copy(leaf) for name, leaf in parameters.items() if "lora_" in name}
        self.state = start_state(adapters, self.step.optimizer, 0)
        questions = work.scenes * work.questions
        self.question_keys = jnp.arange(questions, dtype=jnp.uint32).reshape(work.scenes, work.questions)
        self._compile_phases()

    def _compile_phases(self) -> None:
        definition = model_definition(self.config, self.work.lora)
        forward, sampling = self.forward, self.step.sampling

        def policy(parameters: dict[str, jax.Array]) -> QwenVL:
            return bind(definition, parameters)

        def prefill(trainable: Any, frozen: Any, prompt: TreePrompt) -> Any:
            hidden, _, cache = tree_hidden(policy({**frozen, **trainable}), prompt, None, forward)
            return hidden, cache

        def decode_all(
            trainable: Any, frozen: Any, prompt: TreePrompt, hidden: Any, cache: Any, keys: Any, step: Any
        ) -> Any:
            keys = rollout_keys(jnp.uint32(0), step, keys, sampling.group)
            model = policy({**frozen, **trainable})
            how = self.step.decode_plan.scanned
            return decode(model, prompt, hidden, cache, keys, self.step.temperature, sampling, forward, scanned=how)

        self.vision = CompiledFunction("vision", lambda t, f, p: encode_vision(policy({**f, **t}), p, forward))
        self.prefill, self.decode = CompiledFunction("prefill", prefill), CompiledFunction("decode", decode_all)

    def random_rewards(self, seed: int) -> np.ndarray:
        shape = (1, self.work.scenes, self.work.questions, self.work.rollouts)
        return np.random.default_rng(seed).random(shape)

    def run_step(self, prompt: TreePrompt, seed: int) -> dict[str, float]:
        """Seconds of a step as the training loop runs it: `sample`, `reward`, `reference_and_update`, and `step` for
        all of it.
        """
        clock = _Clock()
        start = time.perf_counter()
        sampled, seen = self.step.sample(self.state, prompt, self.question_keys)
        clock.lap("sample", sampled)
        reference = self.step.reference(seen, sampled.rollouts) if self.work.beta else None
        advantages = group_advantages(self.random_rewards(seed), [1.0], AdvantageRule()).advantages
        clock.lap("reward", None)
        mask = token_mask(sampled.rollouts.length, self.work.answer_tokens)
        normaliser = step_normaliser(mask, self.work.objective)
        inputs = LossInputs(normaliser, mask, sampled.logprobs, reference, jnp.asarray(advantages))
        self.state, metrics = self.step.update(self.state, seen, sampled.rollouts, inputs)
        clock.lap("reference_and_update", metrics)
        return {**clock.seconds, "step": time.perf_counter() - start}

    def run_phases(self, prompt: TreePrompt, seed: int) -> dict[str, float]:
        """Seconds of each phase of a step, every phase waited for. Updates the state once."""
        clock, trainable, frozen = _Clock(), self.state.trainable, self.step.policy.frozen
        seen = prompt.with_features(clock.lap("vision", self.vision(trainable, frozen, prompt)))
        hidden, cache = clock.lap("prefill", self.prefill(trainable, frozen, seen))
        sampled = clock.lap(
            "decode", self.decode(trainable, frozen, seen, hidden, cache, self.question_keys, self.state.step)
        )
        del hidden, cache
        advantages = group_advantages(self.random_rewards(seed), [1.0], AdvantageRule()).advantages
        clock.lap("reward", None)
        reference = None
        if self.work.beta:
            reference = clock.lap("reference", self.step.reference(seen, sampled.rollouts))
        mask = token_mask(sampled.rollouts.length, self.work.answer_tokens)
        normaliser = step_normaliser(mask, self.work.objective)
        inputs = LossInputs(normaliser, mask, sampled.logprobs, reference, jnp.asarray(advantages))
        clock.start = time.perf_counter()
        self.state, metrics = self.step.update(self.state, seen, sampled.rollouts, inputs)
        clock.lap("update", metrics)
        return clock.seconds

    @property
    def compiled(self) -> tuple[int, float]:
        """The number of programs compiled for the step, and the seconds that took."""
        return self.step.compile_count, self.step.compile_seconds


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.start = time.perf_counter()

    def lap(self, phase: str, result: Any) -> Any:
        jax.block_until_ready(result)
        now = time.perf_counter()
        self.seconds[phase], self.start = now - self.start, now
        return result


def median_and_spread(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """{phase: {median, minimum, maximum}} in seconds."""
    return {
        phase: {
            "median": statistics.median(row[phase] for row in rows),
            "minimum": min(row[phase] for row in rows),
            "maximum": max(row[phase] for row in rows),
        }
        for phase in rows[0]
    }


def repeat(run: Callable[[int], dict[str, float]], times: int) -> list[dict[str, float]]:
    """The results of `times` runs, after a few that do not count: the first compiles, all of them grow the memory
    pool.
    """
    for _ in range(WARM_UP_RUNS):
        run(0)
    return [run(seed) for seed in range(1, times + 1)]


def peak_memory_bytes() -> int:
    """The most memory used so far: the device's own count, or on CPU the process's resident set."""
    counted = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in counted:
        return int(counted["peak_bytes_in_use"])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
