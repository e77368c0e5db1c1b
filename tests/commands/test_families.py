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
from tests.support.models import SMALL
from tests.support.runs import TINY_RECIPE

pytestmark = pytest.mark.slow

RULES: dict[str, Any] = {"qwen2_5_vl": (56, "linspace"), "qwen3_vl": (64, "qwen3-vl")}
RECIPE = TINY_RECIPE.replace("score.py:vowels", "vsi_bench").replace(
    "scenes: 2, questions: 2", "scenes: 1, questions: 1"
)


@pytest.mark.parametrize("family", RULES)
def test_commands_work_with_every_family(tiny_model, family, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    side, rule = RULES[family]
    scans = write_data_folder(tmp_path, scenes=3, questions=2, side=side, rule=rule).parent / "scans"
    model = str(tiny_model(family, SMALL))
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
