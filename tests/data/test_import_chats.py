"""Question sets as trainers keep them: conversations, messages, pairs of usual names, options inside of the text."""

import json

import pytest

from jaxvsr.data.importers.answer_kinds import RowError
from jaxvsr.data.importers.formats import detect, read_row, renamed
from jaxvsr.data.importers.turns import without_placeholders
from jaxvsr.data.questions import read_questions
from jaxvsr.errors import InputError
from launch.build_data import main
from tests.support.published_sets import picture_bytes

ASKED = "How many chairs are there?"
PAIR = [{"from": "human", "value": ASKED}, {"from": "gpt", "value": "4"}]
TWO_VIDEOS = [{"role": "user", "content": [{"video": "a.mp4"}, {"video": "b.mp4"}, {"text": ASKED}]}]
CHATS = {
    "LLaVA": {
        "id": 5, "video": "kitchen.mp4",
        "conversations": [{"from": "human", "value": f"<video>\n{ASKED}"}, {"from": "gpt", "value": "4"}],
    },
    "Qwen": {
        "video": "kitchen.mp4",
        "conversations": [{"role": "user", "content": f"<video>\n{ASKED}"}, {"role": "assistant", "content": "4"}],
    },
    "ms-swift": {
        "messages": [{"role": "user", "content": f"<video>{ASKED}"}, {"role": "assistant", "content": "4"}],
        "videos": ["kitchen.mp4"],
    },
    "ms-swift for GRPO": {
        "messages": [{"role": "system", "content": "Think."}, {"role": "user", "content": f"<video>{ASKED}"}],
        "videos": ["kitchen.mp4"], "solution": "<answer> 4 </answer>",
    },
    "messages with a solution beside the reply": {
        "messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "<think>…</think>4"}],
        "videos": "kitchen.mp4", "solution": "4",
    },
    "parts without types": {
        "messages": [
            {"role": "user", "content": [{"video": "kitchen.mp4"}, {"text": ASKED}]},
            {"role": "assistant", "content": [{"text": "4"}]},
        ],
    },
    "EasyR1": {"problem": f"<video>\n{ASKED}", "answer": ["4"], "videos": ["kitchen.mp4"]},
    "verl": {
        "prompt": [{"role": "user", "content": f"<video>{ASKED}"}], "videos": ["kitchen.mp4"],
        "reward_model": {"style": "rule", "ground_truth": "4"},
    },
    "ms-swift's pairs": {"query": f"<video>{ASKED}", "response": "4", "videos": ["kitchen.mp4"], "history": []},
    "Alpaca": {"instruction": ASKED, "input": "", "output": "4", "video": "kitchen.mp4"},
    "ours, videos in a list": {"question": f"<video> {ASKED}", "answer": 4, "videos": ["kitchen.mp4"]},
}  # fmt: skip


def rows_of(row, field_map=None):
    form = "jsonl" if field_map else detect(row)
    return read_row(renamed(row, field_map or {}) if form == "jsonl" else row, form, "row")


@pytest.mark.parametrize("name", CHATS)
def test_rows_of_trainers_are_read_as_they_exist(name):
    (row,) = rows_of(CHATS[name])
    assert (row.question, row.answer.text, row.answer.kind, row.video) == (ASKED, "4", "number", "kitchen.mp4")
    assert row.response == ("<think>…</think>4" if "beside" in name else None)
    assert row.id == ("5" if name == "LLaVA" else None)


def test_turns_about_one_video_are_questions_about_it():
    turns = [("human", "<image>\nWhat is left of the bed?"), ("gpt", "lamp")]
    turns += [("human", "How tall is it in m?"), ("gpt", "1.5")]
    row = {"id": "a", "image": "bed.png", "conversations": [{"from": who, "value": said} for who, said in turns]}
    first, second = rows_of(row)
    assert [(one.id, one.answer.text, one.answer.kind) for one in (first, second)] == [
        ("a-0", "lamp", "word"), ("a-1", "1.5", "number"),
    ]  # fmt: skip
    assert first.images[0].name == second.images[0].name == "bed.png"


@pytest.mark.parametrize(
    "text",
    [
        "Which?\nOptions:\nA. sofa\nB. bed",
        "Which?\nA. sofa\nB. bed",
        "Which?\n(A) sofa\n(B) bed\nAnswer with the option's letter from the given choices directly.",
        "Which?\nOptions:\nA. sofa\nB. bed\nPlease answer with the letter.",
        "<image>Question: Which?\nA. sofa\n\nB. bed",
    ],
)
def test_options_in_the_text_are_options(text):
    (row,) = rows_of({"problem": text, "answer": "B", "images": ["a.png"]})
    assert (row.answer.text, row.answer.kind, row.answer.options) == ("B", "choice", ("A. sofa", "B. bed"))
    assert row.question == "Which?"


