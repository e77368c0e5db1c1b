"""Answers without a model: the best constant per question type, and VSI-Bench's two chance rows."""

from __future__ import annotations

import hashlib
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxvsr.data.questions import Question
from jaxvsr.evaluation.answering.choose_questions import training_questions
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.rewards.answers import normalise_word
from jaxvsr.rewards.vsi_bench import THRESHOLDS, mean_relative_accuracy, to_float

BASELINES = ("chance-random", "chance-frequency", "best-constant")  # as names of a model
_TRIED = 64  # points with the highest coverage, which are tried with the metric itself


def baseline_predictions(name: str, questions: Sequence[Question], folders: Sequence[Path]) -> list[Prediction]:
    """The answers of one of `BASELINES`; "best-constant" is fitted on the training split of the data folders."""
    if name == "chance-random":
        return chance_random(questions)
    if name == "chance-frequency":
        return chance_frequency(questions)
    return constant_predictions(best_constants(training_questions(folders)), questions)


def best_constants(training: Iterable[Question]) -> dict[str, str]:
    """By question type, the constant answer with the highest score on the training questions: of numbers the one with
    the highest mean relative accuracy, else the most frequent answer.

    If a type has several kinds of answer, its most frequent kind counts. Texts and boxes have no constant.
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
    """The number with the highest mean relative accuracy over `answers`, found exactly.

    A true answer y accepts [y(1 - t), y(1 + t)] at each of the ten tolerances t. So the score of a number counts the
    intervals that cover it, and its maximum is at an end of an interval or between two ends.
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
    """The most frequent answer, words being compared after normalising; of several the first in the alphabet."""
    counted = Counter(normalise_word(answer) if kind == "word" else answer for answer in answers)
    return min(counted, key=lambda answer: (-counted[answer], answer))


def constant_predictions(constants: Mapping[str, str], questions: Iterable[Question]) -> list[Prediction]:
    """For each question the constant of its type, None if the type has none."""
    return [Prediction(question, constants.get(question.question_type)) for question in questions]


def chance_frequency(questions: Sequence[Question]) -> list[Prediction]:
    """VSI-Bench's "Chance Level (Frequency)": the most frequent answer per question type, of the benchmark itself."""
    answers: dict[tuple[str, str], list[str]] = {}
    for question in questions:
        answers.setdefault((question.question_type, question.answer_kind), []).append(question.answer)
    frequent = {key: most_frequent(given, key[1]) for key, given in answers.items()}
    return [Prediction(question, frequent[question.question_type, question.answer_kind]) for question in questions]


def chance_random(questions: Sequence[Question], seed: int = 0) -> list[Prediction]:
    """VSI-Bench's "Chance Level (Random)": a random option, or a random word of its type's answers; None for numbers.

    The draw depends on seed and question id, not on the order of the questions.
    """
    words: dict[str, list[str]] = {}
    for question in questions:
        if question.answer_kind == "word":
            words.setdefault(question.question_type, []).append(normalise_word(question.answer))
    choices = {question_type: sorted(set(given)) for question_type, given in words.items()}
    predictions = []
    for question in questions:
        predicted: str | None = None
        digest = hashlib.sha256(f"{seed} {question.id}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        if question.answer_kind == "choice" and question.options:
            predicted = string.ascii_uppercase[random.integers(len(question.options))]
        elif question.answer_kind == "word":
            predicted = str(random.choice(choices[question.question_type]))
        predictions.append(Prediction(question, predicted))
    return predictions
