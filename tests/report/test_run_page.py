"""The page of a run: scores, pictures and answers are those of the run folder."""

import base64
import dataclasses
import io
import itertools
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvsr.command_line import run as run_command
from jaxvsr.config.config_file import to_yaml
from jaxvsr.config.train_config import DataSettings, TrainConfig
from jaxvsr.data.rooms.room_scans import write_rooms
from jaxvsr.data.scannet.read_scan import list_scans, read_scene
from jaxvsr.data.video.frame_writer import FrameSettings, write_frames
from jaxvsr.errors import InputError
from jaxvsr.report.build import KEPT_BACK, write_report
from jaxvsr.report.floor_plan import LETTER_WIDTH, Labels, Plan
from jaxvsr.report.rendering import TEMPLATES
from jaxvsr.report.run_rows import SampledAnswer, SampledQuestion, read_metrics, read_samples, same_question
from jaxvsr.report.score_table import score_table

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><style>*{display:none}</style>\x1b[31m\u202eabc"
FRAMES = 4


def sampled(step: int, question_id: str, texts: list[str], scene: str = "scene0000_00") -> SampledQuestion:
    rewards = np.linspace(0, 1, len(texts))
    answers = tuple(
        SampledAnswer(words, float(reward), float(reward - rewards.mean()))
        for words, reward in zip(texts, rewards, strict=True)
    )
    return SampledQuestion(step, question_id, scene, "object_counting", HOSTILE, HOSTILE, answers)


def sample_row(sample: SampledQuestion) -> dict:
    return {**dataclasses.asdict(sample), "prompt": "the prompt"}


def text(words: str) -> str:
    """As a template shows it."""
    return TEMPLATES.from_string("{{ words }}").render(words=words)


def test_scores_show_every_number_and_mark_differences_beyond_two_standard_errors():
    rows = [
        {
            "question_type": "room_size",
            "n": 60,
            "constant_answer": "20",
            "score/start": 80.25,
            "score/after": 91.4,
            "after - start": {"mean": 11.15, "standard_error": 2.5, "in_standard_errors": 4.46},
        },
        {
            "question_type": "all questions",
            "n": 60,
            "constant_answer": None,
            "score/start": None,
            "score/after": 50.0,
            "after - start": {"mean": -1.0, "standard_error": 1.0, "in_standard_errors": -1.0},
        },
    ]
    table = ET.fromstring(f"<div>{score_table(rows)}</div>")
    cells = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
    assert cells[0] == ["question type", "questions", "start", "after", "after − start"]
    assert cells[1] == ["room_size", "60", "80.2", "91.4", "+11.2 (4.5 SE)"]
    assert cells[2] == ["all questions", "60", "–", "50.0", "−1.0 (1.0 SE)"]
    classes = [cell.attrib.get("class") for cell in table.iter("td")]
    assert classes.count("better") == 1 and classes.count("worse") == 0


def test_before_and_after_show_the_question_with_the_most_steps_between():
    samples = [
        sampled(1, "a", ["1", "2"]),
        sampled(1, "b", ["1", "2"]),
        sampled(5, "a", ["2"]),
        sampled(9, "b", ["2"]),
        sampled(9, "c", ["2"]),
    ]
    pair = same_question(samples)
    assert pair is not None
    assert (pair[0].question_id, pair[0].step, pair[1].step) == ("b", 1, 9)
    assert same_question(samples[:2]) is None
    # Of several as far apart, the one that changed most.
    again = [
        sampled(1, "a", ["1", "2"]),
        sampled(1, "b", ["1", "2"]),
        sampled(9, "a", ["1", "2"]),
        sampled(9, "b", ["2"]),
    ]
    changed = same_question(again)
    assert changed is not None and changed[0].question_id == "b"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two procedural rooms and their frames."""
    folder = tmp_path_factory.mktemp("data")
    write_rooms(folder, scenes=2, seed=0, frames=8, size=(64, 48))
    write_frames(list_scans(folder), folder, FrameSettings((FRAMES,), 64 * 48), workers=1)
    return folder


def write_run(run: Path, data: Path, *, blank: bool = False) -> Path:
    run.mkdir(parents=True)
    config = TrainConfig(data=DataSettings(folders=(str(data),), frames=FRAMES, blank=blank))
    (run / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    rows = [{"step": step, "reward/mean": step / 10, "kl": None} for step in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    # The first step's question is answered again at the end of a run.
    samples = [sampled(1, "q", ["3", HOSTILE]), sampled(2, "r", ["5", HOSTILE]), sampled(3, "q", ["3", "3"])]
    (run / "samples.jsonl").write_text("".join(json.dumps(sample_row(row)) + "\n" for row in samples), encoding="utf-8")
    return run


def pictures(page: str, kind: str) -> list[bytes]:
    return [base64.b64decode(data) for data in re.findall(rf'src="data:image/{kind};base64,([^"]+)"', page)]


def test_the_page_of_a_run_carries_frames_and_plan_of_a_procedural_room(tmp_path: Path, data: Path):
    run = write_run(tmp_path / "run", data)
    (run / "tree_savings.json").write_text(json.dumps({"line": "12 times fewer tokens"}))
    path = write_report(run)
    page = path.read_text(encoding="utf-8")
    frames = pictures(page, "jpeg")
    # The film and the strip of the pair, and the sample in between, show the same scene.
    assert len(frames) == 3 * FRAMES and len(set(frames)) == FRAMES and f"steps({FRAMES})" in page
    opening, curves = page.index("One room, before and after training"), page.index("Training curves")
    assert opening < page.index("12 times fewer tokens") < curves
    stored = np.asarray(Image.open(io.BytesIO(frames[0])), np.float64)
    assert stored.shape[2] == 3 and stored.std() > 1
    plan = ET.fromstring(pictures(page, r"svg\+xml")[0])
    assert plan.tag.endswith("svg")
    assert "12 times fewer tokens" in page and "Before (step 1" in page and "After (step 3" in page
    assert sorted(entry.name for entry in run.iterdir() if "partial" in entry.name) == []


def test_the_page_of_a_dpo_run_shows_held_out_answers_and_what_it_learned_from(tmp_path: Path, data: Path):
    run = write_run(tmp_path / "run", data)
    config = TrainConfig(objective="dpo", data=DataSettings(folders=(str(data),), frames=FRAMES))
    (run / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    given = [{"text": "4", "given": "chosen"}, {"text": "7", "given": "rejected"}]
    rows = [
        {**sample_row(sampled(1, "q", [])), "answers": given},
        {**sample_row(sampled(2, "held", [])), "answers": [{"text": "first words"}]},
        {**sample_row(sampled(4, "held", [])), "answers": [{"text": "last words"}]},
    ]
    (run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    words = [
        "First (step 2)",
        "first words",
        "Last (step 4)",
        "last words",
        "Greedy answers",
        "learned from",
        "rejected",
    ]
    places = [page.index(word) for word in words]
    assert places == sorted(places) and "scenes × questions × answers" in page
    assert "<th>advantage</th>" not in page and "mean reward nan" not in page


def test_frames_of_a_real_scan_stay_off_the_page_unless_shared(tmp_path: Path, data: Path):
    run = write_run(tmp_path / "run", data)
    info = data / "scans" / "scene0000_00" / "scene0000_00.txt"
    before = info.read_text()
    info.write_text("".join(line for line in before.splitlines(keepends=True) if "generator" not in line))
    try:
        page = write_report(run).read_text(encoding="utf-8")
        assert pictures(page, "jpeg") == [] and text(KEPT_BACK) in page
        shared = write_report(run, share_frames=True).read_text(encoding="utf-8")
        assert pictures(shared, "jpeg")
    finally:
        info.write_text(before)


def test_a_control_run_on_blank_video_shows_no_frames(tmp_path: Path, data: Path):
    page = write_report(write_run(tmp_path / "run", data, blank=True)).read_text(encoding="utf-8")
    assert pictures(page, "jpeg") == [] and "mid-grey" in page


def test_the_plan_draws_every_object_at_its_place(data: Path):
    scene = read_scene(list_scans(data)[0])
    svg = ET.fromstring(Plan(scene).svg({"door"}))
    names = [element.text or "" for element in svg if element.tag.endswith("text")]
    assert sorted(name for name in names if name != "1 m") == sorted(
        one.category for one in scene.objects if one.category not in ("wall", "floor", "ceiling")
    )
    floor = next(element.attrib["d"] for element in svg if element.tag.endswith("path"))
    corners = np.array([pair.split() for pair in re.split("[MLZ]", floor) if pair], float)
    np.testing.assert_allclose(np.ptp(corners, axis=0) / 90, np.ptp(scene.floor_points[:, :2], axis=0), atol=0.05)
    # Centres of two objects are as far apart on the plan as in the room: 90 pixels a metre, y upwards.
    drawn = [one for one in scene.objects if one.category not in ("wall", "floor", "ceiling")]
    drawn.sort(key=lambda one: one.aabb.maximum[2])  # from the floor up
    outlines = [element.attrib["d"] for element in svg if element.tag.endswith("path")][1 : 1 + len(drawn)]
    places = [np.array([pair.split() for pair in re.split("[MLZ]", d) if pair], float).mean(0) for d in outlines]
    places = [place * (1, -1) for place in places]
    for one, other, here, there in zip(drawn, drawn[1:], places, places[1:], strict=False):
        apart = other.obb.center[:2] - one.obb.center[:2]
        assert (there - here) / 90 == pytest.approx(apart, abs=0.02)


def test_bad_run_folders_are_one_line(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(InputError, match="not a run folder"):
        write_report(tmp_path)
    run = write_run(tmp_path / "run", data)
    with (run / "metrics.jsonl").open("a") as out:
        out.write('{"step": 4, "reward/me')  # cut off while it was written
    assert len(read_metrics(run / "metrics.jsonl")) == 3
    (run / "samples.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(InputError, match=r"samples.jsonl line 1: not a row of samples"):
        read_samples(run / "samples.jsonl")
    (run / "comparison.json").write_text("{")

    def command(_: object) -> int:
        write_report(run)
        return 0

    assert run_command(command) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_rollouts_that_show_a_trick_are_on_the_page(tmp_path: Path, data: Path):
    run = write_run(tmp_path / "run", data)
    told = {"question": "How many?", "answer": "3", "reward": 1.0, "tricks": ["empty_thought"]}
    rows = [{"step": step, "text": f"<b>{step}</b>", **told} for step in (1, 2)]
    (run / "hacking.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(run).read_text(encoding="utf-8")
    assert "Rollouts of step 2 that look like reward hacking" in page and "empty thought" in page
    assert "&lt;b&gt;2&lt;/b&gt;" in page and "&lt;b&gt;1&lt;/b&gt;" not in page
    (run / "hacking.jsonl").write_text(json.dumps({"step": 1}) + "\n")
    with pytest.raises(InputError, match=r"hacking\.jsonl line 1: not a row of hacking\.jsonl"):
        write_report(run)


def test_names_in_a_plan_are_inside_of_it_and_do_not_cover_each_other():
    labels, boxes = Labels(600, 500, 14), []
    for x, y in [(300, 250), (302, 252), (298, 249), (301, 250), (2, 3), (599, 499), (10, 498)]:
        name = "bookshelf"
        middle, base = labels.place(x, y, name)
        half = LETTER_WIDTH * 14 * len(name) / 2
        boxes.append((middle - half, base - 14, middle + half, base))
    assert all(x0 >= 0 and y0 >= 0 and x1 <= 600 and y1 <= 500 for x0, y0, x1, y1 in boxes)
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
