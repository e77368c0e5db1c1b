"""Mirror images of free text, rewritten by rules where rules can decide.

    "Is the chair to the left of the desk?"            "Is the chair to the right of the desk?"
    "turn clockwise to face the top-left corner"       "turn counterclockwise to face the top-right corner"
    "the lamp is at [0.10, 0.20, 0.30, 0.60]"          "the lamp is at [0.70, 0.20, 0.90, 0.60]"
    "Which is the right answer?"                       refused
    "How many chairs are left?"                        refused

"left" and "right" are swapped only if the words around them show that they are sides ("to the …", "… of", "top-…").
Other things that a flipped image may change (clock faces, compass, writing, coordinates of unknown scale) are refused
with the reason. Rewriting a text twice must give the original, which is checked for every text.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal

from jaxvsr.data.questions import Question


class Undecided(ValueError):
    """The rules cannot mirror a text; the message says why."""


_SWAPPED = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
# Whole words, and those that begin with a side: leftmost, rightward, left-hand.
_SIDE = re.compile(r"\b(left|right)(?=\b|most\b|wards?\b|hand\b)", re.IGNORECASE)
_TURN = re.compile(r"\b(counterclockwise|clockwise)\b", re.IGNORECASE)
# With IGNORECASE these match i and s, which the rules do not mean.
_OTHER_LETTERS = re.compile("[\u0130\u0131\u017f]")

_REFUSED = (
    (r"o['’]?\s?clock\b|\btime does\b|\bwhat time\b", "a clock face"),
    (r"\b(?:anti|counter)[-\s]clockwise\b|\banticlockwise\b", "a spelling of counterclockwise without a way back"),
    (r"\b(?:north|south)?[-\s]?(?:east|west)(?:ern|wards?)?\b", "a point of the compass"),
    (r"\b(?:azimuth|bearing|heading|yaw)\b", "an angle without a side"),
    (r"\b(?:starboard|port side|portside|(?:driver|passenger)(?:['’]s)?[-\s]side)\b", "a side of a vehicle"),
    (r"\b(?:text|writing|written|letters?|spell\w*|reads|inscription|license plate|logo)\b", "writing"),
    (r"\b[xy][-\s]?(?:coordinate|axis|position|value)s?\b|\b[xy]\s*=", "a coordinate by name"),
)  # fmt: skip
_REFUSALS = tuple((re.compile(pattern, re.IGNORECASE), reason) for pattern, reason in _REFUSED)

# A § that these match is a side; the text is in lower case with § for left and right.
_AFTER = r"(?=[\s.,;:!?)'\"/\]]|$)"
# "left and right", but not "turned left and left the room".
_LAST = _AFTER + r"(?!\s(?:the|his|her|their|its|my|our|your|a|an|this|that|early|home|it|him|them|us|me)\b)"
# The bed's left, but not "that's right", "what's left".
_POSSESSIVE = r"(?<!\bit)(?<!\bthat)(?<!\bwhat)(?<!\bthere)(?<!\bhere)(?<!\bwho)(?<!\bhe)(?<!\bshe)(?<!\blet)['’]s"
_NOUN = (
    r"(?:side|hand|half|part|corner|edge|end|portion|section|third|quarter|wall|arm|leg|foot|eye|ear|shoulder|lane|"
    r"border|margin|foreground|background|image|picture|frame|view|chair|table|door|window|lamp|person|man|woman|object)"
)
_DIRECTIONAL = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:\b(?:the|my|your|its|his|her|their|our)|" + _POSSESSIVE + r")\s(?:far\s|extreme\s|immediate\s|very\s|"
        r"upper\s|lower\s|top\s|bottom\s|front\s|back\s)?§(?=\s(?:of(?!\sway)|or|and(?!\s"
        r"(?:only|proper|wrong|correct|true|just|best)\b)|than|from|in the (?:image|picture|frame|video))\b|"
        r"[-\s]?" + _NOUN + r"s?\b(?!\s(?:for|to(?!\sthe))\b)|[.,;:!?)'\"/\]]|\s*$)",
        r"\b(?:top|bottom|upper|lower|front|back|rear|center|middle|mid|far)[-\s]§" + _AFTER,
        r"§[-\s](?:top|bottom|upper|lower|front|back|rear|of(?!\sway))\b",
        r"§(?:most|wards?|hand)\b",
        r"§-(?:hand|most|side|facing|ward|wards|handed)\b",
        r"\b(?:turn|turns|turning|go|move|moving|facing|faces|look|looking|looks|pointing|points|point)\s§" + _AFTER,
        r"§(?:\sside)?,?\s(?:or|and)\s(?:to\s)?(?:the\s|my\s|your\s)?§" + _LAST,
        r"§\sto\s§" + _LAST,
        r"\b(?:the|my|your)\s§(?:\sside)?\sto\s(?:the|my|your)\s§" + _LAST,
        r"^\s*(?:\(?[a-z][.)]\s*)?§\s*[.!]?\s*$",
    )
)  # fmt: skip

_NUMBER = r"(?:0|[1-9]\d*)(?:\.\d+)?"
_GROUP = re.compile(r"[\[(]\s*[-+.\d][-+.\d\s,eE]*[\])]")
_BOX = re.compile(rf"([\[(]\s*)({_NUMBER})(\s*,\s*)({_NUMBER})(\s*,\s*)({_NUMBER})(\s*,\s*)({_NUMBER})(\s*[\])])")
_CORNERS = re.compile(
    rf"(\(\s*)({_NUMBER})(\s*,\s*)({_NUMBER})(\s*\)\s*,\s*\(\s*)({_NUMBER})(\s*,\s*)({_NUMBER})(\s*\))"
)


def mirror_text(text: str, *, width: float | None = None) -> str:
    """What `text` becomes if the image is flipped left to right.

    Args:
        text: a question, an option or an answer.
        width: of the image, in the unit of boxes written as [x1, y1, x2, y2] or (x1, y1), (x2, y2); not needed for
            boxes of decimal numbers up to 1.

    Raises:
        Undecided: the rules cannot decide.
    """
    once = _rewritten(text, width)
    if _rewritten(once, width) != text:
        raise Undecided("its mirror image would not lead back")
    return once


def _rewritten(text: str, width: float | None) -> str:
    for pattern, reason in _REFUSALS:
        if pattern.search(text):
            raise Undecided(reason)
    if _OTHER_LETTERS.search(text):
        raise Undecided("letters that are like others but for their case")
    _check_sides(text)
    text = _mirror_boxes(text, width)
    return _TURN.sub(_swap_word, _SIDE.sub(_swap_word, text))


def _swap_word(found: re.Match[str]) -> str:
    """The other side, with the same capitals."""
    word, other = found[0], _SWAPPED[found[0].lower()]
    if word.islower():
        return other
    return other.upper() if word.isupper() else other.capitalize()


def _check_sides(text: str) -> None:
    """Refuse a text with a left or right that may not be a side."""
    if any(not (word.islower() or word.isupper() or word.istitle()) for word in _SIDE.findall(text)):
        raise Undecided("a word in mixed capitals")
    neutral = _SIDE.sub("§", text.lower())
    sides = {found.start() for found in re.finditer("§", neutral)}
    for pattern in _DIRECTIONAL:
        for found in pattern.finditer(neutral):
            sides -= {found.start() + offset for offset, letter in enumerate(found[0]) if letter == "§"}
    if sides:
        start = min(sides)
        words = neutral[max(start - 12, 0) : start + 13].replace("§", "…")
        raise Undecided(f"'left' or 'right' that may be no side ({words.strip()!r})")


def _mirror_boxes(text: str, width: float | None) -> str:
    """Mirror the x coordinates of boxes; refuse anything else in brackets that looks like coordinates."""
    places: list[tuple[int, int]] = []

    def mirrored(found: re.Match[str]) -> str:
        places.append(found.span())
        parts = list(found.groups())
        x1, y1, x2, y2 = (Decimal(parts[i]) for i in (1, 3, 5, 7))
        whole = _scale((x1, y1, x2, y2), width, any("." in parts[i] for i in (1, 3, 5, 7)))
        if x1 > x2 or y1 > y2 or x2 > whole:
            raise Undecided("numbers in brackets that are no box of corners within the image")
        parts[1], parts[5] = f"{whole - x2:f}", f"{whole - x1:f}"
        return "".join(parts)

    rewritten = _CORNERS.sub(mirrored, text)
    if not places:
        rewritten = _BOX.sub(mirrored, text)
    for group in _GROUP.finditer(text):
        inside = any(start <= group.start() and group.end() <= end for start, end in places)
        if not inside and "," in group[0]:
            raise Undecided("numbers in brackets that are no box")
    return rewritten


def _scale(values: tuple[Decimal, ...], width: float | None, decimals: bool) -> Decimal:
    """The image's width in the unit of a box."""
    if max(values) <= 1:
        if not decimals:
            raise Undecided("a box of zeros and ones, in pixels or in shares of the image")
        return Decimal(1)
    if width is None:
        raise Undecided("a box in pixels, without the image's width")
    return Decimal(str(width)).normalize() + 0


