"""Read the rows of a published question set (JSON lines, JSON, parquet) as dicts, with limits on sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxvsr.errors import InputError, one_line

SUFFIXES = (".jsonl", ".json", ".parquet")
_LINE_LIMIT_BYTES = 1 << 26  # a row with a few pictures in base64
_JSON_LIMIT_BYTES = 1 << 29  # read as a whole
_ROWS_LIMIT = 10_000_000
_ROW_GROUP_LIMIT_BYTES = 1 << 31
_BATCH_ROWS = 64


def read_rows(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file line 3` or `file row 3`, row) of a file, or of all files in a folder, sorted by name.

    Raises:
        InputError: nothing to read, files of several kinds, or a file that is not what its suffix says.
    """
    for path in source_files(source):
        read = {".jsonl": _json_lines, ".json": _json_list, ".parquet": _parquet_rows}[path.suffix.lower()]
        for where, row in read(path):
            if not isinstance(row, dict):
                raise InputError(f"{where}: expected an object with fields, found {type(row).__name__}")
            yield where, row


def file_of(where: str) -> Path:
    """The file in a place from `read_rows`."""
    return Path(where.rsplit(" ", 2)[0])


def source_files(source: Path) -> list[Path]:
    """The file itself, or a folder's files; `InputError` if there are none or several kinds."""
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise InputError(f"{source}: question sets are read from {', '.join(SUFFIXES)} files")
        return [source]
    if not source.is_dir():
        raise InputError(f"{source}: no such file; expected a question set as {', '.join(SUFFIXES)}")
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    kinds = sorted({path.suffix.lower() for path in files})
    if len(kinds) != 1:
        found = " and ".join(kinds) or "no question sets"
        raise InputError(f"{source}: {found} in it; name one file, or a folder with files of one kind")
    return files


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number in range(1, _ROWS_LIMIT + 2):
            where = f"{path} line {number}"
            line = file.readline(_LINE_LIMIT_BYTES + 1)
            if not line:
                return
            if len(line) > _LINE_LIMIT_BYTES:
                raise InputError(f"{where}: longer than {_LINE_LIMIT_BYTES:,} bytes; expected one JSON object per line")
            if line.strip():
                yield where, _parsed(line, where)
    raise InputError(f"{path}: more than {_ROWS_LIMIT:,} rows; refused")


def _json_list(path: Path) -> Iterator[tuple[str, Any]]:
    if path.stat().st_size > _JSON_LIMIT_BYTES:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes of JSON; write it as .jsonl, one row per line")
    document = _parsed(path.read_bytes(), str(path))
    if isinstance(document, dict):
        lists = [name for name, value in document.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise InputError(f"{path}: expected a list of rows, or an object with one list; found {len(lists)} lists")
        document = document[lists[0]]
    if not isinstance(document, list):
        raise InputError(f"{path}: expected a list of rows, found {type(document).__name__}")
    for number, row in enumerate(document, start=1):
        yield f"{path} row {number}", row


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))  # some editors add a byte order mark
    except UnicodeDecodeError:
        raise InputError(f"{where}: not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({one_line(error)})") from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path}: reading parquet needs pyarrow: pip install 'jaxvsr[scans]'") from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=False) as file:
            metadata = file.metadata
            if metadata.num_rows > _ROWS_LIMIT:
                raise InputError(f"{path}: says it has {metadata.num_rows:,} rows; refused")
            for group in range(metadata.num_row_groups):
                size = metadata.row_group(group).total_byte_size
                if not 0 <= size <= _ROW_GROUP_LIMIT_BYTES:
                    raise InputError(f"{path}: row group {group} says it holds {size:,} bytes; refused")
            for batch in file.iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (InputError, GeneratorExit):
        raise
    except Exception as error:  # pyarrow raises its own kinds, OSError, ValueError and UnicodeDecodeError
        raise InputError(f"{path}: not a readable parquet file ({one_line(error)})") from None
