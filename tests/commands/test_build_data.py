"""`build_data.py` from the outside: rooms become a data folder that is right; mistakes are one line and exit code 2."""

import itertools
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.geometry.boxes import minimal_oriented_box
from jaxvsr.data.loader import make_loader
from jaxvsr.data.questions import read_questions
from jaxvsr.data.recipes.generate_questions import QuestionSettings, generate_questions
from jaxvsr.data.recipes.vsi100k import Options
from jaxvsr.data.rooms.room import build_room
from jaxvsr.data.scannet import read_scan
from jaxvsr.data.scannet.categories import is_structural
from jaxvsr.data.scene_pools import read_pools
from jaxvsr.data.video.video_sources import open_video
from launch.build_data import main
from tests.support.scans import move_scans

SCENES = 6


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    arguments = ["--scenes", str(SCENES), "--seed", "3", "--frames-per-scan", "9", "--size", "96x72", "--workers", "1"]
    assert main(["rooms", str(root), *arguments]) == 0
    return root


def questions_of(scans: Path, out: Path, *flags: str) -> dict[str, list]:
    """Rows by scene after a run of the command."""
    assert main(["questions", str(scans), str(out), "--recipe", "vsi100k", "--workers", "1", *flags]) == 0
    rows = read_questions(out / "questions.jsonl")
    return {scene: [r for r in rows if r.scene == scene] for scene in sorted({r.scene for r in rows})}


def one_line(capsys) -> str:
    """The only line on stderr."""
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.startswith("error: ")
    return captured.err


@pytest.mark.slow
def test_answers_on_procedural_rooms_equal_those_of_their_construction(rooms, tmp_path):
    by_scene = questions_of(
        rooms, tmp_path, "--set", "count_minimum=1", "--set", "center=aabb", "--set", "direction_per_scene=40"
    )
    assert len(by_scene) == SCENES
    checked: Counter[str] = Counter()
    for index, (scene, rows) in enumerate(by_scene.items()):
        room = build_room(3, index)
        assert room.name == scene
        things = [item for item in room.objects if not is_structural(item.category)]
        counts = Counter(item.category for item in things)
        box = {item.category: item.aabb for item in things}
        longest = {item.category: minimal_oriented_box(item.corners).extent.max() for item in things}
        for row in rows:
            checked[row.question_type] += 1
            names = re.findall("|".join(sorted(counts, key=len, reverse=True)), row.question.split("(length,")[0])
            if row.question_type == "object_counting":
                asked = row.question.removeprefix("How many ").removesuffix("(s)in the room?")
                assert int(row.answer) == counts[asked]
            elif row.question_type == "room_size_estimation":
                assert float(row.answer) == pytest.approx(room.area, rel=0.03)
            elif row.question_type == "object_size_estimation":
                category = row.question.split(" of the ")[-1].split(",")[0]
                assert int(row.answer) == pytest.approx(100 * longest[category], abs=1.01)
            elif row.question_type == "object_abs_distance":
                first, second = re.fullmatch(r".*between the (.*) and the (.*) \(in meters\)\?", row.question).groups()
                metres = np.linalg.norm(box[first].center - box[second].center)
                assert float(row.answer) == pytest.approx(metres, abs=0.06)
            elif row.question_type == "object_rel_direction_easy":
                stand, face, query = (box[n].center[:2] for n in re.fullmatch(
                    r"If I am standing by the (.*) and facing the (.*) is the (.*) to the left or .*", row.question
                ).groups())  # fmt: skip
                assert row.answer == ("left" if np.linalg.det([face - stand, query - stand]) > 0 else "right")
            else:
                assert row.answer in names
                choices, target = re.fullmatch(
                    r"Which of these objects \((.*)\)is .* to the (.*)\?", row.question
                ).groups()
                metres = {c: np.linalg.norm(box[c].center - box[target].center) for c in choices.split(", ")}
                assert row.answer == min(metres, key=metres.get)
        assert {item.category for item in things} == {
            r.question.removeprefix("How many ").removesuffix("(s)in the room?")
            for r in rows
            if r.question_type == "object_counting"
        }
    assert min(checked[name] for name in ("object_counting", "object_size_estimation", "object_abs_distance")) > 5
    assert checked["room_size_estimation"] == SCENES and checked["object_rel_direction_easy"] > 5


