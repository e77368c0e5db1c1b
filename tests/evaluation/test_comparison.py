"""Constants, chance rows, paired differences and the table of columns, against brute force and closed forms."""

import random

import numpy as np
import pytest

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.evaluation.answering.baselines import (
    best_constants,
    best_number,
    chance_frequency,
    chance_random,
    constant_predictions,
)
from jaxvsr.evaluation.metrics.uncertainty import Difference, paired_difference
from jaxvsr.evaluation.metrics.vsi_bench_scores import TASKS, score_vsi_bench
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.evaluation.tables.comparison import ALL, compare_predictions
from jaxvsr.evaluation.tables.published_rows import VSI_BENCH
from jaxvsr.rewards.vsi_bench import mean_relative_accuracy
from tests.support.questions import make_question

OPTIONS = ("A. stove", "B. tv", "C. table", "D. sofa")


def accuracy(value, answers):
    return np.mean([mean_relative_accuracy(value, float(answer)) for answer in answers])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_the_best_number_beats_every_number_of_a_fine_grid(seed):
    random_ = np.random.default_rng(seed)
    answers = np.round(random_.gamma(2, 3, 60), seed % 3) + (seed % 2)
    best = accuracy(float(best_number(answers.tolist())), answers)
    assert best >= max(accuracy(value, answers) for value in np.arange(0, 25, 0.05)) - 1e-9


def test_the_best_number_for_answers_with_zeros_is_the_most_accurate():
    assert best_number([0, 0, 0, 5, 9]) == "0"
    assert float(best_number([0, 5, 5, 5])) == pytest.approx(5, rel=0.05)
    assert best_number([-1, -1]) == "-1" or accuracy(float(best_number([-1, -1])), [-1, -1]) == 1


def test_best_constants_go_by_kind_and_constant_predictions_by_type():
    training = [make_question(index, answer=answer) for index, answer in enumerate("22235")]
    training += [
        make_question(f"w{i}", "object_rel_direction", word, "word")
        for i, word in enumerate(["left", "Right", "right."])
    ]
    training += [make_question(f"c{i}", "route_planning", letter, "choice", OPTIONS) for i, letter in enumerate("BBA")]
    training += [make_question("t", "caption", "a room", "text")]
    constants = best_constants(training)
    assert float(constants.pop("object_counting")) == pytest.approx(2, rel=0.051)
    assert constants == {"object_rel_direction": "right", "route_planning": "B"}
    held = [make_question("h1", "route_planning", "B", "choice", OPTIONS), make_question("h2", "caption", "x", "text")]
    assert [one.prediction for one in constant_predictions(constants, held)] == ["B", None]


def test_chance_frequency_gives_the_most_frequent_answer_of_the_benchmark():
    rows = [make_question(index, answer=answer) for index, answer in enumerate(["2", "2", "3", "10"])]
    assert {one.prediction for one in chance_frequency(rows)} == {"2"}
    tie = [make_question(index, "route_planning", letter, "choice", OPTIONS) for index, letter in enumerate("BABA")]
    assert {one.prediction for one in chance_frequency(tie)} == {"A"}


def test_chance_random_scores_one_over_the_number_of_options_and_depends_only_on_question_and_seed():
    rows = [
        make_question(index, "route_planning", random.Random(index).choice("ABCD"), "choice", OPTIONS)
        for index in range(2000)
    ]
    said = chance_random(rows)
    assert score_vsi_bench(said).overall == pytest.approx(25, abs=4)  # 4 standard errors of 0.97
    assert chance_random(rows[::-1]) == said[::-1]
    assert chance_random(rows, seed=1) != said
    assert chance_random([make_question(1)])[0].prediction is None
    words = [
        make_question(index, "object_rel_direction", word, "word") for index, word in enumerate(["left", "right"] * 500)
    ]
    assert score_vsi_bench(chance_random(words)).overall == pytest.approx(50, abs=7)


