"""evaluate.py from outside: files in, files out, one line for a mistake."""

import dataclasses
import json

import pytest

from jaxvsr.data.questions import Question, write_questions
from jaxvsr.evaluation.predictions import Prediction, write_predictions
from launch.evaluate import main

OPTIONS = ("A. stove", "B. tv", "C. table", "D. sofa")


def question(index, scene):
    if index % 2:
        return Question(f"c{index}", scene, "object_rel_distance", "Which?", OPTIONS, "ABCD"[index % 4], "choice")
    return Question(f"n{index}", scene, "object_counting", "How many?", None, str(2 + index % 3), "number")


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_questions(folder / "questions.jsonl", [question(index, f"scene{index // 10:04d}_00") for index in range(40)])
    (folder / "splits.json").write_text(
        json.dumps({"train": ["scene0000_00", "scene0001_00"], "heldout": ["scene0002_00", "scene0003_00"]})
    )
    return folder


def read(path):
    return json.loads(path.read_text())


def test_scoring_a_file_writes_official_and_robust_scores_and_a_table(tmp_path, capsys):
    rows = [Prediction(question(0, "s"), "2"), Prediction(question(1, "s"), "(B)"), Prediction(question(2, "s"), None)]
    write_predictions(tmp_path / "predictions.jsonl", rows)
    out = tmp_path / "new" / "out"
    assert main(["--score", str(tmp_path / "predictions.jsonl"), "--benchmark", "vsi-bench", "--out", str(out)]) == 0
    official, robust = read(out / "scores.json"), read(out / "scores-robust.json")
    assert official["object_counting"] == 50 and official["object_rel_distance"] == 0 and official["overall"] == 25
    assert robust["object_rel_distance"] == 100 and robust["overall"] == 75
    assert read(out / "scores-lmms-eval.json")["parser"] == "lmms-eval"
    assert official["parser"] == "official" and len(official["missing_tasks"]) == 6
    details = read(out / "details.json")
    assert details["by_type"]["object_counting"]["n"] == 2
    assert any("1 of 3 questions have no prediction" in note for note in details["notes"])
    assert "Chance Level (Frequency)" in (out / "table.md").read_text()
    printed = capsys.readouterr().out
    assert "overall" in printed and "missing" in printed
    assert sorted(path.name for path in out.iterdir()) == [
        "details.json",
        "scores-lmms-eval.json",
        "scores-robust.json",
        "scores.json",
        "table.md",
    ]


def test_scoring_extracts_answers_by_the_given_or_recorded_prompt(tmp_path):
    said = "<think>three or so</think><answer>2</answer>"
    write_predictions(tmp_path / "predictions.jsonl", [Prediction(question(0, "s"), said)])
    command = ["--score", str(tmp_path / "predictions.jsonl"), "--benchmark", "vsi-bench", "--out"]
    assert main([*command, str(tmp_path / "plain")]) == 0
    assert read(tmp_path / "plain" / "scores.json")["overall"] == 0
    assert main([*command, str(tmp_path), "--prompt", "vsgrpo-think-train"]) == 0
    scores = read(tmp_path / "scores.json")
    assert (scores["overall"], scores["prompt"], scores["extraction"]) == (100, "vsgrpo-think-train", "answer_tag")
    assert main([*command, str(tmp_path / "again")]) == 0  # tmp_path/scores.json now says how
    assert read(tmp_path / "again" / "scores.json")["overall"] == 100


