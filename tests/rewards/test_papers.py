"""The papers' rewards on worked examples, and that their faults are reproduced only where asked for."""

import pytest

from jaxvsr.rewards.numerals import parse_length_cm, parse_number
from jaxvsr.rewards.spatial_r1 import (
    released_letter,
    released_number,
    spatial_r1_format,
    spatial_r1_mar,
    spatial_r1_nar,
)
from jaxvsr.rewards.svqa_r1 import svqa_format
from jaxvsr.rewards.vsgrpo import (
    numeric_score,
    vsgrpo_accuracy,
    vsgrpo_format_observe,
    vsgrpo_format_think,
    vsgrpo_length,
)
from jaxvsr.rewards.vsi_bench import vsi_bench

OPTIONS = ("A. stove", "B. tv", "C. table", "D. sofa")


def one(reward, completion, answer, kind, options=None, **extra):
    (value,) = reward([completion], answer=[answer], answer_kind=[kind], options=[options], question=["?"], **extra)
    return value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[
            ("3", 3),
            ("about -1,200.5 m", -1200.5),
            ("twenty-one chairs", 21),
            ("Twenty one", 21),
            (".5", 0.5),
            ("1e3", 1000),
        ],
        *[
            ("10-15", 10),
            ("two point five", 2.5),
            ("1,5", 1),
            ("٣٫٥", 3.5),
            ("１２", 12),
            ("−5", -5),
            ("約3米", 3),
            ("3m", 3),
        ],
        *[
            ("two hundred and five", 205),
            ("a hundred", 100),
            ("one two", 1),
            ("3 of 4", 3),
            ("room2", None),
            ("someone", None),
        ],
        *[("nan", None), ("inf", None), ("1e400", None), ("", None), ("-", None), ("ten thousand", 10_000)],
    ],
)
def test_the_first_number_of_a_text_is_read(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("text", "centimetres"),
    [
        *[
            ("2.5 meters", 250),
            ("3 feet", 91.44),
            ("five feet", 152.4),
            ("10cm", 10),
            ("36-inch", 91.44),
            ("1,000 mm", 100),
        ],
        *[
            ("3 in the room is 2 m", 200),
            ("2 people, 4 metres apart", 400),
            ("2", None),
            ("2 minutes", None),
            ("2 chairs", None),
        ],
    ],
)
def test_lengths_without_a_unit_are_not_read(text, centimetres):
    assert parse_length_cm(text) == (None if centimetres is None else pytest.approx(centimetres))


@pytest.mark.parametrize(
    ("prediction", "target", "bounded", "negated", "mra"),
    [
        (4, 4, 1, 0, 1),
        (5, 4, 0.75, -0.25, 0.6),
        (4, 5, 0.75, -0.25, 0.6),
        (8, 4, 0, -1, 0),
        (2, 4, 0, -1, 0.1),
        (100, 4, 0, -10, 0),
        (0, 4, 0, -10, 0),
        (-4, 4, 0, -10, 0),
        (None, 4, 0, -10, 0),
        (0, 0, 1, 0, 1),
        (1, 0, 0, -10, 0),
        (-2, -2, 1, 0, 1),
        (-1, -2, 0, -10, 0),
        (5, None, 0, -10, 0),
    ],
)
def test_numeric_scores_of_vsgrpo_have_known_values(prediction, target, bounded, negated, mra):
    given = [numeric_score(prediction, target, name) for name in ("bounded", "negated", "mra")]
    assert given == pytest.approx([bounded, negated, mra])


@pytest.mark.parametrize(
    ("completion", "answer", "kind", "value"),
    [
        ("<think>x</think><answer>The Sofa.</answer>", "sofa", "word", 1),
        ("sofa", "sofa", "word", 1),
        ("the sofa is closest", "sofa", "word", 0),
        ("left", "right", "word", 0),
        ("<answer>C</answer>", "C", "choice", 1),
        ("c.", "C. table", "choice", 1),
        ("table", "C", "choice", 1),
        ("D", "C", "choice", 0),
        ("<answer>5</answer> 4", "4", "number", 0.75),
        ("4 chairs", "4", "number", 1),
        ("[1,2,3,4]", "[1,2,3,4]", "box", None),
    ],
)
def test_accuracy_of_vsgrpo_depends_on_the_kind_of_answer(completion, answer, kind, value):
    assert one(vsgrpo_accuracy, completion, answer, kind, OPTIONS if kind == "choice" else None) == value


def test_formats_of_vsgrpo_require_the_tag_of_their_mode():
    think, observe = "<think>a</think> <answer>b</answer>", "<observe>a</observe>\n<answer>b</answer>\n"
    assert vsgrpo_format_think([think, observe, think + "x", "4"]) == [1, 0, 0, 0]
    assert vsgrpo_format_observe([think, observe, "<think> </think> <answer>xx</answer>"]) == [0, 1, 0]


