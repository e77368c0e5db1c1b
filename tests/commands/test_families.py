"""A walk through the commands with a model of each family but Qwen2-VL, which the other tests of commands take."""

import json
from pathlib import Path
from typing import Any

import pytest

from jaxvsr.files import read_rows
from jaxvsr.models.huggingface.processor_tokens import compare_prompts
from launch import ask, build_data, convert, evaluate, train
from tests.support.data_folders import write_data_folder
from tests.support.files import contents
from tests.support.forks import said_by
from tests.support.models import DEEP, SMALL
from tests.support.runs import TINY_RECIPE

pytestmark = pytest.mark.slow

WALKS: dict[str, Any] = {"qwen2_5_vl": (SMALL, 56, "linspace"), "qwen3_vl": (DEEP, 64, "qwen3-vl")}
RECIPE = TINY_RECIPE.replace("score.py:vowels", "vsi_bench").replace(
    "scenes: 2, questions: 2", "scenes: 1, questions: 1"
)


@pytest.mark.parametrize("family", WALKS)
def test_commands_work_with_every_family(tiny_model, family, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shape, side, rule = WALKS[family]
    scans = write_data_folder(tmp_path, scenes=3, questions=2, side=side, rule=rule).parent / "scans"
    model = str(tiny_model(family, shape))
    Path("recipe.yaml").write_text(RECIPE.replace("path: tiny", f"path: {model}"))

    assert build_data.main(["features", "data", "--model", model]) == 0
    assert build_data.main(["check", "data"]) == 0
    assert f"4 tokens of {side // 2}×{side // 2} pixels per two frames" in capsys.readouterr().out
    on_cpu = ["--device", "cpu", "--mesh", "1"]
    run = ["--run-dir", "run", *on_cpu]
    assert train.main(["--config", "recipe.yaml", "--set", "data.features=require", "--steps", "1", *run]) == 0
    assert train.main(["--steps", "2", "--resume", *run]) == 0
    assert [row["step"] for row in read_rows(Path("run/metrics.jsonl"))] == [1, 2]

    assert convert.main(["to-hf", "run", "merged"]) == 0
    assert convert.main(["to-hf", "run", "adapter", "--adapter"]) == 0
    assert convert.main(["from-hf", "merged", "stacked"]) == 0
    assert convert.main(["to-hf", "stacked", "back"]) == 0
    assert contents(Path("merged")) == contents(Path("back"))
    assert convert.main(["verify", "merged", "--tokens", "4"]) == 0
    assert "the same model" in capsys.readouterr().out
    as_theirs = compare_prompts(Path("merged"), "wrapped" if family == "qwen3_vl" else "blocks")
    assert as_theirs.first_difference is None

    said = []
    for name in ("run", "merged", "adapter"):
        asked = ["--model", name, "--video", str(scans / "scene0000_00"), "--show-prompt", "How many?"]
        assert ask.main([*asked, *on_cpu]) == 0
        shown = capsys.readouterr()
        assert (
            f"trained with prompt question, 2 frames{'' if rule == 'linspace' else f' by the rule {rule}'}" in shown.err
        )
        said.append(shown.out.rpartition("\n\n")[0])
    assert said[0] == said[1] == said[2] and "<|video_pad|> x 4" in said[0]
    assert ("seconds>" in said[0]) == (family == "qwen3_vl")

    asked = ["--data", "data", "--benchmark", "vsi-bench", *on_cpu]
    assert evaluate.main(["--model", "run", *asked, "--out", "scores"]) == 0
    assert json.loads(Path("scores/scores.json").read_text())["frames"] == 2


ON_MESHES = """
from launch import train

for run, mesh in (("eight", "data=2,fsdp=2,tensor=2"), ("one", "1")):
    line = ["--config", "recipe.yaml", "--run-dir", run, "--device", "cpu", "--mesh", mesh]
    assert train.main(line) == 0
"""
SPREAD = """steps: 2
grpo: {beta: 0.01, kl: k3}
optimizer: {learning_rate: 0.01}
intervals: {samples: 1}
"""
LENGTHS = "def length(completions, **columns):\n    return [len(text) / 10 for text in completions]\n"


def test_qwen3_vl_over_data_fsdp_and_tensor_draws_and_learns_as_on_one_device(tiny_model, tmp_path):
    """What DeepStack adds behind the first layer follows its scenes over eight devices, and reaches the second."""
    write_data_folder(tmp_path, scenes=5, questions=2, side=64, rule="qwen3-vl")
    recipe = TINY_RECIPE.replace("path: tiny", f"path: {tiny_model('qwen3_vl', DEEP)}")
    recipe = recipe.replace("scenes: 2, questions: 2", "scenes: 4, questions: 1").replace("vowels", "length")
    (tmp_path / "recipe.yaml").write_text(recipe + SPREAD)
    (tmp_path / "score.py").write_text(LENGTHS)
    assert "8 virtual CPU devices" in said_by(ON_MESHES, cwd=tmp_path)
    one, eight = (list(read_rows(tmp_path / run / "metrics.jsonl")) for run in ("one", "eight"))
    drawn, drawn_by_eight = (
        [[answer["text"] for answer in row["answers"]] for row in read_rows(tmp_path / run / "samples.jsonl")]
        for run in ("one", "eight")
    )
    assert drawn == drawn_by_eight and len(drawn) >= 8
    assert one[1]["kl"] > 1e-6
    for row, other in zip(one, eight, strict=True):
        for name in ("loss", "entropy", "kl", "grad_norm", "weight_norm"):
            assert other[name] == pytest.approx(row[name], rel=1e-3, abs=1e-6), name
