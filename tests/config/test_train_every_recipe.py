"""Every recipe of configs/ trains: two steps on a tiny random model, procedural rooms and pictures, with only paths and
sizes changed. Five of them always, one of each kind; all with JAXVSR_ALL=1.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxvsr.config.config_file import read_config
from jaxvsr.config.reward_terms import rewards_from
from jaxvsr.fields import flat_fields, to_tree
from jaxvsr.files import read_rows
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.runs.run_folder import RunFolder
from launch import build_data, train
from tests.support.models import DEEP, SMALL
from tests.support.published_sets import write_vqasynth
from tests.support.recipes import CHOSEN

pytestmark = pytest.mark.slow

SIZES = {
    "steps": 2,
    "data.scenes": 2,
    "data.questions": 1,
    "data.max_pixels": 3136,
    "sampling.group": 2,
    "sampling.answer_tokens": 8,
    "evaluation.questions": 2,
    "logging.sample_questions": 2,
}
# Held-out answers compile a sampler of their own: one recipe keeps them.
EVALUATED = "vsgrpo-2b"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Path:
    """Tiny models of every family; rooms with the questions of both recipes; pictures and their mirror images."""
    root = tmp_path_factory.mktemp("recipes")
    scans = root / "rooms"
    write_vqasynth(root / "spacellava" / "train.parquet")
    for command in (
        ["rooms", scans, "--scenes", "8", "--seed", "3", "--frames-per-scan", "6", "--size", "80x60"],
        ["questions", scans, root / "vsi100k", "--recipe", "vsi100k", "--heldout", "0.3"],
        ["frames", scans, root / "vsi100k", "--frames", "2", "--max-pixels", "3136"],
        ["questions", scans, root / "sr", "--recipe", "spatial-r1", "--heldout", "0.3"],
        ["frames", scans, root / "sr", "--frames", "2", "--max-pixels", "3136"],
        ["import", root / "spacellava", root / "pictures", "--format", "vqasynth", "--mirror", "--heldout", "0.3"],
        ["frames", root / "pictures", root / "pictures", "--frames", "1", "--max-pixels", "3136"],
    ):
        assert build_data.main(list(map(str, command))) == 0
    for family in FAMILIES:
        (root / family).symlink_to(tiny_model(family, DEEP if family == "qwen3_vl" else SMALL))
    return root


def paths_of(name: str, place: Path) -> dict[str, object]:
    """Where a recipe finds model and data here."""
    family, data = "qwen2_vl", "vsi100k"
    if name.startswith(("spatial-r1", "svqa-r1")):
        family, data = "qwen2_5_vl", "sr" if name.startswith("spatial-r1") else "pictures"
    if "qwen3-vl" in name:
        family, data = "qwen3_vl", "vsi100k" if name.startswith("spatial") else "pictures"
    frames = 1 if data == "pictures" else 2
    return {"model.path": place / family, "data.folders": place / data, "data.frames": frames}


@pytest.mark.parametrize("recipe", CHOSEN, ids=lambda path: path.stem)
def test_a_recipe_trains_with_nothing_changed_but_paths_and_sizes(recipe: Path, place: Path) -> None:
    name, run = recipe.stem, place / "runs" / recipe.stem
    changed = {**SIZES, **paths_of(name, place)}
    if name != EVALUATED:
        changed["intervals.evaluate"] = 0
    sets = [word for field, value in changed.items() for word in ("--set", f"{field}={value}")]
    assert train.main(["--config", str(recipe), "--run-dir", str(run), "--device", "cpu", "--mesh", "1", *sets]) == 0

    was, ran = read_config(recipe), RunFolder(run).read_config()
    before, after = dict(flat_fields(to_tree(was))), dict(flat_fields(to_tree(ran)))
    assert {field for field in before if before[field] != after[field]} <= {*changed, "mesh.spec", "mesh.device"}
    rows = list(read_rows(run / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] is not None for row in rows)
    if was.objective == "grpo":
        names = {reward.name for reward in rewards_from(was.rewards)}
        logged = {name for name in names for row in rows if f"reward/{name}" in row}
        # Of Spatial-R1's two accuracies only one applies to a question.
        assert logged and names - logged <= {"spatial_r1_nar", "spatial_r1_mar"} and len(logged) > len(names) - 2
        assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
        assert ("view_consistency/difference" in rows[0]) == bool(was.view_consistency.rewards)
        asked = next(read_rows(run / "samples.jsonl"))["prompt"]
        assert ("<think>" in asked, "<observe>" in asked) == tags_of(was.data.prompt)
    else:
        assert all(row["grad_norm"] > 0 for row in rows)
    if was.objective == "dpo":
        assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)  # chosen and rejected are as likely as before
    if name == EVALUATED:
        assert 0 <= rows[1]["eval/overall"] <= 100


def tags_of(prompt: str) -> tuple[bool, bool]:
    """Which tags a prompt asks for, from the papers."""
    thinks = ("vsgrpo-think-train", "spatial-r1-april", "spatial-r1-may", "svqa-r1")
    return prompt in thinks, prompt == "vsgrpo-observe-train"