@pytest.mark.slow
def test_a_rigid_motion_with_the_matching_alignment_changes_no_answer(rooms, tmp_path):
    moved = move_scans(rooms, tmp_path / "moved")
    assert questions_of(moved, tmp_path / "a") == questions_of(rooms, tmp_path / "b")


@pytest.mark.slow
def test_rows_do_not_depend_on_the_number_of_workers(rooms, monkeypatch):
    monkeypatch.setattr("jaxvsr.data.recipes.generate_questions._SCANS_WORTH_PROCESSES", 2)
    scans = read_scan.list_scans(rooms)
    settings = QuestionSettings("vsi100k", Options(count_minimum=1, count_absent=True), 5)
    done: list[str] = []
    alone = generate_questions(scans, settings, workers=1)
    assert generate_questions(scans, settings, workers=2, on_done=done.append) == alone
    assert done == [scan.name for scan in scans] and any(row.answer == "0" for row in alone.questions)


@pytest.mark.slow
def test_rooms_questions_frames_and_batches_work_in_one_folder(rooms, tmp_path, capsys):
    out = tmp_path / "data"
    by_scene = questions_of(rooms, out, "--heldout", "0.34", "--set", "count_minimum=1", "--set", "per_task=2")
    assert "object_counting" in capsys.readouterr().out
    assert main(["frames", str(rooms), str(out), "--frames", "4,8", "--max-pixels", "6000"]) == 0
    assert f"frames of {SCENES} scans written" in capsys.readouterr().out
    assert main(["check", str(out)]) == 0
    assert "nothing is missing" in capsys.readouterr().out
    splits = json.loads((out / "splits.json").read_text())
    assert len(splits["heldout"]) == 2 and sorted(splits["train"] + splits["heldout"]) == sorted(by_scene)
    pools = read_pools([(out, 1.0)], split="train", questions=2, frames=8)
    batches = make_loader(pools, scenes=2, questions=2, frames=8, seed=0)
    for batch in itertools.islice(batches, 3):
        for sample in batch.scenes:
            assert sample.scene in splits["train"] and sample.frames.shape == (8, 56, 84, 3)
            assert set(sample.questions) <= set(by_scene[sample.scene])
            assert len(np.unique(sample.frames)) > 8  # a room, not a plain picture
    batches.close()
    card = (out / "card.md").read_text()
    assert "procedural rooms" in card and "- per_task: 2" in card and "## Frames" in card


