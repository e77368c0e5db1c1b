"""No name of a scene reaches outside of the folder that holds it, and no folder of somebody else is replaced."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvsr.data.features import FeatureStore
from jaxvsr.data.frames import scene_frames_dir
from jaxvsr.data.questions import Question
from jaxvsr.data.scene_names import check_scene_name
from jaxvsr.data.splits import read_splits
from jaxvsr.data.stored_arrays import read_array, write_array
from jaxvsr.errors import InputError
from launch.build_data import main

HOSTILE = [
    "",
    ".",
    "..",
    "/",
    "/tmp/victim",
    "a/b",
    "../up",
    "a\\b",
    "a\0b",
    ".hidden",
    "a\nb",
    "a\x1b[2J",
    " a",
    "x" * 300,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_scene_name_that_is_not_a_plain_folder_name_is_refused_everywhere(name: str, tmp_path: Path) -> None:
    row = {"id": "1", "scene": name, "question_type": "t", "question": "q", "answer": "1", "answer_kind": "number"}
    (tmp_path / "splits.json").write_text(json.dumps({"train": [name], "heldout": []}))
    for read in (
        lambda: check_scene_name(name),
        lambda: Question.from_json(row),
        lambda: Question("1", name, "t", "q", None, "1", "number"),
        lambda: read_splits(tmp_path),
        lambda: scene_frames_dir(tmp_path, name),
        lambda: FeatureStore(tmp_path, "set").stale_reason(name, 4, mirrored=False, size=(28, 28)),
    ):
        with pytest.raises(InputError) as error:
            read()
        assert "\n" not in str(error.value) and "\x1b" not in str(error.value) and "\0" not in str(error.value)


@pytest.mark.parametrize("name", ["scene0000_00", "41069025", "Küche 2", "a.b", "x--y", "42446100_v2"])
def test_scene_names_of_known_data_sets_are_accepted(name: str) -> None:
    check_scene_name(name)


@pytest.mark.parametrize("name", ["VICTIM", "."])
def test_a_hostile_scene_name_changes_no_folder(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim, out, pictures = tmp_path / "victim", tmp_path / "out", tmp_path / "pictures"
    for folder in (victim, out / "frames" / "kept", pictures):
        folder.mkdir(parents=True)
    (victim / "thesis.txt").write_text("years of work")
    (out / "frames" / "kept" / "zarr.json").write_text("{}")
    for index in range(2):
        Image.fromarray(np.full((56, 56, 3), index, np.uint8)).save(pictures / f"{index}.png")
    row = {
        "id": "1", "scene": name.replace("VICTIM", str(victim)), "question_type": "t", "question": "q?",
        "options": None, "answer": "1", "answer_kind": "number", "images": ["0.png", "1.png"],
    }  # fmt: skip
    (out / "questions.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["frames", str(pictures), str(out), "--frames", "2", "--max-pixels", "10000"]) == 2
    assert "must be a plain name" in capsys.readouterr().err
    assert (victim / "thesis.txt").read_text() == "years of work"
    assert (out / "frames" / "kept" / "zarr.json").read_text() == "{}"


def test_only_arrays_written_by_jaxvsr_are_replaced(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "array", tmp_path / "theirs"
    write_array(mine, np.zeros((2, 3), np.uint8), {"schema": 1})
    write_array(mine, np.ones((2, 3), np.uint8), {"schema": 1})
    assert read_array(mine, "the ones").all()
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not an array of jaxvsr"):
        write_array(theirs, np.zeros((2, 3), np.uint8), {"schema": 1})
    assert (theirs / "thesis.txt").read_text() == "years of work"
    assert not list(tmp_path.glob(".*")), "nothing is left beside them"
