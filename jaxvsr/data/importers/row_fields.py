"""One published question, and its parts in a published row: text, options, the names of its media."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from jaxvsr.data.importers.answer_kinds import Answer, RowError
from jaxvsr.data.importers.turns import Picture, pictures_of, without_placeholders

_EMBEDDED_OPTIONS = re.compile(r"\s*\n\s*Options:\s*\n(.*)\Z", re.DOTALL)
_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]\s*\S")
_ASKS_FOR_A_LETTER = re.compile(r"\b(?:letter|options?|choices?)\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, eq=False)
class SourceRow:
    """One published question.

    `video` and `images` are names that have to be paired with files, or the images themselves. `pruned`: whether it is
    outside VSI-Bench's debiased subset, if the set says so. `names`: every name of a scene or file in the row.
    """

    question: str
    answer: Answer
    question_type: str
    video: str | None = None
    images: tuple[Picture, ...] = ()
    id: str | None = None
    scene: str | None = None
    mirror_of: str | None = None
    response: str | None = None
    pruned: bool | None = None
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def string_field(row: Mapping[str, Any], *names: str) -> str | None:
    """The first of these fields that the row has, as text; numbers as Python writes them, a list of one as that one."""
    for name in names:
        value = row.get(name)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if value is None or isinstance(value, bool | list | tuple | dict | bytes):
            if value is not None:
                raise RowError(f"field {name!r} must be text or a number, found {type(value).__name__}")
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise RowError(f"field {name!r} is {value}")
        text = f"{value:.15g}" if isinstance(value, float) else str(value)
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise RowError(f"field {name!r} is not valid text (half a surrogate pair)")
        return text.strip()
    return None


def needed_field(row: Mapping[str, Any], *names: str) -> str:
    """`string_field`; a row without any of these fields is refused."""
    text = string_field(row, *names)
    if not text:
        raise RowError(f"field {' or '.join(map(repr, names))} is missing or empty")
    return text


def option_list(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The field `options`: a list of texts, or an object of them by letter."""
    options = row.get("options")
    if options is None:
        return ()
    if isinstance(options, dict):  # parquet gives all rows of a set the letters of the longest
        given = {letter: option for letter, option in options.items() if option is not None}
        if all(isinstance(option, str) for option in given.values()):
            options = [f"{letter}. {option}" for letter, option in given.items()]
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
        raise RowError(f"field 'options' must be a list of strings, found {str(options)[:60]!r}")
    return tuple(options)


def video_of(row: Mapping[str, Any]) -> str | None:
    """The name of the row's only video: the fields video, video_path, or videos."""
    videos = row.get("videos")
    if isinstance(videos, list | tuple) and len(videos) > 1:
        raise RowError(f"{len(videos)} videos; a scene is one video")
    return string_field(row, "video", "video_path") or (string_field(row, "videos") if videos else None)


def images_of(row: Mapping[str, Any]) -> tuple[Picture, ...]:
    """The row's images: the fields images or image."""
    return pictures_of(row.get("images")) or pictures_of(row.get("image"))


def question_text(question: str) -> str:
    """A question without the places of its media (`<video>`) and without the heading "Question:"."""
    question = re.sub(r"\A\s*Question:\s*", "", without_placeholders(question))
    if not question:
        raise RowError("the question is empty")
    return question


def split_options(question: str, options: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Take options out of the question's text, if the row has no field for them: what follows "Options:", or lines that
    begin with A., B., … at the end; a last line that asks for the letter goes with them.
    """
    if options:
        return question, options
    match = _EMBEDDED_OPTIONS.search(question)
    if match:
        lines = tuple(line.strip() for line in match[1].splitlines() if line.strip())
        if len(lines) > 2 and not _LETTERED.match(lines[-1]) and _ASKS_FOR_A_LETTER.search(lines[-1]):
            lines = lines[:-1]
        return question[: match.start()].strip(), lines
    lines = tuple(line.strip() for line in question.splitlines() if line.strip())
    if len(lines) > 3 and not _LETTERED.match(lines[-1]) and _ASKS_FOR_A_LETTER.search(lines[-1]):
        lines = lines[:-1]
    first = next((index for index, line in enumerate(lines) if _is_lettered(line, "A")), len(lines))
    listed = lines[first:]
    if first > 0 and len(listed) > 1 and all(_is_lettered(line, chr(65 + at)) for at, line in enumerate(listed)):
        return "\n".join(lines[:first]), listed
    return question, options


def _is_lettered(line: str, letter: str) -> bool:
    match = _LETTERED.match(line)
    return match is not None and match[1] == letter


def slug(text: str | None) -> str:
    """A text as a name: small letters, digits and underscores."""
    return re.sub(r"\W+", "_", (text or "").casefold()).strip("_")
