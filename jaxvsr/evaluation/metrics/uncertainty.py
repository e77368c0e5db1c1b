"""Uncertainty of a mean over questions: bootstrap intervals, and paired differences between two sets of answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
COVERAGE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of a - b over the n questions that both have a score for, and its standard error over questions.

    `standard_error` is nan for fewer than two questions.
    """

    n: int
    mean: float
    standard_error: float

    @property
    def in_standard_errors(self) -> float:
        """The mean divided by its standard error; 0 for no difference, ±inf for a difference without spread."""
        if self.mean == 0:
            return 0.0
        if self.standard_error == 0:
            return float(np.copysign(np.inf, self.mean))
        return self.mean / self.standard_error


def paired_difference(a: Float[np.ndarray, " N"], b: Float[np.ndarray, " N"]) -> Difference:
    """a - b per question; questions for which either has no score (nan) are left out."""
    difference = (a - b)[np.isfinite(a) & np.isfinite(b)]
    n = difference.size
    error = float(difference.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Difference(n, float(difference.mean()) if n else float("nan"), error)


def bootstrap_intervals(
    scores_by_type: Mapping[str, Float[np.ndarray, " _"]],
    combine: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals (low, high) of every number that `combine` computes from the means by question type.

    Args:
        scores_by_type: scores of the questions of each type; they are drawn with replacement within their type.
        combine: from arrays [resamples] of means to such arrays, so that an overall score is computed from each
            resample as it is from the data.
    """
    means: dict[str, np.ndarray] = {}
    for index, (name, scores) in enumerate(sorted(scores_by_type.items())):
        random = np.random.default_rng([seed, index])
        n = scores.size
        # In chunks of at most about 4 million draws: 10,000 questions of one type would take 160 MB at once.
        rows = max(1, 4_000_000 // n)
        parts = [
            scores[random.integers(0, n, size=(min(rows, resamples - start), n))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
        means[name] = np.concatenate(parts)
    tail = 100 * (1 - COVERAGE) / 2
    return {
        name: (float(np.percentile(values, tail)), float(np.percentile(values, 100 - tail)))
        for name, values in combine(means).items()
    }
