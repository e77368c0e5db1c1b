"""`launch/train.py` on a tiny model and a small data folder: the whole way, in processes of its own."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxvsr.files import read_rows
from jaxvsr.runs.checkpoints import open_run
from jaxvsr.runs.model_source import open_model
from tests.support.forks import ROOT, Forked, fork
from tests.support.runs import TINY_RECIPE

pytestmark = pytest.mark.slow

TIMES = ("seconds/", "tokens_per_second", "compile_")
RECIPE = (
    TINY_RECIPE
    + """grpo: {beta: 0.01, reduction: grpo, kl: k3}
optimizer: {learning_rate: 0.001}
steps: 4
intervals: {checkpoint: 2, samples: 1}
"""
)
REWARD = """
def vowels(completions, **columns):
    return [float(sum(letter in "aeiou" for letter in text)) for text in completions]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path], data_folder: Path) -> Path:
    """A folder with model, data, reward and recipe, and the run `whole` in it."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "data").symlink_to(data_folder)
    shutil.copytree(tiny_model(), folder / "tiny")  # one test changes it
    (folder / "tiny" / "SHA256SUMS").unlink()
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "score.py").write_text(REWARD)
    script = [sys.executable, str(ROOT / "launch" / "train.py"), "--config", "recipe.yaml", "--run-dir", "whole"]
    subprocess.run(script, cwd=folder, check=True, timeout=500)
    return folder


def train(folder: Path, *arguments: str, code: int = 0) -> Forked:
    run = fork("train.py", *arguments, cwd=folder)
    assert run.finish()[0] == code, run.out() + run.err()
    return run


def rows(run: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if not name.startswith(TIMES)}
        for row in read_rows(run / "metrics.jsonl")
    ]


def test_a_run_writes_its_folder(place: Path) -> None:
    left = {path.name for path in (place / "whole").iterdir()}
    assert {"config.yaml", "metrics.jsonl", "samples.jsonl", "tensorboard", "checkpoints", "report.html"} <= left
    assert [row["step"] for row in rows(place / "whole")] == [1, 2, 3, 4]
    assert rows(place / "whole")[0]["kl"] == pytest.approx(0, abs=1e-9)


def test_tree_savings_compare_the_tree_with_separate_sequences(place: Path) -> None:
    done = fork("bench.py", "--run", "whole", "--scenes", "2", cwd=place)
    assert done.finish()[0] == 0, done.out() + done.err()
    kept = json.loads((place / "whole" / "tree_savings.json").read_text())
    assert kept["line"] in done.out() and kept["rollouts"] == 2 * 2 * 3
    # 12 sequences read their scene and question again: less than 12 times the tree, whose rollouts are nobody's twice.
    assert 2 < kept["separate_tokens"] / kept["tree_tokens"] < 12
    assert kept["gradient_difference"] < 1e-4


def test_a_killed_and_resumed_run_equals_the_uninterrupted_one_exactly(place: Path) -> None:
    train(place, "--config", "recipe.yaml", "--run-dir", "parted", "--time-limit", "0s")
    assert len(rows(place / "parted")) == 1
    said = train(place, "--run-dir", "parted", "--resume", "--set", "intervals.time_limit=null")
    assert "going on after step 1" in said.out()
    assert rows(place / "parted") == rows(place / "whole")
    assert list(read_rows(place / "parted" / "samples.jsonl")) == list(read_rows(place / "whole" / "samples.jsonl"))


def test_sigterm_saves_and_exits_with_143(place: Path) -> None:
    run = fork("train.py", "--config", "recipe.yaml", "--run-dir", "terminated", "--steps", "1000000", cwd=place)
    run.wait_for("step 1/")
    os.kill(run.pid, signal.SIGTERM)
    assert run.finish() == (143, "") and "stopped by SIGTERM, saved" in run.out()
    assert open_run(str(place / "terminated")).step == len(rows(place / "terminated"))


def test_processes_of_slurm_save_the_same_step_and_the_requeued_job_goes_on(place: Path) -> None:
    line = ("--config", "recipe.yaml", "--run-dir", "pair", "--resume")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "localhost", "JAX_COORDINATOR_PORT": port}
    first, second = (
        fork(
            "train.py",
            *(*line, "--steps", "1000000"),
            cwd=place,
            environment={**job, "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)},
        )
        for index in range(2)
    )
    first.wait_for("step 1/")
    os.kill(second.pid, signal.SIGTERM)
    assert [first.finish(), second.finish()] == [(143, ""), (143, "")], first.out()
    assert re.search(r"stopped by SIGTERM, saved .*\nreport pair/report\.html\n$", first.out()) and second.out() == ""
    saved = open_run(str(place / "pair")).step
    assert saved == len(rows(place / "pair"))
    for row in rows(place / "pair"):
        assert row["host_seconds/most"] >= row["host_seconds/least"] > 0 and row["slowest_process"] in (0, 1)

    assert f"going on after step {saved}" in train(place, *line, "--steps", str(saved + 1)).out()  # in one process
    assert [row["step"] for row in rows(place / "pair")] == list(range(1, saved + 2))
    whole, parted = (
        {
            (row["step"], row["question_id"]): [answer["text"] for answer in row["answers"]]
            for row in read_rows(place / run / "samples.jsonl")
        }
        for run in ("whole", "pair")
    )
    both = {key for key in whole.keys() & parted if key[0] <= 2}  # of two processes the first writes down its own
    assert len(both) >= 4 and {key: whole[key] for key in both} == {key: parted[key] for key in both}


def test_a_mesh_of_four_samples_the_same_tokens(place: Path) -> None:
    said = train(place, "--config", "recipe.yaml", "--run-dir", "mesh", "--mesh", "fsdp=2,tensor=2", "--steps", "2")
    assert said.out().startswith("4 virtual CPU devices (")
    one = [row for row in read_rows(place / "whole" / "samples.jsonl") if row["step"] <= 2]
    four = [row for row in read_rows(place / "mesh" / "samples.jsonl") if row["step"] <= 2][: len(one)]
    texts = [[[answer["text"] for answer in row["answers"]] for row in samples] for samples in (one, four)]
    assert texts[0] == texts[1]
    for alone, split in zip(rows(place / "whole"), rows(place / "mesh"), strict=False):
        assert split["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-3)


def test_a_run_started_from_a_run_begins_with_its_final_policy(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(place, "--config", "recipe.yaml", "--run-dir", "second", "--model", "whole", "--steps", "1")
    assert rows(place / "second")[0]["kl"] == pytest.approx(0, abs=1e-6)
    monkeypatch.chdir(place)
    first, second = open_model("whole"), open_model("second")
    assert [stage.lora for stage in second.stages] == [first.stages[0].lora] * 2
    name = "language_model.layers.self_attn.q_proj.weight"
    assert (first.read(name) != first.folder.read(name)).any()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--mesh", "3"], "data.scenes=2 does not divide over mesh fsdp=3"),
        (["--set", "lora.target_modules=nothing"], "matches no module"),
        (["--model", "whole@9"], "no such checkpoint; it has 2, 4"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(place: Path, arguments: list[str], says: str) -> None:
    done = train(place, "--config", "recipe.yaml", "--run-dir", "never", *arguments, code=2)
    assert says in done.err() and done.err().count("\n") == 1
    assert not (place / "never").exists()


def test_a_checkpoint_of_another_model_is_refused(place: Path) -> None:
    train(place, "--config", "recipe.yaml", "--run-dir", "changed", "--steps", "1")
    weights = (place / "tiny" / "model.safetensors").read_bytes()
    try:
        (place / "tiny" / "model.safetensors").write_bytes(weights[:-4] + b"\0\0\0\1")
        done = train(place, "--run-dir", "changed", "--resume", "--steps", "2", code=2)
    finally:
        (place / "tiny" / "model.safetensors").write_bytes(weights)
    assert "has changed since the run was made" in done.err()


def test_a_dry_run_prints_the_plan_and_writes_nothing(place: Path) -> None:
    done = train(place, "--config", "recipe.yaml", "--run-dir", "never", "--dry-run")
    assert "2 scenes × 2 questions × 3 answers = 12 rollouts" in done.out()
    bucket = next(line for line in done.out().splitlines() if line.startswith("bucket 1"))
    needs = [float(need) for need in re.findall(r"(?:sample|reference|update) (\d+(?:\.\d+)?)", bucket)]
    assert len(needs) == 3 and all(need > 0 for need in needs), "XLA's own count for each compiled function"
    assert "compiling   3 programs" in done.out()
    assert not (place / "never").exists()