def test_questions_without_a_prediction_count_as_wrong(tmp_path, data):
    write_predictions(
        tmp_path / "p.jsonl", [Prediction(question(20, "scene0002_00"), "4"), Prediction(question(0, "x"), "2")]
    )
    command = ["--score", str(tmp_path / "p.jsonl"), "--benchmark", "vsi-bench", "--data", str(data), "--limit", "4"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert read(tmp_path / "out" / "details.json")["by_type"]["object_counting"]["n"] == 2
    assert read(tmp_path / "out" / "scores.json")["overall"] == 25


def test_predictions_are_scored_only_where_their_question_is_that_of_its_id_in_the_data(tmp_path, capsys):
    """The ids of a set without its own are row numbers, which another import gives to other questions."""
    turned = (*OPTIONS[1::-1], *OPTIONS[2:])
    first, which = question(0, "s"), question(1, "s")
    rows = [
        (first, dataclasses.replace(first, question="How  many?", answer="2.0", question_type="object_abs_distance")),
        (which, dataclasses.replace(which, options=turned)),
        *((dataclasses.replace(first, id=f"n{n}"), first) for n in range(2, 5)),
    ]
    changes = ({"scene": "another"}, {"question": "How many chairs?"}, {"answer": "3"})
    rows[2:] = [(own, dataclasses.replace(own, **change)) for (own, _), change in zip(rows[2:], changes, strict=True)]
    (tmp_path / "data").mkdir()
    write_questions(tmp_path / "data" / "questions.jsonl", [now for _, now in rows])
    write_predictions(tmp_path / "p.jsonl", [Prediction(own, own.answer) for own, _ in rows])
    command = ["--score", str(tmp_path / "p.jsonl"), "--benchmark", "vsi-bench", "--data", str(tmp_path / "data")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    left_out = "4 predictions are left out: their id is another question's in --data (first: c1)"
    assert left_out in capsys.readouterr().out and left_out in (tmp_path / "out" / "table.md").read_text()
    scores = read(tmp_path / "out" / "scores.json")
    assert scores["left_out"] == 4 and scores["questions"] == 5
    assert (scores["object_abs_distance"], scores["object_counting"], scores["object_rel_distance"]) == (100, 0, 0)

    write_predictions(tmp_path / "p.jsonl", [Prediction(own, own.answer) for own, _ in rows[1:]])
    assert main([*command, "--out", str(tmp_path / "none")]) == 2
    complaint = capsys.readouterr().err
    assert "none of 4 predictions is about a question of --data" in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("model", ["chance-random", "chance-frequency", "best-constant"])
def test_baselines_answer_the_held_out_split_and_can_be_scored_again(tmp_path, data, model):
    out = tmp_path / "out"
    assert main(["--model", model, "--data", str(data), "--benchmark", "vsi-bench", "--out", str(out)]) == 0
    scores = read(out / "scores.json")
    assert scores["model"] == model and "commit" in scores
    assert (scores["data"], scores["split"]) == (str(data), "heldout")
    assert scores["questions"] == len((out / "predictions.jsonl").read_text().splitlines())
    assert (
        main(["--score", str(out / "predictions.jsonl"), "--benchmark", "vsi-bench", "--out", str(tmp_path / "b")]) == 0
    )
    assert read(tmp_path / "b" / "scores.json")["overall"] == scores["overall"]
    by_type = read(tmp_path / "b" / "details.json")["by_type"]
    if model == "chance-random":  # the benchmark's row has no numbers: 0 would read as a chance level
        assert "object_counting" not in by_type and "object_counting" not in scores
        assert "left out: nothing is drawn for them" in (out / "table.md").read_text()
    else:
        assert by_type["object_counting"]["n"] == 10


def test_q_spatial_is_scored_from_a_file(tmp_path):
    asked = Question("1", "image", "distance", "How far?", None, "1 m", "text")
    write_predictions(tmp_path / "p.jsonl", [Prediction(asked, r"\scalar{1.2} \distance_unit{m}")])
    assert main(["--score", str(tmp_path / "p.jsonl"), "--benchmark", "q-spatial", "--out", str(tmp_path / "o")]) == 0
    assert read(tmp_path / "o" / "scores.json")["success_rate"] == 100


def test_an_interrupted_evaluation_is_scored_with_its_recorded_settings(tmp_path, capsys):
    """It has no scores.json, and its completions must not be read in another way than when it is finished."""
    said = "<think>three</think><answer>2</answer>"
    write_predictions(tmp_path / "predictions.jsonl", [Prediction(question(0, "s"), said)])
    command = ["--score", str(tmp_path / "predictions.jsonl"), "--benchmark", "vsi-bench", "--out"]
    assert main([*command, str(tmp_path / "unknown")]) == 0
    assert "beside it names the prompt, so whole completions are scored" in capsys.readouterr().out
    assert read(tmp_path / "unknown" / "scores.json")["overall"] == 0
    prompt = {"name": "vsgrpo-think-train", "extraction": "answer_tag", "max_answer_tokens": 256, "stop": []}
    settings = {"prompt": prompt, "frames": 16, "weights": "abc", "data": ["/a", "/b"]}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert main([*command, str(tmp_path / "out")]) == 0
    assert "names the prompt" not in capsys.readouterr().out
    scores = read(tmp_path / "out" / "scores.json")
    assert (scores["overall"], scores["prompt"], scores["frames"]) == (100, "vsgrpo-think-train", 16)
    assert "weights" not in scores and scores["data"] == "/a,/b"
    assert main([*command, str(tmp_path / "as"), "--prompt", "vsi-bench"]) == 0
    scores = read(tmp_path / "as" / "scores.json")  # asked with one prompt, read by another's rule
    assert (scores["overall"], scores["prompt"], scores["read_as"]) == (0, "vsgrpo-think-train", "vsi-bench")


def test_questions_that_a_benchmark_cannot_score_are_refused_before_a_model_is_opened(tmp_path, capsys):
    for name, answer in (("text", "a red sofa"), ("long", "1.5")):
        (tmp_path / name).mkdir()
        write_questions(tmp_path / name / "questions.jsonl", [Question("q", "s", "open", "?", None, answer, "text")])
    for benchmark, name, words in (
        ("vsi-bench", "text", "all 1 questions are of kind text; --benchmark open-ended scores them"),
        ("q-spatial", "long", "question 'q': answer '1.5' is not a length"),
    ):
        command = ["--model", "nowhere", "--data", str(tmp_path / name), "--benchmark", benchmark]
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        complaint = capsys.readouterr().err
        assert words in complaint and complaint.count("\n") == 1 and not (tmp_path / "out").exists()


def test_an_out_that_is_not_a_folder_is_refused_before_anything_is_answered(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/below"):
        assert main(["--score", "absent", "--benchmark", "vsi-bench", "--out", str(tmp_path / out)]) == 2
        complaint = capsys.readouterr().err
        assert "is a file; expected a folder" in complaint and complaint.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_given_twice_is_refused(tmp_path, data, capsys):
    command = ["--model", "chance-random", "--data", f"{data},{data}", "--benchmark", "vsi-bench"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "is listed twice" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_missing_needs_of_open_ended_scores_are_refused_before_anything_is_answered(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    write_questions(tmp_path / "data" / "questions.jsonl", [Question("q", "s", "open", "?", None, "a sofa", "text")])
    command = ["--model", "nowhere", "--data", str(tmp_path / "data"), "--benchmark", "open-ended"]
    command += ["--out", str(tmp_path / "out")]
    (tmp_path / "judge.py").write_text("import sys\nsys.exit(3)\n")
    for more, words in (
        (["--judge", f"{tmp_path}/none.py:judge"], "none.py:judge: no such file"),
        (["--judge", f"{tmp_path}/judge.py:judge"], "importing the file raised SystemExit: 3"),
        (["--sentence-model", str(tmp_path / "absent")], "sentence-transformers cannot load"),
    ):
        assert main([*command, *more]) == 2
        complaint = capsys.readouterr().err
        assert words in complaint and complaint.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "chance-random", "--data", "x", "--prompt", "vsi-bench"], "chance-random reads no prompt"),
        (["--score", "x", "--sentence-model", "m"], "--sentence-model m: only for --benchmark open-ended"),
        (["--score", "missing.jsonl"], "missing.jsonl: no such file"),
        (["--model", "chance-random"], "needs --data DIR"),
        (["--score", "x", "--prompt", "nonsense"], "no such file"),
        (["--score", "x", "--judge", "j.py:f"], "--judge j.py:f: only for --benchmark open-ended"),
        (["--score", "x", "--limit", "0"], "must be at least 1"),
        ([], "one of the arguments --score --model is required"),
    ],
)
def test_a_mistake_ends_in_one_line_and_exit_code_2(tmp_path, capsys, arguments, words):
    assert main([*arguments, "--benchmark", "vsi-bench", "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert words in printed.err and len(printed.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
