"""Damaged or endless text in a data folder is one line that names the file."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.data_folder import write_card_section
from jaxvsr.data.features import FeatureStore
from jaxvsr.data.questions import read_questions
from jaxvsr.data.stored_arrays import array_attributes, read_array, write_array
from jaxvsr.errors import InputError


@pytest.mark.parametrize("data", [b'{"id": "\xff"}\n', b'{"id": ' + b"9" * 10_000 + b"}\n", b"[" * 20_000, b"[1]\n"])
def test_questions_that_are_no_text_or_no_rows(data: bytes, tmp_path: Path):
    (tmp_path / "questions.jsonl").write_bytes(data)
    with pytest.raises(InputError, match=r"questions.jsonl line 1: (not UTF-8 \(byte|not JSON|expected a JSON object)"):
        read_questions(tmp_path / "questions.jsonl")


def test_a_card_that_is_no_text(tmp_path: Path):
    (tmp_path / "card.md").write_bytes(b"# card\n\xff")
    with pytest.raises(InputError, match=r"card.md: not UTF-8 text \(byte 8\)"):
        write_card_section(tmp_path, "Frames", "some")


def test_an_array_that_says_it_is_larger_than_any_memory(tmp_path: Path):
    write_array(tmp_path / "array", np.zeros((2, 3), np.float32), {"schema": 1})
    metadata = json.loads((tmp_path / "array" / "zarr.json").read_text())
    metadata["shape"] = [10**6, 10**9]
    (tmp_path / "array" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(
        InputError, match=r"array: cannot read the frames \(it says that it holds .* GB, more than this"
    ):
        read_array(tmp_path / "array", "the frames")


def test_features_without_what_they_were_made_from(tmp_path: Path):
    store = FeatureStore(tmp_path, "set")
    path = store.path("scene", 2, mirrored=False)
    write_array(path, np.zeros((1, 2, 3), np.float32), {"schema": 1})
    with pytest.raises(InputError, match=r"zarr.json: has no 'model_height_width'; delete the folder"):
        store.stale_reason("scene", 2, mirrored=False, size=(56, 56))
    (path / "zarr.json").write_text('{"attributes": ' * 20_000)
    with pytest.raises(InputError, match=r"zarr.json: not the metadata of the features"):
        array_attributes(path, "the features", 1)
