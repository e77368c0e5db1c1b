"""Free answers: boxes against a pixel count, the keyword lists on examples, the judge's place."""

import numpy as np
import pytest

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.evaluation.metrics import open_ended
from jaxvsr.evaluation.metrics.bleu import sentence_bleu, tokenize
from jaxvsr.evaluation.metrics.open_ended import box_iou, distance_right, parse_box, score_open_ended
from jaxvsr.evaluation.metrics.open_ended_types import open_ended_type, reasoning_words, yes_or_no
from jaxvsr.evaluation.predictions import Prediction


def row(id, question, answer, prediction, kind="text"):
    return Prediction(Question(str(id), "image", "open", question, None, answer, kind), prediction)


def test_bleu_of_empty_texts_is_zero_and_tokens_are_words_and_punctuation():
    assert sentence_bleu([], ["a"], 1) == sentence_bleu(["a"], [], 1) == sentence_bleu(["a"], ["a"], 2) == 0
    assert tokenize("The sofa, it's 3.5 m!") == ["the", "sofa", ",", "it", "'", "s", "3", ".", "5", "m", "!"]


def test_iou_equals_a_count_of_cells():
    random_ = np.random.default_rng(0)
    for _ in range(100):
        one, other = random_.integers(0, 12, (2, 4))
        grids = []
        for x1, y1, x2, y2 in (one, other):
            grid = np.zeros((12, 12), bool)
            grid[min(x1, x2) : max(x1, x2), min(y1, y2) : max(y1, y2)] = True
            grids.append(grid)
        union = (grids[0] | grids[1]).sum()
        expected = (grids[0] & grids[1]).sum() / union if union else 0
        assert box_iou(one.tolist(), other.tolist()) == pytest.approx(expected)


def test_boxes_are_read_after_the_first_bracket():
    assert parse_box("The 2 chairs are at [0.1, 0.2, 0.3, .4].") == (0.1, 0.2, 0.3, 0.4)
    assert parse_box("1 2 3 4") == (1, 2, 3, 4)
    assert parse_box("[1, 2, 3]") is None and parse_box("[658,549,837") is None


@pytest.mark.parametrize(
    "text",
    [
        "[658,549,837,933]",
        "(658,549),(837,933)",
        "<|box_start|>(658,549),(837,933)<|box_end|>",
        '[{"label":"chair 2","bbox_2d":[658,549,837,933]}]',
        "The chair 2 box is 658, 549, 837, 933.",
        "x1=658 y1=549 x2=837 y2=933",
    ],
)
def test_a_comma_between_three_digits_of_a_box_parts_two_numbers(text):
    assert parse_box(text) == (658, 549, 837, 933)


@pytest.mark.parametrize(
    "text",
    [
        '[{"label": "chair 2", "bbox_2d": [1658, 549, 1837, 1033]}]',
        '```json\n[\n {"bbox_2d": [1658, 549, 1837, 1033], "label": "chair 2"},\n {"bbox_2d": [1, 2, 3, 4]}\n]\n```',
        "[{'label': 'chair (2)', 'bbox_2d': [1658, 549, 1837, 1033]}]",
        '["chair 2", 1658, 549, 1837, 1033]',
        '{"label": "2 chairs", "x1": 1658, "y1": 549, "x2": 1837, "y2": 1033}',
        '{"label": "chair 2", "box": [[1658, 549], [1837, 1033]]}',
        "chair (2): <box>(1658,549),(1837,1033)</box>",
        '{"label": "chair 2", "bbox_2d": "[1658, 549, 1837, 1033]"}',
        '[{"label": "chair 2", "bbox_2d": [1658, 549, 1837, 1033',
        "The 2 chairs (3 legs each) are at [1658, 549, 1837, 1033]",
    ],
)
def test_the_numbers_of_a_label_are_no_corners(text):
    assert parse_box(text) == (1658, 549, 1837, 1033)


