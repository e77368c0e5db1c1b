"""What a run reads is in its record; where it is another at --resume, that is one line, and goes on by a flag only."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxvsr.config.config_file import config_from
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.features import FeatureStore
from jaxvsr.data.frames import FrameStore
from jaxvsr.data.questions import read_questions, write_questions
from jaxvsr.data.splits import read_splits, write_splits
from jaxvsr.data.stored_arrays import SEAL, read_array, write_array
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.errors import InputError
from jaxvsr.runs.checkpoints import Checkpoints
from jaxvsr.runs.run_folder import RunFolder, settings_that_stay
from jaxvsr.training.run_contents import check_contents, run_contents
from jaxvsr.training.run_inputs import open_inputs
from tests.support.checkpoint_states import RECORD, state_after

SCENE = "scene0002_00"


@pytest.fixture
def place(tiny_model: Callable[..., Path], data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(data_folder, tmp_path / "data")
    (tmp_path / "tiny").symlink_to(tiny_model())
    (tmp_path / "score.py").write_text("def one(completions, **columns):\n    return [len(c) for c in completions]\n")
    (tmp_path / "ask.txt").write_text("Please: {question}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**changes: Any) -> TrainConfig:
    data = {"folders": ["data"], "scenes": 1, "questions": 2, "frames": 2}
    fields = {"model": {"path": "tiny"}, "data": data, "rewards": ["score.py:one"], "intervals": {"evaluate": 5}}
    return config_from({**fields, **changes})


def contents(settings: TrainConfig, features: str | None = None) -> dict[str, str]:
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, features="off"))
    inputs = open_inputs(settings, make_mesh(MeshShape(), jax.devices()[:1]))
    return run_contents(dataclasses.replace(inputs, features=features))


def change_a_question(data: Path) -> None:
    rows = read_questions(data / "questions.jsonl")
    write_questions(
        data / "questions.jsonl", [dataclasses.replace(row, answer="2") if row.scene == SCENE else row for row in rows]
    )


def hold_a_scene_out(data: Path) -> None:
    splits = read_splits(data)
    write_splits(data, {"train": splits["train"][1:], "heldout": [*splits["heldout"], splits["train"][0]]})


def write_frames_again(data: Path, **changes: Any) -> None:
    pixels = read_array(data / "frames" / SCENE, "the frames")
    attributes = {name: value for name, value in FrameStore(data).attributes(SCENE).items() if name != SEAL}
    write_array(data / "frames" / SCENE, pixels, {**attributes, **changes})


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (change_a_question, ["the questions of data"]),
        (hold_a_scene_out, ["the frames of data", "the held-out frames of data", "the held-out questions of data",
                            "the questions of data"]),
        (lambda data: write_frames_again(data, pixels_sha256="0" * 64), ["the frames of data"]),
        (lambda data: write_frames_again(data, timestamps=[0.5, 9.0]), ["the frames of data"]),
        (lambda data: write_frames_again(data), []),
        (lambda data: (data.parent / "score.py").write_text("def one(completions, **columns):\n    return [0.5, 1]\n"),
         ["the reward file score.py"]),
        (lambda data: (data / "card.md").write_text("another card"), []),
    ],
)  # fmt: skip
def test_each_part_of_what_a_run_reads_has_a_hash_of_its_own(
    place: Path, change: Callable[[Path], Any], parts: list[str]
) -> None:
    before = contents(config())
    assert contents(config()) == before
    change(place / "data")
    after = contents(config())
    assert sorted(part for part in before if before[part] != after[part]) == parts and set(after) == set(before)


def test_features_have_a_hash(place: Path) -> None:
    store, values = FeatureStore(place / "data", "set"), np.zeros((1, 4, 8), np.float32)
    scenes = FrameStore(place / "data").scenes()
    for scene in scenes:
        store.write(scene, 2, values, mirrored=False, size=(56, 56), model="tiny")
    before = contents(config(), "set")
    store.write(scenes[0], 2, values + np.float32(1e-3), mirrored=False, size=(56, 56), model="tiny")
    after = contents(config(), "set")
    assert [part for part in before if before[part] != after[part]] == ["the vision features of data"]


def test_a_difference_at_resume_is_one_line_and_needs_the_flag(place: Path) -> None:
    def record() -> Any:
        return dataclasses.replace(RECORD, settings=settings_that_stay(config()), data=contents(config()))

    run = RunFolder(place / "run")
    saved = Checkpoints(run.checkpoints, keep=1)
    saved.save(3, state_after(1), record())
    saved.close()
    check_contents(run, record(), changed_data=False)
    change_a_question(place / "data")
    says = r"^--resume: the questions of data are not those that \S+/run was trained on up to step 3; .*--changed-data$"
    with pytest.raises(InputError, match=says):
        check_contents(run, record(), changed_data=False)
    check_contents(run, record(), changed_data=True)
    other = dataclasses.replace(record(), settings=settings_that_stay(config(seed=4)))
    with pytest.raises(InputError, match=r"^--resume: seed was 0 in \S+/run, now it is 4; only steps, mesh"):
        check_contents(run, other, changed_data=True)
