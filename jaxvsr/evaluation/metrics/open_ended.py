"""Open-ended spatial VQA (VQASynth, OpenSpaces): the columns of SVQA-R1's Table 4.

Columns: a judge's share, BLEU-1, BLEU-2, Sentence-BERT similarity over all questions; box IoU, accuracy at 0.75;
yes/no; distances within 50 to 200 %. The paper's judge is GPT-4o. Here a judge is a function that the caller passes;
without one its columns are None, as is the similarity without a sentence model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.evaluation.metrics.bleu import corpus_bleu, sentence_bleu, tokens
from jaxvsr.evaluation.metrics.open_ended_types import OpenEndedType, question_type, reasoning_words, yes_or_no
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.rewards.answers import extract_answer
from jaxvsr.rewards.numerals import parse_length_cm, parse_number, parse_numbers
from jaxvsr.rewards.svqa_r1 import MODEL, svqa_semantic
from jaxvsr.user_functions import described

# judge(question, true answer, predicted answer) -> right or wrong, as True, False, 1 or 0
Judge = Callable[[str, str, str], bool]
IOU_RIGHT = 0.75


@dataclasses.dataclass(frozen=True)
class OpenEndedScores:
    """Numbers in per cent (reasoning_words: a mean count), None where no question or no judge gives them."""

    columns: dict[str, float | None]
    counts: dict[str, int]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The flat form of scores.json; `overall` is the judge's share, or Sentence-BERT's similarity without a judge,
        None without either.
        """
        overall = self.columns["judge"] if self.columns["judge"] is not None else self.columns["sentence_bert"]
        return {"overall": overall, **self.columns, "questions": self.counts["questions"]}


def box_iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2, in [0, 1]; corners in either order; 0 for boxes without
    area.
    """
    (ax, bx), (ay, by) = sorted((one[0], one[2])), sorted((one[1], one[3]))
    (cx, dx), (cy, dy) = sorted((other[0], other[2])), sorted((other[1], other[3]))
    shared = max(0.0, min(bx, dx) - max(ax, cx)) * max(0.0, min(by, dy) - max(ay, cy))
    union = (bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - shared
    return shared / union if union > 0 else 0.0


def parse_box(text: str) -> tuple[float, float, float, float] | None:
    """The first four numbers, behind the first bracket where there is one."""
    bracket = min((at for at in (text.find("["), text.find("(")) if at >= 0), default=0)
    numbers = parse_numbers(text[bracket:])
    return None if len(numbers) < 4 else (numbers[0], numbers[1], numbers[2], numbers[3])


def distance_right(prediction: str, answer: str) -> bool | None:
    """Whether the predicted length lies within 50 to 200 % of the true one, ends included; None if the true answer
    has no number.

    With a unit in both they are compared in centimetres, else as bare numbers.
    """
    truth, said = parse_length_cm(answer), parse_length_cm(prediction)
    if truth is None or said is None:
        truth, said = next(iter(parse_numbers(answer)), None), parse_number(prediction)
    if truth is None or truth <= 0:
        return None
    return said is not None and 0.5 * truth <= said <= 2 * truth


def score(
    predictions: Sequence[Prediction],
    *,
    answer_of: Callable[[str], str] = extract_answer,
    judge: Judge | None = None,
    model: str | None = MODEL,
    questions: Iterable[Question] | None = None,
) -> OpenEndedScores:
    """Score free answers; a missing prediction counts as an empty answer. `model` is the Sentence-BERT model; None
    goes without."""
    answered = {one.question.id for one in predictions}
    rows = [*predictions, *(Prediction(question, None) for question in questions or () if question.id not in answered)]
    if not rows:
        raise InputError("open-ended: no predictions to score")
    said = [answer_of(row.prediction or "") for row in rows]
    meant = [row.question.answer for row in rows]
    types = [_type_of(row.question) for row in rows]
    similar = [] if model is None else svqa_semantic(said, answer=meant, model=model)
    ours, theirs = [tokens(one) for one in said], [tokens(one) for one in meant]
    ious = [
        box_iou(parse_box(one) or (0, 0, 0, 0), truth)
        for one, other, kind in zip(said, meant, types, strict=True)
        if kind == "box" and (truth := parse_box(other)) is not None
    ]
    distances = [
        right
        for one, other, kind in zip(said, meant, types, strict=True)
        if kind == "distance" and (right := distance_right(one, other)) is not None
    ]
    yes_no = [(row, one) for row, one, kind in zip(rows, said, types, strict=True) if kind == "yes_no"]
    judged = [_judged(judge, row.question, one) for row, one in zip(rows, said, strict=True)] if judge else []
    yes_no_judged = [right for right, kind in zip(judged, types, strict=True) if kind == "yes_no"] if judge else []
    columns: dict[str, float | None] = {
        "judge": _per_cent(judged),
        "bleu_1": _per_cent([sentence_bleu(*pair, 1) for pair in zip(ours, theirs, strict=True)]),
        "bleu_2": _per_cent([sentence_bleu(*pair, 2) for pair in zip(ours, theirs, strict=True)]),
        "bleu_1_corpus": 100 * corpus_bleu(ours, theirs, 1),
        "bleu_2_corpus": 100 * corpus_bleu(ours, theirs, 2),
        "sentence_bert": _per_cent([0.0 if value is None else value for value in similar]),
        "box_miou": _per_cent(ious),
        "box_accuracy_75": _per_cent([iou >= IOU_RIGHT for iou in ious]),
        "yes_no": _per_cent([yes_or_no(one) == yes_or_no(row.question.answer) for row, one in yes_no]),
        "yes_no_judge": _per_cent(yes_no_judged),
        "distance": _per_cent(distances),
        "reasoning_words": float(np.mean([reasoning_words(row.prediction or "") for row in rows])),
    }
    counts = {"questions": len(rows), "box": len(ious), "yes_no": len(yes_no), "distance": len(distances)}
    return OpenEndedScores(columns, counts, _notes(rows, types, counts, judge, model))


def _type_of(question: Question) -> OpenEndedType:
    if question.answer_kind == "box":
        return "box"
    return question_type(question.question, question.answer)


def _judged(judge: Judge, question: Question, said: str) -> bool:
    try:
        verdict = judge(question.question, question.answer, said)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the judge raised {described(error)} at question {question.id!r}") from error
    # A model's reply "0" is true as a text: only what cannot be mistaken counts.
    if not isinstance(verdict, bool | int | float | np.bool_ | np.number) or verdict not in (0, 1):
        raise InputError(f"the judge returned {verdict!r} at question {question.id!r}; expected True or False")
    return bool(verdict)


def _per_cent(values: Sequence[float]) -> float | None:
    return 100 * float(np.mean(values)) if len(values) else None


def _notes(
    rows: Sequence[Prediction], types: Sequence[str], counts: dict[str, int], judge: Judge | None, model: str | None
) -> tuple[str, ...]:
    notes = []
    missing = [row.question.id for row in rows if row.prediction is None]
    if missing:
        notes.append(
            f"{len(missing)} of {len(rows)} questions have no prediction and count as empty (first: {missing[0]})"
        )
    if judge is None:
        notes.append(
            "no judge was given (--judge FILE.py:function): judge and yes_no_judge are empty; yes_no is by alias lists"
        )
    if model is None:
        notes.append("no sentence model was given (--sentence-model none): sentence_bert is empty")
    for kind in ("box", "distance"):
        without = types.count(kind) - counts[kind]
        if without:
            notes.append(
                f"{without} of {types.count(kind)} {kind} questions have no number to compare with and are left out"
            )
    return tuple(notes)
