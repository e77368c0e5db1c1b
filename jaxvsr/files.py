"""Files written whole or not at all, and JSON read with errors of one line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxvsr.buckets.urls import refuse_url
from jaxvsr.errors import InputError, naming, one_line


def partial_name(path: Path) -> Path:
    """A hidden name beside `path` that no other process or thread has: what it is written to before it is renamed.

    Raises:
        InputError: `path` is a URL.
    """
    refuse_url(path)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write a file to; it takes the place of `path` when the block ends without an error.

    No other process or thread has the same name, and nothing of it is left after an error.

        with replacing(path) as partial:
            partial.write_bytes(data)
    """
    partial = partial_name(path)
    try:
        with naming(path):
            yield partial
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole file in UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_can_be_written(path: Path, flag: str) -> None:
    """Refuse a name at which `write_text` would fail, before the hours of work whose result is to be written there.

    Raises:
        InputError: it begins with the flag that the name was given by.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{flag} {path}: is a folder or a device; expected the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"{flag} {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{flag} {path}: the folder {path.parent} cannot be written to")


def json_sha256(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a JSON object, whatever the order of its names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def user_cache() -> Path:
    """jaxvsr's folder in the user's cache folder; it need not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxvsr"


def read_json(path: Path, *, missing: str = "") -> Any:
    """The value in a JSON file.

    Raises:
        InputError: no such file (the line then ends in `missing`, which may say where it comes from), or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file" + (f"; {missing}" if missing else "")) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({one_line(error)})") from None


def read_json_object(path: Path, *, missing: str = "") -> dict[str, Any]:
    """The object in a JSON file; errors as in `read_json`."""
    found = read_json(path, missing=missing)
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON lines file that another process may be appending to: none where it is not there, and a last
    line that is not finished is left out.

    Raises:
        InputError: a line that is no JSON object in UTF-8.
    """
    if path.is_file():
        for number, line in _lines(path):
            if not line.endswith(b"\n"):
                return
            yield _row(path, number, line)


def read_whole_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a finished JSON lines file, each with the number of its line."""
    for number, line in _lines(path):
        yield number, _row(path, number, line)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as lines:
        yield from enumerate(lines, start=1)


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} line {number}: not JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} line {number}: not UTF-8 (byte {error.start + 1})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} line {number}: not JSON ({one_line(error)})") from None
    if not isinstance(row, dict):
        raise InputError(f"{path} line {number}: expected a JSON object, found {type(row).__name__}")
    return row


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start + 1})") from None
