"""A scene's name is also the name of its folders, so it is one plain part of a path."""

from __future__ import annotations

from jaxvsr.errors import InputError

MOST_BYTES = 200  # file systems allow 255, and files get a suffix


def is_plain(name: str) -> bool:
    """Whether a folder of this name would be directly in the folder of all scenes."""
    here = not set(name) & set("/\\") and not name.startswith(".") and name == name.strip()
    return bool(name) and name.isprintable() and here


def made_plain(name: str) -> str:
    """A file's name as a scene's; a macOS recording has a narrow space before its PM, which is not printable."""
    if is_plain(name):
        return name
    letters = (letter if letter.isprintable() and letter not in "/\\" else " " for letter in name)
    return " ".join("".join(letters).split()).lstrip(". ") or "scene"


def check_scene_name(name: str) -> None:
    """`InputError` unless a folder of this name would be directly in the folder of all scenes."""
    if not is_plain(name) or len(name.encode(errors="replace")) > MOST_BYTES:
        raise InputError(
            f"scene {name[:80]!r}: must be a plain name of at most {MOST_BYTES} bytes, with no slash, no control "
            "character, no space around it and no dot in front"
        )
