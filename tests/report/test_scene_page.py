"""The page of a scene: drawings show what was measured, and say which definition gives the answer."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvsr.data.geometry.mirrored_scene import mirrored_scene
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject
from jaxvsr.report.drawn_answers import RoomToDraw, draw_answer
from launch.build_data import main


def block(number: int, category: str, low: tuple[float, float, float], high: tuple[float, float, float]) -> SceneObject:
    """A solid box of points, 5 cm apart at most."""
    axes = [np.linspace(a, b, max(2, round((b - a) / 0.05) + 1)) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return SceneObject(number, category, category, points)


@pytest.fixture(scope="module")
def room() -> RoomToDraw:
    """A bed at the origin, a door east of it, a lamp north, a coffee table far off, two chairs."""
    objects = (
        block(0, "bed", (-0.5, -1.0, 0), (0.5, 1.0, 0.5)),
        block(1, "door", (3.5, -0.5, 0), (3.6, 0.5, 2.0)),
        block(2, "lamp", (-0.1, 2.9, 0), (0.1, 3.1, 1.6)),
        block(3, "coffee table", (2.0, 3.0, 0), (3.0, 3.5, 0.4)),
        block(4, "chair", (-2.4, 0, 0), (-2.0, 0.4, 0.9)),
        block(5, "chair", (-2.4, 2, 0), (-2.0, 2.4, 0.9)),
    )
    floor = np.stack(np.meshgrid(np.arange(-3, 4.01, 0.05), np.arange(-2, 4.01, 0.05)), -1).reshape(-1, 2)
    floor = np.concatenate([floor, np.zeros((len(floor), 1))], axis=1)
    return RoomToDraw(ScannedScene("toy", objects, floor.astype(np.float32), floor, np.eye(4), True, Path(), {}))


def ask(question_type: str, question: str, answer: str, options: tuple[str, ...] | None = None) -> Question:
    return Question("q", "toy", question_type, question, options, answer, "word")


def test_an_object_name_within_a_longer_name_is_not_matched(room: RoomToDraw) -> None:
    assert room.mentioned("From the coffee table to the chairs and the bed") == ["coffee table", "chair", "bed"]
    assert room.mentioned("bedroom, doorway, chairman") == []


def test_a_distance_is_drawn_where_it_was_measured(room: RoomToDraw) -> None:
    asked = "What is the distance between the bed and the door (in meters)?"
    between_centres = draw_answer(room, ask("object_abs_distance", asked, "3.6"))
    (mark,) = between_centres.marks
    assert mark.end is not None
    np.testing.assert_allclose([*mark.start, *mark.end], [0, 0, 3.55, 0], atol=1e-6)
    assert between_centres.note.endswith("3.6 m matches centres")
    nearest = draw_answer(room, ask("object_abs_distance", asked, "3.0"))
    (mark,) = nearest.marks
    assert mark.end is not None and (mark.start[0], mark.end[0]) == pytest.approx((0.5, 3.5))
    assert nearest.note.endswith("3.0 m matches nearest points, axis-aligned boxes, oriented boxes")
    assert draw_answer(room, ask("object_abs_distance", asked, "9.9")).note.endswith("none matches 9.9 m")


def test_the_arrow_has_the_questions_direction_and_is_mirrored_with_the_room(room: RoomToDraw) -> None:
    asked = "If I am standing by the bed and facing the door is the lamp to the left or the right of the door?"
    drawn = draw_answer(room, ask("object_rel_direction_easy", asked, "left"))
    facing, looked_for = drawn.marks
    assert facing.arrow and looked_for.dashed and looked_for.label == "left"
    assert facing.end is not None
    np.testing.assert_allclose([*facing.end], [3.55, 0], atol=1e-6)
    assert drawn.note == "the lamp is 90° to the left of the line of sight"
    mirrored = RoomToDraw(mirrored_scene(room.scene))
    assert draw_answer(mirrored, ask("object_rel_direction_easy", asked, "right")).note == (
        "the lamp is 90° to the right of the line of sight"
    )


def test_counts_are_numbered_and_sizes_drawn_along_the_longest_side(room: RoomToDraw) -> None:
    counted = draw_answer(room, ask("object_counting", "How many chair(s)in the room?", "2"))
    assert [mark.label for mark in counted.marks] == ["1", "2"] and counted.note == "2 in the annotation"
    size = draw_answer(room, ask("object_size_estimation", "the longest dimension of the bed", "200"))
    (mark,) = size.marks
    assert mark.end is not None
    np.testing.assert_allclose(sorted([mark.start[1], mark.end[1]]), [-1, 1], atol=1e-6)
    assert "oriented box 200 × 100 × 50 cm" in size.note
    high = draw_answer(room, ask("object_size_estimation", "the longest dimension of the lamp", "160"))
    assert high.marks[0].end is None and high.marks[0].label == "160 cm high"
    area = draw_answer(room, ask("room_size_estimation", "What is the size of this room?", "42"))
    assert float(re.findall(r"[\d.]+", area.note)[0]) == pytest.approx(42, rel=0.03)


def test_the_nearest_object_is_outlined_when_the_answer_is_its_letter(room: RoomToDraw) -> None:
    asked = "Which of these objects (door, lamp, coffee table) is the closest to the bed?"
    options = ("A. door", "B. lamp", "C. coffee table")
    drawn = draw_answer(room, ask("object_rel_distance", asked, "B", options))
    assert [mark.faint for mark in drawn.marks] == [True, False, True]
    assert drawn.highlight == {"bed", "lamp"}


def test_an_unknown_question_type_outlines_the_objects_that_it_names(room: RoomToDraw) -> None:
    drawn = draw_answer(room, ask("object_height", "How high is the lamp, in centimeters?", "160"))
    assert drawn.highlight == {"lamp"} and not drawn.marks


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True])
def test_the_page_shows_every_question_and_says_that_frames_of_a_real_scan_are_private(
    tmp_path: Path, real: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    data, page = tmp_path / "data", tmp_path / "page.html"
    name = "scene0001_00"
    assert main(["rooms", str(data), "--scenes", "2", "--seed", "3", "--frames-per-scan", "4", "--size", "56x56"]) == 0
    assert main(["questions", str(data), str(data), "--recipe", "vsi100k", "--mirror"]) == 0
    assert main(["frames", str(data), str(data), "--frames", "2", "--max-pixels", "3136"]) == 0
    if real:
        info = data / "scans" / name / f"{name}.txt"
        lines = info.read_text().splitlines(keepends=True)
        info.write_text("".join(line for line in lines if "generator" not in line))
    assert main(["show", str(data), name, "--page", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    asked = [row for row in read_questions(data / "questions.jsonl") if row.scene == name]
    assert html.count('class="question"') == len(asked) > 0
    assert html.count("data:image/svg+xml") == len(asked) + 1 and html.count("data:image/jpeg") == 2
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert ("stays on this machine" in html) == real
    assert main(["show", str(data), "scene0009_00"]) == 2
    assert "no question about 'scene0009_00'" in capsys.readouterr().err


def test_a_video_without_a_scan_has_its_frames_and_questions(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    videos, data = tmp_path / "videos", tmp_path / "data"
    (videos / "kitchen").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(np.full((56, 84, 3), 60 * number, np.uint8)).save(videos / "kitchen" / f"{number}.png")
    rows = [{"video": "kitchen", "question": "How many chairs?", "answer": "4"}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = [str(tmp_path / "mine.jsonl"), str(data), "--format", "jsonl", "--videos", str(videos)]
    assert main(["import", *source]) == 0
    page = tmp_path / "kitchen.html"
    show = ["show", str(data), "kitchen", "--page", str(page)]
    assert main(show) == 2
    assert "neither a scan nor frames of kitchen" in capsys.readouterr().err
    assert main(["frames", str(videos), str(data), "--frames", "4", "--max-pixels", "15680"]) == 0
    assert main(show) == 0
    text = page.read_text()
    assert text.count("data:image/jpeg") == 4 and "How many chairs?" in text and "from above" not in text
    assert main(["show", str(data), "office", "--page", str(page)]) == 2
    assert "no question about 'office'; there are some about scenes such as kitchen" in capsys.readouterr().err
