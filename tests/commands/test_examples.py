"""The examples do what they say: an own reward, an own data set, and an own task from scans to scores."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvsr.config.reward_terms import rewards_from
from jaxvsr.data.geometry.mirrored_scene import mirrored_scene
from jaxvsr.data.questions import read_questions
from jaxvsr.data.recipes import generate_questions
from jaxvsr.data.recipes.recipe import Census, load_recipe
from jaxvsr.data.scannet.read_scan import read_scene
from jaxvsr.files import read_rows
from jaxvsr.rewards.scoring import score_completions
from launch import build_data, evaluate, train

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPE = str(EXAMPLES / "height_recipe.py")


@pytest.fixture(scope="module")
def heights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder made by the recipe, mirrored questions included."""
    data = tmp_path_factory.mktemp("heights") / "data"
    rooms = ["rooms", str(data), "--scenes", "6", "--seed", "1", "--frames-per-scan", "6", "--size", "80x60"]
    for arguments in (
        rooms,
        ["questions", str(data), str(data), "--recipe", RECIPE, "--mirror", "--heldout", "0.3"],
        ["frames", str(data), str(data), "--frames", "2", "--max-pixels", "3136"],
    ):
        assert build_data.main(arguments) == 0
    return data


def test_the_custom_task_asks_for_the_heights_that_rooms_were_built_with(heights: Path) -> None:
    rows = read_questions(heights / "questions.jsonl")
    asked = [row for row in rows if row.mirror_of is None]
    assert asked and {row.question_type for row in rows} == {"object_height"}
    for row in asked:
        scene = read_scene(heights / "scans" / row.scene)
        (item,) = (one for one in scene.objects if row.question == f"How high is the {one.category}, in centimeters?")
        assert float(row.answer) == pytest.approx(100 * np.ptp(item.points[:, 2]), abs=0.5)


@pytest.mark.slow
def test_a_recipe_file_asks_the_same_in_several_processes(heights: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(generate_questions, "_SCANS_WORTH_PROCESSES", 2)
    for out, workers in (("one", "1"), ("two", "2")):
        arguments = ["--recipe", RECIPE, "--mirror", "--set", "minimum_cm=60", "--set", "per_scene=3"]
        assert build_data.main(["questions", str(heights), str(tmp_path / out), *arguments, "--workers", workers]) == 0
    rows = read_questions(tmp_path / "two" / "questions.jsonl")
    assert len({row.scene for row in rows}) > 2 and min(float(row.answer) for row in rows) >= 60
    assert rows == read_questions(tmp_path / "one" / "questions.jsonl")


def test_mirror_images_of_the_custom_task_equal_questions_about_the_mirrored_room(heights: Path) -> None:
    rows = read_questions(heights / "questions.jsonl")
    recipe = load_recipe(RECIPE)
    (task,) = recipe.tasks(recipe.options, Census())
    images = {row.mirror_of: row for row in rows if row.mirror_of}
    for scene in {row.scene for row in rows}:
        mirrored = mirrored_scene(read_scene(heights / "scans" / scene))
        expected = {row.question: row.answer for row in task.generate(mirrored, np.random.default_rng(0))}
        for row in rows:
            if row.scene == scene and row.mirror_of is None:
                assert expected[images[row.id].question] == images[row.id].answer


@pytest.mark.slow
def test_the_custom_task_is_trained_with_mirror_images_and_evaluated(
    heights: Path, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    settings = {
        "steps": 2, "data.scenes": 4, "data.questions": 1, "data.frames": 2, "data.mirror": "pairs",
        "data.skip_short_scenes": True, "sampling.group": 2, "sampling.answer_tokens": 4,
        "view_consistency.rewards": "within_a_tenth", "lora.rank": 2, "lora.alpha": 4, "intervals.evaluate": 2,
        "evaluation.questions": 1, "view_consistency.delta": 0.05,
    }  # fmt: skip
    sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    run = tmp_path / "run"
    base = ["--model", str(tiny_model()), "--data", str(heights), "--run-dir", str(run), "--device", "cpu"]
    reward = f"{EXAMPLES / 'own_reward.py'}:within_a_tenth"
    heldout = ["--set", "data.scenes=4", "--set", "evaluation.split=train"]
    assert train.main([*base, "--rewards", reward, "--prompt", "question", *sets, *heldout]) == 0
    rows = list(read_rows(run / "metrics.jsonl"))
    assert "reward/within_a_tenth/object_height" in rows[0] and "view_consistency/difference" in rows[0]
    assert "eval/object_height" in rows[1]
    out = tmp_path / "eval"
    arguments = ["--model", str(run), "--data", str(heights), "--benchmark", "vsi-bench", "--out", str(out)]
    assert evaluate.main([*arguments, "--frames", "2", "--prompt", "question", "--limit", "2"]) == 0
    assert "object_height" in json.loads((out / "scores.json").read_text())


def test_the_custom_reward_scores_numbers_and_skips_words() -> None:
    (reward,) = rewards_from(f"{EXAMPLES / 'own_reward.py'}:within_a_tenth")
    columns = {"answer": ["100", "100", "100", "left"], "answer_kind": ["number", "number", "number", "word"]}
    scores = score_completions([reward], ["about 95 cm", "<answer>150</answer>", "no idea", "left"], columns)
    np.testing.assert_allclose(scores, [[1.0, 0.1, 0.0, np.nan]])


def test_custom_questions_are_paired_with_custom_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for clip in ("kitchen", "office"):
        (tmp_path / "videos" / clip).mkdir(parents=True)
        for number in range(3):
            frame = np.full((56, 56, 3), 40 * number, np.uint8)
            Image.fromarray(frame).save(tmp_path / "videos" / clip / f"{number}.png")
    source = str(EXAMPLES / "own_questions.jsonl")
    renamed = "question=problem,answer=solution,video=clip"
    arguments = ["import", source, str(tmp_path / "own"), "--videos", str(tmp_path / "videos"), "--map", renamed]
    assert build_data.main(arguments) == 0
    assert "4 questions out of 4 rows" in capsys.readouterr().out
    rows = read_questions(tmp_path / "own" / "questions.jsonl")
    assert [row.answer for row in rows] == ["4", "left", "2.5", "B"]
    assert [row.answer_kind for row in rows] == ["number", "word", "number", "choice"]
