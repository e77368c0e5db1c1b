"""BLEU with n-grams up to N (Papineni et al. 2002), one reference, uniform weights, brevity penalty, no smoothing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_TOKEN = re.compile(r"\w+|[^\w\s]")


def tokens(text: str) -> list[str]:
    """Lower-case words and single punctuation marks."""
    return _TOKEN.findall(text.lower())


def corpus_bleu(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]], order: int) -> float:
    """BLEU of token lists, in [0, 1]: n-gram matches and lengths are summed over all sentences first."""
    matches, totals = [0] * order, [0] * order
    for said, meant in zip(predictions, references, strict=True):
        for n in range(order):
            ours, theirs = _grams(said, n + 1), _grams(meant, n + 1)
            matches[n] += sum(min(count, theirs[gram]) for gram, count in ours.items())
            totals[n] += max(len(said) - n, 0)
    length, reference = sum(map(len, predictions)), sum(map(len, references))
    if min(matches, default=0) == 0:
        return 0.0
    precision = math.exp(sum(math.log(hit / total) for hit, total in zip(matches, totals, strict=True)) / order)
    return precision * min(1.0, math.exp(1 - reference / length))


def sentence_bleu(prediction: Sequence[str], reference: Sequence[str], order: int) -> float:
    """BLEU of one pair, in [0, 1]."""
    return corpus_bleu([prediction], [reference], order)


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
