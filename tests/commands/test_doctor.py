"""doctor.py in process: a sound setup, and each trap by the line that it gives."""

import shutil

import numpy as np
import pytest

from jaxvsr.data.features import FeatureStore
from jaxvsr.data.questions import Question, write_questions
from jaxvsr.data.splits import write_splits
from jaxvsr.data.video.frame_writer import FrameSettings, write_frames
from jaxvsr.models.huggingface import processor_tokens
from jaxvsr.prompts import prompt_from
from jaxvsr.runs.model_source import open_model
from jaxvsr.runs.trained_as import TrainedAs
from jaxvsr.training.stored_features import set_name
from launch.doctor import main
from tests.support.scans import write_sens_scan


@pytest.fixture
def examined(capsys):
    """`examined(model, data)`: exit code and the lines, each as (level, about, what)."""

    def examine(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, [tuple(line.split(maxsplit=2)) for line in capsys.readouterr().out.splitlines()]

    return examine


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_nothing_is_wrong_with_a_model_and_its_data(tiny_model, data_folder, examined, family):
    code, lines = examined(tiny_model(family), data_folder)
    assert code == 0
    assert {about for _, about, _ in lines} == {
        "model",
        "answers",
        "positions",
        "prompt",
        "asked",
        "data",
        "leak",
        "frames",
    }
    fine = {about for level, about, _ in lines if level == "fine"}
    assert fine >= {"model", "answers", "data", "leak", "frames"}
    (prompt,) = [(level, what) for level, about, what in lines if about == "prompt"]
    if family == "qwen3_vl":  # transformers 5.12 to 5.24 put one more pair of vision tokens around a video
        assert prompt[0] == "note" and "writes a video as 'wrapped', this model is asked with 'blocks'" in prompt[1]
    else:
        assert prompt[0] == "fine"


def test_a_processor_that_makes_another_prompt(tiny_model, examined, monkeypatch):
    made = processor_tokens._their_tokens

    def other(folder, video):
        tokens = made(folder, video)
        return np.concatenate([tokens[:3], tokens[4:]])

    monkeypatch.setattr(processor_tokens, "_their_tokens", other)
    code, lines = examined(tiny_model())
    ((level, what),) = [(level, what) for level, about, what in lines if about == "prompt"]
    assert (code, level) == (1, "wrong") and what.startswith("differs from transformers' processor from token 3 on")


def test_benchmark_scenes_that_are_trained_on(tmp_path, tiny_model, examined):
    names = ["scene0000_00", "scene0025_01", "scene0001_00"]
    scans = [write_sens_scan(tmp_path, name, frames=2, height=56, width=56) for name in names]
    data = tmp_path / "data"
    write_frames(scans, data, FrameSettings((2,), 4000))
    write_questions(data / "questions.jsonl", [Question(name, name, "a", "1?", None, "1", "number") for name in names])
    write_splits(data, {"train": names[:2], "heldout": names[2:]})
    code, lines = examined(tiny_model(), data)
    (leak,) = [what for level, about, what in lines if about == "leak"]
    assert code == 1 and leak.startswith("1 scenes in the train split are vsi-bench's (scene0025_01)")


def test_frames_of_another_number_and_rule_than_in_training(tiny_model, data_folder, tmp_path, examined):
    model = shutil.copytree(tiny_model(), tmp_path / "model")
    TrainedAs(prompt_from("question"), frames=16, max_pixels=50_176, rule="linspace").write(model)
    code, lines = examined(model, data_folder)
    wrong = [what for level, about, what in lines if level == "wrong" and about == "frames"]
    assert code == 1 and len(wrong) == 2
    assert "have no 16 frames" in wrong[0] and "fewer pixels than in training, 50,176 per frame" in wrong[1]


def test_features_of_another_tower(tiny_model, data_folder, tmp_path, examined):
    data = shutil.copytree(data_folder, tmp_path / "data")
    model = tiny_model()

    def store(name):
        features = np.zeros((1, 4, 8), np.float32)
        FeatureStore(data, name).write("scene0000_00", 2, features, mirrored=False, size=(56, 56), model=str(model))

    store("0123456789ab-float32")
    _, lines = examined(model, data)
    assert [level for level, about, _ in lines if about == "features"] == ["note"]
    store(set_name(open_model(str(model)), "bfloat16"))
    _, lines = examined(model, data)
    assert [level for level, about, _ in lines if about == "features"] == ["fine"]
