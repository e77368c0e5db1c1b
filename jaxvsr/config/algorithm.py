"""The settings of the algorithms: which GRPO, which DPO, which advantages, which optimizer.

Frozen dataclasses that check themselves, so that a config can be read without JAX. The formulas are in `jaxvsr/grpo`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from jaxvsr.errors import InputError

Reduction = Literal["grpo", "bnpo", "dr_grpo", "dapo"]
Ratio = Literal["token", "sequence_product", "sequence_mean"]
KLEstimator = Literal["k1", "k2", "k3", "k3_corrected"]
Scale = Literal["group", "batch", "none"]
Schedule = Literal["constant", "linear", "cosine"]
Difficulty = Literal["mixed", "easy", "medium", "hard"]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Which GRPO. The defaults are TRL 1.16's.

    reduction: how terms become one number. `grpo` averages over a rollout's tokens, then over rollouts; `bnpo` and
        `dapo` average over all tokens (they differ where the normaliser is a micro-batch's, which here it never is);
        `dr_grpo` divides the sum by rollouts x answer tokens (Liu et al. 2025, arXiv:2503.20783).
    ratio: policy over old policy, of each `token`; as the product over a rollout's tokens (`sequence_product`, vsGRPO's
        Equation 1, with the KL of the summed log-ratio); or as their geometric mean (`sequence_mean`, GSPO,
        arXiv:2507.18071).
    clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
    delta: upper limit of the unclipped ratio too (two-sided clipping); None has no limit.
    cispo: None clips as above; a number is CISPO's cap (arXiv:2506.13585): the ratio, capped there, only weighs the
        log-likelihood gradient, and the clip fields are not read.
    kl: estimator of KL(policy, reference) (Schulman, http://joschu.net/blog/kl-approx.html); `k3_corrected` is k3 times
        the ratio, unbiased off policy (TRL's use_bias_correction_kl).
    beta: weight of the KL; 0 needs no reference policy.
    mask_truncated: leave rollouts without an end-of-sequence token out of the loss; they still count as rollouts.
    """

    reduction: Reduction = "dapo"
    ratio: Ratio = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    delta: float | None = None
    cispo: float | None = None
    kl: KLEstimator = "k3_corrected"
    beta: float = 0.0
    mask_truncated: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("reduction", Reduction), ("ratio", Ratio), ("kl", KLEstimator)):
            if getattr(self, name) not in get_args(choices):
                raise InputError(f"{name} {getattr(self, name)!r}: must be one of {', '.join(get_args(choices))}")
        if not 0 <= self.clip_low < 1:
            raise InputError(f"clip_low {self.clip_low}: must be at least 0 and below 1")
        if not 0 <= self.clip_high < float("inf"):
            raise InputError(f"clip_high {self.clip_high}: must be at least 0")
        if self.delta is not None and not self.delta > 1 + self.clip_high:
            raise InputError(f"delta {self.delta}: must be above 1 + clip_high = {1 + self.clip_high}")
        if self.cispo is not None and not self.cispo > 0:
            raise InputError(f"cispo {self.cispo}: the cap of the ratio must be above 0")
        if self.cispo is not None and self.delta is not None:
            raise InputError(f"delta {self.delta}: has no meaning with cispo, which caps the ratio itself")
        if not 0 <= self.beta < float("inf"):
            raise InputError(f"beta {self.beta}: must be at least 0")
        if self.ratio == "sequence_product" and (self.reduction != "grpo" or self.cispo is not None):
            raise InputError("ratio sequence_product: has one term per rollout; reduction must be grpo and cispo unset")

    @property
    def clip_bounds(self) -> tuple[float, float]:
        """Least and largest ratio that is not clipped."""
        return (1 - self.clip_low, 1 + self.clip_high) if self.cispo is None else (0.0, self.cispo)

    @property
    def kl_level(self) -> Ratio:
        """What the KL is estimated of: the summed log-ratio of a rollout where the ratio is a product, else tokens."""
        return self.ratio if self.ratio == "sequence_product" else "token"


@dataclasses.dataclass(frozen=True)
class AdvantageRule:
    """How rewards are normalised.

    scale: what reward minus group mean is divided by: the standard deviation of the `group` (GRPO), of the whole
        `batch`, or `none` (Dr. GRPO).
    per_reward: normalise each reward within its group before weights and sum, then the sum over the batch (GDPO,
        arXiv:2601.05242; TRL's normalize_then_sum); `scale` is then not read.
    """

    scale: Scale = "group"
    per_reward: bool = False

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise InputError(f"scale {self.scale!r}: must be one of {', '.join(get_args(Scale))}")


@dataclasses.dataclass(frozen=True)
class PreferenceObjective:
    """DPO. Without label smoothing it is TRL 1.16's loss type `sigmoid`, which has none: it ignores `label_smoothing`.

    beta: strength of the pull towards the reference policy.
    label_smoothing: probability that a preference label is flipped. The term of the flipped label is mixed in with this
        weight: conservative DPO, which in TRL is no loss type of its own.
    robust: subtract the flipped term instead and divide by 1 - 2 x label_smoothing, so that the loss is unbiased under
        such flips (arXiv:2403.00409): TRL's loss type `robust`.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    robust: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.beta < float("inf"):
            raise InputError(f"beta {self.beta}: must be above 0 for DPO")
        if not 0 <= self.label_smoothing < 0.5:
            raise InputError(f"label_smoothing {self.label_smoothing}: must be at least 0 and below 0.5")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The defaults are Hugging Face Trainer's, but for the learning rate, which is vsGRPO's for 2B.

    learning_rate: the highest, reached after warm-up.
    schedule: from there `constant`, `linear` to 0 or along half a `cosine` to 0 at the last step.
    warmup_steps: steps over which the learning rate rises linearly from 0; the first of them has learning rate 0.
    weight_decay: decoupled; not on biases and norms.
    b1, b2, eps: Adam's.
    clip_norm: largest global gradient norm; None clips nothing.
    """

    learning_rate: float = 1e-5
    schedule: Schedule = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise InputError(f"schedule {self.schedule!r}: must be one of {', '.join(get_args(Schedule))}")
        for name in ("learning_rate", "warmup_steps", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} {getattr(self, name)}: must be at least 0")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: must be at least 0 and below 1")
        if not self.eps > 0:
            raise InputError(f"eps {self.eps}: must be above 0")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"clip_norm {self.clip_norm}: must be above 0, or null for no clipping")
