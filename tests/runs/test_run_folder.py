"""Run folders: who may write into one, and what a resumed run cuts."""

import importlib.machinery
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from jaxvsr.config.config_file import parse_assignment, read_config
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.errors import InputError
from jaxvsr.files import read_rows
from jaxvsr.runs.checkpoints import RunRecord
from jaxvsr.runs.metrics_log import MetricsLog, check_trackers
from jaxvsr.runs.run_folder import (
    RunFolder,
    check_run_folder,
    check_same_settings,
    cut_rows,
    default_run_folder,
    make_run_folder,
)


def config(*assignments: str) -> TrainConfig:
    return read_config(None, [parse_assignment(text) for text in ("data.folders=d", "model.path=m", *assignments)])


def test_a_folder_that_is_not_empty_is_refused_without_resume(tmp_path: Path) -> None:
    make_run_folder(tmp_path / "run", config())
    with pytest.raises(InputError, match="is not empty; give another --run-dir, or --resume to continue it"):
        check_run_folder(tmp_path / "run", config(), resume=False)
    assert check_run_folder(tmp_path / "run", config(), resume=True).read_config() == config()


def test_resume_of_an_empty_folder_starts_from_step_0(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        folder = check_run_folder(tmp_path / name, config(), resume=True)
        assert folder.path == tmp_path / name and not folder.config.exists()
        assert make_run_folder(folder.path, config("steps=3")).read_config().steps == 3


def test_a_folder_that_is_no_run_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear to me")
    with pytest.raises(InputError, match="not a run folder"):
        check_run_folder(tmp_path, config(), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "change",
    [
        "steps=500",
        "mesh.spec=8",
        "intervals.checkpoint=7",
        "logging.project=p",
        "update.skip_not_finite=3",
        "data.workers=5",
    ],
)
def test_steps_mesh_intervals_and_logging_may_change(change: str, tmp_path: Path) -> None:
    make_run_folder(tmp_path, config())
    assert config(change) != config()
    assert check_run_folder(tmp_path, config(change), resume=True).read_config() == config()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "sampling.group=4",
            "sampling.group was 8 in .*, now it is 4; only steps, mesh, intervals, logging, data.workers, model",
        ),
        ("seed=3", "seed was 0 .* now it is 3"),
        ("lora=null", "lora"),
        ("data.folders=d,e", r"data.folders was \['d'\] .* now it is \['d', 'e'\]"),
    ],
)
def test_other_changed_settings_are_refused_with_old_and_new_value(change: str, says: str, tmp_path: Path) -> None:
    make_run_folder(tmp_path, config())
    with pytest.raises(InputError, match=says):
        check_run_folder(tmp_path, config(change), resume=True)


def test_a_record_of_before_a_setting_could_change_is_gone_on_with(tmp_path: Path) -> None:
    check_same_settings({"data.workers": 2, "seed": 0}, {"seed": 0}, tmp_path)
    with pytest.raises(InputError, match="seed was 1"):
        check_same_settings({"data.workers": 2, "seed": 1}, {"seed": 0}, tmp_path)


def test_the_default_name_is_found_again_by_resume(tmp_path: Path) -> None:
    fresh = default_run_folder("demo-grpo", 3, resume=False, root=tmp_path)
    assert fresh.name.startswith("demo-grpo-") and fresh.name.endswith("-3")
    assert default_run_folder("demo-grpo", 3, resume=True, root=tmp_path).parent == tmp_path
    for name in ("demo-grpo-20250101-000000-3", "demo-grpo-20250102-000000-3", "demo-grpo-20250103-000000-4"):
        (tmp_path / name).mkdir()
    assert default_run_folder("demo-grpo", 3, resume=True, root=tmp_path).name == "demo-grpo-20250102-000000-3"


def test_rows_after_the_restored_step_and_a_torn_last_line_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 0.25}\n{"step": 3}\n{"step": 4, "lo')
    cut_rows(path, 2)
    assert path.read_text() == '{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 0.25}\n'


def test_logs_continue_after_the_restored_step(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path, config("logging.trackers="))
    for restored, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        log = MetricsLog(folder, config("logging.trackers="), restored_step=restored)
        for step in steps:
            log.write(step, {"value": restored})
        log.close()
    assert [(row["step"], row["value"]) for row in read_rows(folder.metrics)] == [(1, 0), (2, 0), (3, 2), (4, 2)]


def test_tensorboard_has_the_logged_metrics_and_a_resumed_run_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = RunFolder(tmp_path / "run")
    make_run_folder(folder.path, config())
    for restored, steps in ((0, (1, 2, 3)), (1, (2, 3))):
        log = MetricsLog(folder, config(), restored_step=restored)
        for step in steps:
            log.write(step, {"reward/mean": step + 10.0 * restored, "huge": 1e300, "text": "left out"})
        log.close()
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    assert set(events.Tags()["scalars"]) == {"reward/mean", "huge"}
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(1, 1.0), (2, 12.0), (3, 13.0)]


def test_tensorboard_has_a_run_restarted_without_a_checkpoint_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = make_run_folder(tmp_path / "run", config())
    for value in (1.0, 2.0):
        log = MetricsLog(folder, config(), restored_step=0)
        for step in (1, 2):
            log.write(step, {"loss": value})
        log.close()
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (2, 2.0)]


SAMPLES = [
    {
        "question": "How many?",
        "answer": "4",
        "answers": [{"text": "4", "reward": 1.0}, {"text": "a `b`|\nc", "reward": 0.25}],
    }
]


