"""VSI-Bench's answers as lmms-eval reads them since 14 July 2026 (its task `vsibench`, `utils.py`, in release 0.7.3).

Letters as before: the first word without full stops at its end. Numbers: the first one anywhere in the answer.
"""

from __future__ import annotations

import itertools
import re

from jaxvsr.rewards.numerals import WORD_VALUES
from jaxvsr.rewards.vsi_bench import answer_score, mean_relative_accuracy, to_float

_DIGITS = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"[a-z]+")


def lmms_eval_score(prediction: str, answer: str, answer_kind: str) -> float:
    """The score of an answer, in [0, 1]; white space around it is taken away first, as its `qwen2_vl` does.

    number   `mean_relative_accuracy` of `lmms_eval_number`
    others   `answer_score`
    """
    prediction = prediction.strip()
    if answer_kind == "number":
        return mean_relative_accuracy(lmms_eval_number(prediction), to_float(answer))
    return answer_score(prediction, answer, answer_kind) or 0.0


def lmms_eval_number(text: str) -> float | None:
    """The number in digits or the run of number words that comes first; None if there is neither.

    A run goes on over "and", and over whatever is no word: "twenty-one", "three hundred and two". So "one of 2 two" is
    1, but "one, 2, two" is 3. Thousands have no separator: "1,200" is 1.

    Source: `extract_number` there.
    """
    text = text.lower()
    digits, words = _DIGITS.search(text), list(_WORD.finditer(text))
    first = next((index for index, word in enumerate(words) if word[0] in WORD_VALUES), None)
    if digits is not None and (first is None or digits.start() < words[first].start()):
        return float(digits[0])
    if first is None:
        return None
    run = itertools.takewhile(lambda name: name == "and" or name in WORD_VALUES, (word[0] for word in words[first:]))
    total = below = 0
    for value in (WORD_VALUES[name] for name in run if name != "and"):
        if value == 1000:
            total, below = total + 1000 * max(below, 1), 0
        elif value == 100:
            below = 100 * max(below, 1)
        else:
            below += value
    return float(total + below)
