"""What GRPO minimises, as pure functions on log-probabilities [S, Q, G, R].

Read `grpo_loss` from top to bottom: ratio, clipped gain, KL, weighted sum. What TRL 1.16 also has equals its
`GRPOTrainer._compute_loss` with one accumulation step; a ratio that is the product over a rollout gives Equation 1 of
the vsGRPO paper.

The loss is a sum of term x share. The shares are fixed by the whole step's rollouts (`step_normaliser`) before any term
is computed, so losses, gradients and metrics of micro-batches add up to those of the step, whatever is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvsr.config.algorithm import KLEstimator, Objective, Ratio, Reduction
from jaxvsr.models.tree_batch import AnyArray

MAXIMA = ("ratio_max", "logprob_gap")  # metrics that combine by maximum; all others add


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normaliser:
    """What the sums of a step are divided by, counted over all of its rollouts, skipped and masked ones too."""

    loss: Float[AnyArray, ""]
    tokens: Float[AnyArray, ""]  # tokens in the loss
    rollouts: Float[AnyArray, ""]  # rollouts with at least one of them


def token_mask(
    length: Int[AnyArray, "S Q G"], tokens: int, truncated: Bool[AnyArray, "S Q G"] | None = None
) -> Bool[Array, "S Q G R"]:
    """True on the first `length` of R = `tokens` positions of a rollout; nowhere in rollouts marked in `truncated`."""
    mask = jnp.arange(tokens) < jnp.asarray(length)[..., None]
    return mask if truncated is None else mask & ~jnp.asarray(truncated)[..., None]


def step_normaliser(
    mask: Bool[AnyArray, "S Q G R"], objective: Objective | None = None, answer_tokens: int | None = None
) -> Normaliser:
    """The normaliser of a whole step from its loss mask, before any rollout is gathered, skipped or padded.

    Args:
        mask: tokens in the loss, of all scenes of all processes.
        objective: None for SFT and DPO, which read the counts alone.
        answer_tokens: the most tokens that an answer may have, where R is more than that (dr_grpo divides by it).
    """
    tokens, rollouts = mask.sum(), mask.any(axis=-1).sum()
    count = mask.size // mask.shape[-1]
    loss = {"grpo": count, "bnpo": tokens, "dapo": tokens, "dr_grpo": count * (answer_tokens or mask.shape[-1])}
    reduction = "dapo" if objective is None else objective.reduction
    return Normaliser(*(jnp.maximum(jnp.float32(n), 1.0) for n in (loss[reduction], tokens, rollouts)))


def grpo_loss(
    logprobs: Float[Array, "S Q G R"],
    old_logprobs: Float[Array, "S Q G R"],
    reference_logprobs: Float[Array, "S Q G R"] | None,
    advantages: Float[Array, "S Q G"],
    mask: Bool[Array, "S Q G R"],
    objective: Objective,
    normaliser: Normaliser,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The share of these rollouts in the step's GRPO loss, and in its metrics (see `merge_metrics`).

    Args:
        logprobs: of the sampled tokens under the policy that is trained; masked positions may hold anything.
        old_logprobs: under the policy that sampled them.
        reference_logprobs: under the reference policy; None where beta is 0.
        advantages: one a rollout.
        mask: tokens in the loss; False all over for rollouts that only fill a bucket.

    Returns:
        loss: in float32, or float64 where the log-probabilities are.
        metrics: `kl` (if beta), `clip_ratio` and its `/low` and `/high` part, `ratio_deviation` (mean |ratio - 1|) and
            `ratio_max`, `logprob_gap` (largest |policy - old| of a token, in nats).
    """
    dtype = jnp.promote_types(logprobs.dtype, jnp.float32)

    def real(x: Float[Array, "S Q G R"]) -> Float[Array, "S Q G R"]:
        return jnp.where(mask, x, 0).astype(dtype)  # before any arithmetic, so that no NaN comes out of padding

    advantage = jnp.where(mask.any(-1, keepdims=True), advantages[..., None], 0).astype(dtype)
    policy, old = real(logprobs), jax.lax.stop_gradient(real(old_logprobs))
    ratio = jnp.exp(_per_ratio(policy - old, mask, objective.ratio))

    if objective.cispo is None:
        clipped = jnp.clip(ratio, 1 - objective.clip_low, 1 + objective.clip_high)
        limited = ratio if objective.delta is None else jnp.minimum(ratio, objective.delta)
        gain = jnp.minimum(limited * advantage, clipped * advantage)
    else:
        gain = jax.lax.stop_gradient(jnp.minimum(ratio, objective.cispo)) * advantage * policy
    loss = -gain

    metrics = {}
    if objective.beta:
        if reference_logprobs is None:
            raise ValueError("beta is not 0: the loss needs the reference policy's log-probabilities")
        log_reference_ratio = jax.lax.stop_gradient(real(reference_logprobs)) - policy
        if objective.ratio == "sequence_product":
            log_reference_ratio = log_reference_ratio.sum(-1, keepdims=True)
        kl = kl_estimate(log_reference_ratio, ratio, objective.kl)
        loss = loss + objective.beta * kl
        metrics["kl"] = _mean(kl, mask, normaliser)

    metrics |= _ratio_metrics(ratio, advantage, mask, objective, normaliser)
    metrics["logprob_gap"] = jnp.abs(policy - old).max()
    total = (loss * _shares(mask, objective.reduction, normaliser, dtype)).sum()
    return total, jax.lax.stop_gradient(metrics)