def test_tensorboard_has_a_table_of_samples_and_a_page_of_charts_that_begins_with_the_reward(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2
    from tensorboard.util.tensor_util import make_ndarray

    asked = config("logging.trackers=tensorboard")
    folder = make_run_folder(tmp_path, asked)
    log = MetricsLog(folder, asked)
    log.write_samples(1, SAMPLES)
    log.write(1, {"reward/mean": 0.5})
    log.close()
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    (samples,) = events.Tensors("samples")
    table = make_ndarray(samples.tensor_proto)
    assert samples.step == 1 and table.shape == (3, 4)
    assert table[2].tolist() == [b"`How many?`", b"`4`", b"`a 'b'| c`", b"`0.25`"]
    (charts,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(make_ndarray(charts.tensor_proto).item())
    assert layout.category[0].chart[0].multiline.tag == ["^reward/mean$"]


def test_numbers_that_json_cannot_hold_become_null(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path, config("logging.trackers="))
    log = MetricsLog(folder, config("logging.trackers="))
    log.write(1, {"a": float("nan"), "b": float("inf"), "c": 1e-30})
    log.close()
    assert json.loads(folder.metrics.read_text()) == {"step": 1, "a": None, "b": None, "c": 1e-30}


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(InputError, match="'mlflow' is not one of tensorboard, wandb"):
        config("logging.trackers=mlflow")


class StandInWandb(types.ModuleType):
    """What is used of wandb: init, log, finish."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.Table = lambda columns, data: {"columns": columns, "data": data}
        self.runs: list[dict[str, Any]] = []
        self.rows: list[tuple[str, int, dict[str, Any]]] = []

    def init(self, **settings: Any) -> Any:
        self.runs.append(settings)
        run_id = settings["id"] or f"run{len(self.runs)}"

        def log(row: dict[str, Any], step: int, commit: bool) -> None:
            assert commit  # else the last row waits for the next, and a kill loses it
            self.rows.append((run_id, step, row))

        there = [step for name, step, _ in self.rows if name == run_id and settings["resume"]]
        return types.SimpleNamespace(id=run_id, starting_step=max(there, default=-1) + 1, log=log, finish=lambda: None)


def test_wandb_gets_project_name_group_and_tags_and_a_resumed_run_keeps_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = StandInWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    asked = config("logging.trackers=wandb", "logging.project=p", "logging.group=g", "logging.tags=a,b")
    check_trackers(asked.logging)
    folder = make_run_folder(tmp_path / "mine", asked)
    log = MetricsLog(folder, asked)
    log.write(1, {"loss": 2.0})
    log.close()
    first = wandb.runs[0]
    assert (first["project"], first["name"], first["group"], first["tags"]) == ("p", "mine", "g", ["a", "b"])
    assert first["resume"] is None and first["config"]["steps"] == asked.steps
    # The checkpoint's record keeps the id through JSON, and gives it back.
    kept = json.loads(json.dumps(RunRecord("m", "/m", None, "0", run_id=log.run_id).to_json()))
    record = RunRecord.from_json(kept, "checkpoint")
    again = MetricsLog(folder, asked, restored_step=1, run_id=record.run_id)
    again.write_samples(2, SAMPLES)
    again.write(2, {"loss": 1.0})
    again.close()
    assert (wandb.runs[1]["id"], wandb.runs[1]["resume"]) == ("run1", "must")
    heads = ["question", "correct answer", "answer", "reward"]
    table = {"columns": heads, "data": [["How many?", "4", "4", "1"], ["How many?", "4", "a `b`|\nc", "0.25"]]}
    assert wandb.rows == [("run1", 1, {"loss": 2.0}), ("run1", 2, {"loss": 1.0, "samples": table})]
    monkeypatch.setenv("WANDB_MODE", "offline")
    named = config("logging.trackers=wandb", "logging.name=other")
    MetricsLog(folder, named, restored_step=2, run_id="run1").close()
    assert (wandb.runs[2]["id"], wandb.runs[2]["resume"], wandb.runs[2]["name"]) == ("run1", None, "other")


def test_numbers_that_come_later_are_in_the_step_s_row_and_in_tensorboard_and_wandb_takes_no_step_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    wandb = StandInWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_MODE", "offline")
    asked = config("logging.trackers=tensorboard,wandb")
    folder = make_run_folder(tmp_path / "run", asked)
    log = MetricsLog(folder, asked)
    for step in (1, 2):
        log.write(step, {"loss": 0.5})
    log.close()
    again = MetricsLog(folder, asked, restored_step=2)
    again.add(2, {"eval/overall": 40.0, "eval/other": float("nan")})
    again.write(3, {"loss": 0.25})
    again.close()
    rows = list(read_rows(folder.metrics))
    assert rows[0] == {"step": 1, "loss": 0.5}
    assert rows[1:] == [
        {"step": 2, "loss": 0.5, "eval/overall": 40.0, "eval/other": None},
        {"step": 3, "loss": 0.25},
    ]
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.5), (3, 0.25)]
    assert [(event.step, event.value) for event in events.Scalars("eval/overall")] == [(2, 40.0)]
    assert [step for _, step, _ in wandb.rows] == [1, 2, 1, 2, 3]  # offline each part has all steps


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="wandb is not installed: pip install"):
        check_trackers(config("logging.trackers=tensorboard,wandb").logging)
    check_trackers(config("logging.trackers=tensorboard").logging)


def test_rows_that_are_missing_before_the_checkpoint_are_said(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", config("logging.trackers="))
    folder.metrics.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 5, 9)))
    log = MetricsLog(folder, config("logging.trackers="), restored_step=6)
    log.sync()
    log.close()
    assert log.gap is not None and "lacks the rows of 3 steps before the checkpoint (3 to 6)" in log.gap
    folder.metrics.write_text('{"loss": 1}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl line 1: no integer in field 'step'"):
        cut_rows(folder.metrics, 3)
