"""What a decoder's exception says, fit for one line of an `InputError`."""

from __future__ import annotations


def one_line(error: Exception, limit_characters: int = 120) -> str:
    """The message on one line, cut at the limit; the exception's name where it has no message."""
    return " ".join(str(error).split())[:limit_characters] or type(error).__name__
