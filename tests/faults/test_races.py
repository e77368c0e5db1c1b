"""Two commands at almost the same time in one folder: one is refused in a line, or both are done in turn."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxvsr.data.questions import read_questions
from jaxvsr.files import read_rows
from tests.support.faults import Tally, write_rows
from tests.support.forks import fork
from tests.support.runs import TINY_RECIPE

STEPS = 40
RECIPE = (
    TINY_RECIPE
    + """steps: 40
intervals: {checkpoint: 2, samples: 1}
logging: {trackers: []}
"""
)
REWARD = "def vowels(completions, **columns):\n    return [float(len(text)) for text in completions]\n"


def test_two_imports(tmp_path: Path):
    tally, draw = Tally("two imports into one data folder, 0 to 1 s apart"), random.Random(0)
    for name in ("one", "two"):
        write_rows(tmp_path / f"{name}.jsonl", tmp_path / "videos", 1000)
    for number in range(40):
        out = tmp_path / f"out{number}"
        first = fork("build_data.py", "import", "one.jsonl", out, "--videos", "videos", cwd=tmp_path)
        time.sleep(draw.random())
        second = fork("build_data.py", "import", "two.jsonl", out, "--videos", "videos", cwd=tmp_path)
        ends = [first.finish(), second.finish()]
        done = [name for name, (code, _) in zip(("one", "two"), ends, strict=True) if code == 0]
        rows = [row.id for row in read_questions(out / "questions.jsonl")] if done else []
        missing = [name for name in done if sum(f"{name}-" in key for key in rows) != 1000]
        refused = [error for code, error in ends if code]
        assert all(code in (0, 2) and error.count("\n") == bool(code) for code, error in ends), ends
        tally.add("".join(refused), lost=bool(missing) or not done)
        shutil.rmtree(out)
    tally.check()


def test_frames_beside_questions(tmp_path: Path):
    tally, draw = Tally("`frames` and `questions` side by side, 0 to 1 s apart"), random.Random(1)
    rooms = ("--scenes", "3", "--frames-per-scan", "9", "--size", "96x72", "--workers", "1")
    assert fork("build_data.py", "rooms", "rooms", *rooms, cwd=tmp_path).finish() == (0, "")
    both = {
        "frames": ("frames", "rooms", "out", "--frames", "2,4", "--max-pixels", "4000"),
        "questions": ("questions", "rooms", "out", "--recipe", "vsi100k", "--workers", "1"),
    }
    for _ in range(10):
        order = draw.sample(list(both), 2)
        first = fork("build_data.py", *both[order[0]], cwd=tmp_path)
        time.sleep(draw.random())
        second = fork("build_data.py", *both[order[1]], cwd=tmp_path)
        ends = [first.finish(), second.finish()]
        card = (tmp_path / "out" / "card.md").read_text()
        done = [name for name, (code, _) in zip(order, ends, strict=True) if code == 0]
        sections = {"frames": "## Frames", "questions": "## Questions: vsi100k"}
        tally.add("".join(error for code, error in ends if code), lost=any(sections[name] not in card for name in done))
        shutil.rmtree(tmp_path / "out")
    tally.check()


@pytest.mark.parametrize("apart", [0.0, 0.3, 2.0])
def test_two_resumed_runs(apart: float, tmp_path: Path, tiny_model: Callable[..., Path], data_folder: Path):
    (tmp_path / "tiny").symlink_to(tiny_model())
    (tmp_path / "data").symlink_to(data_folder)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "score.py").write_text(REWARD)
    tally = Tally(f"two `train --resume` in one run folder, {apart:g} s apart")
    flags = ("--config", "recipe.yaml", "--run-dir", "run", "--resume")
    for _ in range(4):
        first = fork("train.py", *flags, cwd=tmp_path)
        time.sleep(apart)
        ends = [one.finish() for one in (first, fork("train.py", *flags, cwd=tmp_path))]
        steps = [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")]
        assert 0 in [code for code, _ in ends] and {code for code, _ in ends} <= {0, 2}, ends
        tally.add("".join(error for code, error in ends if code), lost=steps != list(range(1, STEPS + 1)))
        shutil.rmtree(tmp_path / "run")
    tally.check()
