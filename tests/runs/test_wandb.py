"""Weights & Biases through real checkpoints: the run's id comes back, and every step is there once, in killed,
resumed and offline runs. A stand-in keeps what the server would: no step a second time, nothing that was not committed.
"""

import importlib.machinery
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxvsr.runs.checkpoints import Checkpoints
from launch import train

pytestmark = pytest.mark.slow

RECIPE = """
objective: sft
model: {path: tiny}
lora: {rank: 2, alpha: 4}
data: {folders: [data], scenes: 1, questions: 1, frames: 2, prompt: question}
sampling: {answer_tokens: 4}
steps: 5
intervals: {checkpoint: 2, evaluate: 0}
logging: {trackers: [wandb]}
"""


class Killed(BaseException):
    """The process ends without a word."""


class Server(types.ModuleType):
    """What is used of wandb, and what its server keeps: rows by run and step."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.Table = lambda columns, data: {"columns": columns, "data": data}
        self.runs: dict[str, dict[int, dict[str, Any]]] = {}
        self.refused: list[int] = []  # steps that came a second time
        self.resumes: list[str | None] = []
        self.kill_after: int | None = None

    def init(self, *, id: str | None, resume: str | None, **settings: Any) -> Any:
        self.resumes.append(resume)
        if resume == "must" and id not in self.runs:
            raise RuntimeError(f"run {id} does not exist")
        name = id or f"run{len(self.runs)}"
        kept = self.runs.setdefault(name, {}) if resume else self.runs.setdefault(f"{name}/{len(self.resumes)}", {})
        if not resume:
            self.runs[name] = kept
        held: dict[int, dict[str, Any]] = {}

        def log(row: dict[str, Any], step: int, commit: bool = False) -> None:
            if step <= max(kept, default=-1):
                self.refused.append(step)
                return
            kept.update({known: value for known, value in held.items() if known < step})
            held.clear()
            (kept if commit else held)[step] = row
            if step == self.kill_after:
                raise Killed

        return types.SimpleNamespace(
            id=name, starting_step=max(kept) + 1 if kept else 0, log=log, finish=lambda: kept.update(held)
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path], data_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("wandb")
    (folder / "data").symlink_to(data_folder)
    (folder / "tiny").symlink_to(tiny_model())
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def server(place: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    stand_in = Server()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.chdir(place)
    return stand_in


def run(folder: str, *more: str) -> int:
    return train.main(["--config", "recipe.yaml", "--run-dir", folder, "--device", "cpu", "--mesh", "1", *more])


def kept_id(folder: str, step: int) -> str | None:
    checkpoints = Checkpoints(Path(folder) / "checkpoints")
    try:
        return checkpoints.record(step).run_id
    finally:
        checkpoints.close()


def rows_of(folder: str) -> dict[int, dict[str, Any]]:
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return {row.pop("step"): row for row in rows}


def test_a_killed_run_resumes_as_the_same_wandb_run_with_every_step_once(server: Server, place: Path) -> None:
    server.kill_after = 3  # its last checkpoint is that of step 2
    with pytest.raises(Killed):
        run("killed")
    assert kept_id("killed", 2) == "run0" and sorted(server.runs["run0"]) == [1, 2, 3]
    before = dict(server.runs["run0"])
    server.kill_after = None
    assert run("killed", "--resume") == 0
    assert server.resumes == [None, "must"] and kept_id("killed", 5) == "run0"
    assert sorted(server.runs["run0"]) == [1, 2, 3, 4, 5] and server.refused == []
    assert {step: server.runs["run0"][step] for step in before} == before
    # What was made again is what was there: a resumed run repeats its steps exactly.
    assert {step: row["loss"] for step, row in server.runs["run0"].items()} == {
        step: row["loss"] for step, row in rows_of("killed").items()
    }


def test_rows_that_were_not_sent_before_a_kill_are_sent_on_resume(server: Server, place: Path) -> None:
    server.kill_after = 3
    with pytest.raises(Killed):
        run("lost")
    for step in (2, 3):
        del server.runs["run0"][step]  # they were on their way
    server.kill_after = None
    assert run("lost", "--resume") == 0
    assert sorted(server.runs["run0"]) == [1, 2, 3, 4, 5] and server.refused == []
    assert server.runs["run0"][2] == rows_of("lost")[2]


def test_rows_of_a_part_without_wandb_are_sent_later_under_the_same_id(server: Server, place: Path) -> None:
    assert run("parted", "--steps", "2") == 0
    assert run("parted", "--resume", "--steps", "4", "--set", "logging.trackers=") == 0
    assert kept_id("parted", 4) == "run0" and sorted(server.runs["run0"]) == [1, 2]
    assert run("parted", "--resume", "--steps", "5", "--set", "logging.trackers=wandb") == 0
    assert server.resumes == [None, "must"] and sorted(server.runs["run0"]) == [1, 2, 3, 4, 5]


def test_the_newest_offline_folder_has_the_whole_run(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run("offline", "--steps", "2") == 0
    assert run("offline", "--resume", "--steps", "4") == 0
    assert server.resumes == [None, None] and list(server.runs)[-1] == "run0/2"
    assert sorted(server.runs["run0/2"]) == [1, 2, 3, 4] and server.refused == []


def test_a_run_unknown_to_the_server_is_refused_in_one_line(
    server: Server, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("gone", "--steps", "2") == 0
    server.runs.clear()
    capsys.readouterr()
    assert run("gone", "--resume", "--steps", "4") == 2
    complaint = capsys.readouterr().err
    assert "wandb cannot start (run run0 does not exist)" in complaint and complaint.count("\n") == 1
    assert run("gone", "--resume", "--steps", "4", "--set", "logging.trackers=") == 0
