"""Small random models and scene trees, and the separate sequences that a tree must equal."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.families.qwen2_5_vl import Qwen25VisionConfig
from jaxvsr.models.families.qwen3_vl import Qwen3VisionConfig
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import FamilyName, ModelConfig, VisionConfig
from jaxvsr.models.qwen_vl import bind, model_definition, parameter_shapes
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt, VisionInput

VOCAB_SIZE = 96
_NORM = re.compile(r"(norm\w*|ln_q)\.weight$")


def small_config(family: FamilyName, *, heads: int = 4, key_heads: int = 2, tied: bool = True) -> ModelConfig:
    """Width 32, two or three layers; Qwen2.5-VL has windows of 4x4 patches, Qwen3-VL two levels of DeepStack."""
    if family == "qwen2_vl":
        vision = VisionConfig(2, 32, 4, 64, 8 * heads, "quick_gelu")
    elif family == "qwen2_5_vl":
        vision = Qwen25VisionConfig(
            3, 32, 4, 48, 8 * heads, "silu", window_size=56, fullatt_block_indexes=(1,), tokens_per_second=2
        )
    else:
        vision = Qwen3VisionConfig(
            3, 32, 4, 48, 8 * heads, "gelu_pytorch_tanh", patch_size=14, num_position_embeddings=9,
            deepstack_indexes=(0, 2),
        )  # fmt: skip
    ours = FAMILIES[family]
    layers = 3 if family == "qwen3_vl" else 2  # more than levels of DeepStack
    text = ours.text_class(
        VOCAB_SIZE, 8 * heads, 64, layers, heads, key_heads, 1e4, (2, 1, 1), tie_word_embeddings=tied,
        **ours.text_extras(8),
    )  # fmt: skip
    return ModelConfig(family, text, vision, 90, 91, 92, 93, "float32")


def random_parameters(
    config: ModelConfig, lora: LoraConfig | None, dtype: jnp.dtype, seed: int = 0
) -> dict[str, jax.Array]:
    """Weights large enough that attention is far from uniform, those of norms around 1; LoRA's B random, not zero."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(
            rng.normal(size=leaf.shape) * (0.2 if leaf.ndim < 3 else 0.1) + bool(_NORM.search(name)), dtype
        )
        for name, leaf in sorted(parameter_shapes(config, lora).items())
    }


@dataclasses.dataclass(frozen=True)
class TreeCase:
    """A random tree with ragged lengths; all that stands behind a length is garbage."""

    prompt: TreePrompt
    rollouts: RolloutTokens

    @property
    def on_device(self) -> tuple[TreePrompt, RolloutTokens]:
        return jax.tree.map(jnp.asarray, (self.prompt, self.rollouts))

    @property
    def mask(self) -> np.ndarray:
        return np.arange(self.rollouts.tokens.shape[3]) < np.asarray(self.rollouts.length)[..., None]


def random_tree(
    scenes: int, questions: int, group: int, *, media: str = "video", answer: int = 5, seed: int = 0
) -> TreeCase:
    """`media`: video (three rows of 32 patches), image (one row), images (rows of different sizes)."""
    rng = np.random.default_rng(seed)
    rows, patches, scene_size, question_size = {"video": 3, "image": 1, "images": 3}[media], 32, 30, 6
    valid = np.ones((scenes, rows, patches), bool)
    if media == "images":
        for scene in range(scenes):
            for row in range(rows):
                valid[scene, row, 4 * rng.integers(1, 9) :] = False
    index = np.full((scenes, scene_size), -1, np.int32)
    scene_length = np.zeros(scenes, np.int32)
    for scene in range(scenes):
        real = np.flatnonzero(valid[scene].reshape(-1, 4).all(axis=1))
        index[scene, 3 : 3 + len(real)] = real
        scene_length[scene] = min(3 + len(real) + int(rng.integers(1, 4)), scene_size)
    vision = VisionInput(
        rng.integers(0, 256, (scenes, rows, patches, 1176), dtype=np.uint8),
        valid,
        rng.integers(0, 8, (scenes, rows, patches, 2)).astype(np.int32),
    )
    tokens = lambda *shape: rng.integers(0, VOCAB_SIZE, shape).astype(np.int32)  # noqa: E731
    prompt = TreePrompt(
        vision=vision,
        scene_tokens=tokens(scenes, scene_size),
        scene_length=scene_length,
        scene_positions=rng.integers(0, 12, (scenes, scene_size, 3)).astype(np.int32),
        vision_index=index,
        question_start=rng.integers(12, 15, scenes).astype(np.int32),
        question_tokens=tokens(scenes, questions, question_size),
        question_length=rng.integers(1, question_size + 1, (scenes, questions)).astype(np.int32),
    )
    length = rng.integers(1, answer + 1, (scenes, questions, group)).astype(np.int32)
    return TreeCase(prompt, RolloutTokens(tokens(scenes, questions, group, answer), length))


def separate_logprobs(
    config: ModelConfig,
    lora: LoraConfig | None,
    parameters: dict[str, jax.Array],
    case: TreeCase,
    temperature: float,
    dtype: str,
) -> jax.Array:
    """[S, Q, G, R] from S·Q·G separate sequences, each with its own run of the tower, through the plain forward pass.

    Positions behind a rollout's length hold 0. Sequences are right-padded to one length, so that all run as one batch.
    """
    model = bind(model_definition(config, lora), parameters)
    prompt, rollouts = case.prompt, case.rollouts
    scenes, questions, group, answer = rollouts.tokens.shape
    rows = [(s, q, g) for s in range(scenes) for q in range(questions) for g in range(group)]
    width = prompt.scene_tokens.shape[1] + prompt.question_tokens.shape[2] + answer
    tokens, index = np.zeros((len(rows), width), np.int32), np.full((len(rows), width), -1, np.int32)
    positions, targets = np.zeros((len(rows), width, 3), np.int32), np.zeros((len(rows), answer), np.int32)
    for row, (s, q, g) in enumerate(rows):
        ends = prompt.scene_length[s], prompt.question_length[s, q], rollouts.length[s, q, g]
        parts = (
            prompt.scene_tokens[s, : ends[0]],
            prompt.question_tokens[s, q, : ends[1]],
            rollouts.tokens[s, q, g, : ends[2]],
        )
        sequence = np.concatenate(parts)
        tokens[row, : len(sequence)] = sequence
        index[row, : ends[0]] = prompt.vision_index[s, : ends[0]]
        positions[row, : ends[0]] = prompt.scene_positions[s, : ends[0]]
        positions[row, ends[0] : len(sequence)] = (prompt.question_start[s] + np.arange(ends[1] + ends[2]))[:, None]
        targets[row] = np.minimum(ends[0] + ends[1] + np.arange(answer), width - 1)
    scene_of_row = np.array([s for s, _, _ in rows])
    vision = jax.tree.map(lambda leaf: jnp.asarray(leaf[scene_of_row]), prompt.vision)
    hidden = model(
        jnp.asarray(tokens),
        jnp.asarray(positions),
        vision_index=jnp.asarray(index),
        vision=vision,
        dtype=jnp.dtype(dtype),
    )
    scores = jax.nn.log_softmax(model.logits(hidden) / temperature, axis=-1)
    at_targets = jnp.take_along_axis(scores, (targets - 1)[..., None], axis=1)
    wanted = np.take_along_axis(tokens, targets, axis=1)
    picked = jnp.take_along_axis(at_targets, wanted[..., None], axis=-1)[..., 0].reshape(rollouts.tokens.shape)
    return jnp.where(case.mask, picked, 0)
