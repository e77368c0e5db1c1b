"""Damaged files of every kind that is read: one line, or read all the same; no traceback, no hang."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.damage import mutated
from tests.support.faults import Tally
from tests.support.forks import fork

OF_EACH = 10
SCENE, ROOM, FEATURES = "scene0006_00", "scene0000_00", "features/*/scene0000_00/2"
ANSWER = (
    "evaluate.py",
    "--model",
    "tiny",
    "--data",
    "data",
    "--benchmark",
    "vsi-bench",
    "--limit",
    "1",
    "--out",
    "OUT",
)
CONSTANT = ("evaluate.py", "--model", "best-constant", "--data", "data", "--benchmark", "vsi-bench", "--out", "OUT")
SCORE = ("evaluate.py", "--score", "scores/predictions.jsonl", "--benchmark", "vsi-bench", "--out", "OUT")
EXPORT, EXPORT_RUN = ("convert.py", "to-hf", "tiny", "OUT"), ("convert.py", "to-hf", "run", "OUT")
REPORT, CHECK = ("report.py", "run"), ("build_data.py", "check", "data")
COMPARE = ("report.py", "run", "--compare", "start=scores", "after=scores")
STUDY = ("study.py", "--config", "study.yaml", "--out", "study", "--dry-run")
QUESTIONS = ("build_data.py", "questions", "rooms", "OUT", "--recipe", "vsi100k", "--workers", "1")
FRAMES = ("build_data.py", "frames", "rooms", "OUT", "--frames", "4", "--max-pixels", "4000")
RESUME = ("train.py", "--run-dir", "run", "--resume", "--steps", "7")
TRAIN = ("train.py", "--config", "recipe.yaml", "--run-dir", "OUT", "--steps", "3")  # all scenes
# file in the place: a command that reads it
READ: dict[str, Sequence[str]] = {
    "rows.jsonl": ("build_data.py", "import", "rows.jsonl", "OUT", "--videos", "videos"),
    "data/questions.jsonl": CONSTANT,
    "data/splits.json": CONSTANT,
    "data/card.md": CHECK,
    f"data/frames/{SCENE}/zarr.json": ANSWER,
    f"data/frames/{SCENE}/c/0/0/0/0": ANSWER,
    f"data/{FEATURES}/zarr.json": TRAIN,
    f"data/{FEATURES}/c/0/0/0": TRAIN,
    "rooms/scans/*/*.ply": QUESTIONS,
    "rooms/scans/*/*.json": QUESTIONS,
    "rooms/scans/*/*.txt": QUESTIONS,
    "rooms/scans/*/*.sens": FRAMES,
    "tiny/config.json": EXPORT,
    "tiny/generation_config.json": ANSWER,
    "tiny/preprocessor_config.json": ANSWER,
    "tiny/tokenizer.json": ANSWER,
    "tiny/tokenizer_config.json": ANSWER,
    "tiny/chat_template.j*": ANSWER,
    "tiny/model.safetensors": EXPORT,
    "run/config.yaml": EXPORT_RUN,
    "run/trained_as.json": EXPORT_RUN,
    "run/metrics.jsonl": REPORT,
    "run/samples.jsonl": REPORT,
    "run/hacking.jsonl": REPORT,
    "run/checkpoints/6/_CHECKPOINT_METADATA": RESUME,
    "run/checkpoints/6/weights/d/*": EXPORT_RUN,
    "adapter/adapter_config.json": ("convert.py", "to-hf", "adapter", "OUT"),
    "adapter/adapter_model.safetensors": ("convert.py", "to-hf", "adapter", "OUT"),
    "scores/predictions.jsonl": SCORE,
    "scores/scores.json": COMPARE,
    "study.yaml": STUDY,
    "recipe.yaml": STUDY,
    "study/manifest.json": STUDY,
}


@pytest.fixture(scope="module")
def files(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the place with files of the other kinds that are read, and without what tells a changed model."""
    folder = tmp_path_factory.mktemp("mutations") / "place"
    shutil.copytree(place, folder)
    for command in (
        ("build_data.py", "features", "data", "--model", "tiny"),
        ("convert.py", "to-hf", "run", "adapter", "--adapter"),
        (*ANSWER[:-4], "--split", "all", "--out", "scores"),
    ):
        assert fork(*command, cwd=folder).finish() == (0, ""), command
    (folder / "study").mkdir()
    (folder / "study" / "manifest.json").write_text('{"seed-1/low train": {"command": "x", "seconds": 1.5}}\n')
    for sums in folder.glob("*/SHA256SUMS"):
        sums.unlink()
    return folder


@pytest.mark.parametrize("name", READ)
def test_mutated_files(name: str, files: Path, tmp_path: Path):
    path, rng = sorted(files.glob(name))[0], np.random.default_rng(len(name))
    command = [text.replace("OUT", str(tmp_path / "out")) for text in READ[name]]
    whole, run = path.read_bytes(), tmp_path / "run"
    shutil.copytree(files / "run", run)
    code, error = fork(*command, cwd=files).finish()
    assert (code, error) == (0, "")
    tally, refused = Tally(f"damaged {name}"), 0
    try:
        for _ in range(OF_EACH):
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            if command[0] in ("train.py", "report.py"):  # they write into the run
                shutil.rmtree(files / "run")
                shutil.copytree(run, files / "run")
            path.write_bytes(mutated(rng, whole))
            code, error = fork(*command, cwd=files).finish(120)
            assert code in (0, 2), (code, error)
            refused += code == 2
            tally.add(error, silent=code == 2 and not (error.count("\n") == 1 and error.startswith("error: ")))
    finally:
        shutil.rmtree(files / "run")
        shutil.copytree(run, files / "run")
        path.write_bytes(whole)
    print(f"refused {refused} of {OF_EACH}")
    tally.check()
