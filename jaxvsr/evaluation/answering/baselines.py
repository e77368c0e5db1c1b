"""Answers without a model: the best constant by question type, and VSI-Bench's two chance rows."""

from __future__ import annotations

import hashlib
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from jaxvsr.data.questions import Question
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.rewards.answers import normalise_word
from jaxvsr.rewards.vsi_bench import THRESHOLDS, mean_relative_accuracy, to_float

MODELS_WITHOUT_WEIGHTS = ("chance-random", "chance-frequency", "best-constant")  # names that evaluate.py takes
_TRIED = 64  # best-covered points that are tried with the metric itself


def best_constants(training: Iterable[Question]) -> dict[str, str]:
    """By question type, the one answer that scores highest on the training answers.

    Mean relative accuracy for numbers, the most frequent answer otherwise. A type with several kinds of answer goes by
    its most frequent kind; text and box have none.
    """
    answers: dict[str, dict[str, list[str]]] = {}
    for question in training:
        answers.setdefault(question.question_type, {}).setdefault(question.answer_kind, []).append(question.answer)
    constants = {}
    for question_type, by_kind in sorted(answers.items()):
        kind, given = max(by_kind.items(), key=lambda item: len(item[1]))
        if kind == "number":
            constants[question_type] = best_number([value for value in map(to_float, given) if value is not None])
        elif kind in ("choice", "word"):
            constants[question_type] = most_frequent(given, kind)
    return constants


def best_number(answers: Sequence[float]) -> str:
    """The number with the highest mean relative accuracy over `answers`, exactly: a sweep over the intervals that
    each true answer accepts.

    A true answer y accepts [y(1 - t), y(1 + t)] at each of the ten tolerances t, so the score is a count of covering
    intervals and its maximum lies at an end of one or between two ends.
    """
    if not answers:
        return "0"
    values, weights = np.unique(np.array(answers, dtype=float), return_counts=True)
    tolerances = 1 - np.linspace(0.5, 0.95, THRESHOLDS)
    positive = values > 0
    low = (values[positive, None] * (1 - tolerances)).ravel()
    high = (values[positive, None] * (1 + tolerances)).ravel()
    weight = np.repeat(weights[positive], THRESHOLDS)
    ends = np.unique(np.concatenate([low, high]))
    points = np.sort(np.concatenate([ends, (ends[1:] + ends[:-1]) / 2, values]))

    def covered(bounds: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
        order = np.argsort(bounds)
        total = np.concatenate([[0], np.cumsum(weight[order])])
        return total[np.searchsorted(bounds[order], points, side=side)]

    cover = covered(low, "right") - covered(high, "left")
    tried = [f"{value:.6g}" for value in (*points[np.argsort(-cover, kind="stable")[:_TRIED]], *values[values <= 0])]

    def total(text: str) -> float:
        accuracies = [mean_relative_accuracy(float(text), float(value)) for value in values]
        return float(np.dot(accuracies, weights))

    return max(dict.fromkeys(tried), key=total)


def most_frequent(answers: Sequence[str], kind: str) -> str:
    """The most frequent answer as the kind compares them; of several the first in the alphabet."""
    counted = Counter(normalise_word(answer) if kind == "word" else answer for answer in answers)
    return min(counted, key=lambda answer: (-counted[answer], answer))


def constant_predictions(constants: Mapping[str, str], questions: Iterable[Question]) -> list[Prediction]:
    """The constant of its type for every question; None where the type has none."""
    return [Prediction(question, constants.get(question.question_type)) for question in questions]


def chance_frequency(questions: Sequence[Question]) -> list[Prediction]:
    """VSI-Bench's "Chance Level (Frequency)": the most frequent answer by question type, in the benchmark itself."""
    answers: dict[tuple[str, str], list[str]] = {}
    for question in questions:
        answers.setdefault((question.question_type, question.answer_kind), []).append(question.answer)
    frequent = {key: most_frequent(given, key[1]) for key, given in answers.items()}
    return [Prediction(question, frequent[question.question_type, question.answer_kind]) for question in questions]


def chance_random(questions: Sequence[Question], seed: int = 0) -> list[Prediction]:
    """VSI-Bench's "Chance Level (Random)": an option at random, a word at random from its type's answers; numbers
    stay unanswered.

    The draw belongs to (seed, question id), not to the order of the questions.
    """
    words: dict[str, list[str]] = {}
    for question in questions:
        if question.answer_kind == "word":
            words.setdefault(question.question_type, []).append(normalise_word(question.answer))
    choices = {question_type: sorted(set(given)) for question_type, given in words.items()}
    predictions = []
    for question in questions:
        said: str | None = None
        digest = hashlib.sha256(f"{seed} {question.id}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        if question.answer_kind == "choice" and question.options:
            said = string.ascii_uppercase[random.integers(len(question.options))]
        elif question.answer_kind == "word":
            said = str(random.choice(choices[question.question_type]))
        predictions.append(Prediction(question, said))
    return predictions
