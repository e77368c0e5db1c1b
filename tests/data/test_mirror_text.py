"""Free text in a mirror: swapped where rules decide, refused where they cannot, and back again."""

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from jaxvsr.data.importers.mirror_text import Undecided, mirror_question, mirror_rows, mirror_text
from jaxvsr.data.questions import Question

SWAPPED = [
    ("Is the chair to the left of the desk?", "Is the chair to the right of the desk?"),
    ("left", "right"),
    ("A. Left.", "A. Right."),
    ("The lamp is on the RIGHT side.", "The lamp is on the LEFT side."),
    ("Which is the leftmost object?", "Which is the rightmost object?"),
    ("the left-most box and the right-hand door", "the right-most box and the left-hand door"),
    ("Move rightwards, then turn left.", "Move leftwards, then turn right."),
    ("in the top-left corner", "in the top-right corner"),
    ("in the upper right corner of the image", "in the upper left corner of the image"),
    ("the bottom left", "the bottom right"),
    ("From left to right: bed, lamp.", "From right to left: bed, lamp."),
    ("Is it on the left or right?", "Is it on the right or left?"),
    ("front-left, front-right, back-left, or back-right", "front-right, front-left, back-right, or back-left"),
    ("Turn 90 degrees clockwise.", "Turn 90 degrees counterclockwise."),
    ("The chair's left leg is broken.", "The chair's right leg is broken."),
    ("The man (on your left) is taller.", "The man (on your right) is taller."),
    ("The sofa is left of the table.", "The sofa is right of the table."),
    ("How far is the bed from the lamp? 1.2 meters.", "How far is the bed from the lamp? 1.2 meters."),
    ("the bright, upright leftover cleft", "the bright, upright leftover cleft"),
    ("The box is [0.10, 0.20, 0.30, 0.60].", "The box is [0.70, 0.20, 0.90, 0.60]."),
    ("[0, 0.5, 0.25, 1]", "[0.75, 0.5, 1, 1]"),
    ("(0.1,0.2),(0.3,0.4)", "(0.7,0.2),(0.9,0.4)"),
    ("between the left and the right lamp", "between the right and the left lamp"),
    ("from the left to the right", "from the right to the left"),
    ("the object on the left side to the right of the bed", "the object on the right side to the left of the bed"),
    ("The left lamp: [0.1, 0.1, 0.2, 0.2]", "The right lamp: [0.8, 0.1, 0.9, 0.2]"),
]  # fmt: skip

REFUSED = [
    ("Which is the right answer?", "may be no side"),
    ("You are right.", "may be no side"),
    ("How many chairs are left?", "may be no side"),
    ("The lamp is right next to the bed.", "may be no side"),
    ("The cup left on the table", "may be no side"),
    ("It has the right of way.", "may be no side"),
    ("There is a chair, right?", "may be no side"),
    ("What is right behind the sofa?", "may be no side"),
    ("Yes, that's right.", "may be no side"),
    ("It's right.", "may be no side"),
    ("What's left?", "may be no side"),
    ("He turned left and left the room.", "may be no side"),
    ("Two chairs are left, to the left of the desk.", "may be no side"),
    ("Two chairs are left to the right of the desk.", "may be no side"),
    ("Which is the right object to use?", "may be no side"),
    ("the right and only way", "may be no side"),
    ("the r\u0131ght side", "letters that are like others"),
    ("Turn clockwi\u017fe.", "letters that are like others"),
    ("The chair is at 3 o'clock.", "clock face"),
    ("What time does the clock show?", "clock face"),
    ("Turn counter-clockwise.", "without a way back"),
    ("Is the window on the east wall?", "compass"),
    ("What is the text on the sign?", "writing"),
    ("The box is [10, 20, 30, 40].", "without the image's width"),
    ("The box is [0, 0, 1, 1].", "in pixels or in shares"),
    ("The box is [0.5, 0.2, 0.3, 0.6].", "no box of corners"),
    ("The point is (0.2, 0.3).", "no box"),
    ("Its x coordinate is 0.3.", "coordinate"),
    ("the LeFT side", "mixed capitals"),
    ("The box is [-0.1, 0.2, 0.3, 0.6].", "no box"),
]


