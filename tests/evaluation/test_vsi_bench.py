"""The benchmark's metric against an independent restatement of its evaluator, its goldens, and aggregates by hand."""

import json
import math
import random
from fractions import Fraction

import numpy as np
import pytest

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.evaluation.metrics.vsi_bench_scores import (
    DIRECTION,
    DIRECTIONS,
    TASKS,
    robust_score,
    score_intervals,
    score_vsi_bench,
)
from jaxvsr.evaluation.predictions import Prediction, read_predictions, write_predictions
from jaxvsr.rewards.vsi_bench import answer_score, clean, mean_relative_accuracy
from tests.support.questions import make_question
from tests.support.vsi_bench_restated import random_prediction, restated_letter, restated_number

OPTIONS = ("A. stove", "B. tv", "C. trash can", "D. sofa")


def test_number_scores_equal_the_restated_evaluator_on_10000_strings():
    draw = random.Random(0)
    seen = set()
    for _ in range(10_000):
        prediction = random_prediction(draw)
        truth = str(draw.choice([1, 2, 3, 4, 5, 10, 20, 2.5, 0.7, 47.9, 113]))
        expected = restated_number(prediction, truth)
        assert answer_score(prediction, truth, "number") == pytest.approx(expected, abs=1e-12), (prediction, truth)
        seen.add(expected)
    assert len(seen) == 11  # every value that the metric can take


def test_choice_scores_equal_the_restated_evaluator_on_10000_strings():
    draw = random.Random(1)
    hits = 0
    for _ in range(10_000):
        prediction, truth = random_prediction(draw), draw.choice("ABCDabcd")
        expected = restated_letter(prediction, truth)
        assert answer_score(prediction, truth, "choice") == expected, (prediction, truth)
        hits += expected
    assert hits > 300


def test_word_scores_equal_a_restated_normalised_match_on_10000_strings():
    draw = random.Random(2)
    words = ["left", "right", "sink", "trash can", "sofa"]
    hits = 0
    for _ in range(10_000):
        truth, said = draw.choice(words), draw.choice(words)
        noise = [
            draw.choice(["", " ", "\n", "  "]),
            draw.choice(["", "the ", "The ", "a "]),
            draw.choice(["", ".", "!", " .", '"']),
        ]
        cased = said.upper() if draw.random() < 0.3 else said
        expected = float(said == truth)
        assert answer_score(noise[0] + noise[1] + cased + noise[2], truth, "word") == expected
        hits += expected
    assert hits > 1000


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        *[
            (100, 100, 1),
            (95, 100, 1),
            (19, 20, 1),
            (9, 10, 0.9),
            (85, 100, 0.8),
            (8, 10, 0.6),
            (4, 5, 0.6),
            (5, 4, 0.6),
        ],
        *[
            (12, 10, 0.6),
            (3, 4, 0.6),
            (7, 10, 0.5),
            (13, 10, 0.5),
            (2, 3, 0.4),
            (3, 2, 0.1),
            (1, 2, 0.1),
            (5.5, 10, 0.1),
        ],
        *[(6, 4, 0.1), (0, 5, 0)],
    ],
)
def test_mean_relative_accuracy_has_the_evaluators_values_at_its_float_ties(prediction, truth, expected):
    assert mean_relative_accuracy(float(prediction), float(truth)) == pytest.approx(expected, abs=1e-12)


def test_mean_relative_accuracy_equals_exact_fractions_away_from_ties():
    draw = random.Random(3)
    for _ in range(2000):
        truth, prediction = draw.uniform(0.1, 200), draw.uniform(0, 300)
        error = abs(Fraction(prediction) - Fraction(truth)) / Fraction(truth)
        expected = sum(error <= 1 - Fraction(50 + 5 * step, 100) for step in range(10)) / 10
        assert mean_relative_accuracy(prediction, truth) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        *[("A", 1), ("a", 1), ("A.", 1), ("A. sofa", 1), ("\nA", 1), ("A..", 1), ("A)", 0), ("(A)", 0), ("A.\n", 0)],
        *[("A,B", 0), (" A", 0), ("Answer: A", 0), ("", 0), ("A\n", 1), ("A\tB", 0)],
    ],
)
def test_official_letter_parsing_keeps_the_evaluators_quirks(prediction, right):
    assert answer_score(prediction, "A", "choice") == right


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        *[
            ("3", 1),
            ("3 chairs", 1),
            ("3.", 1),
            ("3m", 0),
            ("about 3", 0),
            ("three", 0),
            ("nan", 0),
            ("inf", 0),
            ("-3", 0),
        ],
        *[("3e0", 1), ("0_3", 1), ("", 0), (" 3", 0), ("3,", 0)],
    ],
)
def test_official_number_parsing_keeps_the_evaluators_quirks(prediction, score):
    assert answer_score(prediction, "3", "number") == score


