"""Data folders in another form: answers in tags, splits without the scenes with few questions."""

import json

from jaxvsr.data.questions import Question, read_questions, write_questions
from jaxvsr.data.splits import read_splits
from jaxvsr.data.tagged_answers import tagged_response
from jaxvsr.grpo.given_answers import target_answer
from jaxvsr.models.tiny.tiny_text import CATEGORIES
from jaxvsr.rewards.answers import extract_answer
from jaxvsr.rewards.vsgrpo import vsgrpo_format_observe, vsgrpo_format_think
from launch.build_data import main

ASKED = Question("q", "s", "object_abs_distance", "How far is the tv from the coffee table?", None, "2.3", "number")


def test_tagged_responses_get_the_format_reward_of_their_prompt_and_keep_the_answer():
    for tag, reward in (("think", vsgrpo_format_think), ("observe", vsgrpo_format_observe)):
        response = tagged_response(ASKED, tag, CATEGORIES)
        assert reward([response]) == [1.0] and extract_answer(response) == "2.3"
        assert f"<{tag}> tv coffee table </{tag}>" in response


def data_folder(folder, questions):
    (folder / "frames").mkdir(parents=True)
    (folder / "scans").mkdir()
    write_questions(folder / "questions.jsonl", questions)
    (folder / "splits.json").write_text(json.dumps({"train": ["a", "b"], "heldout": ["c"]}))


def row(name, scene, **fields):
    return Question(name, scene, "object_counting", "How many tv(s)in the room?", None, "1", "number", **fields)


def test_tagging_a_folder_only_adds_responses(tmp_path, capsys):
    data_folder(tmp_path / "data", [ASKED])
    command = ["tag", str(tmp_path / "data"), str(tmp_path / "out"), "--tag"]
    assert main([*command, "think"]) == 0
    written = read_questions(tmp_path / "out" / "questions.jsonl")
    assert target_answer(written[0]) == "<think> tv coffee table </think> <answer> 2.3 </answer>"
    assert written[0].answer == "2.3" and read_splits(tmp_path / "out") == read_splits(tmp_path / "data")
    assert not (tmp_path / "out" / "scans").exists() and (tmp_path / "out" / "frames").is_dir()
    # A study that was killed just after it runs it once more.
    assert main([*command, "think"]) == 0
    assert capsys.readouterr().out == 2 * f"1 answers in tags in {tmp_path / 'out'}\n"
    assert main([*command, "observe"]) == 2
    assert "exists already, with other answers" in capsys.readouterr().err


def test_scenes_with_few_questions_leave_the_splits_and_mirror_images_do_not_count(tmp_path, capsys):
    rows = [
        row("a1", "a"),
        row("a2", "a"),
        row("b1", "b"),
        row("b2", "b", mirror_of="b1"),
        row("c1", "c"),
        row("c2", "c"),
    ]
    data_folder(tmp_path, rows)
    assert main(["trim", str(tmp_path), "--questions", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 1 scenes with 2 questions or more, 1 with fewer taken out",
        "heldout: 1 scenes with 2 questions or more, 0 with fewer taken out",
    ]
    assert read_splits(tmp_path) == {"train": ["a"], "heldout": ["c"]}
    assert main(["trim", str(tmp_path), "--questions", "3"]) == 2
    assert "no train scene has 3 questions" in capsys.readouterr().err
    assert read_splits(tmp_path) == {"train": ["a"], "heldout": ["c"]}