def kl_estimate(
    log_reference_ratio: Float[Array, "S Q G n"], ratio: Float[Array, "S Q G m"], estimator: KLEstimator
) -> Float[Array, "S Q G k"]:
    """KL(policy, reference) from log(reference / policy) of what the old policy sampled; `ratio` is policy / old."""
    x = log_reference_ratio
    if estimator == "k1":
        return -x
    if estimator == "k2":
        return x**2 / 2
    k3 = jnp.exp(x) - x - 1
    return k3 * ratio if estimator == "k3_corrected" else k3


def merge_metrics(stacked: Mapping[str, Float[AnyArray, " n"]]) -> dict[str, AnyArray]:
    """The step's metrics from those of its n micro-batches: means are shares that add, `MAXIMA` are maxima."""
    return {name: value.max() if name in MAXIMA else value.sum() for name, value in stacked.items()}


def _per_ratio(
    log_ratio: Float[Array, "S Q G R"], mask: Bool[Array, "S Q G R"], level: Ratio
) -> Float[Array, "S Q G n"]:
    """The log-ratio of each token (n = R), or one for the whole rollout (n = 1)."""
    if level == "token":
        return log_ratio
    total = log_ratio.sum(-1, keepdims=True)
    return total if level == "sequence_product" else total / jnp.maximum(mask.sum(-1, keepdims=True), 1)


def _shares(
    mask: Bool[Array, "S Q G R"], reduction: Reduction, normaliser: Normaliser, dtype: jnp.dtype
) -> Float[Array, "S Q G R"]:
    """Each token's share in the step's loss; a term of a whole rollout is met once for each of its tokens."""
    shares = mask.astype(dtype) / normaliser.loss
    return shares / jnp.maximum(mask.sum(-1, keepdims=True), 1) if reduction == "grpo" else shares


def _mean(values: Float[Array, "S Q G n"], mask: Bool[Array, "S Q G R"], normaliser: Normaliser) -> Float[Array, ""]:
    """Share of these rollouts in the step's mean over tokens (n = R) or over rollouts (n = 1)."""
    if values.shape[-1] == mask.shape[-1]:
        return (values * mask).sum() / normaliser.tokens
    return (values * mask.any(-1, keepdims=True)).sum() / normaliser.rollouts


def _ratio_metrics(
    ratio: Float[Array, "S Q G n"],
    advantage: Float[Array, "S Q G 1"],
    mask: Bool[Array, "S Q G R"],
    objective: Objective,
    normaliser: Normaliser,
) -> dict[str, Float[Array, ""]]:
    """How far the policy is from the old one, and where clipping took the gradient away."""
    if objective.cispo is None:
        low = (ratio < 1 - objective.clip_low) & (advantage < 0)
        high = (ratio > 1 + objective.clip_high) & (advantage > 0)
    else:
        low, high = jnp.zeros_like(ratio, bool), (ratio > objective.cispo) & (advantage > 0)
    low, high = (_mean(side.astype(ratio.dtype), mask, normaliser) for side in (low, high))
    return {
        "clip_ratio": low + high,
        "clip_ratio/low": low,
        "clip_ratio/high": high,
        "ratio_deviation": _mean(jnp.abs(ratio - 1), mask, normaliser),
        "ratio_max": jnp.where(mask.any(-1, keepdims=True), ratio, 0).max(),
    }
