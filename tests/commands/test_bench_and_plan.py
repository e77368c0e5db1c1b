"""`bench.py` and `train.py --dry-run --target`: what they are asked is done or refused, before anything is compiled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from launch import bench, train

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the table's data, which `bench.py --table` then takes for its own."""
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "launch" / "bench.py"))
    (tmp_path / "docs").mkdir()
    shutil.copy(DOCS / "hardware.json", tmp_path / "docs")
    return tmp_path / "docs"


def _refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    said = capsys.readouterr()
    assert code == 2 and said.out == "" and said.err.count("\n") == 1, said
    return said.err


@pytest.mark.slow
def test_the_table_is_made_by_its_flag_alone_of_targets_in_any_spelling(docs: Path) -> None:
    assert "`python launch/bench.py --table`" in (DOCS / "hardware.md").read_text(encoding="utf-8")
    (docs / "hardware.json").unlink()
    assert bench.main(["--table", "--target", "H100:1x1"]) == 0
    assert {row["target"] for row in json.loads((docs / "hardware.json").read_text())} == {"h100:1"}


def test_other_targets_than_the_tables_are_refused(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _refused(capsys, bench.main(["--table", "--target", "h100:2"]))
    assert "--target h100:2: not in the table, which has v5e:2x2, v5e:4x4," in line
    assert "target 'nonsense': no chip" in _refused(capsys, bench.main(["--table", "compile", "--target", "nonsense"]))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda text: text[:1000], "hardware.json: not JSON"),
        (lambda text: "{}", "hardware.json: expected a list"),
        (lambda text: text.replace('"fits"', '"fit"'), "hardware.json: [0]: unknown field 'fit'; did you mean 'fits'?"),
        (lambda text: text.replace("9414282768", '"much"'), "hardware.json: [0].memory_bytes: expected a whole number"),
    ],
)
def test_a_damaged_table_is_one_line(docs: Path, capsys: pytest.CaptureFixture[str], damage, line: str) -> None:
    kept = docs / "hardware.json"
    kept.write_text(damage(kept.read_text(encoding="utf-8")), encoding="utf-8")
    before = kept.read_bytes()
    assert line in _refused(capsys, bench.main(["--table", "arithmetic"]))
    assert kept.read_bytes() == before


@pytest.mark.parametrize("first", [["--run", "RUN"], ["--table"]])
@pytest.mark.parametrize(
    "unused", [["--json", "a.json"], ["--compile"], ["--mesh", "2"], ["--compare", "separate"], ["--questions", "2"]]
)
def test_a_run_and_the_table_take_no_other_flags(
    docs: Path, capsys: pytest.CaptureFixture[str], first: list[str], unused: list[str]
) -> None:
    assert f"{unused[0]}: not with {first[0]}, " in _refused(capsys, bench.main([*first, *unused]))


PLAN = ["--config", "vsgrpo-2b", "--shape", "tiny", "--dry-run"]


@pytest.mark.parametrize("target", [[], ["--target", "h100:2"]])
@pytest.mark.parametrize("unused", [["--compare", "separate"], ["--repeats", "3"]])
def test_a_step_that_is_only_compiled_is_not_timed(
    capsys: pytest.CaptureFixture[str], target: list[str], unused: list[str]
) -> None:
    line = _refused(capsys, bench.main(["--compile", *target, *unused]))
    assert f"{unused[0]}: nothing is run with --compile; leave one of them out" in line


@pytest.mark.parametrize(
    "unused",
    [
        ["--device", "tpu"], ["--deterministic"], ["--resume"], ["--changed-data"], ["--process-count", "5"],
        ["--process-id", "0"], ["--coordinator", "host:1"],
    ],
)  # fmt: skip
def test_a_plan_for_a_target_refuses_the_flags_of_a_run(capsys: pytest.CaptureFixture[str], unused: list[str]) -> None:
    line = _refused(capsys, train.main([*PLAN, "--target", "h100:1", *unused]))
    assert f"{unused[0]}: not with --target, which names the chips and runs nothing" in line


def test_an_empty_target_is_no_target(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a variable of the shell that is not set gives it."""
    for main, words in ((bench.main, ["--compile"]), (bench.main, ["--table"]), (train.main, PLAN)):
        assert "target '': no chip ''; there are v4, v5e," in _refused(capsys, main([*words, "--target", ""]))
    assert "--shape, --fit and --json belong together" in _refused(capsys, train.main(["--dry-run", "--shape", ""]))


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (bench.main, []),
        (bench.main, ["--compile"]),
        (bench.main, ["--compile", "--target", "h100:1"]),
        (train.main, [*PLAN, "--target", "h100:1"]),
        (train.main, [*PLAN, "--target", "h100:1", "--fit"]),
    ],
)
def test_where_figures_cannot_be_kept_nothing_is_compiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], main: Any, words: list[str]
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "none"
    for path, problem in (
        (folder / "plan.json", f"there is no folder {folder}"),
        (tmp_path / "file" / "plan.json", f"there is no folder {tmp_path / 'file'}"),
        (tmp_path, "is a folder or a device; expected the name of a file"),
        (Path("/dev/null"), "is a folder or a device; expected the name of a file"),
    ):
        assert f"error: --json {path}: {problem}" in _refused(capsys, main([*words, "--json", str(path)]))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.slow
def test_the_figures_of_a_compiled_step_are_whole_or_those_of_before(tmp_path: Path) -> None:
    """Read by another process while they are written, say."""
    kept = tmp_path / "plan.json"
    kept.write_text("before")
    (tmp_path / "name").hardlink_to(kept)  # the same file as long as nothing takes its place
    small = ["--questions", "1", "--rollouts", "2", "--frames", "2", "--answer-tokens", "2"]
    assert bench.main(["--compile", *small, "--json", str(kept)]) == 0
    assert json.loads(kept.read_text())["programs"] and (tmp_path / "name").read_text() == "before"