@pytest.mark.parametrize(("text", "mirrored"), SWAPPED)
def test_sides_turns_and_boxes_are_swapped_and_back(text, mirrored):
    assert mirror_text(text) == mirrored
    assert mirror_text(mirrored) == text


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_texts_that_the_rules_cannot_mirror_are_refused_with_the_reason(text, reason):
    with pytest.raises(Undecided, match=reason):
        mirror_text(text)


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_a_refused_text_is_refused_in_its_mirrored_form_too(text, reason):
    """Else a text could be rewritten into one that is not rewritten back."""
    swap = {"left": "right", "right": "left"}
    other = re.sub(r"\b(left|right)\b", lambda word: swap[word[0]], text)
    with pytest.raises(Undecided, match=reason):
        mirror_text(other)


def test_boxes_in_pixels_need_the_width():
    assert mirror_text("[10, 20, 30, 40]", width=640) == "[610, 20, 630, 40]"
    assert mirror_text("[10.50, 20, 30, 40]", width=640) == "[610, 20, 629.50, 40]"
    assert mirror_text("(10,20),(30,40)", width=1000) == "(970,20),(990,40)"
    for text in ("[10, 20, 700, 40]", "[30, 20, 10, 40]", "[10, 40, 30, 20]"):
        with pytest.raises(Undecided, match="no box of corners"):
            mirror_text(text, width=640)


PIECES = """left right Left RIGHT the to of on is side leftmost right-hand clockwise counterclockwise chair and or are
top-left bottom right? o'clock next answer turn . , behind my its corner lamp's [0.1,0.2,0.3,0.4] (0.50,0,0.75,1)
[0.05,0.1,0.250,0.7] [3,4,5,6] east facing leftward rights"""


@pytest.mark.slow
@given(st.lists(st.sampled_from(PIECES.split()), max_size=12).map(" ".join), st.sampled_from([None, 6, 640]))
@example("the right of way", None)
@example("to the left of the right lamp", None)
def test_rewriting_twice_gives_the_original(text, width):
    try:
        mirrored = mirror_text(text, width=width)
    except Undecided:
        assume(False)
    assert mirror_text(mirrored, width=width) == text
    if re.search(r"\b(left|right)\b", text, re.IGNORECASE):
        assert mirrored != text


@given(
    st.lists(st.integers(0, 100), min_size=4, max_size=4),
    st.integers(0, 3),
    st.sampled_from(["[{}, {}, {}, {}]", "({},{}),({},{})"]),
)
def test_a_mirrored_box_is_the_box_of_the_mirrored_points(numbers, decimals, shape):
    x1, x2, y1, y2 = (f"{value / 100:.{decimals + 2}f}" for value in (*sorted(numbers[:2]), *sorted(numbers[2:])))
    mirrored = [float(word) for word in re.findall(r"[\d.]+", mirror_text(shape.format(x1, y1, x2, y2)))]
    assert mirrored == pytest.approx([1 - float(x2), float(y1), 1 - float(x1), float(y2)])


def row(number, question, answer, **fields):
    return Question(f"q{number}", "image", "text", question, None, answer, "text", **fields)


def test_a_row_is_rewritten_completely_or_not_at_all():
    asked = row(0, "Is A on the left?", "Yes, A is on the left side.", response="<think>A is to the left of B.</think>")
    twin = mirror_question(asked)
    assert (twin.question, twin.answer) == ("Is A on the right?", "Yes, A is on the right side.")
    assert twin.response == "<think>A is to the right of B.</think>"
    assert (twin.mirror_of, twin.id) == ("q0", "q0-mirror")
    choice = Question("c", "image", "t", "Where is it?", ("A. top left", "B. top right"), "A", "choice")
    assert mirror_question(choice).options == ("A. top right", "B. top left") and mirror_question(choice).answer == "A"
    with pytest.raises(Undecided):
        mirror_question(row(1, "Is A on the left?", "You are right."))


def test_the_share_refused_is_reported_with_the_reasons():
    rows = [
        row(0, "Is A on the left?", "no"),
        row(1, "How many are left?", "2"),
        row(2, "What does the text say?", "exit"),
        row(3, "Where is it?", "[10, 20, 30, 40]"),
        row(4, "Is A on the right?", "no", mirror_of="q0"),
    ]
    report = mirror_rows(rows, lambda row: 100.0 if row.id == "q3" else None)
    assert [twin.mirror_of for twin in report.rows] == ["q0", "q3"] and set(report.refused) == {"q1", "q2"}
    assert report.rows[1].answer == "[70, 20, 90, 40]" and report.refused_share == 0.5
    assert report.line() == (
        "2 of 4 rows (50.0 %) have no mirror image: 'left' or 'right' that may be no side 1, writing 1"
    )
