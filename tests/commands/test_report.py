"""launch/report.py from outside: one run, several runs, scores beside each other, mistakes."""

import csv
import dataclasses
import importlib.util
import json
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from jaxvsr.config.config_file import to_yaml
from jaxvsr.config.train_config import DataSettings, IntervalSettings, TrainConfig
from jaxvsr.data.questions import Question, read_questions, write_questions
from jaxvsr.data.splits import write_splits
from jaxvsr.evaluation.predictions import Prediction, read_predictions, write_predictions
from jaxvsr.runs.run_folder import RunFolder, note_start
from launch.evaluate import main as evaluate

SCRIPT = Path(__file__).parents[2] / "launch" / "report.py"


@pytest.fixture(scope="module")
def report() -> Callable[[Sequence[str]], int]:
    spec = importlib.util.spec_from_file_location("launch_report", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.main


def question(number: int, scene: str, answer: str) -> Question:
    return Question(f"q{number}", scene, "object_counting", "How many chairs?", None, answer, "number")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs that differ in the seed and a third; data; answers of two models to ten held-out questions."""
    data = tmp_path / "data"
    data.mkdir()
    asked = [question(number, "scene0001_00", str(2 + number % 2)) for number in range(10)]
    training = [question(100 + number, "scene0000_00", "4") for number in range(5)]
    write_questions(data / "questions.jsonl", [*training, *asked])
    write_splits(data, {"train": ["scene0000_00"], "heldout": ["scene0001_00"]})
    for name, answers in (("before", ["9"] * 10), ("now", [row.answer for row in asked])):
        (tmp_path / name).mkdir()
        predictions = [Prediction(row, answer) for row, answer in zip(asked, answers, strict=True)]
        write_predictions(tmp_path / name / "predictions.jsonl", predictions)
    for name, seed, every, reward in (("a-0", 0, 10, 0.4), ("a-1", 1, 10, 0.6), ("b-0", 0, 20, 0.9)):
        config = TrainConfig(
            seed=seed, data=DataSettings(folders=(str(data),)), intervals=IntervalSettings(samples=every)
        )
        run = tmp_path / name
        run.mkdir()
        (run / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        rows = [{"step": step, "reward/mean": reward, "kl": 0.0} for step in range(1, 11)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_report_of_one_run_writes_its_page(report, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert report([str(folder / "a-0")]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "a-0" / "report.html")
    assert "reward" in (folder / "a-0" / "report.html").read_text()


def test_compare_puts_scores_and_differences_on_the_page(report, folder: Path, capsys: pytest.CaptureFixture[str]):
    arguments = [str(folder / "a-0"), "--compare", f"before={folder / 'before'}", f"now={folder / 'now'}"]
    assert report(arguments) == 0
    rows = json.loads((folder / "a-0" / "comparison.json").read_text())
    row = next(row for row in rows if row["question_type"] == "object_counting")
    # Fitted on the training answers, which are all 4: within 5 % of it.
    constant = float(row["constant_answer"])
    assert row["n"] == 10 and abs(constant - 4) / 4 <= 0.0501
    assert row["score/now"] == 100 and row["score/before"] == 0
    thresholds = [0.5 + 0.05 * index for index in range(10)]
    reached = [100 * sum(abs(constant - true) / true <= 1 - c for c in thresholds) / 10 for true in (2, 3)]
    assert row["score/constant"] == pytest.approx(sum(reached) / 2)
    assert row["now - before"]["mean"] == 100
    assert row["now - constant"]["mean"] == pytest.approx(100 - sum(reached) / 2)
    assert "now − before" in (folder / "a-0" / "report.html").read_text()
    assert "object_counting" in capsys.readouterr().out


def test_constants_are_fitted_on_training_questions_once_each_without_their_mirror_images(report, folder: Path):
    """Mirror images would make left as frequent as right, and count what has one twice."""

    def asked(name: str, answer: str, mirror_of: str | None = None) -> Question:
        kind = "object_rel_direction_easy"
        return Question(name, "scene0000_00", kind, "Which side?", None, answer, "word", mirror_of=mirror_of)

    rows = read_questions(folder / "data" / "questions.jsonl")
    for number, (answer, twin) in enumerate([("left", "right"), ("left", "right"), ("left", None), ("right", "left")]):
        rows.append(asked(f"d{number}", answer))
        if twin:
            rows.append(asked(f"d{number}-mirror", twin, f"d{number}"))
    rows += [asked(f"d9{k}-mirror", "right", "d2") for k in range(5)]
    write_questions(folder / "data" / "questions.jsonl", rows)
    held = Question("h", "scene0001_00", "object_rel_direction_easy", "Which side?", None, "left", "word")
    for name in ("before", "now"):
        predictions = read_predictions(folder / name / "predictions.jsonl")
        write_predictions(folder / name / "predictions.jsonl", [*predictions, Prediction(held, "right")])
    assert report([str(folder / "a-0"), "--compare", f"before={folder / 'before'}", f"now={folder / 'now'}"]) == 0
    found = {row["question_type"]: row for row in json.loads((folder / "a-0" / "comparison.json").read_text())}
    assert found["object_rel_direction_easy"]["constant_answer"] == "left"
    assert found["object_rel_direction_easy"]["score/constant"] == 100
    # The same constants are evaluate.py's.
    command = ["--model", "best-constant", "--data", str(folder / "data"), "--benchmark", "vsi-bench"]
    assert evaluate([*command, "--out", str(folder / "constant")]) == 0
    constants = {
        one.question.question_type: one.prediction for one in read_predictions(folder / "constant/predictions.jsonl")
    }
    assert constants["object_counting"] == found["object_counting"]["constant_answer"]


def test_each_column_of_a_comparison_is_read_as_its_evaluation_did(report, folder: Path):
    rows = read_predictions(folder / "now" / "predictions.jsonl")
    tagged = [dataclasses.replace(row, prediction=f"<think>9</think><answer>{row.prediction}</answer>") for row in rows]
    write_predictions(folder / "before" / "predictions.jsonl", tagged)
    (folder / "before" / "scores.json").write_text('{"extraction": "answer_tag", "stop": []}')
    (folder / "now" / "scores.json").write_text('{"extraction": "plain", "stop": []}')
    for pair in (("before", "now"), ("now", "before")):
        assert report([str(folder / "a-0"), "--compare", *(f"{name}={folder / name}" for name in pair)]) == 0
        row = json.loads((folder / "a-0" / "comparison.json").read_text())[0]
        assert row["score/before"] == row["score/now"] == 100


@pytest.mark.slow
def test_report_of_several_runs_writes_tables_and_curves(report, folder: Path, capsys: pytest.CaptureFixture[str]):
    runs = [str(folder / name) for name in ("a-0", "a-1", "b-0")]
    out = folder / "summary"
    assert report([*runs, "--group-by", "intervals.samples", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "curves.pdf",
        "curves.png",
        "summary.csv",
        "summary.md",
        "summary.tex",
    ]
    assert "| group | runs | mean reward | KL (nats per token) |" in (out / "summary.md").read_text()
    assert "| intervals.samples=10 | 2 | 0.5000 ± 0.1414 |" in (out / "summary.md").read_text()
    # The caption says what the numbers are; in LaTeX it is a comment.
    assert "Mean ± sample standard deviation over runs" in (out / "summary.md").read_text()
    assert (out / "summary.tex").read_text().startswith("% Mean ± sample standard deviation over runs")
    assert "| intervals.samples=20 | 1 | 0.9000 |" in capsys.readouterr().out


def test_answers_of_two_models_are_listed_side_by_side_with_the_largest_difference_first(report, folder: Path, capsys):
    rows = [json.loads(line) for line in (folder / "now" / "predictions.jsonl").read_text().splitlines()]
    rows[3]["prediction"], rows[4]["prediction"], rows[5]["prediction"] = "<b>9</b>", None, "9\ud800"
    (folder / "now" / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / "answers"
    assert report(["--answers", f"before={folder / 'before'}", f"now={folder / 'now'}", "--out", str(out)]) == 0
    page = (out / "answers.html").read_text(encoding="utf-8")
    assert "10 questions: now scores higher than before on 7, lower on 0." in page
    assert "&lt;b&gt;9&lt;/b&gt;" in page and "<b>" not in page and "no answer" in page
    table = list(csv.DictReader((out / "answers.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["id"] for row in table[-3:]] == ["q3", "q4", "q5"] and len(table) == 10
    assert {row["score of now"] for row in table[:7]} == {"1"} and table[0]["before"] == "9"
    assert sorted(path.name for path in out.iterdir()) == ["answers.csv", "answers.html"]
    assert "10 questions" in capsys.readouterr().out


def test_free_answers_have_no_score(report, folder: Path):
    asked = [dataclasses.replace(question(number, "picture", "2 m"), answer_kind="text") for number in range(3)]
    for name, predicted in (("before", ["1 m", "2 m", "3 m"]), ("now", ["1 m", "2 m", "4 m"])):
        predictions = [Prediction(row, text) for row, text in zip(asked, predicted, strict=True)]
        write_predictions(folder / name / "predictions.jsonl", predictions)
    out = folder / "answers"
    assert report(["--answers", f"before={folder / 'before'}", f"now={folder / 'now'}", "--out", str(out)]) == 0
    page = (out / "answers.html").read_text(encoding="utf-8")
    assert "scores higher" not in page and "3 have no score (free answers)" in page
    rows = csv.DictReader((out / "answers.csv").read_text(encoding="utf-8").splitlines())
    assert [row["id"] for row in rows] == ["q2", "q0", "q1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected RUN…, or --answers"),
        (["--answers", "now=now"], "expected at least two folders"),
        (["--answers", "now=now", "now=before"], "expected NAME=DIR, each name once"),
        (["a-0", "--answers", "now=now", "before=before"], "takes no runs"),
        (["nowhere"], "nowhere: not a run folder"),
        (["a-0", "--compare", "now"], "'now': expected NAME=DIR"),
        (["a-0", "--compare", "now=nowhere"], "predictions.jsonl: no such file"),
        (["a-0", "a-1", "--out", "a-0/config.yaml"], "is a file; expected a folder"),
        (["a-0", "a-1", "--compare", "now=now"], "needs exactly one run"),
        (["a-0", "a-1", "--group-by", "beta"], "no such field"),
        (["a-0", "a-1", "--metrics", "no/such"], "no/such"),
    ],
)
def test_a_mistake_ends_in_one_line_and_exit_code_2(
    report, folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch
):
    monkeypatch.chdir(folder)
    before = sorted(path for path in folder.rglob("*"))
    assert report(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and message in error
    assert sorted(path for path in folder.rglob("*")) == before


def test_a_folder_of_runs_gets_an_index_with_links_and_says_which_run_cannot_be_read(report, folder, capsys):
    assert report([str(folder / "a-0")]) == 0
    (folder / "b-0" / "config.yaml").write_text("stpes: 3\n")
    assert report([str(folder)]) == 0
    page = (folder / "index.html").read_text()
    assert capsys.readouterr().out.strip().endswith("index.html")
    assert 'href="a-0/report.html"' in page and "a-1/report.html" not in page  # it has no page yet
    assert ">0.6 → 0.6<" in page and "stpes" in page


def test_the_page_says_when_and_where_a_run_was_done_and_how_long_it_took(report, folder):
    run = RunFolder(folder / "a-0")
    rows = [{"step": step, "loss": 1.0 / step, "seconds/step": 70.0} for step in range(1, 11)]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    note_start(run, "1 CPU device")
    note_start(run, "8 CPU devices")
    assert report([str(run.path)]) == 0
    page = run.report.read_text()
    assert "on 8 CPU devices" in page and "times resumed 1" in page and "all steps took 11 min 40 s" in page
    assert f"Python {platform.python_version()}" in page and "1 → 0.1<" in page  # without rewards the head has the loss