@pytest.mark.parametrize(
    ("said", "answer", "right"),
    [
        *[("1 m", "50 cm", True), ("1.01 m", "50 cm", False), ("25 cm", "50 cm", True), ("24 cm", "0.5 meters", False)],
        *[("2", "3 feet", True), ("far", "3 feet", False), ("3 m", "the left one", None)],
    ],
)
def test_distances_are_right_from_half_to_twice(said, answer, right):
    assert distance_right(said, answer) is right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            ("Yes, it is.", True),
            ("It is.", True),
            ("No.", False),
            ("It is not.", False),
            ("Unlikely", False),
            ("likely", True),
        ],
        *[
            ("Yes, but not by much", True),
            ("I don\u2019t think so", False),
            ("The sofa", None),
            ("nothing", None),
            ("", None),
        ],
    ],
)
def test_yes_and_no_are_recognised_by_whole_aliases(text, value):
    assert yes_or_no(text) is value


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("Where is the cup?", "[1, 2, 3, 4]", "box"),
        ("How FAR is the cup from the sink?", "2 m", "distance"),
        ("Is the cup left of the sink?", "Yes, the cup is left of it.", "yes_no"),
        ("What is this?", "A sofa", "other"),
    ],
)
def test_open_ended_types_follow_the_papers_keyword_lists(question, answer, kind):
    assert open_ended_type(question, answer) == kind


def test_reasoning_words_are_counted_as_whole_words():
    assert reasoning_words("First, I think it is likely because the sofa... unlikely, someone") == 4
    assert reasoning_words("I\u2019m not sure, so let\u2019s say two") == 3


ROWS = [
    row(1, "Where is the cup?", "[0, 0, 10, 10]", "<answer>[0, 0, 10, 8]</answer>"),
    row(2, "How far is it?", "2 meters", "about 3 m"),
    row(3, "Is it red?", "Yes", "No, it is not"),
    row(4, "Is it big?", "No", "It isn't."),
    row(5, "What is it?", "a red sofa", None),
]


@pytest.fixture
def no_sentence_bert(monkeypatch):
    """The semantic column has its own test; here 1 for equal texts."""
    monkeypatch.setattr(
        open_ended,
        "svqa_semantic",
        lambda said, answer, model: [float(a == b) for a, b in zip(said, answer, strict=True)],
    )


def test_columns_equal_a_count_by_hand(no_sentence_bert):
    scores = score_open_ended(ROWS)
    assert scores.counts == {"questions": 5, "box": 1, "yes_no": 2, "distance": 1}
    assert scores.columns["box_miou"] == pytest.approx(80) and scores.columns["box_accuracy_75"] == 100
    assert scores.columns["distance"] == 100 and scores.columns["yes_no"] == 50
    assert scores.columns["judge"] is None and scores.columns["yes_no_judge"] is None
    assert any("no judge" in note for note in scores.notes) and any("1 of 5" in note for note in scores.notes)


def test_without_a_sentence_model_its_column_is_empty_with_a_note():
    scores = score_open_ended(ROWS, model=None)
    assert scores.columns["sentence_bert"] is None and scores.to_json()["overall"] is None
    assert scores.columns["box_miou"] == pytest.approx(80)
    assert any("no sentence model was given" in note for note in scores.notes)


def test_a_judge_fills_its_columns_and_its_error_is_named(no_sentence_bert):
    scores = score_open_ended(ROWS, judge=lambda question, answer, said: said.startswith("No") or "3 m" in said)
    assert scores.columns["judge"] == pytest.approx(40) and scores.columns["yes_no_judge"] == 50
    assert scores.to_json()["overall"] == pytest.approx(40)

    assert score_open_ended(ROWS, judge=lambda *row: np.True_).columns["judge"] == 100
    assert score_open_ended(ROWS, judge=lambda *row: 0).columns["judge"] == 0
    for verdict in ("0", "no", None, 2, [True], float("nan")):
        with pytest.raises(InputError, match=r"the judge returned .* at question '1'; expected True or False"):
            score_open_ended(ROWS, judge=lambda *row, verdict=verdict: verdict)

    def broken(question, answer, said):
        raise ValueError("no key")

    with pytest.raises(InputError, match="judge raised ValueError: no key at question '1'"):
        score_open_ended(ROWS, judge=broken)
