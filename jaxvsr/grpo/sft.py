"""Supervised fine-tuning on log-probabilities [S, Q, 1, R] of the target answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvsr.models.tree_batch import AnyArray


def sft_loss(
    logprobs: Float[Array, "S Q G R"], mask: Bool[Array, "S Q G R"], tokens: Float[AnyArray, ""]
) -> Float[Array, ""]:
    """The share of these answers in the step's mean negative log-likelihood of a token: shares of micro-batches add up.

    Args:
        logprobs: masked positions may hold anything.
        mask: the target's tokens, its end-of-sequence token included.
        tokens: their number in the whole step; a step without any has loss 0.
    """
    dtype = jnp.promote_types(logprobs.dtype, jnp.float32)
    return -jnp.where(mask, logprobs, 0).astype(dtype).sum() / jnp.maximum(jax.lax.stop_gradient(tokens), 1)