def test_cleaning_cuts_only_at_a_space():
    assert [clean(text) for text in ("A b", "A\nb", "x.. ", " A")] == ["A", "A\nb", "x", ""]


def benchmark(scores_by_type):
    """Predictions whose share of right answers by type is given."""
    rows = []
    for question_type, (right, n) in scores_by_type.items():
        number = question_type in TASKS[:4]
        for index in range(n):
            truth, wrong = ("4", "400") if number else ("A", "B")
            asked = make_question(
                f"{question_type}{index}",
                question_type,
                truth,
                "number" if number else "choice",
                None if number else OPTIONS,
            )
            rows.append(Prediction(asked, truth if index < right else wrong))
    return rows


FULL = {
    **{
        "object_counting": (3, 4),
        "object_abs_distance": (1, 4),
        "object_size_estimation": (2, 4),
        "room_size_estimation": (0, 4),
    },
    **{"object_rel_distance": (1, 2), "object_rel_direction_easy": (2, 2), "object_rel_direction_medium": (5, 10)},
    **{"object_rel_direction_hard": (0, 1), "route_planning": (1, 1), "obj_appearance_order": (1, 10)},
}


def test_overall_is_the_mean_of_eight_tasks_and_direction_the_mean_of_its_levels():
    scores = score_vsi_bench(benchmark(FULL))
    assert scores.tasks == {
        "object_counting": 75,
        "object_abs_distance": 25,
        "object_size_estimation": 50,
        "room_size_estimation": 0,
        "object_rel_distance": 50,
        "object_rel_direction": 50,  # (100 + 50 + 0) / 3, whatever the numbers of questions
        "route_planning": 100,
        "obj_appearance_order": 10,
    }
    assert list(scores.tasks) == list(TASKS)
    assert scores.overall == 360 / 8
    assert scores.missing_tasks == () and scores.notes == ()
    assert scores.to_json() == {
        "overall": 45.0,
        **scores.tasks,
        "missing_tasks": [],
        "questions": 42,
        "parser": "official",
    }


def test_missing_tasks_and_levels_are_named_and_overall_is_over_those_present():
    kept = {name: FULL[name] for name in ("object_counting", "object_rel_direction_easy", "object_rel_direction_hard")}
    scores = score_vsi_bench(benchmark(kept))
    assert scores.overall == (75 + 50) / 2
    assert scores.missing_tasks == tuple(
        task for task in TASKS if task not in ("object_counting", "object_rel_direction")
    )
    assert any("missing: object_abs_distance" in note for note in scores.notes)
    assert any(DIRECTIONS[1] in note for note in scores.notes)


def test_directions_without_a_level_are_not_the_benchmarks_task():
    rows = [*benchmark({"object_counting": FULL["object_counting"]})]
    rows.append(Prediction(make_question(99, DIRECTION, "left", "word"), "right"))
    scores = score_vsi_bench(rows)
    assert scores.overall == scores.tasks["object_counting"] and DIRECTION in scores.missing_tasks
    assert scores.tasks["object_rel_direction_without_level"] == 0 and DIRECTION not in scores.tasks


def test_missing_predictions_score_zero_and_are_counted():
    answered = [Prediction(make_question(1), "4"), Prediction(make_question(2), None)]
    scores = score_vsi_bench(
        answered, questions=[make_question(1), make_question(2), make_question(3), make_question(4)]
    )
    assert scores.tasks == {"object_counting": 25.0}
    assert scores.counts == {"object_counting": 4}
    assert any("3 of 4 questions have no prediction" in note for note in scores.notes)
    assert scores.per_question.tolist() == [1, 0]


def test_unknown_types_are_scored_by_kind_and_stay_out_of_overall():
    rows = [Prediction(make_question(1), "4"), Prediction(make_question(2, "object_height", "100"), "50")]
    scores = score_vsi_bench(rows)
    assert scores.overall == 100 and scores.tasks["object_height"] == pytest.approx(10)
    assert any("object_height (1 questions) is no task of VSI-Bench" in note for note in scores.notes)
    assert score_vsi_bench(rows[1:]).overall == pytest.approx(10)


