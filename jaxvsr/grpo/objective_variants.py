"""Variants of GRPO's objective: other gains and other estimators of the KL, for `objectives.grpo_loss`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvsr.config.algorithm import KLEstimator, Objective
from jaxvsr.grpo.objectives import Divergence, Gain, Normaliser, clipped_gain, grpo_loss, k3


def two_sided_gain(
    ratio: Float[Array, "S Q G n"],
    advantage: Float[Array, "S Q G 1"],
    policy: Float[Array, "S Q G R"],
    objective: Objective,
) -> Float[Array, "S Q G n"]:
    """min(min(ρ, δ) A, clip(ρ, 1 - ε, 1 + ε) A): the unclipped ratio has an upper limit too (TRL's `delta`)."""
    assert objective.delta is not None
    clipped = jnp.clip(ratio, *objective.clip_bounds)
    return jnp.minimum(jnp.minimum(ratio, objective.delta) * advantage, clipped * advantage)


def cispo_gain(
    ratio: Float[Array, "S Q G n"],
    advantage: Float[Array, "S Q G 1"],
    policy: Float[Array, "S Q G R"],
    objective: Objective,
) -> Float[Array, "S Q G R"]:
    """min(ρ, cap) A log π, with no gradient through the first factor (CISPO, arXiv:2506.13585)."""
    assert objective.cispo is not None
    return jax.lax.stop_gradient(jnp.minimum(ratio, objective.cispo)) * advantage * policy


def k1(log_reference_ratio: Float[Array, "S Q G n"], ratio: Float[Array, "S Q G m"]) -> Float[Array, "S Q G n"]:
    """log(π / π_ref): unbiased, of high variance, and negative at times."""
    return -log_reference_ratio


def k2(log_reference_ratio: Float[Array, "S Q G n"], ratio: Float[Array, "S Q G m"]) -> Float[Array, "S Q G n"]:
    """Half the squared log-ratio."""
    return log_reference_ratio**2 / 2


def k3_corrected(
    log_reference_ratio: Float[Array, "S Q G n"], ratio: Float[Array, "S Q G m"]
) -> Float[Array, "S Q G k"]:
    """k3 times π / π_old, unbiased for samples of the old policy (TRL's `use_bias_correction_kl`)."""
    return k3(log_reference_ratio, ratio) * ratio


DIVERGENCES: dict[KLEstimator, Divergence] = {"k1": k1, "k2": k2, "k3": k3, "k3_corrected": k3_corrected}


def gain_of(objective: Objective) -> Gain:
    if objective.cispo is not None:
        return cispo_gain
    return clipped_gain if objective.delta is None else two_sided_gain


def grpo_variant_loss(
    logprobs: Float[Array, "S Q G R"],
    old_logprobs: Float[Array, "S Q G R"],
    reference_logprobs: Float[Array, "S Q G R"] | None,
    advantages: Float[Array, "S Q G"],
    mask: Bool[Array, "S Q G R"],
    objective: Objective,
    normaliser: Normaliser,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """`grpo_loss` with the gain and the KL that `objective` names."""
    return grpo_loss(
        logprobs, old_logprobs, reference_logprobs, advantages, mask, objective, normaliser,
        gain=gain_of(objective), divergence=DIVERGENCES[objective.kl],
    )  # fmt: skip
