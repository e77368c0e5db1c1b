"""Open-ended spatial VQA (VQASynth, OpenSpaces): the columns of SVQA-R1's Table 4.

Over all questions: share judged right, BLEU-1, BLEU-2, Sentence-BERT similarity. By type: box mIoU and accuracy at IoU
0.75, yes/no, distances within 50 to 200 %. The paper's judge is GPT-4o; here it is a function that the caller passes.
Without a judge its columns are None, and without a sentence model the similarity is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError, described
from jaxvsr.evaluation.metrics.bleu import corpus_bleu, sentence_bleu, tokenize
from jaxvsr.evaluation.metrics.open_ended_types import OpenEndedType, open_ended_type, reasoning_words, yes_or_no
from jaxvsr.evaluation.predictions import Prediction, missing_note, with_missing
from jaxvsr.rewards.answers import final_answer
from jaxvsr.rewards.numerals import parse_length_cm, parse_number, parse_numbers
from jaxvsr.rewards.svqa_r1 import MODEL, svqa_semantic

# judge(question, true answer, predicted answer) -> whether it is right: True, False, 1 or 0
Judge = Callable[[str, str, str], bool]
IOU_RIGHT = 0.75
_BRACKET = re.compile(r"[\[\](){}]")
_QUOTED = re.compile(r"""(["'])([^"'\[\](){},\n]*)\1""")
# A comma parts two numbers of a box, never thousands.
_NUMBER = r"(?<![\w.])[-\u2212]?(?:\d+(?:\.\d+)?|\.\d+)"
_FOUR_NUMBERS = re.compile(r"\s*,\s*".join([_NUMBER] * 4))
_BOX_CHARACTERS = 400  # of four numbers with their names; longer brackets hold more than a box


@dataclasses.dataclass(frozen=True)
class OpenEndedScores:
    """Columns in per cent (reasoning_words: a mean count); None without a question of that type, or a judge or model
    that the column needs. `counts`: questions by type.
    """

    columns: dict[str, float | None]
    counts: dict[str, int]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The flat form of scores.json; `overall` is the share judged right, without a judge the Sentence-BERT
        similarity, and None without either.
        """
        overall = self.columns["judge"] if self.columns["judge"] is not None else self.columns["sentence_bert"]
        return {"overall": overall, **self.columns, "questions": self.counts["questions"]}


def box_iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2), in [0, 1]; corners in either order; 0 without area."""
    (ax, bx), (ay, by) = sorted((one[0], one[2])), sorted((one[1], one[3]))
    (cx, dx), (cy, dy) = sorted((other[0], other[2])), sorted((other[1], other[3]))
    shared = max(0.0, min(bx, dx) - max(ax, cx)) * max(0.0, min(by, dy) - max(ay, cy))
    union = (bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - shared
    return shared / union if union > 0 else 0.0


def parse_box(text: str) -> tuple[float, float, float, float] | None:
    """The first four numbers of the first innermost bracket that has as many, so that a label's numbers are none of
    them: `[{"label": "chair 2", "bbox_2d": [1, 2, 3, 4]}]`.

    Else the numbers of two brackets of a pair each, "(1, 2), (3, 4)"; else four with commas between them; else the
    first four after the first bracket, or of the whole text; None for fewer.
    """
    text = _QUOTED.sub(lambda quoted: " " if re.search(r"[^\W\d_]", quoted[2]) else quoted[0], text)
    opened: list[int] = []
    pair: tuple[int, list[float]] = (0, [])  # the last bracket of two numbers: where it starts, the numbers
    for bracket in _BRACKET.finditer(text):
        if bracket[0] in "[({":
            opened.append(bracket.end())
        elif opened:
            start = opened.pop()
            numbers = _numbers(text[start : bracket.start()]) if bracket.start() - start <= _BOX_CHARACTERS else []
            if len(numbers) == 2 and len(pair[1]) == 2 and start > pair[0]:
                numbers = pair[1] + numbers
            if len(numbers) >= 4:
                return numbers[0], numbers[1], numbers[2], numbers[3]
            pair = (start, numbers)
    if not opened and (four := _FOUR_NUMBERS.search(text)):
        text = four[0]
    first = re.search(r"[\[(]", text)
    for start in (opened[-1] if opened else 0, first.start() if first else 0):  # a bracket that was cut off
        numbers = _numbers(text[start:])
        if len(numbers) >= 4:
            return numbers[0], numbers[1], numbers[2], numbers[3]
    return None


def _numbers(text: str) -> list[float]:
    return [float(number.replace("\u2212", "-")) for number in re.findall(_NUMBER, text)]


def distance_right(prediction: str, answer: str) -> bool | None:
    """Whether the predicted length is 50 to 200 % of the true one, ends included; None if the true answer has no
    positive number.

    Compared in centimetres if both have a unit, else as bare numbers.
    """
    target, predicted = parse_length_cm(answer), parse_length_cm(prediction)
    if target is None or predicted is None:
        target, predicted = next(iter(parse_numbers(answer)), None), parse_number(prediction)
    if target is None or target <= 0:
        return None
    return predicted is not None and 0.5 * target <= predicted <= 2 * target


def score_open_ended(
    predictions: Sequence[Prediction],
    *,
    answer_of: Callable[[str], str] = final_answer,
    judge: Judge | None = None,
    model: str | None = MODEL,
    questions: Iterable[Question] | None = None,
) -> OpenEndedScores:
    """Score free answers; a missing prediction counts as an empty answer. `model` is the Sentence-BERT model, None for
    none.
    """
    rows = with_missing(predictions, questions)
    if not rows:
        raise InputError("open-ended: no predictions to score")
    predicted = [answer_of(row.prediction or "") for row in rows]
    targets = [row.question.answer for row in rows]
    types = [_type_of(row.question) for row in rows]
    similar = [] if model is None else svqa_semantic(predicted, answer=targets, model=model)
    predicted_tokens, target_tokens = list(map(tokenize, predicted)), list(map(tokenize, targets))
    ious = [
        box_iou(parse_box(text) or (0, 0, 0, 0), box)
        for text, target, kind in zip(predicted, targets, types, strict=True)
        if kind == "box" and (box := parse_box(target)) is not None
    ]
    distances = [
        right
        for text, target, kind in zip(predicted, targets, types, strict=True)
        if kind == "distance" and (right := distance_right(text, target)) is not None
    ]
    yes_no = [(text, target) for text, target, kind in zip(predicted, targets, types, strict=True) if kind == "yes_no"]
    judged = [_judged(judge, row.question, text) for row, text in zip(rows, predicted, strict=True)] if judge else []
    yes_no_judged = [right for right, kind in zip(judged, types, strict=True) if kind == "yes_no"] if judge else []
    columns: dict[str, float | None] = {
        "judge": _per_cent(judged),
        "bleu_1": _per_cent([sentence_bleu(*pair, 1) for pair in zip(predicted_tokens, target_tokens, strict=True)]),
        "bleu_2": _per_cent([sentence_bleu(*pair, 2) for pair in zip(predicted_tokens, target_tokens, strict=True)]),
        "bleu_1_corpus": 100 * corpus_bleu(predicted_tokens, target_tokens, 1),
        "bleu_2_corpus": 100 * corpus_bleu(predicted_tokens, target_tokens, 2),
        "sentence_bert": _per_cent([0.0 if value is None else value for value in similar]),
        "box_miou": _per_cent(ious),
        "box_accuracy_75": _per_cent([iou >= IOU_RIGHT for iou in ious]),
        "yes_no": _per_cent([yes_or_no(text) == yes_or_no(target) for text, target in yes_no]),
        "yes_no_judge": _per_cent(yes_no_judged),
        "distance": _per_cent(distances),
        "reasoning_words": float(np.mean([reasoning_words(row.prediction or "") for row in rows])),
    }
    counts = {"questions": len(rows), "box": len(ious), "yes_no": len(yes_no), "distance": len(distances)}
    return OpenEndedScores(columns, counts, _notes(rows, types, counts, judge, model))


def _type_of(question: Question) -> OpenEndedType:
    if question.answer_kind == "box":
        return "box"
    return open_ended_type(question.question, question.answer)


def _judged(judge: Judge, question: Question, predicted: str) -> bool:
    try:
        verdict = judge(question.question, question.answer, predicted)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the judge raised {described(error)} at question {question.id!r}") from error
    # Strings are refused: a language model's reply "0" would be true.
    if not isinstance(verdict, bool | int | float | np.bool_ | np.number) or verdict not in (0, 1):
        raise InputError(f"the judge returned {verdict!r} at question {question.id!r}; expected True or False")
    return bool(verdict)


def _per_cent(values: Sequence[float]) -> float | None:
    return 100 * float(np.mean(values)) if len(values) else None


def _notes(
    rows: Sequence[Prediction], types: Sequence[str], counts: dict[str, int], judge: Judge | None, model: str | None
) -> tuple[str, ...]:
    notes = missing_note(rows, "count as empty")
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
