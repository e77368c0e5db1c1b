"""The repetition penalty of greedy answers: tokens of the prompt and of the answer so far become less likely.

Qwen2.5-VL's folders ask for it (`generation_config.json`, 1.05), and Hugging Face's `generate` applies it unasked, so
that published scores of benchmarks have it in them. Training samples without it.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from jaxvsr.models.tree_batch import TreePrompt


def seen_tokens(prompt: TreePrompt, vocab_size: int) -> Bool[Array, "S Q vocab"]:
    """Which tokens of the vocabulary are in the prompt of each question: in its scene segment or its own."""

    def marked(tokens: Int32[Array, "*batch X"], length: Int32[Array, "*batch"]) -> Bool[Array, "*batch vocab"]:
        real = jnp.arange(tokens.shape[-1]) < length[..., None]
        flat = jnp.where(real, tokens, vocab_size).reshape(-1, tokens.shape[-1])  # padding is out of range: dropped
        rows, none = jnp.arange(flat.shape[0])[:, None], jnp.zeros((flat.shape[0], vocab_size), bool)
        return none.at[rows, flat].set(True, mode="drop").reshape(*length.shape, vocab_size)

    scene = marked(prompt.scene_tokens, prompt.scene_length)
    return scene[:, None] | marked(prompt.question_tokens, prompt.question_length)


def penalise_seen(
    logits: Float[Array, "*batch vocab"], seen: Bool[Array, "*batch vocab"], penalty: float
) -> Float[Array, "*batch vocab"]:
    """Logits of tokens that were seen, divided by the penalty where positive and multiplied by it where negative: the
    rule of CTRL (Keskar et al. 2019) as in transformers, once per token however often it was seen."""
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)
