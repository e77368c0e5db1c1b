"""A scene's name is also the name of its folders, so it is one plain part of a path."""

from __future__ import annotations

from jaxvsr.errors import InputError

MOST_BYTES = 200  # file systems allow 255, and files get a suffix


def check_scene_name(name: str) -> None:
    """`InputError` unless a folder of this name would be directly in the folder of all scenes."""
    plain = name.isprintable() and not set(name) & set("/\\") and not name.startswith(".") and name == name.strip()
    if not name or not plain or len(name.encode(errors="replace")) > MOST_BYTES:
        raise InputError(
            f"scene {name[:80]!r}: must be a plain name of at most {MOST_BYTES} bytes, with no slash, no control "
            "character, no space around it and no dot in front"
        )