@pytest.mark.parametrize(
    ("truth", "said", "right", "words"),
    [("0", "0", 1, "zero"), ("0", "1", 0, "zero"), ("-2", "7", 1, "negative"), ("x", "1", 0, "not a number")],
)
def test_target_answers_that_the_metric_does_not_fit_are_noted(truth, said, right, words):
    scores = score_vsi_bench([Prediction(make_question(1, answer=truth), said)])
    assert scores.overall == 100 * right
    assert any(words in note for note in scores.notes)


def test_text_and_boxes_are_not_scored_and_a_note_says_so():
    scores = score_vsi_bench(
        [Prediction(make_question(1), "4"), Prediction(make_question(2, "caption", "a room", "text"), "a room")]
    )
    assert list(scores.by_type) == ["object_counting"] and math.isnan(scores.per_question[1])
    assert any("kind text" in note for note in scores.notes)


def test_word_answers_of_a_benchmark_type_get_a_note_that_they_are_not_in_the_benchmark():
    scores = score_vsi_bench([Prediction(make_question(1, "object_rel_distance", "sink", "word"), "The sink.")])
    assert scores.overall == 100
    assert any("not comparable" in note for note in scores.notes)


@pytest.mark.parametrize(
    ("prediction", "kind", "answer", "right"),
    [
        *[
            ("(A)", "choice", "A", 1),
            ("A.\n", "choice", "A", 1),
            ("Answer: A", "choice", "A", 1),
            ("stove", "choice", "A", 1),
        ],
        *[
            ("<answer>C</answer>", "choice", "C", 1),
            ("B or C", "choice", "B", 0),
            ("I pick the trash can.", "choice", "C", 1),
            ("I see a trash can.", "choice", "C", 0),
        ],
        *[
            ("3m", "number", "3", 1),
            ("about 3", "number", "3", 1),
            ("three", "number", "3", 1),
            ("The answer is 3.", "number", "3", 1),
        ],
        *[
            ("1,200 cm", "number", "1200", 1),
            ("٣", "number", "3", 1),
            ("none", "number", "3", 0),
            ("inf", "number", "3", 0),
        ],
        *[("It is to the left.", "word", "left", 1), ("left or right", "word", "left", 0), ("", "word", "left", 0)],
    ],
)
def test_the_robust_parser_reads_answers_that_the_official_one_misses(prediction, kind, answer, right):
    asked = make_question(1, "t", answer, kind, OPTIONS if kind == "choice" else None)
    assert robust_score(prediction, asked, frozenset({"left", "right"})) == right


def test_the_robust_parser_takes_the_longest_word_that_is_mentioned():
    words = frozenset({"can", "trash can", "sink"})
    assert robust_score("next to the trash can", make_question(1, "t", "trash can", "word"), words) == 1
    assert robust_score("next to the trash can", make_question(1, "t", "can", "word"), words) == 0


@pytest.mark.slow
def test_robust_scores_are_between_0_and_1_on_10000_strings():
    draw = random.Random(4)
    for _ in range(10_000):
        prediction = random_prediction(draw)
        asked = draw.choice(
            [make_question(1), make_question(1, "t", "A", "choice", OPTIONS), make_question(1, "t", "sofa", "word")]
        )
        assert 0 <= robust_score(prediction, asked) <= 1


def test_bootstrap_intervals_agree_with_the_binomial_they_estimate():
    rows = benchmark({"object_rel_distance": (60, 100), "object_counting": (50, 100)})
    scores = score_vsi_bench(rows)
    found = score_intervals(rows, scores)
    for name, share, n in (("object_rel_distance", 0.6, 100), ("object_counting", 0.5, 100), ("overall", 0.55, 200)):
        low, high = found[name]
        half = 1.96 * math.sqrt(share * (1 - share) / n) * 100
        assert (high - low) / 2 == pytest.approx(half, rel=0.1)
        assert (high + low) / 2 == pytest.approx(100 * share, abs=1)
    assert score_intervals(rows, scores) == found  # the seed decides


