"""The data folder as a whole: merging of recipes, the card, summaries, and what `check` finds missing."""

import dataclasses
import json

import datasets
import pytest

from jaxvsr.data.data_folder import (
    check_folder,
    merge_questions,
    repeated_line,
    summarize,
    summary_table,
    write_all_questions,
    write_card_section,
)
from jaxvsr.data.questions import Question, write_questions
from jaxvsr.data.splits import write_splits
from jaxvsr.data.stored_arrays import SEAL
from jaxvsr.data.video.frame_writer import FrameSettings, write_scene_frames
from jaxvsr.errors import InputError
from tests.support.scans import write_sens_scan


def row(number, scene="scene0000_00", recipe="vsi100k", task="object_counting", answer="1", kind="number"):
    return Question(f"{recipe}-{number}", scene, task, f"{number}?", None, answer, kind)


def test_a_recipe_replaces_its_own_rows_and_leaves_those_of_others(tmp_path):
    write_questions(tmp_path / "questions.jsonl", [row(1), row(2, recipe="vsi100k_other"), row(3, recipe="mine")])
    merged = merge_questions(tmp_path, "vsi100k", [row(4), row(5)])
    assert [r.id for r in merged] == ["vsi100k_other-2", "mine-3", "vsi100k-4", "vsi100k-5"]
    assert merge_questions(tmp_path / "empty", "vsi100k", [row(4)]) == [row(4)]


def test_sections_of_the_card_are_replaced_one_by_one(tmp_path):
    write_card_section(tmp_path, "Questions: a", "first a")
    write_card_section(tmp_path, "Frames", "- counts: 8\n\n")
    write_card_section(tmp_path, "Questions: a", "second a \\1")
    card = (tmp_path / "card.md").read_text()
    assert card == f"# {tmp_path.name}\n\n## Questions: a\n\nsecond a \\1\n\n## Frames\n\n- counts: 8\n"


def test_summaries_count_questions_scenes_and_answers():
    rows = [row(i, f"scene000{i % 2}_00", answer=str(i % 3)) for i in range(7)]
    rows += [row(9, task="object_rel_direction_easy", answer="left", kind="word")]
    first, second = summarize(rows)
    assert (first.question_type, first.questions, first.scenes) == ("object_counting", 7, 2)
    assert first.answers == (("0", 3), ("1", 2), ("2", 2)) and first.numeric_range == (0.0, 1.0, 2.0)
    assert second.answers == (("left", 1),) and second.numeric_range is None
    table = summary_table(rows, {"object_counting": 6400}).splitlines()
    assert table[0].split("|")[1:-1][3].strip() == "paper"
    assert [cell.strip() for cell in table[2].split("|")[1:-1]] == [
        "object_counting", "7", "3.5", "6,400", "0 43 %, 1 29 %, 2 29 %"
    ]  # fmt: skip
    assert len({len(line) for line in table}) == 1


def test_check_lists_present_and_missing_parts(tmp_path):
    with pytest.raises(InputError, match=r"not a data folder; expected questions\.jsonl, frames, splits\.json"):
        check_folder(tmp_path)
    write_questions(tmp_path / "questions.jsonl", [row(1), row(2, "scene0001_00"), row(3, "scene0002_00")])
    assert len(check_folder(tmp_path).missing) == 2
    write_splits(tmp_path, {"train": ["scene0000_00"], "heldout": ["scene0001_00"]})
    for name in ("scene0000_00", "scene0001_00"):
        write_scene_frames(
            write_sens_scan(tmp_path / "recorded", name, frames=9), tmp_path, FrameSettings((4, 8), 6000)
        )
    check = check_folder(tmp_path)
    text = "\n".join(check.lines)
    assert "3 questions about 3 scenes" in text and "splits: 1 train, 1 heldout" in text
    assert (
        "8 frames: 2 scenes" in text
        and "56×84 pixels, 6 tokens of 28×28 pixels per two frames, 3 per frame: 2 scenes" in text
    )
    assert check.missing == (
        "1 scenes in no split: scene0002_00",
        "1 scenes with questions and no frames: scene0002_00",
    )


def test_check_counts_tokens_of_the_side_that_the_rule_is_for(tmp_path):
    scan = write_sens_scan(tmp_path / "recorded", "scene0000_00", frames=9, height=224, width=224)
    write_scene_frames(scan, tmp_path, FrameSettings((4, 5), 224 * 224, "qwen3-vl"))
    text = "\n".join(check_folder(tmp_path).lines)
    assert "5 frames: 1 scenes, 147 tokens per video" in text  # 3 times 7 x 7; with sides of 28 it were 8 x 8
    assert "224×224 pixels, 49 tokens of 32×32 pixels per two frames" in text


def test_check_compares_checksums(tmp_path):
    write_questions(tmp_path / "questions.jsonl", [row(1)])
    write_splits(tmp_path, {"train": ["scene0000_00"], "heldout": []})
    write_scene_frames(
        write_sens_scan(tmp_path / "recorded", "scene0000_00", frames=9), tmp_path, FrameSettings((4,), 6000)
    )
    assert check_folder(tmp_path).missing == ()
    path = tmp_path / "frames/scene0000_00/zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["pixels_sha256"] = "0" * 64
    path.write_text(json.dumps(metadata))
    assert "zarr.json: is not what was written, by its checksum" in check_folder(tmp_path).missing[0]
    del metadata["attributes"][SEAL]
    path.write_text(json.dumps(metadata))
    assert "pixels differ from their checksum" in check_folder(tmp_path).missing[0]


def test_check_reports_questions_that_two_recipes_answer_differently(tmp_path):
    def asked(id, answer, kind="number", options=None, **more):
        return Question(id, "a", "t", "How  many?", options, answer, kind, **more)

    assert repeated_line([asked("a-1", "3"), asked("a-2", "3", mirror_of="a-1")]) is None
    assert "2 questions are there more than once, 1 of them with different answers" in str(
        repeated_line([
            asked("a-1", "3"), asked("b-1", "3.0"),
            asked("a-2", "A", "choice", ("A. x", "B. y")), asked("b-2", "A", "choice", ("A. y", "B. x")),
        ])
    )  # fmt: skip
    write_questions(tmp_path / "questions.jsonl", [asked("a-1", "3"), asked("b-1", "4")])
    assert any("1 of them with different answers" in line for line in check_folder(tmp_path).lines)


@pytest.mark.slow
def test_datasets_reads_a_data_folder_in_which_options_are_null_and_later_a_list(tmp_path):
    number = Question("a", "scene", "counting", "How many chairs?" * 20, None, "2", "number")
    choice = Question("b", "scene", "direction", "Where?", ("A. left", "B. right"), "A", "choice", images=("1.png",))
    rows = [*(dataclasses.replace(number, id=f"a-{index}") for index in range(40_000)), choice]
    (tmp_path / "data").mkdir()
    write_all_questions(tmp_path / "data", rows)
    read = datasets.load_dataset(str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"), split="train")
    assert len(read) == len(rows)
    for index in (0, -1):
        found = {name: value for name, value in read[index].items() if value is not None or name == "options"}
        assert Question.from_json(found) == rows[index]
    (tmp_path / "data" / "README.md").write_text("# mine\n")
    write_all_questions(tmp_path / "data", rows[:1])
    assert (tmp_path / "data" / "README.md").read_text() == "# mine\n"
