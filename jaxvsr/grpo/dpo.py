"""Direct preference optimisation on log-probabilities [S, Q, 2, R]: chosen first, then rejected (arXiv:2305.18290)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvsr.config.algorithm import PreferenceObjective
from jaxvsr.models.tree_batch import AnyArray


def dpo_loss(
    logprobs: Float[Array, "S Q 2 R"],
    reference_logprobs: Float[Array, "S Q 2 R"],
    mask: Bool[Array, "S Q 2 R"],
    objective: PreferenceObjective,
    pairs: int | Float[AnyArray, ""],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The share of these pairs in the step's mean DPO loss and metrics: both add up over micro-batches.

    Args:
        logprobs, reference_logprobs: of the answers' tokens; masked positions may hold anything.
        mask: real tokens; a question whose two answers are all False only fills a bucket and counts nothing.
        pairs: number of pairs in the whole step.

    Returns:
        loss: float32 or wider.
        metrics: `rewards/chosen`, `rewards/rejected`, `rewards/margins` (beta times log-ratio, in nats) and
            `rewards/accuracies` (share of pairs whose chosen answer gained more).
    """
    dtype = jnp.promote_types(logprobs.dtype, jnp.float32)
    policy, reference = (jnp.where(mask, x, 0).astype(dtype).sum(-1) for x in (logprobs, reference_logprobs))
    rewards = objective.beta * (policy - jax.lax.stop_gradient(reference))
    chosen, rejected = rewards[..., 0], rewards[..., 1]
    margin = chosen - rejected

    right, flipped = -jax.nn.log_sigmoid(margin), -jax.nn.log_sigmoid(-margin)
    smoothing = objective.label_smoothing
    if objective.robust:
        loss = ((1 - smoothing) * right - smoothing * flipped) / (1 - 2 * smoothing)
    else:
        loss = (1 - smoothing) * right + smoothing * flipped

    share = mask.any(axis=(-1, -2)) / jnp.asarray(pairs, dtype)
    metrics = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": margin,
        "rewards/accuracies": (margin > 0).astype(dtype),
    }
    return (loss * share).sum(), {name: jax.lax.stop_gradient((x * share).sum()) for name, x in metrics.items()}
