"""VSI-Bench: the official metric, and the same with parsers that accept more forms of an answer.

Official is lmms-eval's `vsibench/utils.py`: the mean over questions by type, direction the unweighted mean of easy,
medium and hard, overall the unweighted mean of the tasks, in per cent. Where that evaluator fails (a ground truth of
zero, an unknown type, missing directions) there is still a number, and a note says so.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Float

from jaxvsr.data.importers.vsi_bench_download import KINDS
from jaxvsr.data.questions import Question
from jaxvsr.evaluation.metrics.lmms_eval_parser import lmms_eval_score
from jaxvsr.evaluation.metrics.uncertainty import bootstrap_intervals
from jaxvsr.evaluation.predictions import Prediction, missing_note, with_missing
from jaxvsr.rewards.answers import announced_answer, final_answer, normalise_word
from jaxvsr.rewards.numerals import parse_number
from jaxvsr.rewards.option_letter import answer_letter, choice_letter
from jaxvsr.rewards.vsi_bench import answer_score, mean_relative_accuracy, to_float

Parser = Literal["official", "lmms-eval", "robust"]
Number = TypeVar("Number", float, np.ndarray)

# The eight tasks in the order of the benchmark's table.
TASKS = (
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
    "object_rel_distance",
    "object_rel_direction",
    "route_planning",
    "obj_appearance_order",
)
SCORED_KINDS = ("number", "choice", "word")  # of answers; words are VSI-100k's
DIRECTION = "object_rel_direction"
DIRECTIONS = tuple(f"{DIRECTION}_{level}" for level in ("easy", "medium", "hard"))


@dataclasses.dataclass(frozen=True)
class VsiBenchScores:
    """The scores of one set of predictions in per cent; `per_question` in [0, 1], nan where not scored."""

    parser: Parser
    overall: float | None
    tasks: dict[str, float]
    by_type: dict[str, float]
    counts: dict[str, int]  # questions by type
    missing_tasks: tuple[str, ...]
    notes: tuple[str, ...]
    per_question: Float[np.ndarray, " N"]

    def metrics(self) -> dict[str, float]:
        """`overall`, where there is one, and every task."""
        return {**({} if self.overall is None else {"overall": self.overall}), **self.tasks}

    def to_json(self) -> dict[str, Any]:
        """The flat form of scores.json."""
        context = {"missing_tasks": list(self.missing_tasks), "questions": sum(self.counts.values())}
        return {"overall": self.overall, **self.tasks, **context, "parser": self.parser}


def task_of(question_type: str) -> str:
    """The task of a question type: the three direction types are one task, every other type is its own. Directions
    without a level are not the benchmark's, although they have its task's name."""
    if question_type == DIRECTION:
        return f"{DIRECTION}_without_level"
    return DIRECTION if question_type in DIRECTIONS else question_type


def tasks_of_types(by_type: dict[str, Number]) -> dict[str, Number]:
    """Task scores from scores by question type, the benchmark's tasks first; direction is the mean of its levels."""
    tasks: dict[str, Number] = {}
    for task in (*TASKS, *sorted(set(map(task_of, by_type)) - set(TASKS))):
        parts = [by_type[name] for name in sorted(by_type) if task_of(name) == task]
        if parts:
            tasks[task] = sum(parts[1:], parts[0]) / len(parts)
    return tasks


def overall_of_tasks(tasks: dict[str, Number]) -> Number | None:
    """The unweighted mean of the benchmark's tasks that are present, or of all tasks if none is the benchmark's."""
    values = [tasks[task] for task in TASKS if task in tasks] or list(tasks.values())
    return sum(values[1:], values[0]) / len(values) if values else None


def score_vsi_bench(
    predictions: Sequence[Prediction],
    *,
    parser: Parser = "official",
    answer_of: Callable[[str], str] = str,
    questions: Iterable[Question] | None = None,
) -> VsiBenchScores:
    """Score predictions by kind of answer; text and box are not scored here.

    Args:
        answer_of: before the official parser, takes the answer out of a completion (`Prompt.answer`); before the
            others, only cuts at stop strings (`Prompt.completion`): the robust one finds the answer itself, lmms-eval
            reads completions as they are.
        questions: all that should have been answered; those without a prediction score 0, as does a prediction of None.
    """
    rows = with_missing(predictions, questions)
    words = _words_by_type(rows)
    per_question = np.array(
        [_score_one(row, parser, answer_of, words.get(row.question.question_type, frozenset())) for row in rows],
        dtype=float,
    )
    scored = [row for row, value in zip(rows, per_question, strict=True) if np.isfinite(value)]
    values = per_question[np.isfinite(per_question)]
    types = np.array([row.question.question_type for row in scored], dtype=object)
    by_type = {name: 100 * float(values[types == name].mean()) for name in sorted(set(types))}
    tasks = tasks_of_types(by_type)
    return VsiBenchScores(
        parser=parser,
        overall=overall_of_tasks(tasks),
        tasks=tasks,
        by_type=by_type,
        counts=dict(sorted(Counter(types).items())),
        missing_tasks=tuple(task for task in TASKS if task not in tasks),
        notes=_notes(rows, by_type),
        per_question=per_question[: len(predictions)],
    )


