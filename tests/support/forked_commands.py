"""Commands of all kinds on small data, each as a process of its own, for the experiments of `tests.faults`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.support.faults import write_rows
from tests.support.forks import fork
from tests.support.runs import TINY_RECIPE

RECIPE = (
    TINY_RECIPE
    + """steps: 6
intervals: {checkpoint: 2, samples: 1}
"""
)
STUDY = """
base: recipe.yaml
seeds: [0]
evaluate: --data data --benchmark vsi-bench
arms:
  low: {set: {steps: 2}}
"""
ROOMS = ("--scenes", "3", "--frames-per-scan", "9", "--size", "96x72")
# command: script, arguments (it writes into OUT), what it adds to
COMMANDS: dict[str, tuple[str, Sequence[str], str | None]] = {
    "import": ("build_data.py", ("import", "rows.jsonl", "OUT/new", "--videos", "videos"), None),
    "rooms": ("build_data.py", ("rooms", "OUT/new", *ROOMS, "--workers", "1"), None),
    "rooms, workers": ("build_data.py", ("rooms", "OUT/new", *ROOMS, "--workers", "2"), None),
    "questions": ("build_data.py", ("questions", "rooms", "OUT/new", "--recipe", "vsi100k", "--workers", "1"), None),
    "frames": ("build_data.py", ("frames", "rooms", "OUT/new", "--frames", "4", "--max-pixels", "4000"), None),
    "features": ("build_data.py", ("features", "OUT/data", "--model", "tiny"), "data"),
    "tag": ("build_data.py", ("tag", "data", "OUT/new", "--tag", "think"), None),
    "show": ("build_data.py", ("show", "rooms", "scene0000_00", "--page", "OUT/page.html"), None),
    "train": ("train.py", ("--config", "recipe.yaml", "--run-dir", "OUT/run"), None),
    "evaluate": (
        "evaluate.py",
        ("--model", "tiny", "--data", "data", "--benchmark", "vsi-bench", "--split", "all", "--out", "OUT/scores"),
        None,
    ),
    "tiny": ("convert.py", ("tiny", "OUT/new"), None),
    "to-hf": ("convert.py", ("to-hf", "run", "OUT/new"), None),
    "report": ("report.py", ("OUT/run",), "run"),
    "tables": ("report.py", ("run", "run", "--out", "OUT/tables"), None),
    "study": ("study.py", ("--config", "study.yaml", "--out", "OUT/study"), None),
}


def arguments_of(name: str, out: Path) -> list[str]:
    """Script and arguments of a command that writes into `out`."""
    script, arguments, _ = COMMANDS[name]
    return [script, *(text.replace("OUT", str(out)) for text in arguments)]


def fill_place(folder: Path, tiny_model: Path, data_folder: Path) -> None:
    """What the commands read: `tiny`, `data`, `rooms`, `rows.jsonl`, recipes, and the finished run `run`."""
    shutil.copytree(tiny_model, folder / "tiny")
    shutil.copytree(data_folder, folder / "data")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "score.py").write_text("def vowels(completions, **c):\n    return [float(len(t)) for t in completions]\n")
    write_rows(folder / "rows.jsonl", folder / "videos", 500)
    assert fork("build_data.py", "rooms", "rooms", *ROOMS, "--workers", "1", cwd=folder).finish()[0] == 0
    assert fork("train.py", "--config", "recipe.yaml", "--run-dir", "run", cwd=folder).finish() == (0, "")