def test_the_papers_rewards_accept_the_hacks_that_the_paper_reports():
    assert vsgrpo_format_think(["<think> </think> <answer>xx</answer>"]) == [1]
    padded = "<think></think><answer></answer>" * 20
    assert vsgrpo_length(["<think>a</think><answer>4</answer>", padded]) == [pytest.approx(34 / 300), 1]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("-5", 5),
        ("twenty-one", 1),
        ("about a 3", 1),
        ("1,200", 1),
        (".5", 5),
        ("1e3", 1),
        ("Seven", 7),
        ("3 m", 3),
        ("none", None),
        ("ten 4", 10),
    ],
)
def test_released_number_parsing_of_spatial_r1_has_its_known_faults(text, number):
    assert released_number(text) == number


@pytest.mark.parametrize(
    ("text", "letter"), [("An answer: C", "A"), ("c", "None"), ("D or B", "B"), ("left", "None"), ("None", "None")]
)
def test_released_letter_parsing_of_spatial_r1_has_its_known_faults(text, letter):
    assert released_letter(text) == letter


@pytest.mark.parametrize(
    ("completion", "answer", "ours", "eleven", "released"),
    [
        ("<answer>19</answer>", "20", 1, 1, 1),
        ("<answer>9</answer>", "10", 0.9, 9 / 11, 0.9),
        ("<answer>1</answer>", "2", 0.1, 1 / 11, 0.1),
        ("<answer>-5</answer>", "5", 0, 0, 1),
        ("<answer>twenty-one</answer>", "21", 1, 1, 0),
        ("<answer>1,200</answer>", "1200", 1, 1, 0),
        ("5", "5", 0, 0, 0),
        ("<answer>0</answer>", "0", 1, 1, 1),
        ("<answer>5</answer>", "0", 0, 0, 0),
        ("<answer>5</answer>", "-5", 0, 0, 0),
        ("<answer>3</answer><answer>4</answer>", "4", 0.6, 6 / 11, 0.6),
    ],
)
def test_numerical_reward_of_spatial_r1_has_known_values_in_both_parsings(completion, answer, ours, eleven, released):
    assert one(spatial_r1_nar, completion, answer, "number") == pytest.approx(ours)
    assert one(spatial_r1_nar, completion, answer, "number", thresholds=11) == pytest.approx(eleven)
    assert one(spatial_r1_nar, completion, answer, "number", parsing="released") == pytest.approx(released)


def test_rewards_of_spatial_r1_are_none_for_other_kinds_of_answers():
    assert one(spatial_r1_nar, "<answer>C</answer>", "C", "choice") is None
    assert one(spatial_r1_mar, "<answer>4</answer>", "4", "number") is None


@pytest.mark.parametrize(
    ("completion", "answer", "kind", "ours", "released"),
    [
        ("<answer>C</answer>", "C", "choice", 1, 1),
        ("<answer>C. table</answer>", "C", "choice", 1, 1),
        ("<answer>c</answer>", "C", "choice", 1, 0),
        ("<answer>An answer: C</answer>", "C", "choice", 1, 0),
        ("C", "C", "choice", 0, 0),
        ("<answer>left</answer>", "left", "word", 1, 0),  # left/right could never score in the released trainer
        ("<answer>right</answer>", "left", "word", 0, 0),
    ],
)
def test_choice_reward_of_spatial_r1_compares_in_the_solutions_form(completion, answer, kind, ours, released):
    options = OPTIONS if kind == "choice" else None
    assert one(spatial_r1_mar, completion, answer, kind, options) == ours
    assert one(spatial_r1_mar, completion, answer, kind, options, parsing="released") == released


def test_format_of_spatial_r1_is_that_of_the_release():
    good = "<think>x</think>\n<answer>C</answer>"
    cases = {
        good: 1,
        good + "\n": 0,
        "<think></think><answer>C</answer>": 1,
        "<think>x</think><answer></answer>": 0,
        "<think><think>x</think></think><answer>C</answer>": 1,
        "<think><think>x</think><answer>C</answer>": 1,
        "<think>x</think><answer>a</answer><answer>b</answer>": 1,
        "x" + good: 0,
    }
    assert spatial_r1_format(list(cases)) == list(cases.values())


def test_format_of_svqa_r1_allows_white_space_around():
    assert svqa_format(["<think>a</think> <answer>b</answer>\n", "<answer>b</answer>", "<think>a</think>"]) == [1, 0, 0]


def test_the_benchmark_as_reward_scores_inside_the_answer_tag():
    assert one(vsi_bench, "<think>9</think><answer>9</answer>", "10", "number") == pytest.approx(0.9)
    assert one(vsi_bench, "9 chairs", "10", "number") == pytest.approx(0.9)
    assert one(vsi_bench, "(A)", "A", "choice") == 0
    assert one(vsi_bench, "a room", "a room", "text") is None
