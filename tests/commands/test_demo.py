"""The demo's data: made by the first training that wants it, never half made, never in place of other data."""

import json
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest

from jaxvsr import demo_stages
from jaxvsr.config.config_file import find_config, read_config
from jaxvsr.data.data_folder import check_folder
from launch import ask, build_data, demo, train
from tests.support.forks import fork

LAUNCH = Path(train.__file__).parent
JOURNAL = Path("runs/demo-data-stages.json")


@pytest.fixture(autouse=True)
def few_rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_stages, "ROOMS", 5)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The subcommands that were started, in order; each only makes the folder or file of its result."""
    started: list[str] = []
    results = {"rooms": "scans", "questions": "questions.jsonl", "frames": "frames"}

    def run_child(arguments: list[str], environment: dict[str, str]) -> int:
        started.append(arguments[1])
        (demo_stages.DATA / results[arguments[1]]).mkdir(parents=True, exist_ok=True)
        return 0

    monkeypatch.setattr(demo_stages, "run_child", run_child)
    return started


def test_the_config_names_the_folder_that_the_stages_make() -> None:
    assert read_config(find_config(demo_stages.CONFIG)).data.folders == (str(demo_stages.DATA),)


@pytest.mark.slow
def test_the_demo_data_is_made_once_and_completely(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo_stages.make_missing_data(LAUNCH) == 0
    shown = capsys.readouterr().out
    assert "the demo's data is not there yet; making it takes less than a minute" in shown
    for number, command in enumerate(("rooms", "questions", "frames"), start=1):
        assert f"[{number}/3] {command}\n$ python launch/build_data.py {command} runs/demo-data " in shown
    check = check_folder(demo_stages.DATA)
    assert check.missing == () and any(line.startswith("scans: 5 ") for line in check.lines)
    written = (demo_stages.DATA / "questions.jsonl").stat().st_mtime_ns
    assert demo_stages.make_missing_data(LAUNCH) == 0
    assert capsys.readouterr().out == "" and (demo_stages.DATA / "questions.jsonl").stat().st_mtime_ns == written


def test_an_interrupted_stage_is_run_again(ran: list[str]) -> None:
    for left in ((), ("scans",), ("scans", "questions.jsonl"), ("scans", "questions.jsonl", "frames")):
        shutil.rmtree("runs", ignore_errors=True)
        for name in left:
            (demo_stages.DATA / name).mkdir(parents=True)
        done = demo_stages.data_stages()[: max(len(left) - 1, 0)]  # the last one was stopped before it was recorded
        for stage in done:
            stage.record()
        ran.clear()
        assert demo_stages.make_missing_data(LAUNCH) == 0
        assert ran == [stage.title for stage in demo_stages.data_stages()[len(done) :]]


def test_a_new_run_is_scored_without_an_earlier_ones_answers(tmp_path: Path) -> None:
    """They may be about the frames of earlier rooms, and `evaluate.py` would then refuse to go on."""
    for stage in demo_stages.demo_stages(tmp_path / "run", 0):
        if stage.arguments[0] == "evaluate.py":
            out = Path(stage.arguments[stage.arguments.index("--out") + 1])
            out.mkdir(parents=True)
            (out / "predictions.jsonl").write_text("")
            stage.prepare()
            assert not out.exists()


def test_demo_data_of_another_command_is_made_again(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo_stages.make_missing_data(LAUNCH) == 0
    ran.clear()
    monkeypatch.setattr(demo_stages, "HELDOUT_SHARE", 0.3)
    assert demo_stages.make_missing_data(LAUNCH) == 0
    assert ran == ["questions"] and "--heldout 0.3" in json.loads(JOURNAL.read_text())["questions"]


def test_a_folder_filled_by_hand_is_not_changed(ran: list[str]) -> None:
    demo_stages.DATA.mkdir(parents=True)
    (demo_stages.DATA / "questions.jsonl").touch()
    assert demo_stages.make_missing_data(LAUNCH) == 0
    assert ran == [] and not JOURNAL.exists()


def test_a_failing_stage_ends_the_command_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted = 128 + signal.SIGINT
    monkeypatch.setattr(demo_stages, "run_child", lambda *_: interrupted)
    assert train.main(["--mesh", "1"]) == interrupted
    captured = capsys.readouterr()
    assert captured.err == "stopped in stage 1, rooms; the same command continues it\n" and not JOURNAL.exists()


def test_without_open3d_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_stages.importlib.util, "find_spec", lambda name: None)
    assert train.main(["--mesh", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install jaxvsr[scans]" in error and not Path("runs").exists()


@pytest.mark.parametrize("other", ["--data", "--config", "data.folders"])
def test_the_demos_data_is_not_made_for_a_run_on_other_data(
    other: str, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    copied = Path("mine.yaml")
    shutil.copy(find_config(demo_stages.CONFIG), copied)
    flags = {"--data": ["--data", "mine"], "--config": ["--config", str(copied)]}
    assert train.main(["--mesh", "1", *flags.get(other, ["--set", "data.folders=mine"])]) == 2
    error = capsys.readouterr().err
    assert ran == [] and ("runs/demo-data" if other == "--config" else "mine") in error
    assert not demo_stages.DATA.exists()


def test_the_demos_data_is_not_made_for_a_mesh_that_does_not_divide_its_scenes(tmp_path: Path) -> None:
    process = fork("train.py", "--mesh", "7", cwd=tmp_path)
    code, error = process.finish()
    assert code == 2 and "data.scenes=8 does not divide over mesh fsdp=7" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_first_command_ends_with_a_trained_run(capfd: pytest.CaptureFixture[str]) -> None:
    small = ("steps=1", "data.scenes=2", "data.questions=2", "sampling.group=2", "sampling.answer_tokens=2")
    assert train.main(["--mesh", "1", "--run-dir", "runs/one", *(f"--set={text}" for text in small)]) == 0
    shown = capfd.readouterr().out
    assert shown.index("1 CPU device") < shown.index("[1/3] rooms") < shown.index("step 1/1")
    assert Path("runs/one/report.html").is_file()
    # The last lines of the demo work as they are printed.
    last = re.findall(r"python launch/(build_data|ask)\.py (.*)", demo._summary([], [], Path("runs/one")))
    assert [script for script, _ in last] == ["build_data", "ask"]
    for (_, line), script in zip(last, (build_data, ask), strict=True):
        assert script.main(shlex.split(line)) == 0
    assert "16 of 16 frames" in capfd.readouterr().out
