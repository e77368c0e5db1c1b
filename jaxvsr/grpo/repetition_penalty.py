"""The repetition penalty of greedy answers: words that stand in the prompt or in the answer so far become less likely.

Qwen2.5-VL's folders ask for it (`generation_config.json`, 1.05), and Hugging Face's `generate` applies it unasked, so
that published scores of benchmarks have it in them. Training samples without it.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from jaxvsr.models.tree_batch import TreePrompt


def seen_words(prompt: TreePrompt, words: int) -> Bool[Array, "S Q W"]:
    """Which words of the vocabulary stand in the prompt of each question: in its scene segment or its own."""

    def marked(tokens: Int32[Array, "*batch X"], length: Int32[Array, "*batch"]) -> Bool[Array, "*batch W"]:
        real = jnp.arange(tokens.shape[-1]) < length[..., None]
        flat = jnp.where(real, tokens, words).reshape(-1, tokens.shape[-1])  # `words` is out of range: dropped
        rows = jnp.arange(flat.shape[0])[:, None]
        return (
            jnp.zeros((flat.shape[0], words), bool).at[rows, flat].set(True, mode="drop").reshape(*length.shape, words)
        )

    scene = marked(prompt.scene_tokens, prompt.scene_length)
    return scene[:, None] | marked(prompt.question_tokens, prompt.question_length)


def penalise_seen(
    logits: Float[Array, "*batch W"], seen: Bool[Array, "*batch W"], penalty: float
) -> Float[Array, "*batch W"]:
    """Logits of words that were seen, divided by the penalty where positive and multiplied by it where negative: the
    rule of CTRL (Keskar et al. 2019) as in transformers, once a word however often it was seen."""
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)
