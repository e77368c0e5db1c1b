"""VSI-Bench's score of one answer, as its evaluator computes it (lmms-eval, `vsibench/utils.py`), quirks included.

The same arithmetic serves as the benchmark's metric (`evaluation.metrics.vsi_bench_scores`), as Spatial-R1's numerical
reward (mean relative accuracy) and as the reward `vsi_bench`, which trains on exactly what is measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxvsr.rewards.answers import extract_answer, words_match

# Evaluator: 10 confidence thresholds from 0.5 to 0.95. int((0.95 - 0.5) / 0.05 + 2) is 10 in floats; Spatial-R1's Eq.
# 2 read exactly gives 11. The host's float64 and this order of operations decide the ties, such as 19 for 20.
THRESHOLDS = 10


def mean_relative_accuracy(prediction: float | None, target: float | None, thresholds: int = THRESHOLDS) -> float:
    """Share of c in linspace(0.5, 0.95, thresholds) with |prediction - target| / target <= 1 - c; in [0, 1].

    None (not a number) scores 0. The evaluator divides by a target of 0 and stops there; here a prediction of exactly
    0 then scores 1 and any other 0. A negative target makes the evaluator give 1 to every prediction, and so does
    this function.
    """
    if prediction is None or target is None:
        return 0.0
    if target == 0:
        return float(prediction == 0)
    relative_error = abs(prediction - target) / target
    return float(np.mean(relative_error <= 1 - np.linspace(0.5, 0.95, thresholds)))


def number_reward(prediction: float | None, target: float | None, thresholds: int = THRESHOLDS) -> float:
    """`mean_relative_accuracy` as a reward, in [0, 1]: a target that is not positive gives 1 only for exactly that
    number.
    """
    if target is not None and target <= 0:
        return float(prediction == target)
    return mean_relative_accuracy(prediction, target, thresholds)


def clean(prediction: str) -> str:
    """The evaluator's cleaning: cut at the first space (only the space), strip full stops on the right, strip white
    space.

    "A. sofa" -> "A", "3 chairs" -> "3", "\\nA" -> "A"; but " A" -> "", "A.\\n" -> "A." and "(A)" stays.
    """
    return prediction.split(" ")[0].rstrip(".").strip()


def to_float(text: str) -> float | None:
    """Python's float(), as the evaluator uses it: "1e2", "1_0", "nan" and digits of other scripts are numbers to it."""
    try:
        return float(text)
    except ValueError:
        return None


def answer_score(prediction: str, answer: str, answer_kind: str) -> float | None:
    """The benchmark's score in [0, 1] of one prediction; None for the kinds that it does not know (text, box).

    number: mean relative accuracy. choice: the cleaned prediction equals the letter, in either case. word (VSI-100k's
    answers without options, not in the benchmark): equal after normalising, the whole prediction.
    """
    if answer_kind == "number":
        return mean_relative_accuracy(to_float(clean(prediction)), to_float(answer))
    if answer_kind == "choice":
        return float(clean(prediction).lower() == answer.lower())
    if answer_kind == "word":
        return float(words_match(prediction, answer))
    return None


def vsi_bench(
    completions: list[str], *, answer: list[str], answer_kind: list[str], **columns: Any
) -> list[float | None]:
    """Reward: the benchmark's score of the answer (the first <answer> pair, else the whole completion); in [0, 1]."""
    rows = zip(completions, answer, answer_kind, strict=True)
    return [answer_score(extract_answer(text), truth, kind) for text, truth, kind in rows]