def mirror_question(row: Question, *, width: float | None = None) -> Question:
    """The question about the mirrored image: question, options, answer and response rewritten.

    Raises:
        Undecided: the rules cannot rewrite one of them.
    """

    def mirror(text: str) -> str:
        return mirror_text(text, width=width)

    return dataclasses.replace(
        row,
        id=f"{row.id}-mirror",
        question=mirror(row.question),
        options=None if row.options is None else tuple(map(mirror, row.options)),
        answer=mirror(row.answer),
        response=None if row.response is None else mirror(row.response),
        mirror_of=row.id,
    )


@dataclasses.dataclass(frozen=True)
class MirrorReport:
    """The mirror images, and the reasons why other rows have none, by id."""

    rows: tuple[Question, ...]
    refused: dict[str, str]

    @property
    def refused_share(self) -> float:
        """Share of all rows, from 0 to 1."""
        total = len(self.rows) + len(self.refused)
        return len(self.refused) / total if total else 0.0

    def line(self) -> str:
        """`120 of 1,000 rows (12.0 %) have no mirror image: writing 70, a clock face 50`."""
        reasons = Counter(reason.split(" (")[0] for reason in self.refused.values()).most_common()
        total = len(self.rows) + len(self.refused)
        listed = ": " + ", ".join(f"{reason} {count}" for reason, count in reasons) if reasons else ""
        share = f"{100 * self.refused_share:.1f} %"
        return f"{len(self.refused):,} of {total:,} rows ({share}) have no mirror image{listed}"


def mirror_rows(rows: Iterable[Question], width_of: Callable[[Question], float | None]) -> MirrorReport:
    """Mirror all rows except mirror images; `width_of` gives the width of a row's image, or None."""
    mirrored: list[Question] = []
    refused: dict[str, str] = {}
    for row in rows:
        if row.mirror_of is None:
            try:
                mirrored.append(mirror_question(row, width=width_of(row)))
            except Undecided as error:
                refused[row.id] = str(error)
    return MirrorReport(tuple(mirrored), refused)
