"""`import … --mirror`: free text and boxes of published rows, mirrored where rules can decide."""

import json

import numpy as np
from PIL import Image

from jaxvsr.data.questions import read_questions
from launch.build_data import main


def test_imported_rows_are_mirrored_and_the_refused_share_is_printed(tmp_path, capsys):
    videos, out = tmp_path / "images", tmp_path / "out"
    videos.mkdir()
    Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(videos / "a.png")
    texts = [
        ("q0", "Is the cup to the left of the plate?", "Yes, it is on the left side.", "text"),
        ("q1", "Where is the cup?", "[10, 5, 20, 15]", "box"),
        ("q2", "How many cups are left?", "2", "number"),
        ("q3", "Is the cup to the right of the bowl?", "no", "word"),
        ("q4", "Is the cup to the left of the bowl?", "no", "word"),
    ]
    rows = [
        {"id": name, "question_type": "free", "question": question, "options": None, "answer": answer,
         "answer_kind": kind, "images": ["a.png"]}
        for name, question, answer, kind in texts
    ]  # fmt: skip
    rows[4]["mirror_of"] = "q3"
    source = tmp_path / "set.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for _ in range(2):  # again: the rows of the former import are replaced, the mirrored ones with them
        assert main(["import", str(source), str(out), "--videos", str(videos), "--format", "jsonl", "--mirror"]) == 0
    printed = capsys.readouterr().out
    assert (
        "2 mirrored ones; 1 of 3 rows (33.3 %) have no mirror image: 'left' or 'right' that may be no side 1" in printed
    )
    found = {row.id.removeprefix("import_set-"): row for row in read_questions(out / "questions.jsonl")}
    assert set(found) == {"q0", "q1", "q2", "q3", "q4", "q0-mirror", "q1-mirror"}
    twin = found["q0-mirror"]
    assert (twin.question, twin.answer) == ("Is the cup to the right of the plate?", "Yes, it is on the right side.")
    assert twin.mirror_of == found["q0"].id and twin.images == found["q0"].images
    assert found["q1-mirror"].answer == "[30, 5, 40, 15]"
    assert "1 of 3 rows (33.3 %) have no mirror image" in (out / "card.md").read_text()
