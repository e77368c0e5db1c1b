"""The lessons of the small base model: what they read of rooms and questions, that they teach, and what they refuse."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import jaxvsr
from jaxvsr.data.questions import read_questions
from jaxvsr.data.rooms.room_scans import write_rooms
from jaxvsr.data.rooms.seen_objects import CATEGORIES
from jaxvsr.data.splits import read_splits, write_splits
from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.model_folder import open_folder
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tiny.tiny_model import TinyShape, write_tiny_model
from jaxvsr.training.small_base.lesson import LAYERS, Lesson
from jaxvsr.training.small_base.looking import _LookedAt
from jaxvsr.training.small_base.training_rooms import Rooms
from launch import build_data
from launch.teach_rooms import main

SHAPE = TinyShape(width=64, text_layers=3, text_intermediate=96, heads=2, vision_layers=1, tied=False)
STEP = ("--scenes", "2", "--layers", "2", "--frames", "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_rooms(root, scenes=6, seed=1, frames=4, size=(56, 56))
    assert build_data.main(["frames", str(root), str(root), "--frames", "4", "--max-pixels", "3136"]) == 0
    asked = ("questions", str(root), str(root), "--recipe", "rooms", "--heldout", "0.3")
    assert build_data.main([*asked]) == 0
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, 0, shape=SHAPE)
    return folder


def teach(*arguments) -> None:
    assert main([str(part) for part in arguments]) == 0


def number_behind(text: str, line: str) -> int:
    found = re.search(rf"{text}(\d+)", line)
    assert found, line
    return int(found[1])


def weights(folder: Path) -> dict[str, np.ndarray]:
    opened = open_folder(folder)
    return {name: np.asarray(opened.read(name)) for name in parameter_shapes(opened.config)}


@pytest.mark.slow
def test_four_rooms_are_soon_known_by_heart(data: Path, model: Path, tmp_path: Path, capsys):
    looks, answers = tmp_path / "looks", tmp_path / "answers"
    teach("look", model, data, looks, "--steps", 150, "--learning-rate", 0.01, *STEP)
    *lines, _ = capsys.readouterr().out.splitlines()
    shares = [number_behind("vision tokens/names: category ", line) for line in lines]
    assert len(shares) == 6 and shares[-1] > max(60, shares[0])
    teach("answer", looks, data, answers, "--steps", 200, "--questions", 6, "--learning-rate", 0.01, *STEP)
    first, *lines, _ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"looked at 4 rooms with 6 questions each in \d+ s; 0 rooms left out, .*", first)
    likely = [number_behind("room_size_estimation ", line) for line in lines]
    assert len(likely) == 4 and likely[-1] > 80 > likely[0]

    before, between, after = weights(model), weights(looks), weights(answers)
    query = LAYERS + "self_attn.q_proj.weight"
    for name in before:
        lower = slice(2) if name.startswith(LAYERS) else slice(None)
        if name == "lm_head.weight":  # begins as the embedding
            assert not np.array_equal(after[name], before["language_model.embed_tokens.weight"])
        elif name.endswith("language_model.norm.weight"):
            assert not np.array_equal(between[name], after[name])
        else:  # what looks stays as it was
            np.testing.assert_array_equal(between[name][lower], after[name][lower], err_msg=name)
    assert not np.allclose(between[query][2], after[query][2], rtol=0.1), "what answers learned nothing"
    up = LAYERS + "mlp.up_proj.weight"
    np.testing.assert_allclose(
        between[up][2], before[up][2], rtol=0.02, err_msg="the first lesson changed what answers"
    )
    assert not np.allclose(between[up][1], before[up][1], rtol=0.1), "what looks learned nothing"

    policy = jaxvsr.load(answers, prompt="question")
    asked = [row for row in read_questions(data / "questions.jsonl") if row.question_type == "room_size_estimation"]
    rooms = {scene.name: scene for scene in jaxvsr.read_scenes(data, split="train", frames=4)}
    asked, state = [row for row in asked if row.scene in rooms], policy.start(seed=0)
    said = [policy.answer(state, rooms[row.scene].video, row.question) for row in asked]
    assert said == [row.answer for row in asked]


def test_names_are_found_as_they_are_spelt_in_lists_and_questions(data: Path, model: Path):
    processor = SceneProcessor.from_folder(model)
    rooms = _LookedAt(Rooms(data, processor, 4))
    text = "Which of these objects (coffee table, table, washing machine, chair)appears first in the video?"
    tokens = processor.chat.tokenizer.encode(text)
    found = [(CATEGORIES[of], processor.chat.tokenizer.decode([tokens[place]])) for place, of in rooms.named(tokens)]
    assert found == [
        ("coffee table", "coffee"), ("table", " table"), ("washing machine", " washing"), ("chair", " chair")
    ]  # fmt: skip
    prompt, targets = next(rooms.batches(Lesson(steps=1, learning_rate=1.0, scenes=2)))
    assert targets.vision.shape == (2, 2 * 4, 6) and targets.names.shape == (2, len(CATEGORIES), 6)
    tokens = np.concatenate([prompt.scene_tokens, prompt.question_tokens.reshape(2, -1)], axis=1)
    for row in range(2):
        words = processor.chat.tokenizer.batch_decode(tokens[row, targets.places[row]][:, None])
        named = [CATEGORIES[category - 1] for category in targets.names[row, :, 0]]
        assert sorted(named) == sorted(CATEGORIES) and [name.split()[0] for name in named] == [w.strip() for w in words]
    assert not np.array_equal(targets.names[0, :, 0], targets.names[1, :, 0])


def test_what_cannot_be_taught_is_one_line(data: Path, model: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    for lesson in ("look", "answer"):
        assert main([lesson, str(model), str(data), str(out), "--layers", "3"]) == 2
        assert "3 layers that look: " in capsys.readouterr().err
    assert main(["answer", str(model), str(data), str(out), *STEP, "--questions", "500"]) == 2
    assert re.search(r"0 rooms have 500 questions; a step needs 2", capsys.readouterr().err)
    write_tiny_model(tmp_path / "tied", 0, shape=TinyShape(64, 3, 96, 2, 2, 1))
    assert main(["answer", str(tmp_path / "tied"), str(data), str(out), *STEP]) == 2
    assert "its head is its embedding; make it with `convert.py tiny --untied`" in capsys.readouterr().err
    assert main(["look", str(model), str(data), str(out), *STEP, "--learning-rate", "0"]) == 2
    assert "learning rate 0.0: must be above 0" in capsys.readouterr().err
    assert main(["look", str(model), str(data), str(out), *STEP, "--steps", "25", "--learning-rate", "1e30"]) == 3
    assert "is not finite; teach with a smaller --learning-rate" in capsys.readouterr().err
    assert not out.exists()
    assert main(["look", str(model), str(data), str(model), *STEP]) == 2
    assert "exists and is not empty; give a new folder" in capsys.readouterr().err
    with pytest.raises(InputError, match="no frames/ folder"):
        Rooms(tmp_path, SceneProcessor.from_folder(model), 4)
    assert main(["look", str(model), str(data), str(out), "--scenes", "2", "--layers", "2", "--frames", "5"]) == 2
    assert "5 frames: must be even" in capsys.readouterr().err
    write_tiny_model(tmp_path / "other", 0, shape=SHAPE, family="qwen2_5_vl")
    assert main(["look", str(tmp_path / "other"), str(data), str(out), *STEP]) == 2
    assert "is a qwen2_5_vl; the lessons are for qwen2_vl" in capsys.readouterr().err
    untaught = tmp_path / "no-rooms"
    shutil.copytree(data, untaught)
    write_splits(untaught, {"train": [], "heldout": sorted(set().union(*read_splits(data).values()))})
    assert main(["look", str(model), str(untaught), str(out), *STEP]) == 2
    assert "no rooms to train on" in capsys.readouterr().err
