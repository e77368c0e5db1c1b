"""Whole files or none, and JSON that cannot be read in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvsr.errors import InputError
from jaxvsr.files import read_json, read_json_object, read_rows, replacing, write_text


def test_a_file_is_replaced_only_when_the_new_one_is_complete(tmp_path: Path):
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with replacing(path) as partial:
        partial.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    assert os.listdir(tmp_path) == ["table.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_only_the_old_file_remains(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with pytest.raises(error), replacing(path) as partial:
        partial.write_text("half", encoding="utf-8")
        raise error
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_an_error_before_anything_is_written_is_not_hidden(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "no folder" / "table.csv", "text")


def test_two_writers_of_one_file_have_different_names(tmp_path: Path):
    path = tmp_path / "table.csv"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("one", encoding="utf-8")
        other.write_text("other", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "one"  # whichever ended last, and whole
    script = (
        "import sys; from pathlib import Path; from jaxvsr.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as partial: print(partial.name); partial.touch()"
    )
    command = [sys.executable, "-c", script, str(path)]
    names = [subprocess.run(command, check=True, capture_output=True, timeout=30).stdout for _ in range(2)]
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (None, "file.json: no such file; train.py writes it"),
        (b"{", "file.json: not JSON (Expecting property name"),
        (b"[" * 100_000, "file.json: not JSON ("),
        (b"\xff", "file.json: not JSON ("),
        (b"[1]", "file.json: expected a JSON object, found list"),
    ],
)
def test_a_file_that_is_not_a_json_object_is_refused_in_one_line(tmp_path: Path, data: bytes | None, line: str):
    path = tmp_path / "file.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_json_object(path, missing="train.py writes it")
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_row_that_is_still_being_written_is_left_out(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    assert list(read_rows(path)) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"st', encoding="utf-8")
    assert [row["step"] for row in read_rows(path)] == [1, 2]
    path.write_text('{"step": 1}\n{"st\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 2: not JSON"):
        list(read_rows(path))


def test_json_of_any_kind_is_read_as_it_was_written(tmp_path: Path):
    for value in ([1, 2.5, None], {"ä": "ö"}, "text"):
        write_text(tmp_path / "file.json", json.dumps(value, ensure_ascii=False))
        assert read_json(tmp_path / "file.json") == value


def test_rows_that_are_not_utf8_or_no_objects_name_their_line(tmp_path: Path):
    path = tmp_path / "samples.jsonl"
    for line, says in [
        (b'{"text": "\xff"}', "not UTF-8"),
        (b"[1]", "expected a JSON object"),
        (b"[" * 9999, "not JSON"),
    ]:
        path.write_bytes(b'{"step": 1}\n' + line + b"\n")
        with pytest.raises(InputError, match=f"samples.jsonl line 2: {says}"):
            list(read_rows(path))
