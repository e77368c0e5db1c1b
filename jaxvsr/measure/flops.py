"""What a step must compute and read, by formula: the numerator of each "% of peak" (`machine.py` measures the peak)."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.tree_batch import TreePrompt


@dataclasses.dataclass(frozen=True)
class StepSizes:
    """The sizes of a step's trees; all scenes have the same."""

    scenes: int  # S
    scene_tokens: int  # V, text before and after the video included
    questions: int  # Q
    question_tokens: int  # T
    rollouts: int  # G
    answer_tokens: int  # R
    vision_rows: int  # temporal patches of a video, or images; 0: the tower does not run
    row_patches: int  # patches per vision row
    reference: bool = False  # whether there is a reference pass
    trains_weights: bool = False  # the model's own; otherwise adapters, which are small
    trains_tower: bool = False  # or the adapters in it

    @classmethod
    def of_batch(
        cls, prompt: TreePrompt, rollouts: int, answer_tokens: int, *, reference: bool, trains_weights: bool,
        trains_tower: bool,
    ) -> StepSizes:  # fmt: skip
        """The sizes of a batch's bucket, padding included."""
        scenes, rows, patches = (len(prompt.scene_tokens), 0, 0) if prompt.pixels is None else prompt.pixels.valid.shape
        questions, question = prompt.question_tokens.shape[1:]
        scene = prompt.scene_tokens.shape[1]
        return cls(
            scenes, scene, questions, question, rollouts, answer_tokens, rows, patches, reference, trains_weights,
            trains_tower,
        )  # fmt: skip


def needed_flops(config: ModelConfig, sizes: StepSizes) -> dict[str, float]:
    """Floating-point operations of matrix products that a step needs, by phase, without recomputation.

    forward(n tokens) = 2 n (weights of the linear layers) + 4 (visible key-query pairs) N D layers, with
    pairs = V²/2 + Q T (V + T/2) + Q G R (V + T + R/2). In the last layer the tokens of a scene and its questions only
    need keys and values, except the Q tokens whose output is read. The tower likewise, with full or windowed rows. The
    head needs 2 H (vocabulary) per scored token.
    update: forward, and as much again for gradients of activations; of key-query pairs twice as much, since both sides
    of a product are activations; and once more for the gradients of weights where these are trained. LoRA's own are
    left out. A tower that is trained runs in the update, and once more for the reference.
    """
    text, vision = config.text, config.vision
    scene, question, answer = sizes.scene_tokens, sizes.question_tokens, sizes.answer_tokens
    questions, rollouts = sizes.questions, sizes.questions * sizes.rollouts
    width = text.num_attention_heads * text.head_dim

    def layer(tokens: float, pairs: float) -> np.ndarray:
        """Of products with weights, and of key-query pairs."""
        return np.array([2 * tokens * _layer_weights(config), 4 * pairs * width])

    prompt, prompt_pairs = scene + questions * question, scene**2 / 2 + questions * question * (scene + question / 2)
    answer_pairs = rollouts * (answer - 1) * (scene + question + answer / 2)
    keys_and_values = 2 * (prompt - questions) * text.hidden_size * 2 * text.num_key_value_heads * text.head_dim
    last = np.array([keys_and_values, 0]) + layer(questions, questions * (scene + question))
    prefill = (text.num_hidden_layers - 1) * layer(prompt, prompt_pairs) + last
    decode = text.num_hidden_layers * layer(rollouts * (answer - 1), answer_pairs)
    patches = sizes.row_patches * sizes.vision_rows
    mlp = (3 if vision.gated_mlp else 2) * vision.embed_dim * vision.intermediate_size
    window = vision.window_patches or sizes.row_patches
    full_layers = len(vision.fullatt_block_indexes) if vision.window_size else vision.depth
    seen = full_layers * sizes.row_patches + (vision.depth - full_layers) * min(window, sizes.row_patches)
    merged = vision.embed_dim * vision.merge_unit
    of_weights: float = (
        2 * patches * (vision.patch_values * vision.embed_dim + vision.depth * (4 * vision.embed_dim**2 + mlp))
    )
    mergers = 1 + len(vision.deepstack_indexes)
    of_weights += mergers * 2 * patches / vision.merge_unit * merged * (merged + vision.out_hidden_size)
    tower = np.array([of_weights, 4 * patches * seen * vision.embed_dim])
    decode[0] += 2 * text.hidden_size * text.vocab_size * (questions + rollouts * (answer - 1))  # the head
    forward, backward = prefill + decode, np.array([2 if sizes.trains_weights else 1, 2])
    in_update = forward + tower if sizes.trains_tower else forward
    per_scene = {
        "vision": tower,
        "prefill": prefill,
        "decode": decode,
        "reference": in_update * sizes.reference,
        "update": in_update * (1 + backward),
    }
    return {phase: float(flops.sum() * sizes.scenes) for phase, flops in per_scene.items()}


def decode_bytes(config: ModelConfig, sizes: StepSizes, item_size: int) -> float:
    """Bytes that decoding must read. For each of R - 1 tokens: all weights of the layers and of the head once, the keys
    and values of each scene and question once, and those of each rollout so far (R/2 on average).
    """
    text = config.text
    weights = text.num_hidden_layers * _layer_weights(config) + text.hidden_size * text.vocab_size
    return float((sizes.answer_tokens - 1) * (weights * item_size + cache_bytes(config, sizes, item_size)))


def cache_bytes(config: ModelConfig, sizes: StepSizes, item_size: int, filled: float = 0.5) -> float:
    """Bytes of the keys and values of each scene, each question, and each rollout when it is `filled`: half way."""
    text, rollouts = config.text, sizes.questions * sizes.rollouts
    tokens = sizes.scene_tokens + sizes.questions * sizes.question_tokens + rollouts * sizes.answer_tokens * filled
    values = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    return float(sizes.scenes * tokens * values * item_size)


def _layer_weights(config: ModelConfig) -> int:
    """The number of weights in the linear layers of one layer of the language model."""
    text = config.text
    heads = 2 * (text.num_attention_heads + text.num_key_value_heads) * text.head_dim
    return text.hidden_size * (heads + 3 * text.intermediate_size)