def test_paired_difference_equals_the_textbook_formula():
    a, b = np.array([1.0, 0.5, 0.0, 1.0, np.nan]), np.array([0.0, 0.5, 0.5, 0.0, 1.0])
    found = paired_difference(a, b)
    differences = [1.0, 0.0, -0.5, 1.0]
    mean = sum(differences) / 4
    variance = sum((value - mean) ** 2 for value in differences) / 3
    assert (found.n, found.mean) == (4, mean)
    assert found.standard_error == pytest.approx((variance / 4) ** 0.5)
    assert found.in_standard_errors == pytest.approx(mean / (variance / 4) ** 0.5)
    assert paired_difference(a[:4], a[:4]).in_standard_errors == 0
    assert Difference(3, 2.0, 0.0).in_standard_errors == float("inf")


def columns():
    questions = [make_question(index) for index in range(4)] + [
        make_question(f"d{index}", "object_rel_direction", "left", "word") for index in range(2)
    ]
    start = [
        Prediction(asked, said) for asked, said in zip(questions, ["4", "1", "1", "x", "left", "right"], strict=True)
    ]
    after = [Prediction(asked, said) for asked, said in zip(questions, ["4", "4", "4", "1", "left", None], strict=True)]
    return {"start": start, "after": after[::-1]}  # the order must not matter


def test_a_comparison_holds_scores_and_paired_differences_by_type():
    table = compare_predictions(
        columns(), constants={"object_counting": "5"}, differences=[("after", "start"), ("after", "constant")]
    )
    assert [row.question_type for row in table.rows] == ["object_counting", "object_rel_direction", ALL]
    counting = table.row("object_counting")
    assert (counting.n, counting.constant) == (4, "5")
    assert counting.scores == pytest.approx({"constant": 60, "start": 25, "after": 75})
    assert counting.differences[0].mean == pytest.approx(50)
    assert counting.differences[0].standard_error == pytest.approx(np.std([0, 100, 100, 0], ddof=1) / 2)
    assert counting.differences[1].mean == pytest.approx(15)
    direction = table.row("object_rel_direction")
    assert np.isnan(direction.scores["constant"]) and (direction.scores["start"], direction.scores["after"]) == (50, 50)
    assert "–" in table.to_text() and table.to_json()[1]["score/constant"] is None
    assert table.row(ALL).n == 6
    assert table.row(ALL).scores["after"] == pytest.approx(400 / 6)


def test_a_comparison_prints_as_markdown_text_and_json():
    table = compare_predictions(columns(), differences=[("after", "start")])
    lines = table.to_markdown().splitlines()
    assert lines[0] == "| question type | n | start | after | after − start |"
    assert lines[2] == "| object_counting | 4 | 25.0 | 75.0 | +50.0 (1.7 SE) |"
    assert len({len(line) for line in table.to_text().splitlines()}) == 1
    row = table.to_json()[0]
    assert row["score/after"] == 75 and row["after - start"]["in_standard_errors"] == pytest.approx(
        50 / 28.8675, rel=1e-4
    )


def test_columns_that_answer_different_questions_are_refused():
    sets = columns()
    with pytest.raises(InputError, match=r"'after' and 'start' answer different questions \(first: 0\)"):
        compare_predictions({"start": sets["start"], "after": sets["after"][:-1]})
    with pytest.raises(InputError, match="no column 'before'"):
        compare_predictions(sets, differences=[("before", "after")])
    with pytest.raises(InputError, match="at least one"):
        compare_predictions({})


def test_a_comparison_of_free_answers_only_is_refused():
    asked = [Question(f"q{index}", "picture", "distance", "How far?", None, "2 m", "text") for index in range(3)]
    said = [Prediction(one, "2 m") for one in asked]
    with pytest.raises(InputError, match=r"none of the 3 questions has a score .*kind text.*--answers"):
        compare_predictions({"a": said, "b": said}, differences=[("b", "a")])


def test_published_averages_are_the_mean_of_their_tasks_except_in_three_known_rows():
    off = {
        name
        for (_, name), row in VSI_BENCH.items()
        if "overall" in row and abs(sum(row[task] for task in TASKS) / 8 - row["overall"]) > 0.11
    }
    assert off == {"Spatial-R1", "Chance Level (Frequency)", "Qwen2-VL-2B, think"}
