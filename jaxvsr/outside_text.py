"""Text that a model, a file or a name gave, where it is shown: on a terminal, on a page, in a table program."""

from __future__ import annotations

import contextlib
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxvsr.buckets.places import named
from jaxvsr.errors import naming

_STDOUT = Path("stdout")  # what an error of the disk behind it is said of
_FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20\t\r"  # what begins a formula, also in full width


def visible(text: str) -> str:
    """A text with its control and direction characters made visible, but for line breaks and tabs, and with URLs for
    the places of folders in buckets.

    A model may emit anything, also terminal escapes and the characters that reverse the text after them.

    >>> visible("\\x1b[31m")
    '␛[31m'
    """
    text = named(text)
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co"):
        return character
    return chr(0x2400 + ord(character)) if character < " " else f"\\u{ord(character):04x}"


class VisibleStream:
    """Standard output that shows control characters instead of sending them; `raw` is the stream itself."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Write a text as `visible` shows it."""
        with naming(_STDOUT):
            self.raw.write(visible(text))
        return len(text)

    def flush(self) -> None:
        """Send what was written."""
        with naming(_STDOUT):
            self.raw.flush()

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextlib.contextmanager
def visible_stdout() -> Iterator[None]:
    """Everything printed inside is shown as `visible` has it."""
    if isinstance(sys.stdout, VisibleStream):
        yield
    else:
        with contextlib.redirect_stdout(VisibleStream(sys.stdout)):
            yield


def csv_cell(text: str) -> str:
    """A text that no table program computes: a quotation mark before what would begin a formula, unless it is a number.

    >>> csv_cell("=1+1"), csv_cell("-3"), csv_cell("sofa")
    ("'=1+1", '-3', 'sofa')
    """
    if not text or text[0] not in _FORMULA:
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text if text.isascii() and text == text.strip() else f"'{text}"
