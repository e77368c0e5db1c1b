"""SVQA-R1's keyword lists: types of open-ended questions (its Appendix B) and signs of reasoning (Appendix G)."""

from __future__ import annotations

import re
from typing import Literal

BBOX_KEYWORDS: tuple[str, ...] = (
    *("bounding box", "box coordinates", "coordinates", "bbox", "where is", "x coordinate", "y coordinate"),
    *("draw a box", "top left", "bottom right", "region of"),
)
DISTANCE_KEYWORDS: tuple[str, ...] = (
    *("how far", "distance between", "distance from", "which is closer", "which is farther", "closer", "further"),
    *("nearer", "farthest", "measure the distance", "what is the distance", "spacing between", "gap between"),
)
YES_ALIASES = ("yes", "it is", "appears to be", "looks like", "seems like", "definitely", "likely", "indeed")
NO_ALIASES = ("no", "not", "doesn't", "isn't", "unlikely", "i don't think", "probably not")
COT_KEYWORDS: tuple[str, ...] = (
    *("likely", "probably", "possibly", "maybe", "might be", "could be", "seems", "appears to", "i think", "i guess"),
    *("i'm not sure", "because", "since", "therefore", "thus", "so", "hence", "as a result", "that means"),
    *("which implies", "accordingly", "first", "next", "then", "finally", "in the first step", "in the second step"),
    *("after that", "subsequently", "clearly", "obviously", "evidently", "definitely", "in fact"),
    *("it is important to note", "if", "suppose", "assuming that", "in case", "let's say", "consider that"),
)

OpenEndedType = Literal["box", "distance", "yes_no", "other"]


def _any_of(phrases: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(phrases, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")


_YES, _NO = _any_of(YES_ALIASES), _any_of(NO_ALIASES)
_COT = tuple(_any_of((phrase,)) for phrase in COT_KEYWORDS)


def _plain(text: str) -> str:
    return text.casefold().replace("\u2019", "'")


def yes_or_no(text: str) -> bool | None:
    """True for yes, False for no, None for neither: the alias lists, matched as whole words.

    The no list wins over the yes list ("it is not" is a no), except that a text that begins with "yes" is a yes.
    """
    text = _plain(text).strip()
    if re.match(r"yes\b", text):
        return True
    if _NO.search(text):
        return False
    return True if _YES.search(text) else None


def open_ended_type(question: str, answer: str) -> OpenEndedType:
    """box or distance if the question contains one of the keywords (as substrings, as in the paper); else yes_no if
    the true answer contains a yes or no alias; else other.
    """
    question = _plain(question)
    if any(phrase in question for phrase in BBOX_KEYWORDS):
        return "box"
    if any(phrase in question for phrase in DISTANCE_KEYWORDS):
        return "distance"
    return "other" if yes_or_no(answer) is None else "yes_no"


def reasoning_words(completion: str) -> int:
    """The number of chain-of-thought keywords, as whole words; a phrase within another one counts for both."""
    text = _plain(completion)
    return sum(len(pattern.findall(text)) for pattern in _COT)