def test_written_predictions_are_read_back_equal(tmp_path):
    rows = [
        Prediction(make_question(1, options=OPTIONS, kind="choice", answer="A"), "A\u2028\n\ud800 ☃"),
        Prediction(make_question(2), None),
        Prediction(make_question(3), ""),
    ]
    write_predictions(tmp_path / "predictions.jsonl", rows)
    assert read_predictions(tmp_path / "predictions.jsonl") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_sample_logs_of_lmms_eval_are_read(tmp_path):
    doc = {"id": 7, "dataset": "scannet", "scene_name": "scene0011_00", "question_type": "object_rel_distance"}
    doc |= {"question": "Which?", "options": list(OPTIONS), "ground_truth": "C"}
    logs = [
        {
            "doc_id": 0,
            "doc": doc,
            "target": "",
            "resps": [["C."]],
            "filtered_resps": ["C."],
            "vsibench_score": {**doc, "prediction": "C."},
        },
        {"doc_id": 1, "doc": {**doc, "id": 8}, "resps": [["B"]], "filtered_resps": ["B"]},
        {"doc_id": 2, "doc": {**doc, "id": 9}, "resps": [["C"]]},
        {**doc, "id": 10, "prediction": "C"},
    ]
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in logs))
    rows = read_predictions(path)
    assert [row.prediction for row in rows] == ["C.", "B", "C", "C"]
    place = "scannet/scene0011_00.mp4"
    assert rows[0].question == Question(
        "vsi-bench-7", "scene0011_00", "object_rel_distance", "Which?", OPTIONS, "C", "choice", video=place
    )
    assert score_vsi_bench(rows).overall == 75


DOC = {"id": 7, "dataset": "scannet", "scene_name": "scene0011_00", "question_type": "object_rel_distance"}
DOC |= {"question": "Which?", "options": list(OPTIONS), "ground_truth": "C", "pruned": False}
SCORED = {**DOC, "prediction": "C.", "accuracy": 1.0}
LOGS = {
    "the authors' one document": {
        "args": {"model": "llava", "log_samples": True},
        "model_configs": {"task": "vsibench"},
        "logs": [{"doc_id": 0, "doc": DOC, "target": "C", "resps": [['["C."]']], "vsibench_score": SCORED}],
        "time": "0101_0000",
    },
    "before 0.4": {"doc_id": 0, "doc": DOC, "target": "C", "arguments": {}, "filtered_resps": ["C."]},
    "since 0.4": {"doc_id": 0, "target": "C", "doc_hash": "x", "filtered_resps": ["C."], "vsibench_score": SCORED},
    "since 0.4, other metric": {"doc_id": 0, "input": "…", "resps": [["C."]], "vsibench_overall": {**DOC, "x": 1}},
    "VSI-Bench's own fields": SCORED,
    "a list": [SCORED],
    "documents by task": {"logs": {"vsibench": [{"doc_id": 0, "vsibench_score": SCORED}]}},
}


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("indent", [None, 2])
def test_logs_are_read_as_they_exist(name, indent, tmp_path):
    path = tmp_path / "samples.json"
    path.write_text("\ufeff" + json.dumps(LOGS[name], indent=indent, ensure_ascii=False), encoding="utf-8")
    (row,) = read_predictions(path)
    assert (row.question.id, row.question.answer, row.question.answer_kind) == ("vsi-bench-7", "C", "choice")
    assert row.question.video == "scannet/scene0011_00.mp4" and row.prediction == "C."
    assert score_vsi_bench([row]).overall == 100


def test_ids_that_are_integers_are_read_from_our_own_rows(tmp_path):
    row = {**make_question(1).to_json(), "id": 12, "prediction": "4"}
    (tmp_path / "p.json").write_text(json.dumps([row, {**row, "id": 13}], indent=1))
    assert [one.question.id for one in read_predictions(tmp_path / "p.json")] == ["12", "13"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no predictions"),
        ("{", "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ("[]", "has no predictions"),
        ("[3]", "row 1: expected a JSON object"),
        ('{"results": {"vsibench": {}}}', "has scores but no answers"),
        ('{"prediction": 3}', "prediction must be a string"),
        ('{"prediction": "3", "colour": 1}', "unknown field 'colour'"),
        ('{"prediction": "3", "ground_truth": "3", "question_type": "x"}', "'x' is not one of VSI-Bench's"),
    ],
)
def test_broken_prediction_files_are_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "predictions.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_predictions(path)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_repeated_id_is_refused(tmp_path):
    row = json.dumps({**make_question(1).to_json(), "prediction": "4"})
    (tmp_path / "p.jsonl").write_text(f"{row}\n\n{row}\n")
    with pytest.raises(InputError, match=r"line 3: id '1' is also in line 1"):
        read_predictions(tmp_path / "p.jsonl")


def test_scores_of_predictions_do_not_depend_on_their_order():
    rows = benchmark(FULL)
    assert score_vsi_bench(rows[::-1]).to_json() == score_vsi_bench(rows).to_json()
    assert np.array_equal(score_vsi_bench(rows[::-1]).per_question, score_vsi_bench(rows).per_question[::-1])
