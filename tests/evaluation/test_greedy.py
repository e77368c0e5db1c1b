"""Greedy answers over the scene tree, and evaluate.py with a model: in process, a very small model, 56×56 pixels."""

import json
import shutil

import numpy as np
import pytest

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.questions import Question, write_questions
from jaxvsr.data.splits import write_splits
from jaxvsr.data.video.frame_writer import FrameSettings, write_frames
from jaxvsr.devices.mesh import open_mesh
from jaxvsr.errors import InputError
from jaxvsr.evaluation.answering.greedy import GreedyModel
from jaxvsr.evaluation.answering.scene_batches import MOST_QUESTIONS, answer_in_batches, questions_per_row
from jaxvsr.evaluation.answering.scene_media import SceneMedia, SceneQuestions, group_by_scene
from jaxvsr.models.inputs.processor import ScenePrompt, Video
from jaxvsr.prompts import PROMPTS
from jaxvsr.runs.model_source import open_model
from launch.evaluate import main
from tests.support.models import DEEP
from tests.support.scans import write_sens_scan

QUESTIONS_OF = {"scene0000_00": 5, "scene0001_00": 2, "scene0002_00": 1}
TEXTS = (
    "How many chairs are in this room?",
    "What is the size of this room in square meters?",
    "Which of these objects is closest to the table?",
)


def make_questions():
    rows = []
    for scene, count in QUESTIONS_OF.items():
        for k in range(count):
            options = ("A. chair", "B. a very long lamp", "C. sofa", "D. bed") if k % 3 == 2 else None
            kind = "choice" if options else "number"
            name = ("object_counting", "room_size_estimation", "object_rel_distance")[k % 3]
            answer = "AB"[k % 2] if options else str(k + 1)
            rows.append(Question(f"{scene}-{k}", scene, name, TEXTS[k % 3] + " " * k, options, answer, kind))
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    scans = [
        write_sens_scan(root, name, frames=6, height=56, width=56, seed=seed) for seed, name in enumerate(QUESTIONS_OF)
    ]
    write_frames(scans, root / "data", FrameSettings((2, 4), 4000))
    write_questions(root / "data" / "questions.jsonl", make_questions())
    write_splits(root / "data", {"train": [], "heldout": list(QUESTIONS_OF)})
    return root / "data"


@pytest.fixture(scope="module")
def folder(tiny_model):
    return tiny_model(shape=DEEP, seed=3)


@pytest.fixture(scope="module")
def model(folder):
    mesh, _ = open_mesh("cpu", "1")
    return GreedyModel(open_model(str(folder)), mesh, answer_tokens=6)


def evaluate(folder, data, out, *more):
    return main(["--model", str(folder), "--data", str(data), "--benchmark", "vsi-bench", "--frames", "2",
                 "--out", str(out), "--device", "cpu", "--mesh", "1", "--scenes", "2", *map(str, more)])  # fmt: skip


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers(path):
    return {row["id"]: row["prediction"] for row in read(path)}


@pytest.mark.slow
def test_answers_in_a_tree_equal_answers_to_one_question_at_a_time(model, folder, data):
    prompt, media = PROMPTS["vsi-bench"], SceneMedia(2)
    asked = [(data, question) for question in make_questions()]
    together = [one for batch in answer_in_batches(model, prompt, asked, media, scenes=2) for one in batch]
    assert sorted(one.question.id for one in together) == sorted(question.id for _, question in asked)
    assert len(model.program.compiled) == 1, "one program for scenes with 5, 2 and 1 questions"

    alone = GreedyModel(open_model(str(folder)), model.mesh, answer_tokens=6)
    expected = {}
    for _, question in asked:
        frames = FrameStore(data).read(question.scene, 2)
        video = Video(frames.pixels, frames.timestamps)
        scene = alone.processor.encode(ScenePrompt((video,), (prompt.render(question),), prompt.system))
        expected[question.id] = alone.answer([scene])[0][0]
    assert {one.question.id: one.prediction for one in together} == expected
    assert len(set(expected.values())) > 3, "answers that are all the same would show nothing"


def test_blank_frames_are_grey_and_mirrored_questions_see_mirrored_frames(data):
    scene = "scene0000_00"
    stored = FrameStore(data).read(scene, 2).pixels
    plain, mirrored = SceneQuestions(data, scene, False, ()), SceneQuestions(data, scene, True, ())
    np.testing.assert_array_equal(SceneMedia(2).read(plain)[0].frames, stored)
    np.testing.assert_array_equal(SceneMedia(2).read(mirrored)[0].frames, stored[:, :, ::-1])
    blank = SceneMedia(2, blank=True).read(plain)[0].frames
    assert blank.shape == stored.shape and (blank == 128).all()


def test_every_question_is_in_one_row_of_its_scene(data):
    asked = [(data, question) for question in make_questions()]
    rows = group_by_scene(asked, 2)
    assert [len(row.questions) for row in rows] == [1, 2, 2, 2, 1]
    assert [question.id for row in rows for question in row.questions] == [question.id for _, question in asked]
    assert all(question.scene == row.scene for row in rows for question in row.questions)


