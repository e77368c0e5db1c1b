"""Numbers in text: digits of any script, signs, thousands separators, exponents, number words, lengths with units.

Every function accepts any string and returns finite numbers or None.
"""

from __future__ import annotations

import math
import re

# Minus signs and the Arabic separators, written as Python's float() reads them.
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\uff0d": "-", "\uff0e": ".", "\u066b": ".", "\u066c": ","})

# Not after a Latin letter, a digit or a point: "m2" holds no number and the 15 of "10-15" has no sign.
_DIGITS = re.compile(
    r"(?<![A-Za-z_\d.])(?P<sign>[-+])?"
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?P<exponent>[eE][-+]?\d+)?"
)

_UNITS = {
    **{"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4},
    **{"five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9},
}
_TEENS = {
    **{"ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14},
    **{"fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19},
}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"hundred": 100, "thousand": 1000}
WORD_VALUES = {**_UNITS, **_TEENS, **_TENS, **_SCALES}
_WORD = "|".join(WORD_VALUES)
_WORDS = re.compile(
    rf"\b(?P<whole>(?:{_WORD})(?:(?:\s*-\s*|\s+and\s+|\s+)(?:{_WORD})){{0,12}})\b"
    rf"(?:\s+point(?P<decimals>(?:\s+(?:{'|'.join(_UNITS)})){{1,12}})\b)?",
    re.IGNORECASE,
)


def parse_number(text: str) -> float | None:
    """The first number in `text`, in digits or in words, or None.

    "about -1,200.5 m" is -1200.5, "twenty-one chairs" 21, ".5" 0.5, "10-15" 10, "1e3" 1000, "two point five" 2.5.
    A comma only separates thousands ("1,5" is 1). nan, inf and what overflows a float64 are None.
    """
    text = text.translate(_SIGNS)
    digits = _DIGITS.search(text)
    words = _WORDS.search(text)
    if digits is None and words is None:
        return None
    if words is not None and (digits is None or words.start() < digits.start()):
        return _number_of_words(words)
    assert digits is not None
    value = _number_of_digits(digits)
    return value if math.isfinite(value) else None


def parse_numbers(text: str) -> list[float]:
    """All finite numbers written in digits, in order."""
    values = [_number_of_digits(match) for match in _DIGITS.finditer(text.translate(_SIGNS))]
    return [value for value in values if math.isfinite(value)]


def _number_of_digits(match: re.Match[str]) -> float:
    return float((match["sign"] or "") + match["number"].replace(",", "") + (match["exponent"] or ""))


def _number_of_words(match: re.Match[str]) -> float:
    """ "two hundred and five" -> 205; a word that cannot continue the number ("one two") ends it."""
    total, part, last = 0, 0, ""
    for word in re.findall(r"[a-z]+", match["whole"].lower()):
        if word == "and":
            continue
        kind = "unit" if word in _UNITS else "teen" if word in _TEENS else "ten" if word in _TENS else word
        if kind == "hundred" and last in ("", "unit", "teen"):
            part = max(part, 1) * 100
        elif kind == "thousand" and last != "thousand":
            total, part = total + max(part, 1) * 1000, 0
        elif kind == "unit" and last in ("", "ten", "hundred", "thousand"):
            part += _UNITS[word]
        elif kind in ("teen", "ten") and last in ("", "hundred", "thousand"):
            part += _TEENS.get(word, _TENS.get(word, 0))
        else:
            return float(total + part)
        last = kind
    value = float(total + part)
    if match["decimals"]:
        value += float("0." + "".join(str(_UNITS[word]) for word in match["decimals"].lower().split()))
    return value


# Centimetres per unit, of the units in Q-Spatial's evaluator (evaluate_success_rate.ipynb).
CENTIMETRES = {
    **dict.fromkeys(("meters", "meter", "m", "metre", "metres"), 100.0),
    **dict.fromkeys(("centimeters", "centimeter", "cm"), 1.0),
    **dict.fromkeys(("feet", "foot", "ft"), 30.48),
    **dict.fromkeys(("inch", "inches", "in"), 2.54),
    "mm": 0.1,
}
_MORE_UNITS = {"centimetre": 1.0, "centimetres": 1.0, "millimeter": 0.1, "millimeters": 0.1, "millimetre": 0.1}
_MORE_UNITS |= {"millimetres": 0.1, "km": 1e5, "kilometers": 1e5, "yard": 91.44, "yards": 91.44, '"': 2.54, "'": 30.48}
# "3 in the room" counts something; "3 in" is a length.
_UNIT = re.compile(
    r"\s*-?\s*(?!in\s+[a-z])("
    + "|".join(sorted(map(re.escape, CENTIMETRES | _MORE_UNITS), key=len, reverse=True))
    + r")(?![a-z])",
    re.IGNORECASE,
)


def parse_length_cm(text: str) -> float | None:
    """The first length in `text` that has a unit ("about 2.5 meters", "3 feet"), in centimetres, or None."""
    text = text.translate(_SIGNS)
    for pattern, value_of in ((_DIGITS, _number_of_digits), (_WORDS, _number_of_words)):
        for match in pattern.finditer(text):
            unit = _UNIT.match(text, match.end())
            if unit:
                value = value_of(match) * (CENTIMETRES | _MORE_UNITS)[unit[1].lower()]
                return value if math.isfinite(value) else None
    return None
