"""Messages of chat data sets: the text of each turn, and the images and videos in them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from jaxvsr.data.importers.answer_kinds import RowError

# Sets mark the places of images and videos in a text; here media come before the question.
_PLACEHOLDER = re.compile(
    r"[ \t]*(?:<(?:image|video)(?:[ _-]?(?P<number>\d{1,3}))?>"
    r"|<\|vision_start\|>(?:<\|(?:image|video)_pad\|>)*<\|vision_end\|>)[ \t]*\n?",
    re.IGNORECASE,
)
_UNFILLED = re.compile(r"<(?:bbox|ref-object|cls-label)>")  # ms-swift's, which its `objects` fill in
_MOST_PICTURES = 64
_ROLES = {"human": "user", "gpt": "assistant"}  # LLaVA's names
SYSTEM_NOTE = "system messages left out (--prompt chooses one)"


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """An image: its name, and its bytes if they are part of the set."""

    name: str
    data: bytes | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Media:
    """The images and the video in messages."""

    video: str | None = None
    images: tuple[Picture, ...] = ()


def pictures_of(value: Any) -> tuple[Picture, ...]:
    """A path, `{"bytes": …, "path": …}` as `datasets` stores images, or a list of either; nothing for None."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        if len(value) > _MOST_PICTURES:
            raise RowError(f"{len(value)} images; at most {_MOST_PICTURES} make a scene")
        return tuple(picture for item in value for picture in pictures_of(item))
    if isinstance(value, str) and value.strip():
        return (Picture(value.strip()),)
    if isinstance(value, bytes):
        return (Picture("", value),)
    if isinstance(value, dict):
        path, data = value.get("path") or value.get("image"), value.get("bytes")
        if isinstance(data, bytes) and (path is None or isinstance(path, str)):
            return (Picture(path or "", data),)
        if data is None and isinstance(path, str):
            return pictures_of(path)
    raise RowError(f"an image is given as {type(value).__name__}; expected a path or bytes")


def text_of(value: Any) -> tuple[str, Media, tuple[str, ...]]:
    """The only text of a prompt or completion, plain or as messages; its media; and notes.

    Raises:
        RowError: several turns of user or assistant, or no text.
    """
    if isinstance(value, str):
        text = _cleaned(value)
        if not text:
            raise RowError("the prompt is empty")
        return text, Media(), ()
    turns, media, notes = _turns(value)
    if len(turns) != 1:
        raise RowError(f"{len(turns)} turns in a prompt or completion; expected one")
    return turns[0][1], media, notes


def question_and_answer_turns(value: Any) -> tuple[list[tuple[str, str]], Media, tuple[str, ...]]:
    """(question, answer) of every turn of a conversation, the media of its first turn, and notes; the answer to a last
    question that has none is "".

    Raises:
        RowError: user and assistant do not take turns, or a later turn has media.
    """
    turns, media, notes = _turns(value)
    roles = [role for role, _ in turns]
    if not roles or roles != (["user", "assistant"] * len(roles))[: len(roles)]:
        raise RowError(f"messages of {', '.join(roles)[:60] or 'nobody'}; expected user and assistant in turn")
    texts = [*(text for _, text in turns), ""]
    return list(zip(texts[0:-1:2], texts[1::2], strict=True)), media, notes


def _turns(value: Any) -> tuple[list[tuple[str, str]], Media, tuple[str, ...]]:
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise RowError(f"messages must be a list of {{role, content}}, found {type(value).__name__}")
    turns: list[tuple[str, str]] = []
    media = Media()
    notes: tuple[str, ...] = ()
    for message in value:
        role = message.get("role", message.get("from"))
        role = _ROLES.get(role, role) if isinstance(role, str) else role
        text, found = _content(message.get("content", message.get("value")))
        if role == "system":
            notes = (SYSTEM_NOTE,)
            continue
        if role not in ("user", "assistant"):
            raise RowError(f"role {str(role)[:20]!r}; expected system, user or assistant")
        if found.video or found.images:
            if turns:
                raise RowError("media in a later turn; they must be in the first")
            media = found
        if not text:
            raise RowError(f"a message of {role} has no text")
        turns.append((role, text))
    return turns, media, notes


def _content(content: Any) -> tuple[str, Media]:
    if isinstance(content, str):
        return _cleaned(content), Media()
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise RowError(f"content must be text or a list of parts, found {type(content).__name__}")
    texts: list[str] = []
    images: list[Picture] = []
    video = None
    for part in content:
        kind = part.get("type") or next((name for name in ("text", "image", "video") if part.get(name)), None)
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image", "image_url"):
            # A part without a path is the next of the row's images.
            images += pictures_of(part.get("image") or part.get("path") or part.get("url"))
        elif kind == "video":
            if video is not None:
                raise RowError("several videos in a message; a scene is one video")
            video = part.get("video") or part.get("path")
        else:
            raise RowError(f"a part of type {str(kind)[:20]!r}; expected text, image or video")
    if video is not None and not isinstance(video, str):
        raise RowError(f"a video is given as {type(video).__name__}; expected a path")
    return _cleaned("\n".join(texts)), Media(video, tuple(images))


def _cleaned(text: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RowError("a message is not valid text (half a surrogate pair)")
    return without_placeholders(text)


def without_placeholders(text: str) -> str:
    """A text without the marks of where its images and videos stand (`<image>`, `<video>`, `<image 1>`).

    Raises:
        RowError: the text speaks of several of them by their places in a sentence, or has a place that is not filled.
    """
    text = filled(text)
    marks = list(_PLACEHOLDER.finditer(text))
    inside = {mark.start() for mark in marks if _stands_in_a_sentence(text, mark)}
    numbered = [mark for mark in marks if mark["number"]]
    several = any(int(mark["number"]) > 1 for mark in numbered)
    if len(inside) > 1 or (several and any(any(_words_beside(text, mark)) for mark in numbered)):
        raise RowError("several images are named inside of a sentence by their places; write which is meant in words")
    return _PLACEHOLDER.sub(lambda mark: " " if mark.start() in inside else "", text).strip()


def _stands_in_a_sentence(text: str, mark: re.Match[str]) -> bool:
    """Whether words stand on both sides of a mark in its line."""
    return all(_words_beside(text, mark))


def _words_beside(text: str, mark: re.Match[str]) -> tuple[str, str]:
    """What stands before and behind a mark in its line, without other marks."""
    line_before = _PLACEHOLDER.sub("", text[: mark.start()].rpartition("\n")[2])
    line_after = "" if mark[0].endswith("\n") else _PLACEHOLDER.sub("", text[mark.end() :].partition("\n")[0])
    return line_before.strip(), line_after.strip()


def filled(text: str) -> str:
    """The text itself.

    Raises:
        RowError: it has a place that the row's other fields would fill.
    """
    if unfilled := _UNFILLED.search(text):
        raise RowError(f"{unfilled[0]} stands for an object or a box; put its name or numbers in its place")
    return text
