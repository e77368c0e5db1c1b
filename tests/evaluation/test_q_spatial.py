"""Q-Spatial's evaluator and the papers' columns on cases counted by hand, and against a restatement on random
strings.
"""

import json

import pytest

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.evaluation.benchmarks import score_predictions
from jaxvsr.evaluation.metrics.q_spatial import official_length_cm, robust_length_cm, score_q_spatial
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.evaluation.tables.checkpoint_series import write_series


def row(id, answer, prediction):
    return Prediction(Question(str(id), "image", "distance", "How far?", None, answer, "text"), prediction)


def boxed(value, unit):
    return rf"I think \scalar{{{value}}} \distance_unit{{{unit}}}"


@pytest.mark.parametrize(
    ("text", "centimetres", "unknown"),
    [
        (boxed("1.5", "meters"), 150, None),
        (boxed("10-15", "cm"), 12.5, None),
        (boxed("3", "Feet"), 91.44, None),
        (boxed("2", "in"), 5.08, None),
        (boxed("5", "mm"), 0.5, None),
        (boxed("4", "furlong"), 4, "furlong"),
        (boxed("4", " m"), 4, " m"),  # not stripped there either
        (boxed("1", "m") + boxed("2", "feet"), 60.96, None),
        (boxed("about three", "m"), None, None),
        (r"\scalar{3}", None, None),
        ("3 meters", None, None),
        ("", None, None),
    ],
)
def test_lengths_are_read_as_in_the_benchmark(text, centimetres, unknown):
    value, unit = official_length_cm(text)
    assert value == (None if centimetres is None else pytest.approx(centimetres)) and unit == unknown


def test_the_robust_parser_prefers_the_official_reading():
    assert robust_length_cm("2 m wide; " + boxed("3", "m")) == 300
    assert robust_length_cm("<think>5 m</think><answer>about 2.5 meters</answer>") == 250
    assert robust_length_cm("no idea") is None


def test_columns_equal_a_count_by_hand():
    rows = [
        row(1, "100 cm", boxed("100", "cm")),  # exact: success, 50-100
        row(2, "100 cm", boxed("2", "m")),  # exactly twice: in 150-200, no success
        row(3, "100 cm", boxed("0.5", "m")),  # exactly half: in 50-100, no success
        row(4, "1 m", boxed("1.4", "m")),  # success, 100-150
        row(5, "1 m", boxed("0", "m")),  # completed, failure
        row(6, "1 m", "far away"),  # not completed
        row(7, "1 m", None),
        row(8, "1 m", boxed("1.9", "m")),  # success, 150-200
    ]
    scores = score_q_spatial(rows)
    assert scores.questions == 8
    assert scores.success_rate == pytest.approx(100 * 3 / 8)
    assert scores.samples_completed == pytest.approx(100 * 6 / 8)
    errors = [0, 100 / 150, 50 / 75, 40 / 120, 2, 90 / 145]
    assert scores.smape == pytest.approx(100 * sum(errors) / 6)
    assert (scores.in_range_50_100, scores.in_range_100_150, scores.in_range_150_200) == pytest.approx(
        (200 / 6, 100 / 6, 200 / 6)
    )
    assert any("1 of 8 questions have no prediction" in note for note in scores.notes)
    assert scores.to_json()["overall"] == scores.success_rate


def test_the_papers_row_is_consistent_with_101_questions():
    """SVQA-R1, Table 2: 59 successes, ranges 19, 19 and 22 of 101 completed samples, 60 in range for 59 successes:
    one exactly at
    twice or half."""
    counts = {0.75: 19, 1.25: 19, 1.75: 21, 2.0: 1, 3.0: 41}
    predicted = [factor for factor, n in counts.items() for _ in range(n)]
    scores = score_q_spatial([row(index, "1 m", boxed(factor, "m")) for index, factor in enumerate(predicted)])
    shown = [
        f"{value:.2f}"
        for value in (scores.success_rate, scores.in_range_50_100, scores.in_range_100_150, scores.in_range_150_200)
    ]
    assert shown == ["58.42", "18.81", "18.81", "21.78"]


def test_the_table_has_the_papers_two_decimals_and_its_rows_as_printed():
    rows = [row(index, "1 m", boxed("1" if index < 59 else "9", "m")) for index in range(101)]
    page = score_predictions("q-spatial", rows).to_markdown()
    assert "| these predictions | 58.42 | 100.00 |" in page
    assert "| SVQA-R1 (SVQA-R1, Table 2) | 58.42 | 100.00 | 68.36 | 18.81 | 18.81 | 21.78 |" in page


def test_a_ground_truth_without_a_unit_is_refused():
    with pytest.raises(InputError, match="answer '3' is not a length"):
        score_q_spatial([row(1, "3", "3 m")])


def test_scores_without_readable_answers_have_no_ranges():
    scores = score_q_spatial([row(1, "1 m", "far")])
    assert scores.to_json()["smape"] is None and scores.success_rate == 0


def test_a_series_of_free_answers_has_the_robust_parsers_scores_too(tmp_path):
    # SVQA-R1's prompt asks for no \scalar form: by the benchmark's own parser every step would be 0.
    asked = Question("1", "image", "distance", "How far?", None, "1 m", "text")
    results = {
        step: score_predictions("q-spatial", [Prediction(asked, said)])
        for step, said in ((1000, "about 0.9 meters"), (500, "I cannot tell"))
    }
    printed = write_series(tmp_path, results)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["series-robust.json", "series.json", "series.md"]
    official, robust = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("series", "series-robust"))
    assert [(row["step"], row["success_rate"]) for row in official] == [(500, 0), (1000, 0)]
    assert [(row["step"], row["success_rate"]) for row in robust] == [(500, 0), (1000, 100)]
    page = (tmp_path / "series.md").read_text()
    assert "Robust parser:" in page and "| 1000 * | 100.00 | 100.00 | 100.00 |" in page
    assert "| questions |" in page and " 1 |\n" in page and "1000 *" in printed
