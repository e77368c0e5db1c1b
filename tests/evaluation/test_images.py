"""evaluate.py on questions about pictures: one a question as in Q-Spatial, several a scene, of different sizes."""

import json
import re
import shutil
from pathlib import Path

import pytest

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.questions import read_questions
from jaxvsr.devices.mesh import open_mesh
from jaxvsr.evaluation.answering.greedy import GreedyModel
from jaxvsr.evaluation.answering.scene_media import SceneMedia
from jaxvsr.models.inputs.processor import Image, ScenePrompt
from jaxvsr.prompts import prompt_from
from jaxvsr.runs.model_source import open_model
from launch import build_data
from launch.evaluate import main
from tests.support.published_sets import random_picture, write_q_spatial

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
# What the page leaves to its reader, a model that answers 0 or 1; and a judge that hands its reply on as text.
JUDGE = """
def ask_my_model(prompt):
    said, meant = prompt.split("Predicted answer: ")[1].split(", ground-truth answer: ")
    return " 1 " if meant.startswith("Yes") and said is not None else "0"


def replies(question, answer, prediction):
    return "0"


"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model):
    """Q-Spatial as published; own rows about sets of one, two and three pictures."""
    root = tmp_path_factory.mktemp("images")
    (root / "published").mkdir()
    write_q_spatial(root / "published" / "qspatial.parquet")
    (root / "pictures").mkdir()
    own = []
    for number, names in enumerate([["a"], ["b", "c"], ["d", "e", "f"]]):
        for name in names:
            random_picture(ord(name), 56, 28 * (1 + number)).save(root / "pictures" / f"{name}.png")
        for text, answer in (("Is it red?", "Yes, it is."), ("How many cups?", "No cup at all.")):
            own.append({"question": f"{text} {number}", "answer": answer, "answer_kind": "text"})
            own[-1] |= {"images": [f"{name}.png" for name in names], "question_type": "open"}
    (root / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    (example,) = re.findall(r"```python\n(# judge\.py\n.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (root / "judge.py").write_text(JUDGE + example)
    for words in (
        ["import", root / "published", root / "q-spatial", "--format", "q-spatial", "--heldout", "0"],
        ["frames", root / "q-spatial", root / "q-spatial", "--frames", "1", "--max-pixels", "3136"],
        ["import", root / "own.jsonl", root / "sets", "--videos", root / "pictures", "--heldout", "0"],
        ["frames", root / "pictures", root / "sets", "--frames", "1", "--max-pixels", "3136"],
    ):
        assert build_data.main(list(map(str, words))) == 0
    prompt = {"template": "{question}", "max_answer_tokens": 6}
    (root / "short.yaml").write_text(json.dumps(prompt))
    (root / "model").symlink_to(tiny_model("qwen2_5_vl", seed=5))
    return root


def evaluate(place, data, benchmark, out, *more):
    words = ["--model", place / "model", "--data", place / data, "--benchmark", benchmark, "--out", out, "--mesh", 1]
    words += ["--device", "cpu", "--split", "all", "--prompt", place / "short.yaml"]
    return main(list(map(str, [*words, *more])))


def rescore(out, benchmark, again, *more):
    words = ["--score", out / "predictions.jsonl", "--benchmark", benchmark, "--out", again, *more]
    return main(list(map(str, words)))


def read(path):
    return json.loads(path.read_text())


def answers(out):
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    return {row["id"]: row["prediction"] for row in rows}


def asked_alone(place, data):
    """Each question by itself, its pictures given as pictures."""
    model = GreedyModel(open_model(str(place / "model")), open_mesh("cpu", "1")[0], answer_tokens=6)
    store, prompt, said = FrameStore(place / data), prompt_from(str(place / "short.yaml")), {}
    for question in read_questions(place / data / "questions.jsonl"):
        media = tuple(Image(pixels) for pixels in store.read(question.scene, 1).pixels)
        assert len(media) == len(question.images)
        ((said[question.id],),) = model.answer([model.processor.encode(ScenePrompt(media, (prompt.render(question),)))])
    return said


def test_scenes_of_pictures_of_different_sizes_are_answered_and_scored_again(place, tmp_path, capsys):
    assert evaluate(place, "q-spatial", "q-spatial", tmp_path / "out") == 0
    assert "3 answers about 3 videos" in capsys.readouterr().out
    assert answers(tmp_path / "out") == asked_alone(place, "q-spatial")
    assert len(set(answers(tmp_path / "out").values())) > 1, "answers that are all the same would show nothing"
    scores = read(tmp_path / "out" / "scores.json")
    assert scores["questions"] == 3 and scores["frames"] is None and scores["prompt"] == "short"
    assert rescore(tmp_path / "out", "q-spatial", tmp_path / "again") == 0
    again = read(tmp_path / "again" / "scores.json")
    assert {name: again[name] for name in scores} == scores


def test_pictures_are_told_by_their_pixels(place, tmp_path):
    data, found = tmp_path / "data", []
    shutil.copytree(place / "q-spatial", data)
    asked = [(data, question) for question in read_questions(data / "questions.jsonl")]
    for pixels in ("3136", "784", "3136"):
        shutil.rmtree(data / "frames")
        assert build_data.main(["frames", str(data), str(data), "--frames", "1", "--max-pixels", pixels]) == 0
        found.append(SceneMedia(None).identities(asked))
    assert found[0] == found[2] and all(found[0][scene] != found[1][scene] for scene in found[0])


def test_the_judge_of_the_docs_scores_sets_of_one_two_and_three_pictures(place, tmp_path, capsys):
    judge = ("--judge", f"{place / 'judge.py'}:judge", "--sentence-model", "none")
    assert evaluate(place, "sets", "open-ended", tmp_path / "out", *judge) == 0
    assert "6 answers about 3 videos" in capsys.readouterr().out
    assert answers(tmp_path / "out") == asked_alone(place, "sets")
    scores = read(tmp_path / "out" / "scores.json")
    assert (scores["judge"], scores["yes_no_judge"], scores["overall"]) == (50, 50, 50)  # "Yes" is right, "No" is not
    assert scores["sentence_bert"] is None and scores["sentence_model"] is None
    notes = read(tmp_path / "out" / "details.json")["notes"]
    assert any("--sentence-model none" in note for note in notes) and not any("no judge" in note for note in notes)

    assert rescore(tmp_path / "out", "open-ended", tmp_path / "again", *judge) == 0
    assert read(tmp_path / "again" / "scores.json")["judge"] == 50
    capsys.readouterr()
    replies = ("--judge", f"{place / 'judge.py'}:replies", "--sentence-model", "none")
    assert rescore(tmp_path / "out", "open-ended", tmp_path / "wrong", *replies) == 2
    complaint = capsys.readouterr().err
    assert "the judge returned '0' at question" in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "wrong").exists()
