"""From rewards to advantages, and which questions are worth an update: pure NumPy, TRL 1.16's arithmetic.

Rewards come as [K, S, Q, G], one slice a reward function, NaN where a function returned None ("does not apply"). A
group is the G rollouts of one question. `batch` scaling and per-reward normalisation look at the whole step, so the
rewards must be those of all processes; every process then computes the same numbers.

Unlike TRL's float32, float64 is used inside, and a group of equal rewards gets exactly 0: in float32 the rounding of
its mean, divided by a standard deviation of nearly 0, is an advantage that no reward gave.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Shaped

from jaxvsr.config.algorithm import AdvantageRule
from jaxvsr.errors import InputError

EPSILON = 1e-4  # added to the standard deviation, outside the root (TRL, ms-swift, R1-V)
ROUNDING = 1e-12  # advantages below this are rounding of float64


@dataclasses.dataclass(frozen=True)
class GroupAdvantages:
    """What the update and the logs need of a step's rewards."""

    advantages: Float32[np.ndarray, "S Q G"]  # 0 where no reward applies
    totals: Float64[np.ndarray, "S Q G"]  # weighted sum of the rewards; NaN where none applies
    informative: Bool[np.ndarray, "S Q"]  # whether any rollout of the group has an advantage
    metrics: dict[str, float]


def group_advantages(
    rewards: Float[np.ndarray, "K S Q G"], weights: Sequence[float], rule: AdvantageRule
) -> GroupAdvantages:
    """Advantages of a step's rollouts.

    Args:
        rewards: of all processes; NaN where a reward does not apply.
        weights: one a reward.

    Returns:
        The advantages and the metrics `reward/mean`, `reward/std` (over the batch, one degree of freedom less; both
        left out where undefined), `frac_reward_zero_std` (share of rollouts whose divisor is 0) and
        `zero_advantage_groups` (number of groups without any advantage).

    Raises:
        InputError: the number of weights is not K, or a reward is infinite.
    """
    rewards = rewards.astype(np.float64)
    if len(weights) != len(rewards):
        raise InputError(f"reward weights: {len(rewards)} rewards need as many weights, found {len(weights)}")
    infinite = np.isinf(rewards).any(axis=(1, 2, 3))
    if infinite.any():
        raise InputError(f"reward {infinite.argmax() + 1} of {len(rewards)}: is infinite; it must be finite or None")

    totals = _weighted_sum(rewards, rewards, weights)
    whole_batch = (0, 1, 2)
    if rule.per_reward:
        scores = _weighted_sum(_centred(rewards, 3) / (_standard_deviation(rewards, 3) + EPSILON), rewards, weights)
        centred, deviation = _centred(scores, whole_batch), _standard_deviation(scores, whole_batch)
    else:
        centred = _centred(totals, 2)
        deviation = _standard_deviation(totals, whole_batch if rule.scale == "batch" else 2)
    scaled = centred if rule.scale == "none" and not rule.per_reward else centred / (deviation + EPSILON)

    # A rollout without a reward, or alone with one in its group, teaches nothing.
    advantages = np.nan_to_num(scaled, nan=0.0)
    advantages = np.where(np.abs(advantages) < ROUNDING, 0.0, advantages).astype(np.float32)
    informative = (advantages != 0).any(axis=-1)
    metrics = {
        "reward/mean": float(_mean(totals, whole_batch).squeeze()),
        "reward/std": float(_deviation_ddof1(totals, whole_batch).squeeze()),
        "frac_reward_zero_std": float(np.isclose(np.broadcast_to(deviation, totals.shape), 0.0).mean()),
        "zero_advantage_groups": float((~informative).sum()),
    }
    return GroupAdvantages(advantages, totals, informative, {k: v for k, v in metrics.items() if np.isfinite(v)})


@dataclasses.dataclass(frozen=True)
class QuestionBucket:
    """Which questions of each scene an update takes.

    Example, S = 2 and Q = 4, where questions 1 and 3 of the first scene and 2 of the second are informative:
    index [[1, 3], [2, 0]], real [[True, True], [True, False]].
    """

    index: Int32[np.ndarray, "S B"]
    real: Bool[np.ndarray, "S B"]  # False: a question that only fills the bucket; its rollouts must be masked

    def rows(self, first: int, count: int) -> QuestionBucket:
        """The bucket of scenes `first` to `first` + count - 1."""
        return QuestionBucket(self.index[first : first + count], self.real[first : first + count])

    def take(self, values: Shaped[np.ndarray, "S Q ..."]) -> Shaped[np.ndarray, "S B ..."]:
        """The bucket's rows of an array over questions."""
        return values[np.arange(len(values))[:, None], self.index]


def gather_informative(informative: Bool[np.ndarray, "S Q"]) -> QuestionBucket:
    """The informative questions of each scene in the smallest bucket of 1, 2, 4 … or Q questions that holds them.

    Without KL a group whose advantages are all 0 has no gradient, so leaving it out changes nothing as long as the
    normaliser still counts it. The bucket depends on all scenes, those of other processes too, so that all compile and
    run alike; where no group is informative it holds one masked question, and the optimizer still steps.
    """
    questions = informative.shape[1]
    most = max(1, int(informative.sum(axis=1).max(initial=0)))
    size = min(1 << (most - 1).bit_length(), questions)
    index = np.argsort(~informative, axis=1, kind="stable")[:, :size].astype(np.int32)
    return QuestionBucket(index, np.take_along_axis(informative, index, axis=1))


Axes = int | tuple[int, ...]


def _weighted_sum(
    values: Float64[np.ndarray, "K S Q G"], rewards: Float64[np.ndarray, "K S Q G"], weights: Sequence[float]
) -> Float64[np.ndarray, "S Q G"]:
    """Sum over rewards with NaN as 0; NaN where no reward applies."""
    total = np.nansum(values * np.asarray(weights, np.float64)[:, None, None, None], axis=0)
    return np.where(np.isnan(rewards).all(axis=0), np.nan, total)


def _mean(x: Float64[np.ndarray, "..."], axes: Axes) -> Float64[np.ndarray, "..."]:
    """Mean of what is not NaN, axes kept; NaN where nothing is left."""
    count = (~np.isnan(x)).sum(axis=axes, keepdims=True)
    return np.where(count > 0, np.nansum(x, axis=axes, keepdims=True) / np.maximum(count, 1), np.nan)


def _centred(x: Float64[np.ndarray, "..."], axes: Axes) -> Float64[np.ndarray, "..."]:
    """x minus its mean; taken from the largest value, so that equal values give exactly 0."""
    x = x - np.where(np.isnan(x), -np.inf, x).max(axis=axes, keepdims=True)
    return x - _mean(x, axes)


def _deviation_ddof1(x: Float64[np.ndarray, "..."], axes: Axes) -> Float64[np.ndarray, "..."]:
    """Standard deviation of what is not NaN with n - 1 in the denominator, axes kept; NaN below two values."""
    count = (~np.isnan(x)).sum(axis=axes, keepdims=True)
    squares = np.nansum(_centred(x, axes) ** 2, axis=axes, keepdims=True)
    return np.sqrt(np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan))


def _standard_deviation(x: Float64[np.ndarray, "..."], axes: Axes) -> Float64[np.ndarray, "..."]:
    """The divisor: as above, but 0 where the group or batch is a single rollout."""
    deviation = _deviation_ddof1(x, axes)
    return np.zeros_like(deviation) if x.size == deviation.size else deviation