def score_intervals(
    predictions: Sequence[Prediction], scores: VsiBenchScores, **options: Any
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals in per cent of overall, each task and each question type, over the scored questions."""
    by_type: dict[str, np.ndarray] = {}
    types = np.array([one.question.question_type for one in predictions], dtype=object)
    for name in scores.by_type:
        chosen = scores.per_question[types == name]
        if np.isfinite(chosen).any():
            by_type[name] = chosen[np.isfinite(chosen)]

    def combine(means: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tasks = tasks_of_types(means)
        overall = overall_of_tasks(tasks)
        return {**({} if overall is None else {"overall": overall}), **tasks, **means}

    found = bootstrap_intervals(by_type, combine, **options)
    return {name: (100 * low, 100 * high) for name, (low, high) in found.items()}


def _score_one(row: Prediction, parser: Parser, answer_of: Callable[[str], str], words: frozenset[str]) -> float:
    question = row.question
    if question.answer_kind not in SCORED_KINDS:
        return float("nan")
    if row.prediction is None:
        return 0.0
    predicted = answer_of(row.prediction)
    if parser == "official":
        value = answer_score(predicted, question.answer, question.answer_kind)
        assert value is not None
        return value
    if parser == "lmms-eval":
        return lmms_eval_score(predicted, question.answer, question.answer_kind)
    return robust_score(predicted, question, words)


def robust_score(prediction: str, question: Question, words: frozenset[str] = frozenset()) -> float:
    """The score after a parser that reads tags and "the answer is", and numbers and letters anywhere in the answer; a
    thought is never the answer (`final_answer`).

    number   the first number, in digits or words
    choice   `choice_letter`
    word     the only one of `words` (all answers of this question type, normalised) that is mentioned
    """
    prediction = final_answer(prediction)
    if question.answer_kind == "number":
        number = parse_number(announced_answer(prediction))
        return mean_relative_accuracy(number, to_float(question.answer))
    if question.answer_kind == "choice":
        letter = answer_letter(question.answer, question.options) or question.answer.upper()
        return float(choice_letter(prediction, question.options) == letter)
    target, predicted = normalise_word(question.answer), normalise_word(announced_answer(prediction))
    if predicted == target:
        return 1.0
    candidates = [word for word in words | {target} if word]
    mentioned = {word for word in candidates if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", predicted)}
    whole = {word for word in mentioned if not any(word != other and word in other for other in mentioned)}
    return float(whole == {target})


def _words_by_type(rows: Sequence[Prediction]) -> dict[str, frozenset[str]]:
    words: dict[str, set[str]] = {}
    for row in rows:
        if row.question.answer_kind == "word":
            words.setdefault(row.question.question_type, set()).add(normalise_word(row.question.answer))
    return {name: frozenset(found) for name, found in words.items()}


def _notes(rows: Sequence[Prediction], by_type: dict[str, float]) -> tuple[str, ...]:
    """What a reader of the scores must know, each a sentence."""
    notes = missing_note(rows, "score 0")
    absent = [task for task in TASKS if task not in tasks_of_types(by_type)]
    if absent:
        present = len(TASKS) - len(absent)
        notes.append(f"overall is the mean of {present} of {len(TASKS)} tasks; missing: {', '.join(absent)}")
    levels = [name for name in DIRECTIONS if name in by_type]
    if levels and len(levels) < 3:
        lacking = ", ".join(name for name in DIRECTIONS if name not in by_type)
        notes.append(f"{DIRECTION} is the mean of {len(levels)} of 3 levels; missing: {lacking}")
    counted = Counter(row.question.question_type for row in rows if task_of(row.question.question_type) not in TASKS)
    for name, n in sorted(counted.items()):
        notes.append(f"{name} ({n} questions) is no task of VSI-Bench: scored by kind of answer, not part of overall")
    other = Counter(row.question.answer_kind for row in rows if row.question.answer_kind in ("text", "box"))
    for unscored, n in sorted(other.items()):
        notes.append(f"{n} questions of kind {unscored} are not scored; --benchmark open-ended scores them")
    foreign = Counter(
        (row.question.question_type, row.question.answer_kind)
        for row in rows
        if KINDS.get(row.question.question_type, row.question.answer_kind) != row.question.answer_kind
    )
    for (name, kind), n in sorted(foreign.items()):
        expected = KINDS[name]
        notes.append(f"{name}: {n} questions of kind {kind}, VSI-Bench's are {expected}; not comparable with it")
    truths = [to_float(row.question.answer) for row in rows if row.question.answer_kind == "number"]
    for n, what in (
        (sum(truth is None for truth in truths), "is not a number: every prediction scores 0"),
        (sum(truth == 0 for truth in truths), "is zero, where VSI-Bench's evaluator stops: only exactly 0 scores, 1"),
        (sum(truth is not None and truth < 0 for truth in truths), "is negative: every number scores 1, as there"),
    ):
        if n:
            notes.append(f"the true answer of {n} number question{'s' * (n != 1)} {what}")
    return tuple(notes)
