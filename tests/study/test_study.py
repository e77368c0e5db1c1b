"""A study from outside: stand-ins for train.py and evaluate.py, so that only the study itself is tested."""

import csv
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.config.config_file import find_config
from jaxvsr.data.questions import Question, write_questions
from jaxvsr.data.splits import write_splits
from jaxvsr.errors import InputError
from jaxvsr.evaluation.metrics.uncertainty import Difference
from jaxvsr.locks import only_writer
from jaxvsr.report.summary import Run
from jaxvsr.study.commands import MANIFEST, STUDY_LOCK, commands
from jaxvsr.study.definition import Claim, read_study
from jaxvsr.study.results import ArmResult, curve_metric, difference, differences_by_seed, reading
from launch import build_data, evaluate, study, train

STUDY = """
base: demo-grpo
seeds: [0]
set: {steps: 6, data: {folders: "{out}/data"}}
data: ["build_data.py rooms {out}/data"]
evaluate: --data {out}/data --benchmark vsi-bench
seconds: {data: 60, training: 30, evaluation: 6}
arms:
  base: {model: rooms-base}
  low: {label: low rate, set: {optimizer.learning_rate: 1.0e-5}, seconds_a_step: 2}
  again: {start: low, set: {data: {blank: true}}}
comparisons:
  rates: {arms: [low, again], paper: "low wins", differences: ["low > base", "base > again", "low ? again"]}
"""
STAND_IN = """
import json, pathlib, sys
flags = dict(zip(sys.argv[1:], sys.argv[2:]))
with open("calls.txt", "a") as calls:
    print(pathlib.Path(__file__).stem, *sys.argv[1:], file=calls)
"""
TRAIN = """
run = pathlib.Path(flags["--run-dir"])
steps = 6
run.mkdir(parents=True, exist_ok=True)
(run / "config.yaml").write_text("steps: 6")
metrics = run / "metrics.jsonl"
begun = metrics.read_text().count("step") if metrics.exists() else 0
if pathlib.Path("stop").exists() and begun == 0:
    metrics.write_text(json.dumps({"step": 1, "reward/mean": 0.1, "eval/overall": 10.0}) + chr(10))
    sys.exit(143)
rows = [{"step": step, "reward/mean": step / 10, "eval/overall": 10.0 * step} for step in range(1, steps + 1)]
metrics.write_text("".join(json.dumps(row) + chr(10) for row in rows))
(run / "report.html").write_text("begun at " + str(begun))
"""
# Of 40 questions about "2 chairs", low is right in all, base in every second, again in none.
EVALUATE = """
out, model = pathlib.Path(flags["--out"]), flags["--model"]
every = 1 if "/low/" in model else 2 if model == "rooms-base" else 1000
out.mkdir(parents=True)
rows = []
for index in range(1, 41):
    row = {"id": f"q{index}", "scene": "s", "question_type": "object_counting", "question": "How many?"}
    said = "2" if index % every == 0 else "9"
    rows.append({**row, "options": None, "answer": "2", "answer_kind": "number", "prediction": said})
(out / "predictions.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
right = 100 * sum(row["prediction"] == "2" for row in rows) / 40
(out / "scores.json").write_text(json.dumps({"overall": right, "object_counting": right, "extraction": "plain"}))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the study and stand-ins for the scripts of launch/, as the working directory."""
    scripts = tmp_path / "launch"
    scripts.mkdir()
    for name, body in (("build_data", ""), ("train", TRAIN), ("evaluate", EVALUATE)):
        (scripts / f"{name}.py").write_text(STAND_IN + body)
    (tmp_path / "small.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "LAUNCH", scripts)
    return tmp_path


def run_study(*arguments):
    return study.main(["--config", "small.yaml", "--out", "out", *arguments])


def calls():
    path = Path("calls.txt")
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def test_a_study_runs_every_arm_once_and_writes_a_table_and_a_figure(place, capsys):
    assert run_study() == 0
    assert calls() == ["build_data", "evaluate", *["train", "evaluate"] * 2]
    lines = Path("calls.txt").read_text().splitlines()
    assert "--set optimizer.learning_rate=1e-05 --seed 0 --run-dir out/seed-0/low/run --resume" in lines[2]
    assert "--set data.folders=out/data" in lines[2]
    assert "--set model.path=out/seed-0/low/run" in lines[4] and lines[5].endswith("--out out/seed-0/again/scores")
    assert "--blank" in lines[5] and "--blank" not in lines[3] and "--prompt question" in lines[3]
    page = Path("out/study.md").read_text()
    assert "| low rate | 1 | 100.00 | 100.00 |" in page and "| base | 1 | 50.00 | 50.00 |" in page
    assert "low wins" in page
    # 20 of 40 differ by 100 points: mean 50, standard error 50.64 / sqrt(40).
    assert "| low rate − base | +50.0 ± 8.0 | +6.2 | as in the paper |" in page.replace("  ", " ").replace("  ", " ")
    assert "by seed" not in page
    assert Path("out/study.png").read_bytes().startswith(b"\x89PNG")
    assert Path("out/study.pdf").read_bytes().startswith(b"%PDF")
    rows = list(csv.DictReader(Path("out/study.csv").read_text().splitlines()))
    assert {(row["group"], row["metric"], row["mean"]) for row in rows} >= {("base", "overall", "50.0")}
    assert "study.md" in capsys.readouterr().out


def test_runs_with_other_numbers_of_questions_per_scene_are_compared_by_reward():
    # Training asks Q held-out questions per scene: another Q asks other questions.
    one, four = (
        Run(f"q{q}", {"data.questions": q, "grpo.beta": 0.01 * q}, [{"step": 1, "eval/overall": 5}]) for q in (1, 4)
    )
    assert curve_metric({"Q = 1": [one], "Q = 4": [four]}) == "reward/mean"
    assert curve_metric({"a": [one], "b": [one, one]}) == "eval/overall"
    assert curve_metric({"a": [Run("a", {"data.questions": 1}, [{"step": 1.0, "reward/mean": 0.5}])]}) == "reward/mean"


def test_the_table_has_the_notes_of_the_evaluations(place):
    """As every evaluation does: a true answer of zero, which the benchmark never asks for; an arm's empty answers."""
    scripts = Path("launch/evaluate.py")
    body = scripts.read_text().replace('"answer": "2"', '"answer": "0" if index > 37 else "2"')
    scripts.write_text(body.replace('"prediction": said', '"prediction": None if every == 2 and index == 1 else said'))
    assert run_study("--arms", "base,low") == 0
    page = Path("out/study.md").read_text()
    assert "\n- the true answer of 3 number questions is zero" in page
    assert "\n- base: 1 of 40 questions have no prediction and score 0 (first: q1)" in page and "low rate: " not in page


@pytest.mark.slow
def test_done_commands_are_kept_when_seeds_are_added(place):
    assert run_study() == 0
    before = len(calls())
    assert run_study() == 0
    assert len(calls()) == before
    assert run_study("--seeds", "0,1") == 0
    assert calls()[before:] == ["train", "evaluate"] * 2
    page = Path("out/study.md").read_text()
    assert "| low rate | 2 | 100.00 ± 0.00 | 100.00 ± 0.00 |" in page
    row = "| low rate − base | +50.0 ± 8.0 | +50.0, +50.0 | +6.2 | as in the paper |"
    assert row in page.replace("  ", " ").replace("  ", " ") and "| by seed |" in page


@pytest.mark.slow
def test_an_interrupted_arm_is_continued_and_the_table_says_what_is_missing(place, capsys):
    Path("stop").touch()
    assert run_study() == 143
    assert "seed-0/low train" in capsys.readouterr().err
    assert "Not scored yet: low rate, again." in Path("out/study.md").read_text()
    Path("stop").unlink()
    assert set(json.loads(Path("out", MANIFEST).read_text())) == {"data 1", "untrained/base evaluate"}
    assert run_study() == 0
    assert calls() == ["build_data", "evaluate", "train", *["train", "evaluate"] * 2]
    assert Path("out/seed-0/low/run/report.html").read_text() == "begun at 1"


@pytest.mark.slow
def test_a_dry_run_gives_hours_and_commands_and_writes_nothing(place, capsys):
    assert run_study("--dry-run") == 0
    printed = capsys.readouterr().out
    # 60 s of data, two untrained and trained evaluations known, one training of 6 steps at 2 s + 30 s, one unknown.
    assert "seed-0/low train: 0.7 min (6 steps × 2 s + 30 s)" in printed
    assert "0.03 h (2 min)" in printed and "without 1 command of unknown time" in printed
    assert printed.count("python launch/") == 6
    assert calls() == [] and not Path("out").exists()
    assert run_study() == 0
    capsys.readouterr()
    assert run_study("--seeds", "0,1", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "seed-0/again train: 0.0 min (done)" in printed and "seed-1/again train: 0.0 min (measured here)" in printed


@pytest.mark.slow
def test_other_settings_in_the_same_folder_are_refused(place, capsys):
    assert run_study() == 0
    before = len(calls())
    assert run_study("--set", "steps=7") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "seed-0/low train" in error and "--set steps=7" in error and "--out" in error
    assert len(calls()) == before


def test_a_base_config_that_changed_since_an_arm_was_done_is_refused(place, capsys):
    Path("base.yaml").write_text(find_config("demo-grpo").read_text())
    Path("small.yaml").write_text(STUDY.replace("base: demo-grpo", "base: base.yaml"))
    assert run_study("--arms", "low") == 0
    before = len(calls())
    Path("base.yaml").write_text(find_config("demo-grpo").read_text().replace("warmup_steps: 5", "warmup_steps: 7"))
    assert run_study() == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1 and "seed-0/low train was done with optimizer.warmup_steps=5, now it would be 7" in error
    )
    assert len(calls()) == before


@pytest.mark.slow
def test_a_manifest_of_an_older_version_without_configs_is_accepted(place):
    assert run_study() == 0
    path = Path("out", MANIFEST)
    rows = json.loads(path.read_text())
    path.write_text(
        json.dumps({key: {name: row[name] for name in ("command", "seconds")} for key, row in rows.items()})
    )
    before = len(calls())
    assert run_study() == 0 and len(calls()) == before


def test_two_studies_at_once_in_one_folder_are_refused(place, capsys):
    Path("out").mkdir()
    with only_writer(Path("out"), name=STUDY_LOCK):
        assert run_study() == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith(f"error: out: process {os.getpid()} on ")
        assert calls() == [] and [path.name for path in Path("out").iterdir()] == [STUDY_LOCK]
        assert run_study("--dry-run") == 0
    assert run_study("--arms", "base") == 0


def test_a_time_limit_is_refused_because_a_cut_training_would_count_as_done(place, capsys):
    assert run_study("--set", "intervals.time_limit=60") == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1 and "arm low: intervals.time_limit 60.0: would end a training before its last" in error
    )