@pytest.mark.slow
def test_check_prints_the_batches_per_second_of_a_config(rooms, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxvsr.measure.batch_speed._MEASURED_SECONDS", 0.1)
    out, config = tmp_path / "data", tmp_path / "small.yaml"
    questions_of(rooms, out, "--heldout", "0", "--set", "count_minimum=1")
    assert main(["frames", str(rooms), str(out), "--frames", "4", "--max-pixels", "6000"]) == 0
    config.write_text("model: {path: rooms-base}\ndata: {scenes: 2, questions: 2, frames: 4}\n")
    capsys.readouterr()
    assert main(["check", str(out), "--batches", str(config)]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"^batches of .*small\.yaml \(2 scenes, 2 questions, 4 frames\): \d+\.\d per second, \d+ ms", said, re.M
    )
    config.write_text("model: {path: rooms-base}\ndata: {scenes: 2, questions: 2, frames: 8}\n")
    assert main(["check", str(out), "--batches", str(config)]) == 2
    assert "has 4 frames stored, not 8" in one_line(capsys)


@pytest.mark.slow
def test_commands_run_again_add_to_the_folder(rooms, tmp_path, capsys):
    first = questions_of(rooms, tmp_path)
    splits = (tmp_path / "splits.json").read_bytes()
    questions = (tmp_path / "questions.jsonl").read_bytes()
    assert questions_of(rooms, tmp_path) == first and (tmp_path / "splits.json").read_bytes() == splits
    assert (tmp_path / "questions.jsonl").read_bytes() == questions
    assert questions_of(rooms, tmp_path, "--seed", "1") != first and (tmp_path / "splits.json").read_bytes() == splits
    frames = ["frames", str(rooms), str(tmp_path), "--max-pixels", "4000", "--frames"]
    assert main([*frames, "4"]) == 0 and main([*frames, "8"]) == 0
    assert FrameStore(tmp_path).counts("scene0000_00") == (4, 8)
    capsys.readouterr()
    assert main([*frames, "4,8"]) == 0
    assert f"frames of 0 scans written, of {SCENES} there already" in capsys.readouterr().out


def test_benchmark_scenes_are_left_out_and_procedural_rooms_are_not(rooms, tmp_path, capsys):
    source = rooms / "scans/scene0000_00"
    for name, marked in (
        ("scene0568_00", False),
        ("scene0568_02", False),
        ("scene0002_00", False),
        ("scene0011_00", True),
    ):
        scan = tmp_path / "scans" / name
        scan.mkdir(parents=True)
        for path in source.iterdir():
            shutil.copy(path, scan / path.name.replace("scene0000_00", name))
        if not marked:
            lines = read_scan.info_path(scan).read_text().splitlines(keepends=True)
            read_scan.info_path(scan).write_text("".join(line for line in lines if "generator" not in line))
        assert read_scan.is_procedural(scan) == marked
    assert list(questions_of(tmp_path, tmp_path / "a", "--heldout", "0")) == ["scene0002_00", "scene0011_00"]
    assert "left out 1 scans of scannet-val" in capsys.readouterr().out
    asked = questions_of(tmp_path, tmp_path / "b", "--heldout", "0", "--include", "vsi-bench")
    assert list(asked) == ["scene0002_00", "scene0011_00", "scene0568_02"]
    assert json.loads((tmp_path / "b/splits.json").read_text())["heldout"] == ["scene0568_02"]


@pytest.mark.slow
def test_broken_scans_end_the_command_unless_skip_broken_is_set(rooms, tmp_path, capsys):
    scans = tmp_path / "broken"
    shutil.copytree(rooms / "scans", scans / "scans")
    sens = read_scan.sens_path(scans / "scans/scene0001_00")
    sens.write_bytes(sens.read_bytes()[:5000])
    segments = read_scan.segments_path(scans / "scans/scene0002_00")
    segments.write_text('{"segIndices": [1, 2, 3]}')
    frames = ["frames", str(scans), str(tmp_path / "f"), "--frames", "4", "--max-pixels", "4000"]
    assert main(frames) == 2
    assert "1 of 6 scans cannot be read, the first is scene0001_00" in one_line(capsys)
    assert main([*frames, "--skip-broken"]) == 0
    out = capsys.readouterr().out
    assert "1 broken" in out and "broken: scene0001_00: " in out and "truncated" in out
    questions = ["questions", str(scans), str(tmp_path / "q"), "--recipe", "vsi100k", "--workers", "1"]
    assert main(questions) == 2
    error = one_line(capsys)
    assert "the first is scene0002_00" in error and "3 segIndices, but the mesh has" in error
    assert not (tmp_path / "q" / "questions.jsonl").exists()  # only what can be gone on with
    assert main([*questions, "--skip-broken"]) == 0
    assert "scene0002_00" not in {row.scene for row in read_questions(tmp_path / "q/questions.jsonl")}


RECIPE = """import dataclasses
from jaxvsr.data.recipes.recipe import Recipe
from jaxvsr.data.recipes.task import Candidate, Task

@dataclasses.dataclass(frozen=True)
class Options: pass

def candidates(scene, rng):
    fields = {}
    yield Candidate(fields, ANSWER)

RECIPE = Recipe("own", Options(), lambda options, census: (Task("height", "number", "How high?", candidates),))
"""


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("questions EMPTY OUT --recipe vsi100k", "no scans in it; expected scans/<scene>"),
        ("questions NOWHERE OUT --recipe vsi100k", "no such folder"),
        ("questions ROOMS OUT --recipe vsi200k", "recipe 'vsi200k' is not one of vsi100k"),
        ("questions ROOMS OUT --recipe vsi100k --set distanc=center", "did you mean 'distance'?"),
        ("questions ROOMS OUT --recipe vsi100k --set distance=middle", "'middle' is not one of center, aabb_exact"),
        ("questions ROOMS OUT --recipe vsi100k --set per_task=0", "per_task 0: must be at least 1"),
        ("questions ROOMS OUT --recipe vsi100k --heldout 1.5", "--heldout: must be at least 0 and below 1, found 1.5"),
        ("questions ROOMS OUT --recipe vsi100k --seed -1", "--seed: must be at least 0, found -1"),
        ("rooms OUT --scenes 1 --seed -1", "--seed: must be at least 0, found -1"),
        ("questions ROOMS OUT --recipe vsi100k --include scannet", "invalid choice: 'scannet'"),
        ("questions ROOMS OUT --recipe vsi100k --set room_radius=nan", "room_radius nan: must be above 0"),
        ("questions ROOMS OUT --recipe vsi100k --set nearest_margin=-1", "nearest_margin -1.0: must be at least 0"),
        (
            "questions ROOMS OUT --recipe vsi-bench --set direction_minimum_distance=9",
            "direction_maximum_distance 5.0: must be above direction_minimum_distance, 9.0",
        ),
        ("questions ROOMS FILE --recipe vsi100k", "cannot be a folder"),
        ("questions ROOMS BROKEN --recipe vsi100k", "questions.jsonl line 1: not JSON"),
        ("questions ROOMS OUT --recipe RAISES", "raises.py line 10: scene0000_00: KeyError: 'gone'"),
        ("questions ROOMS OUT --recipe WORDS", "task 'height': answer_kind is 'number', but 'high' is not a number"),
        ("frames ROOMS FILE --frames 8 --max-pixels 4000", "cannot be a folder"),
        ("frames ROOMS OUT --frames 8 --max-pixels 99999999999999999999", "must be at most 67108864"),
        ("frames ROOMS OUT --frames 8", "required: --max-pixels"),
        ("frames ROOMS OUT --frames 8,x --max-pixels 4000", "expected integers like 8,16,32, found '8,x'"),
        ("frames ROOMS OUT --frames 8 --max-pixels 100", "max_pixels 100: must be at least 784"),
        ("frames ROOMS OUT --frames 32 --max-pixels 4000", "has 9 frames, fewer than the 32 asked for"),
        ("frames EMPTY OUT --frames 8 --max-pixels 4000", "no scans in it"),
        ("rooms OUT", "required: --scenes"),
        ("rooms FILE --scenes 1", "cannot be a folder"),
        ("rooms FILE/OUT --scenes 1", "cannot be a folder"),
        ("show ROOMS scene0000_00 --page EMPTY", "is a folder; name a file in it"),
        ("show ROOMS scene0000_00 --page FILE/page.html", "cannot be a folder"),
        ("rooms OUT --scenes 0", "must be at least 1, found 0"),
        ("rooms OUT --scenes 1 --size 100", "expected WIDTHxHEIGHT such as 160x120"),
        ("check EMPTY", "not a data folder"),
        ("chekc OUT", "invalid choice: 'chekc'"),
        ("", "required: COMMAND"),
    ],
)
def test_wrong_input_is_one_line_and_code_2_and_writes_nothing(command, says, rooms, tmp_path, capsys):
    for name in ("empty", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "broken" / "questions.jsonl").write_text("{\n")
    (tmp_path / "raises.py").write_text(RECIPE.replace("ANSWER", "fields['gone']"))
    (tmp_path / "words.py").write_text(RECIPE.replace("ANSWER", "'high'"))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    places = {"EMPTY": "empty", "NOWHERE": "nowhere", "OUT": "out", "FILE": "file", "BROKEN": "broken"}
    places |= {"RAISES": "raises.py", "WORDS": "words.py"}
    words = [str(rooms) if word == "ROOMS" else word for word in command.split()]
    for place, name in places.items():
        words = [str(tmp_path / word.replace(place, name)) if word.startswith(place) else word for word in words]
    assert main(words) == 2
    assert says in one_line(capsys)
    assert {path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".pyc"} == before


def test_a_rooms_frames_become_an_mp4_with_the_same_pictures_and_times(rooms, tmp_path, capsys):
    scan, out = next((rooms / "scans").iterdir()), tmp_path / "new" / "room.mp4"
    assert main(["video", str(scan), str(out)]) == 0
    assert "9 frames" in capsys.readouterr().out and [path.name for path in out.parent.iterdir()] == ["room.mp4"]
    before, after = open_video(scan), open_video(out)
    every = range(9)
    np.testing.assert_allclose(after.timestamps(every), before.timestamps(every), atol=2e-3)
    for one, other in zip(before.frames(every), after.frames(every), strict=True):
        assert one.shape == other.shape and np.abs(one.astype(int) - other).mean() < 4
    assert main(["video", str(scan), str(tmp_path / "room.avi")]) == 2
    assert "ends in .mp4" in one_line(capsys)
