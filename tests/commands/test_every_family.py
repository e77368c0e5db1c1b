"""Every command takes a model of every family."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.runs.metrics_log import read_rows
from launch import ask, convert, evaluate, train
from tests.support.models import DEEP

RECIPE = """
data: {folders: [data], scenes: 2, questions: 2, frames: 2, prompt: question}
lora: {rank: 2, alpha: 4}
sampling: {group: 2, answer_tokens: 4}
grpo: {beta: 0.01, reduction: grpo, kl: k3}
steps: 2
intervals: {checkpoint: 2, samples: 1}
logging: {trackers: []}
"""
pytestmark = pytest.mark.slow


@pytest.fixture(params=FAMILIES)
def place(request, tmp_path, tiny_model, data_folder, monkeypatch):
    (tmp_path / "data").symlink_to(data_folder)
    (tmp_path / "tiny").symlink_to(tiny_model(request.param, DEEP))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "images").mkdir()
    for index in range(4):
        Image.fromarray(np.full((64, 96, 3), 40 * index, np.uint8)).save(tmp_path / "images" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(name, model, *more):
    arguments = ["--config", "recipe.yaml", "--run-dir", name, "--model", model, "--device", "cpu", "--mesh", "1"]
    assert train.main([*arguments, *more]) == 0
    rows = list(read_rows(f"{name}/metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2] and all(np.isfinite(row["loss"]) for row in rows)
    return rows


def test_train_in_stages_evaluate_ask_and_export(place, capsys):
    family = json.loads((place / "tiny" / "config.json").read_text())["model_type"]
    tower = ("--set", "model.tower=trained")
    whole = trained("sft", "tiny", "--objective", "sft", "--set", "lora=null", *tower)
    assert all(row["grad_norm"] > 0 for row in whole)
    trained("dpo", "sft", "--objective", "dpo")
    assert trained("grpo", "dpo")[0]["kl"] == pytest.approx(0, abs=1e-6)

    scored = ["--data", "data", "--benchmark", "vsi-bench", "--limit", "4", "--device", "cpu", "--mesh", "1"]
    assert evaluate.main(["--model", "grpo", *scored, "--out", "scores"]) == 0
    assert convert.main(["to-hf", "grpo", "whole"]) == 0
    assert convert.main(["to-hf", "dpo", "adapter", "--adapter"]) == 2  # a stage below it has no adapter: all weights
    assert convert.main(["verify", "whole", "--tokens", "2"]) == 0
    assert evaluate.main(["--model", "whole", *scored, "--out", "scores-whole"]) == 0
    given = [[row["prediction"] for row in read_rows(f"{out}/predictions.jsonl")] for out in ("scores", "scores-whole")]
    assert given[0] == given[1] and len(given[0]) == 4

    capsys.readouterr()
    asked = ["--model", "grpo", "--video", "images", "--device", "cpu", "--mesh", "1", "--show-prompt", "How many?"]
    assert ask.main(asked) == 0
    prompt = capsys.readouterr().out
    assert ("'<0.5 seconds>'" in prompt) == (family == "qwen3_vl")
    assert "<|video_pad|> x 6" in prompt if family == "qwen3_vl" else "<|video_pad|> x " in prompt
