"""The kind of a published row's answer; rows whose kind cannot be decided are refused with the reason."""

from __future__ import annotations

import dataclasses
import math
import re
import string
from collections.abc import Sequence
from typing import get_args

from jaxvsr.data.questions import AnswerKind

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
_BOX = re.compile(r"\(?\[?\s*" + r"\s*,\s*".join([r"[+-]?\d+(?:\.\d*)?"] * 4) + r"\s*\]?\)?")
_LETTER = re.compile(r"\(?([A-Za-z])\)?\s*(?:$|[.):])")
_OPTION_LETTER = re.compile(r"\s*\(?([A-Za-z])[.):]\s*(.*)", re.DOTALL)
_ANSWER_TAG = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
_MOST_WORDS = 2  # "one or two words or a number": the papers' prompts


class RowError(ValueError):
    """Why a row cannot be imported; the import goes on without it and lists it."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The right answer, in the form that rewards and metrics read."""

    text: str
    kind: AnswerKind
    options: tuple[str, ...] | None


def untagged(text: str) -> str:
    """The text between `<answer>` and `</answer>`, or the whole text without tags."""
    match = _ANSWER_TAG.search(text)
    return (match[1] if match else text).strip()


def decide(text: str, options: Sequence[str] | None = None, kind: str | None = None) -> Answer:
    """The answer with its kind: as given, or else by options and form.

    With options it is a choice: a letter, or the text of exactly one option. Without options it is a number, a box of
    four numbers, a word (one or two, without digits), or a text (more words).

    Raises:
        RowError: the kind cannot be decided, or contradicts the row's.
    """
    text = text.strip()
    if not text:
        raise RowError("the answer is empty")
    if kind is not None and kind not in get_args(AnswerKind):
        raise RowError(f"answer_kind {kind[:40]!r} is not one of {', '.join(get_args(AnswerKind))}")
    if options:
        lettered = lettered_options(options)
        if kind in (None, "choice"):
            return Answer(_chosen(text, lettered), "choice", lettered)
        return Answer(_checked(text, kind), _kind(kind), lettered)
    if kind is not None:
        return Answer(_checked(text, kind), _kind(kind), None)
    if _NUMBER.fullmatch(text):
        return Answer(_checked(text, "number"), "number", None)
    if _BOX.fullmatch(text):
        return Answer(text, "box", None)
    if re.fullmatch(r"\(?[A-Za-z][.)]?", text):
        raise RowError(f"answer_kind cannot be decided: answer {text!r} is a letter, but the row has no options")
    words = text.split()
    if len(words) > _MOST_WORDS:
        return Answer(text, "text", None)
    if any(letter.isdigit() for letter in text):
        raise RowError(f"answer_kind cannot be decided: answer {text[:40]!r} could be a number or a text")
    return Answer(text, "word", None)


def lettered_options(options: Sequence[str]) -> tuple[str, ...]:
    """The options in VSI-Bench's form, `A. sofa`; those that have exactly the letters A, B, C … are put in their order,
    without them.

    Raises:
        RowError: two options are the same, one is empty, or there are more than letters.
    """
    if len(options) > len(string.ascii_uppercase):
        raise RowError(f"{len(options)} options; at most 26 have letters")
    expected, texts = _letters_of(options), [option.strip() for option in options]
    own = [(match[1].upper(), match[2].strip()) for match in map(_OPTION_LETTER.fullmatch, options) if match]
    if sorted(letter for letter, _ in own) == list(expected):
        texts = [text for _, text in sorted(own)]
    folded = [" ".join(text.casefold().split()) for text in texts]
    if "" in folded or len(set(folded)) != len(folded):
        raise RowError("two options are the same, or one is empty")
    return tuple(f"{letter}. {text}" for letter, text in zip(expected, texts, strict=True))


def _letters_of(options: Sequence[str]) -> str:
    return string.ascii_uppercase[: len(options)]


def _chosen(text: str, options: Sequence[str]) -> str:
    folded = " ".join(text.casefold().split())
    same = [option[0] for option in options if " ".join(option[3:].casefold().split()) == folded]
    if len(same) == 1 and len(text) == 1 and text.upper() in {option[0] for option in options} - set(same):
        raise RowError(f"answer {text!r} is the letter of one option and the words of another")
    if len(same) == 1:
        return same[0]
    match = _LETTER.match(text)
    if match and match[1].upper() in _letters_of(options):
        own = [found[1].upper() for option in options if (found := _OPTION_LETTER.fullmatch(option[3:]))]
        if set(own) & set(_letters_of(options)):
            letters = ", ".join(own)
            raise RowError(
                f"answer {text[:60]!r}: {len(options)} options have the letters {letters}; expected all from A"
            )
        option = options[string.ascii_uppercase.index(match[1].upper())]
        rest = " ".join(text[match.end() :].casefold().split())
        if not rest or rest == " ".join(option[3:].casefold().split()):
            return option[0]
    raise RowError(f"answer {text[:60]!r} is none of the {len(options)} options")


def _checked(text: str, kind: str) -> str:
    if kind == "number" and not (_NUMBER.fullmatch(text) and math.isfinite(float(text))):
        raise RowError(f"answer_kind is 'number', but {text[:40]!r} is not a number")
    if kind == "box" and not _BOX.fullmatch(text):
        raise RowError(f"answer_kind is 'box', but {text[:60]!r} is not a box of four numbers")
    if kind == "choice":
        raise RowError(f"answer_kind is 'choice', but the row has no options (answer {text[:40]!r})")
    return text


def _kind(kind: str) -> AnswerKind:
    return next(known for known in get_args(AnswerKind) if known == kind)
