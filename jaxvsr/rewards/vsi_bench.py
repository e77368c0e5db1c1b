"""VSI-Bench's score of one answer, as its evaluator computes it (lmms-eval, `vsibench/utils.py`), quirks included.

It is the benchmark's metric (`evaluation.metrics.vsi_bench_scores`), Spatial-R1's numerical reward (mean relative
accuracy) and the reward `vsi_bench`, which trains on exactly what is measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxvsr.rewards.answers import extract_answer, words_match

# The evaluator computes int((0.95 - 0.5) / 0.05 + 2), which is 10 in floats; Spatial-R1's Eq. 2 gives exactly 11.
# Float64 and the order of operations decide ties such as 19 for 20.
THRESHOLDS = 10


def mean_relative_accuracy(prediction: float | None, target: float | None, thresholds: int = THRESHOLDS) -> float:
    """Mean relative accuracy (MRA) of a predicted number ŷ for a target y, in [0, 1], N being `thresholds`:

        1/N Σ_i [|ŷ - y| / y <= 1 - c_i],   c = linspace(0.5, 0.95, N)

    None (not a number) on either side scores 0. The evaluator fails at a target of 0; here a prediction of exactly 0
    then scores 1, any other 0. At a negative target the evaluator gives every prediction 1, and so does this function.

    Source: lmms-eval, `mean_relative_accuracy`; the same as Spatial-R1 Eq. 1 and 3.
    """
    if prediction is None or target is None:
        return 0.0
    if target == 0:
        return float(prediction == 0)
    relative_error = abs(prediction - target) / target
    return float(np.mean(relative_error <= 1 - np.linspace(0.5, 0.95, thresholds)))


def number_reward(prediction: float | None, target: float | None, thresholds: int = THRESHOLDS) -> float:
    """`mean_relative_accuracy` as a reward, in [0, 1]: a target that is not positive scores 1 only for exactly it."""
    if target is not None and target <= 0:
        return float(prediction == target)
    return mean_relative_accuracy(prediction, target, thresholds)


def clean(prediction: str) -> str:
    """The evaluator's cleaning: cut at the first space (no other white space), strip full stops at the end, then white
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
    """The benchmark's score of one prediction, in [0, 1]; None for the kinds that it does not have (text, box).

    number   `mean_relative_accuracy` of the cleaned prediction
    choice   1 if the cleaned prediction is the letter, in either case, else 0
    word     1 if the whole prediction equals the answer after normalising, else 0 (VSI-100k's answers; not in the
             benchmark)
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
    """VSI-Bench's own score of the answer: the first `<answer>` pair, else the whole completion.

    Range: 0 to 1; None if the true answer is a text or a box.

    Formula: `answer_score`, by kind of answer.

    Source: VSI-Bench's evaluator (lmms-eval, `vsibench/utils.py`).
    """
    rows = zip(completions, answer, answer_kind, strict=True)
    return [answer_score(extract_answer(text), target, kind) for text, target, kind in rows]