@pytest.mark.parametrize(
    ("counts", "scene", "question"), [([16, 17, 18], 100, 50), ([1, 1, 1, 30], 100, 50), ([70], 2000, 60)]
)
def test_questions_per_row_compute_the_fewest_tokens(counts, scene, question):
    def cost(width):
        return sum(-(-count // width) * (2 * scene + width * question) for count in counts)

    chosen = questions_per_row(counts, scene, question)
    assert cost(chosen) == min(cost(width) for width in range(1, min(max(counts), MOST_QUESTIONS) + 1))


@pytest.mark.slow
def test_evaluate_writes_every_prediction_once_with_scores_and_their_origin(folder, data, tmp_path, capsys):
    assert evaluate(folder, data, tmp_path / "out") == 0
    rows = read(tmp_path / "out" / "predictions.jsonl")
    assert [row["id"] for row in rows] == [question.id for question in make_questions()]
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    wanted = {"benchmark": "vsi-bench", "model": str(folder), "frames": 2, "blank": False, "decoding": "greedy"}
    wanted |= {"prompt": "vsi-bench", "max_answer_tokens": 16, "stop": ["\n\n"], "data": str(data)}
    assert {name: scores[name] for name in wanted} == wanted
    assert "8 answers about 3 videos in" in capsys.readouterr().out

    assert evaluate(folder, data, tmp_path / "blank", "--blank") == 0
    seen, blank = (answers(tmp_path / name / "predictions.jsonl") for name in ("out", "blank"))
    assert seen != blank
    assert json.loads((tmp_path / "blank" / "scores.json").read_text())["blank"] is True

    command = ["--score", tmp_path / "blank" / "predictions.jsonl", "--benchmark", "vsi-bench", "--out", tmp_path / "s"]
    assert main([str(part) for part in command]) == 0
    assert json.loads((tmp_path / "s" / "scores.json").read_text())["blank"] is True


@pytest.mark.slow
def test_an_interrupted_evaluation_is_resumed_only_with_equal_settings(folder, data, tmp_path, monkeypatch, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert evaluate(folder, data, whole) == 0
    batches = []
    real = GreedyModel.answer

    def counted(self, scenes, batch_size):
        if len(batches) == stop_after:
            raise KeyboardInterrupt
        batches.append(real(self, scenes, batch_size))
        return batches[-1]

    monkeypatch.setattr(GreedyModel, "answer", counted)
    stop_after = 1
    assert evaluate(folder, data, out) == 130
    first = answers(out / "predictions.jsonl")
    assert 0 < len(first) < 8 and not (out / "scores.json").exists()
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"id": "scene0000_00-')  # what a kill in the middle of a write leaves

    stop_after = 99
    assert evaluate(folder, data, out) == 0
    assert f"resuming, {len(first)} of 8" in capsys.readouterr().out
    assert (out / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()
    answered = len(batches)
    assert evaluate(folder, data, out) == 0 and len(batches) == answered, "nothing is left to answer"

    stop_after = answered
    assert evaluate(folder, data, out, "--blank") == 130
    assert "other settings (blank)" in capsys.readouterr().out
    assert not read(out / "predictions.jsonl") and not (out / "scores.json").exists()


@pytest.mark.slow
def test_answers_about_other_frames_are_not_resumed_and_not_lost(folder, data, tmp_path, capsys):
    own, out = tmp_path / "own", tmp_path / "out"
    shutil.copytree(data, own)
    assert evaluate(folder, own, out, "--limit", 5) == 0
    assert evaluate(folder, own, out) == 0  # three questions more, about two scenes more
    assert "resuming, 5 of 8 questions are answered" in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def refused(words):
        assert evaluate(folder, own, out) == 2
        complaint = capsys.readouterr().err
        assert words in complaint and "--out" in complaint and complaint.count("\n") == 1
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    scene = list(QUESTIONS_OF)[1]
    shutil.rmtree(own / "frames" / scene)
    scan = write_sens_scan(tmp_path, scene, frames=6, height=56, width=56, seed=1)
    write_frames([scan], own, FrameSettings((2, 4), 1000))
    refused(f"other frames or images of 1 scenes than are there now (first: {own / scene})")
    shutil.rmtree(own / "frames" / scene)
    write_frames([scan], own, FrameSettings((2, 4), 4000))  # as they were
    assert evaluate(folder, own, out) == 0
    assert "resuming, 8 of 8 questions are answered" in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    settings = json.loads(before["settings.json"])
    del settings["media"]  # as versions wrote it that did not record it
    (out / "settings.json").write_text(json.dumps(settings))
    before["settings.json"] = (out / "settings.json").read_bytes()
    refused("an earlier version wrote it")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--model": "nowhere"}, "no such folder"),
        ({"--data": "nowhere"}, "nowhere/questions.jsonl: no such file"),
        ({"--frames": "3"}, "has 2, 4 frames stored, not 3"),
        ({"--frames": None}, "--frames is missing: stored counts are 2, 4"),
        ({"--prompt": "nonsense"}, "prompt 'nonsense'"),
        ({"--model": "chance-random", "--blank": ""}, "only for a --model with weights"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(folder, data, tmp_path, capsys, change, words):
    flags = {"--model": str(folder), "--data": str(data), "--benchmark": "vsi-bench", "--frames": "2",
             "--out": str(tmp_path / "out")} | change  # fmt: skip
    if change.get("--model") == "chance-random":
        del flags["--frames"]
    argv = [
        part for flag, value in flags.items() if value is not None for part in ((flag, value) if value else (flag,))
    ]
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert words in printed.err and len(printed.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_question_id_in_two_folders_is_refused(data, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    write_questions(other / "questions.jsonl", make_questions()[:1])
    argv = ["--model", "chance-random", "--data", f"{data},{other}", "--benchmark", "vsi-bench"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 2
    assert "scene0000_00-0" in capsys.readouterr().err


def test_a_frame_budget_below_one_patch_is_refused(folder):
    mesh, _ = open_mesh("cpu", "1")
    with pytest.raises(InputError, match="max_pixels 10"):
        GreedyModel(open_model(str(folder)), mesh, answer_tokens=1, max_pixels=10)