@pytest.mark.parametrize(
    "options", [{"A": "sofa", "B": "bed"}, {"B": "bed", "A": "sofa"}, {"A": "sofa", "B": "bed", "C": None}]
)
def test_options_by_letter_are_options(options):
    (row,) = rows_of({"question": "Which?", "answer": "bed", "options": options, "image": "a.png"})
    assert (row.answer.text, row.answer.options) == ("B", ("A. sofa", "B. bed"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "user", "content": ASKED}], "videos": ["a"]}, "no answer"),
        ({"messages": [{"role": "assistant", "content": "4"}], "videos": ["a"]}, "user and assistant in turn"),
        ({"problem": ASKED, "answer": "4", "videos": ["a", "b"]}, "2 videos; a scene is one"),
        ({"problem": "<video>", "answer": "4", "videos": ["a"]}, "the question is empty"),
        ({"query": ASKED, "response": "4", "history": [["a", "b"]]}, "earlier turns stand apart"),
        ({"conversations": PAIR * 2, "solution": "4"}, "2 questions"),
        ({"problem": "Is <image> larger than <image>?", "answer": "A", "images": ["a", "b"]}, "by their places"),
        ({"problem": "<image 1> is one, <image 2> two. Which?", "answer": "A", "images": ["a", "b"]}, "their places"),
        ({"query": "Where is the <ref-object>?", "response": "1", "videos": ["a"]}, "<ref-object> stands for"),
        ({"query": ASKED, "response": "<bbox>", "videos": ["a"]}, "<bbox> stands for"),
        ({"messages": [*TWO_VIDEOS, {"role": "assistant", "content": "4"}]}, "several videos"),
        ({"conversations": "text"}, "found str"),
        ({"conversations": [{"from": "robot", "value": "4"}]}, "role 'robot'"),
    ],
)  # fmt: skip
def test_rows_that_do_not_say_their_answer_are_refused_by_name(row, says):
    with pytest.raises(RowError, match=says):
        rows_of(row)


@pytest.mark.parametrize(
    "names",
    [
        "question=meta.text,answer=meta.gold,video=files",
        "question=turns.0.value,answer=turns.1.value,video=files.0",
        "question=turns,video=files",
    ],
)
def test_a_map_reaches_whatever_its_suggestion_names(names):
    turns = [{"from": "human", "value": f"<video>{ASKED}"}, {"from": "gpt", "value": "4"}]
    row = {"meta": {"text": ASKED, "gold": "4"}, "turns": turns, "files": ["kitchen.mp4"]}
    with pytest.raises(InputError, match=r"--map question=…,answer=…,video=… \(OUTER.INNER"):
        detect(row)
    (found,) = rows_of(row, dict(one.split("=") for one in names.split(",")))
    assert (found.question, found.answer.text, found.video) == (ASKED, "4", "kitchen.mp4")


def test_a_set_of_conversations_is_imported_from_a_json_list(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(picture_bytes("PNG"))
    turns = [{"from": "human", "value": f"<image>\n{ASKED}"}, {"from": "gpt", "value": "4"}]
    (tmp_path / "set.json").write_text(json.dumps([{"id": 1, "image": "a.png", "conversations": turns}]))
    out = tmp_path / "out"
    assert main(["import", str(tmp_path / "set.json"), str(out), "--videos", str(tmp_path / "pictures")]) == 0
    (row,) = read_questions(out / "questions.jsonl")
    assert (row.id, row.question, row.answer, row.answer_kind) == ("import_set-1", ASKED, "4", "number")
    assert row.images == ("a.png",) and "- format: chat" in (out / "card.md").read_text()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Watch <video> and count the chairs.", "Watch and count the chairs."),
        ("<video>\nHow many?", "How many?"),
        ("How many? <video>", "How many?"),
        ("<image> <image>\nWhich is larger?", "Which is larger?"),
        ("<image 1>\nHow many?", "How many?"),
        ("<image_1><Image-2>\nWhich is larger?", "Which is larger?"),
    ],
)
def test_marks_of_media_go_without_joining_words(text, cleaned):
    assert without_placeholders(text) == cleaned
