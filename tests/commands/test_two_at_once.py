"""A command that writes into a folder is refused while another does, in one line, before it does any work."""

import json
import os
from pathlib import Path

import pytest

from jaxvsr.files import partial_name
from jaxvsr.locks import only_writer
from launch import build_data, evaluate, train
from tests.support.files import contents

LOCK = ".lock"
ROW = {"id": "1", "scene": "s", "question_type": "t", "question": "How many?", "answer": "2", "answer_kind": "number"}
BUILD = {
    "rooms": ("rooms", "OUT", "--scenes", "1"),
    "questions": ("questions", "OUT", "OUT", "--recipe", "vsi100k"),
    "shard": ("questions", "OUT", "OUT", "--recipe", "vsi100k", "--shard", "1/2"),
    "frames": ("frames", "OUT", "OUT", "--frames", "2", "--max-pixels", "4000"),
    "features": ("features", "OUT", "--model", "none"),
    "import": ("import", "rows.jsonl", "OUT"),
    "trim": ("trim", "OUT", "--questions", "1"),
}


@pytest.fixture
def place(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with rows to import and predictions to score."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(json.dumps(ROW) + "\n")
    Path("OUT").mkdir()
    for name in ("questions.jsonl", "splits.json", "frames"):
        (Path("OUT") / name).symlink_to(data_folder / name)
    return tmp_path


def assert_refused(code: int, error: str) -> None:
    holder = f"process {os.getpid()} on {os.uname().nodename}"
    assert (code, error) == (2, f"error: OUT: {holder} writes into it; wait for it, or name another folder\n")


@pytest.mark.parametrize("command", BUILD)
def test_a_data_command_beside_another(command: str, place: Path, capsys: pytest.CaptureFixture[str]):
    before = contents(place)
    with only_writer(Path("OUT")):
        code = build_data.main(BUILD[command])
        assert_refused(code, capsys.readouterr().err)
    assert contents(place) == before


def test_an_evaluation_beside_another(place: Path, capsys: pytest.CaptureFixture[str]):
    answers = ("--model", "chance-frequency", "--data", "OUT", "--benchmark", "vsi-bench", "--out", "OUT")
    with only_writer(Path("OUT")):
        code = evaluate.main(answers)
        assert_refused(code, capsys.readouterr().err)
    assert evaluate.main(answers) == 0 and not Path("OUT", LOCK).exists()


def test_a_training_beside_another_before_its_model_is_read(place: Path, capsys: pytest.CaptureFixture[str]):
    with only_writer(Path("OUT")):
        code = train.main(["--model", "no such model", "--data", "none", "--run-dir", "OUT", "--resume", "--mesh", "1"])
        assert_refused(code, capsys.readouterr().err)


def test_what_a_killed_data_command_had_begun_is_cleaned_up_by_the_next(place: Path):
    out = Path("OUT")
    for begun in (out / "appearances" / "scene.npz", out / "images" / "rows", out / "features" / "set" / "scene" / "2"):
        begun.parent.mkdir(parents=True)
        partial_name(begun).write_bytes(b"half")
    partial_name(out / "card.md").write_bytes(b"half")
    assert build_data.main(["trim", "OUT", "--questions", "1"]) == 0
    assert [path for path in out.rglob("*") if "partial" in path.name] == []
