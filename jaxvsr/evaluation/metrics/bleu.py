"""BLEU with n-grams up to N (Papineni et al. 2002), one reference, uniform weights, brevity penalty, no smoothing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_TOKEN = re.compile(r"\w+|[^\w\s]")


def tokenize(text: str) -> list[str]:
    """Lower-case words and single punctuation marks."""
    return _TOKEN.findall(text.lower())


def corpus_bleu(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]], order: int) -> float:
    """BLEU of token lists with n-grams up to `order`, in [0, 1]; matches and lengths are summed over pairs first."""
    matches, totals = [0] * order, [0] * order
    for predicted, target in zip(predictions, references, strict=True):
        for n in range(order):
            predicted_grams, target_grams = _grams(predicted, n + 1), _grams(target, n + 1)
            matches[n] += sum(min(count, target_grams[gram]) for gram, count in predicted_grams.items())
            totals[n] += max(len(predicted) - n, 0)
    predicted_length, target_length = sum(map(len, predictions)), sum(map(len, references))
    if min(matches, default=0) == 0:
        return 0.0
    precision = math.exp(sum(math.log(hit / total) for hit, total in zip(matches, totals, strict=True)) / order)
    return precision * min(1.0, math.exp(1 - target_length / predicted_length))


def sentence_bleu(prediction: Sequence[str], reference: Sequence[str], order: int) -> float:
    """BLEU of one pair, in [0, 1]."""
    return corpus_bleu([prediction], [reference], order)


def _grams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))
