"""What GRPO minimises, as pure functions on log-probabilities [S, Q, G, R].

`grpo_loss` is the equation. What TRL 1.16 also has equals its `GRPOTrainer._compute_loss` with one accumulation step.
Other gains and other estimators of the KL are in `objective_variants.py`.

The loss is a sum of term x share. The shares are fixed by the whole step's rollouts (`step_normaliser`) before any term
is computed, so losses, gradients and metrics of micro-batches add up to those of the step, whatever is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxvsr.config.algorithm import Objective, Ratio, Reduction
from jaxvsr.models.tree_batch import AnyArray

MAXIMA = ("ratio_max", "logprob_gap")  # metrics that combine by maximum; all others add


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normaliser:
    """What the sums of a step are divided by, counted over all of its rollouts, skipped and masked ones too."""

    loss: Float[AnyArray, ""]
    tokens: Float[AnyArray, ""]  # tokens in the loss
    rollouts: Float[AnyArray, ""]  # rollouts with at least one of them
    # Of those the ones that the update computes: groups may be left out of it.
    updated_tokens: Float[AnyArray, ""]
    updated_rollouts: Float[AnyArray, ""]


def token_mask(
    length: Int[AnyArray, "S Q G"], tokens: int, truncated: Bool[AnyArray, "S Q G"] | None = None
) -> Bool[AnyArray, "S Q G R"]:
    """True on the first `length` of R = `tokens` positions of a rollout; nowhere in rollouts marked in `truncated`."""
    mask = length[..., None] > np.arange(tokens)
    return mask if truncated is None else mask & ~truncated[..., None]


def step_normaliser(
    mask: Bool[AnyArray, "S Q G R"],
    objective: Objective | None = None,
    answer_tokens: int | None = None,
    updated: Bool[AnyArray, "S q G R"] | None = None,
) -> Normaliser:
    """The normaliser of a whole step from its loss mask, before any rollout is gathered, skipped or padded.

    Args:
        mask: tokens in the loss, of all scenes of all processes.
        objective: None for SFT and DPO, which read only the counts.
        answer_tokens: the most tokens that an answer may have, where R is more than that (dr_grpo divides by it).
        updated: the mask of the groups that the update computes; None: of all.
    """
    tokens, rollouts = mask.sum(), mask.any(axis=-1).sum()
    count = mask.size // mask.shape[-1]
    loss = {"grpo": count, "bnpo": tokens, "dapo": tokens, "dr_grpo": count * (answer_tokens or mask.shape[-1])}
    reduction = "dapo" if objective is None else objective.reduction
    updated = mask if updated is None else updated
    counts = (loss[reduction], tokens, rollouts, updated.sum(), updated.any(axis=-1).sum())
    return Normaliser(*(np.asarray(max(float(count), 1.0), np.float32) for count in counts))


Gain = Callable[[Float[Array, "S Q G n"], Float[Array, "S Q G 1"], Float[Array, "S Q G R"], Objective], Array]
Divergence = Callable[[Float[Array, "S Q G n"], Float[Array, "S Q G m"]], Array]


def clipped_gain(
    ratio: Float[Array, "S Q G n"],
    advantage: Float[Array, "S Q G 1"],
    policy: Float[Array, "S Q G R"],
    objective: Objective,
) -> Float[Array, "S Q G n"]:
    """min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)."""
    clipped = jnp.clip(ratio, *objective.clip_bounds)
    return jnp.minimum(ratio * advantage, clipped * advantage)


def k3(log_reference_ratio: Float[Array, "S Q G n"], ratio: Float[Array, "S Q G m"]) -> Float[Array, "S Q G n"]:
    """KL(π, π_ref) ≈ π_ref / π - log(π_ref / π) - 1 (Schulman's k3)."""
    return jnp.exp(log_reference_ratio) - log_reference_ratio - 1


def grpo_loss(
    logprobs: Float[Array, "S Q G R"],
    old_logprobs: Float[Array, "S Q G R"],
    reference_logprobs: Float[Array, "S Q G R"] | None,
    advantages: Float[Array, "S Q G"],
    mask: Bool[Array, "S Q G R"],
    objective: Objective,
    normaliser: Normaliser,
    *,
    gain: Gain,
    divergence: Divergence,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The share of these rollouts in the step's GRPO loss, and in its metrics (see `merge_metrics`).

    Equation 1 of vsGRPO, after GRPO (Shao et al. 2024, arXiv:2402.03300); its ratio of whole rollouts is
    `objective.ratio="sequence_product"` with `reduction="grpo"`:

        J = 1/G Σ_g [ min(ρ_g A_g, clip(ρ_g, 1 - ε, 1 + ε) A_g) - β KL_g ],      ρ_g = π(o_g) / π_old(o_g)

        π, π_old, π_ref    policy, the policy that sampled, reference     exp of logprobs, old_…, reference_logprobs
        o_g, G             a rollout, and the rollouts of its question    axes G and R, the R tokens chosen by `mask`
        ρ_g                ratio, of each token or of a rollout           ratio           (objective.ratio)
        A_g                advantage of the rollout in its group          advantage
        ε                  clip range                                     objective.clip_low, clip_high
        β, KL_g            weight and estimate of KL(π, π_ref)            objective.beta, kl
        1/G Σ_g            mean over rollouts, or over tokens             shares          (objective.reduction)

    The loss is -J.

    Args:
        logprobs: of the sampled tokens under the policy that is trained; masked positions may hold anything.
        old_logprobs: under the policy that sampled them.
        reference_logprobs: under the reference policy; None where beta is 0.
        advantages: one per rollout.
        mask: tokens in the loss; False all over for rollouts that only fill a bucket.
        gain: the first term of the sum; others are in `objective_variants.py`.
        divergence: the second term.

    Returns:
        loss: in float32, or float64 where the log-probabilities are.
        metrics: `kl` (if beta), `clip_ratio` and its `/low` and `/high` part, `ratio_deviation` (mean |ratio - 1|) and
            `ratio_max`, `logprob_gap` (largest |policy - old| of a token, in nats).
    """
    policy, old = _real(logprobs, mask), jax.lax.stop_gradient(_real(old_logprobs, mask))
    advantage = _real(advantages[..., None], mask.any(-1, keepdims=True))

    ratio = jnp.exp(_joined(policy - old, mask, objective.ratio))
    loss = -gain(ratio, advantage, policy, objective)
    metrics = _ratio_metrics(ratio, advantage, mask, objective, normaliser)
    metrics["logprob_gap"] = jnp.abs(policy - old).max()
    if objective.beta:
        if reference_logprobs is None:
            raise ValueError("beta is not 0: the loss needs the reference policy's log-probabilities")
        reference = jax.lax.stop_gradient(_real(reference_logprobs, mask))
        kl = divergence(_joined(reference - policy, mask, objective.kl_level), ratio)
        loss = loss + objective.beta * kl
        metrics["kl"] = _mean(kl, mask, normaliser.tokens, normaliser.rollouts)

    shares = _shares(mask, objective.reduction, normaliser, policy.dtype)
    return (loss * shares).sum(), jax.lax.stop_gradient(metrics)


def merge_metrics(stacked: Mapping[str, Float[AnyArray, " n"]]) -> dict[str, AnyArray]:
    """The step's metrics from those of its n micro-batches: means are shares that add, `MAXIMA` are maxima."""
    return {name: value.max() if name in MAXIMA else value.sum() for name, value in stacked.items()}


def _real(values: Float[Array, "*axes"], mask: Bool[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Zero where masked, before any arithmetic, so that no NaN comes out of padding; float32 or wider."""
    return jnp.where(mask, values, 0).astype(jnp.promote_types(values.dtype, jnp.float32))


def _joined(log_ratio: Float[Array, "S Q G R"], mask: Bool[Array, "S Q G R"], level: Ratio) -> Float[Array, "S Q G n"]:
    """The log-ratio of each token (n = R), or one for the whole rollout (n = 1)."""
    if level == "token":
        return log_ratio
    total = log_ratio.sum(-1, keepdims=True)
    return total if level == "sequence_product" else total / jnp.maximum(mask.sum(-1, keepdims=True), 1)


def _shares(
    mask: Bool[Array, "S Q G R"], reduction: Reduction, normaliser: Normaliser, dtype: jnp.dtype
) -> Float[Array, "S Q G R"]:
    """Each token's share in the step's loss. A per-rollout term is summed once per token, so its share is split over
    them."""
    shares = mask.astype(dtype) / normaliser.loss
    return shares / jnp.maximum(mask.sum(-1, keepdims=True), 1) if reduction == "grpo" else shares


def _mean(
    values: Float[Array, "S Q G n"], mask: Bool[Array, "S Q G R"], tokens: AnyArray, rollouts: AnyArray
) -> Float[Array, ""]:
    """Share of these rollouts in the step's mean over `tokens` (n = R) or over `rollouts` (n = 1)."""
    count = tokens if values.shape[-1] == mask.shape[-1] else rollouts
    return jnp.sum(values * _each(values, mask)) / count


def _each(values: Float[Array, "S Q G n"], mask: Bool[Array, "S Q G R"]) -> Bool[Array, "S Q G n"]:
    """Which of the values, of tokens or of rollouts, are in the loss."""
    return mask if values.shape[-1] == mask.shape[-1] else mask.any(-1, keepdims=True)


def _ratio_metrics(
    ratio: Float[Array, "S Q G n"],
    advantage: Float[Array, "S Q G 1"],
    mask: Bool[Array, "S Q G R"],
    objective: Objective,
    normaliser: Normaliser,
) -> dict[str, Float[Array, ""]]:
    """How far the policy is from the old one, and where clipping took the gradient away."""
    least, most = objective.clip_bounds
    low, high = (ratio < least) & (advantage < 0), (ratio > most) & (advantage > 0)
    low, high = (_mean(side.astype(ratio.dtype), mask, normaliser.tokens, normaliser.rollouts) for side in (low, high))
    return {
        "clip_ratio": low + high,
        "clip_ratio/low": low,
        "clip_ratio/high": high,
        "ratio_deviation": _mean(jnp.abs(ratio - 1), mask, normaliser.updated_tokens, normaliser.updated_rollouts),
        "ratio_max": jnp.where(_each(ratio, mask), ratio, 0).max(),
    }