def test_arms_are_evaluated_with_the_pixels_of_their_training(place):
    assert run_study("--arms", "low", "--set", "data.max_pixels=7840") == 0
    assert "--frames 16 --max-pixels 7840 --prompt" in Path("calls.txt").read_text().splitlines()[-1]


@pytest.mark.slow
def test_the_table_says_which_seeds_of_an_arm_are_missing(place):
    assert run_study("--seeds", "0,1") == 0
    Path("out/seed-1/again/scores/scores.json").unlink()
    Path("stop").touch()  # the training is kept; its evaluation cannot write into the folder that is there
    assert run_study("--seeds", "0,1,2") != 0
    assert "Not scored yet: low rate (seed 2), again (seeds 1, 2)." in Path("out/study.md").read_text()


def test_chosen_arms_include_those_that_they_start_from(place):
    assert run_study("--arms", "again") == 0
    assert calls() == ["build_data", *["train", "evaluate"] * 2]
    page = Path("out/study.md").read_text()
    assert "low rate − again" in page and "base" not in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("base: demo-grpo", "base: nothing"), "--config nothing: neither a file nor a recipe"),
        (("arms:", "arm:"), "unknown field 'arm'; did you mean 'arms'"),
        (("optimizer.learning_rate", "optimizer.rate"), "arm low: optimizer.rate"),
        (("start: low", "start: base"), "arm again: start 'base' must be a trained arm that comes before it"),
        (("low > base", "low = base"), "difference 'low = base': expected 'a > b'"),
        (("low ? again", "low ? more"), "no arm 'more'; the arms are base, low, again"),
        (("paper: ", "question_types: [size], paper: "), "no question type 'size'; the types are object_counting"),
        (("label: low rate", "label: base"), "two arms are called 'base'"),
        (("seeds: [0]", "seeds: [0, 0]"), "each may be given once"),
        (("training: 30", "training: long"), "seconds.training: expected a number, found 'long'"),
        (("low: {label", "low/er: {label"), "arm low/er: a name is letters"),
        (("{steps: 6,", "{seed: 1, steps: 6,"), "set seed: cannot be set, seeds lists"),
        (
            ("start: low, set: {", "start: low, set: {model.path: x, "),
            "set model.path: cannot be set, start",
        ),
    ],
)
def test_a_mistake_in_a_study_is_refused_in_one_line(place, capsys, change, message):
    assert change[0] in STUDY
    Path("small.yaml").write_text(STUDY.replace(*change))
    assert run_study() == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not Path("out").exists() and calls() == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "a"], "--seeds a: expected a whole number, found 'a'"),
        (["--seeds", "-1"], "seeds must be whole numbers from 0"),
        (["--arms", "nothing"], "--arms nothing: no arm 'nothing'"),
        (["--set", "seed=1"], "a study takes --seeds"),
        (["--set", "steps"], "--set steps: expected field=value"),
        (["--set", "stepz=1"], "stepz"),
        (["--config", "no-such"], "--config no-such: neither a file nor a recipe; recipes are learning-rates, papers"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line(place, capsys, flags, message):
    assert run_study(*flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("out").exists()


def test_a_broken_manifest_is_refused_in_one_line(place, capsys):
    Path("out").mkdir()
    Path("out", MANIFEST).write_text("[1]")
    assert run_study() == 2
    assert "manifest.json: not the manifest of a study" in capsys.readouterr().err


def result(arm, seed, *values):
    return ArmResult(arm, seed, {}, {f"q{index}": value for index, value in enumerate(values)}, None)


def test_differences_are_paired_over_the_seeds_that_both_arms_have():
    results = [result("a", 0, 100, 50), result("a", 1, 0, 50), result("b", 0, 0, 0), result("c", None, 10, 20)]
    found = difference(results, "a", "b")
    assert found is not None and found.mean == pytest.approx(75) and found.n == 2  # only seed 0: 100 and 50
    assert [round(by_seed, 6) for by_seed in differences_by_seed(results, "a", "b").values()] == [75]
    # An untrained model is compared with the mean over all seeds: 50 − 10 and 50 − 20.
    against = difference(results, "a", "c")
    assert against is not None and against.mean == pytest.approx(35)
    assert difference(results, "a", "d") is None
    with pytest.raises(InputError, match="answered different questions"):
        difference([result("a", 0, 1, 2), result("b", 0, 1)], "a", "b")


def test_a_comparison_can_be_over_some_types_of_question_alone():
    types = {"q0": "object_counting", "q1": "room_size_estimation"}
    results = [dataclasses.replace(one, types=types) for one in (result("a", 0, 100, 50), result("b", 0, 0, 0))]
    assert results[0].among(("object_abs_distance",)).by_question == {}
    for chosen, points in ((("object_counting",), 100), (("room_size_estimation",), 50), ((), 75)):
        found = difference([one.among(chosen) for one in results], "a", "b")
        assert found is not None and found.mean == pytest.approx(points)


def test_standard_errors_over_several_seeds_include_the_spread_between_trainings():
    """Questions that agree, trainings that do not: +20 with one seed and 0 with the other is no sure +10."""
    wild = [result("a", 0, 20, 20, 21, 19), result("a", 1, 0, 0, 1, -1), result("c", None, 0, 0, 0, 0)]
    found = difference(wild, "a", "c")
    assert found is not None and found.mean == pytest.approx(10)
    over_questions, between_seeds = np.std([10, 10, 11, 9], ddof=1) / 2, np.std([20, 0], ddof=1) / np.sqrt(2)
    assert found.standard_error == pytest.approx(np.hypot(over_questions, between_seeds))
    assert reading(found, Claim("a", "c", True)) == "no clear difference, unlike the paper"
    one = difference(wild[::2], "a", "c")
    assert one is not None and one.standard_error == pytest.approx(np.std([20, 20, 21, 19], ddof=1) / 2)
    assert differences_by_seed(wild, "a", "c") == {0: 20, 1: 0}
    assert differences_by_seed(wild, "c", "c") == {}


def test_the_comparison_with_a_paper_says_where_the_study_disagrees():
    claimed, asked = Claim("a", "b", True), Claim("a", "b", False)
    assert reading(Difference(10, 5.0, 1.0), claimed) == "as in the paper"
    assert reading(Difference(10, -5.0, 1.0), claimed) == "opposite to the paper"
    assert reading(Difference(10, -5.0, 1.0), claimed, "claim") == "opposite to the claim"
    assert reading(Difference(10, 1.0, 1.0), claimed) == "no clear difference, unlike the paper"
    assert reading(Difference(10, -5.0, 1.0), asked) == "lower"
    assert reading(Difference(1, 5.0, float("nan")), asked) == "no clear difference"


def test_every_arm_of_the_papers_study_has_16_questions_per_update_and_is_compared():
    papers = read_study(find_config("papers", "studies"))
    trained = [arm for arm in papers.arms if arm.is_trained]
    main = papers.config(papers.arm("grpo"))
    for arm in trained:
        config = papers.config(arm)
        assert config.sampling.answer_tokens in (8, 24)
        if not arm.name.endswith("-start"):  # these learn the form of tags before they are compared
            assert config.data.scenes * config.data.questions == 16 and config.steps == main.steps, arm.name
    assert papers.config(papers.arm("beta-0")).grpo.beta == 0 < main.grpo.beta
    assert [papers.config(papers.arm(name)).data.questions for name in ("q1", "grpo", "q16")] == [1, 4, 16]
    compared = {name for one in papers.comparisons for claim in one.differences for name in (claim.higher, claim.lower)}
    assert compared == {arm.name for arm in papers.arms}


@pytest.mark.parametrize("name", ["papers", "learning-rates"])
def test_the_commands_of_the_studies_are_parsed_by_their_scripts(name, tmp_path):
    parsers = {"train.py": train._parser(), "evaluate.py": evaluate._parser(), "build_data.py": build_data._parser()}
    for command in commands(read_study(find_config(name, "studies")), tmp_path, [0]):
        if command.arguments[0] in parsers:
            parsers[command.arguments[0]].parse_args(command.arguments[1:])


def test_evaluations_leave_out_mirror_images(tmp_path):
    from jaxvsr.evaluation.answering.choose_questions import choose_questions

    seen = Question("c1", "c", "object_counting", "How many tv(s)in the room?", None, "1", "number")
    write_questions(tmp_path / "questions.jsonl", [seen, dataclasses.replace(seen, id="c2", mirror_of="c1")])
    write_splits(tmp_path, {"train": ["a"], "heldout": ["c"]})
    assert [question.id for _, question in choose_questions([tmp_path]).asked] == ["c1"]
