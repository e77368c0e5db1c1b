"""Published question sets: rows of every form become ours, pairs are found by name, and nothing goes without a word."""

import json
from pathlib import Path

import pytest

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.importers.answer_kinds import RowError, decide
from jaxvsr.data.importers.formats import detect
from jaxvsr.data.importers.question_types import question_type
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.splits import read_splits
from launch.build_data import main
from tests.support.published_sets import IMAGE_PART, PUBLISHED, chat, picture_bytes
from tests.support.videos import write_mp4

GREYS = tuple(range(0, 240, 20))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Three videos, a folder of frames and two pictures of a scan, in folders as people keep them."""
    root = tmp_path_factory.mktemp("videos")
    write_mp4(root / "scannet/scene0000_00.mp4", GREYS)
    write_mp4(root / "scannet/scene0568_02.mp4", GREYS)
    write_mp4(root / "other/kitchen.mp4", GREYS[:6])
    for name in ("frames/walk/000.jpg", "frames/walk/001.jpg", "pictures/scene0011_00/000100.jpg", "pictures/a.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_bytes("PNG" if path.suffix == ".png" else "JPEG"))
    return root


def write_rows(path: Path, rows: list) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def imported(source: Path, out: Path, *flags: object) -> list[Question]:
    assert main(["import", str(source), str(out), *map(str, flags)]) == 0
    return read_questions(out / "questions.jsonl")


@pytest.mark.parametrize("form", PUBLISHED)
def test_a_row_of_every_form_is_recognised_and_converted(form, videos, tmp_path, capsys):
    row, expected = PUBLISHED[form]
    assert detect(row) == form
    for flags in ((), ("--format", form)):
        rows = imported(write_rows(tmp_path / "set.jsonl", [row]), tmp_path / "out", "--videos", videos, *flags,
                        "--include", "scannet-val", "--include", "vsi-bench")  # fmt: skip
        assert len(rows) == 1
        assert {name: getattr(rows[0], name) for name in expected} == expected
        assert f"1 questions out of 1 rows of {tmp_path / 'set.jsonl'} imported as {form}" in capsys.readouterr().out
    assert main(["frames", str(videos), str(tmp_path / "out"), "--frames", "2", "--max-pixels", "4000"]) == 0
    store = FrameStore(tmp_path / "out")
    assert store.scenes() == [rows[0].scene]
    assert len(store.read(rows[0].scene, 2).indices) == (1 if rows[0].images else 2)
    assert main(["check", str(tmp_path / "out")]) == 0


def test_several_turns_about_images_in_parquet_become_questions_about_one_scene(tmp_path):
    pytest.importorskip("pyarrow")
    import datasets

    turns = [chat("user", "What is left of the bed?\n<image>", IMAGE_PART), chat("assistant", "A lamp is."),
             chat("user", "How tall is it?"), chat("assistant", "It is 1.5 meters tall.")]  # fmt: skip
    pictures = [picture_bytes(), picture_bytes("PNG", 40, 40)]
    rows = [{"messages": turns, "images": [{"bytes": data, "path": None}]} for data in pictures]
    source = tmp_path / "spaces.parquet"
    datasets.Dataset.from_list(rows).to_parquet(str(source))
    out = tmp_path / "out"
    questions = imported(source, out)
    assert [(q.question, q.answer, q.answer_kind) for q in questions[:2]] == [
        ("What is left of the bed?", "A lamp is.", "text"),
        ("How tall is it?", "It is 1.5 meters tall.", "text"),
    ]
    assert len(questions) == 4 and len({question.scene for question in questions}) == 2
    stored = {(out / question.images[0]).read_bytes() for question in questions}
    assert stored == set(pictures)
    assert main(["frames", str(out), str(out), "--frames", "8", "--max-pixels", "4000"]) == 0
    frames = FrameStore(out).read(questions[0].scene, 8)  # a set of images is read whole, whatever the count
    assert frames.pixels.shape == (1, 28, 56, 3)
    assert imported(source, out) == questions
    assert len([path for path in (out / "images").rglob("*") if path.is_file()]) == 2


def test_rows_that_must_not_be_trained_on_are_left_out_and_listed(videos, tmp_path, capsys):
    def row(number, question="How many bed(s) are in this room?", answer="2", video="kitchen", **more):
        return {"id": str(number), "question": question, "answer": answer, "video": video, **more}

    rows = [
        row(0),
        row(1, answer="2"),  # said twice
        row(2, "How many tv(s) are in this room?", "1"),
        row(3, "how many  TV(s) are in this room?", "3"),  # contradicts row 2
        row(4, video="scene0568_02"),  # VSI-Bench
        row(5, video="gone"),
        row(6, answer="B"),
        row(7, answer="2 beds"),
        row(8, "Which?", "chair", options=["sofa", "bed"]),
        row(9, answer=""),
        row(10, "How many fan(s) are in this room?", "7", mirror_of="99"),
        row(0, "Left or right?", "left"),  # an id that is taken
        row(11, answer="2", mirror_of="0"),  # about the mirrored scene: not said twice
    ]
    source, out = write_rows(tmp_path / "set.jsonl", rows), tmp_path / "out"
    kept = imported(source, out, "--videos", videos, "--format", "jsonl")
    assert [question.id for question in kept] == ["import_set-0", "import_set-11"]
    assert kept[1].mirror_of == "import_set-0"
    listed = [line.split("\t") for line in (out / "import_set-left-out.tsv").read_text().splitlines()]
    reasons = {(kind, int(where.rpartition(" ")[2])): reason for kind, where, reason in listed}
    assert set(reasons) == {
        ("duplicate", 2), ("contradiction", 3), ("contradiction", 4), ("benchmark", 5), ("unpaired", 6), ("refused", 7),
        ("refused", 8), ("refused", 9), ("refused", 10), ("refused", 11), ("refused", 12),
    }  # fmt: skip
    assert "a letter, but the row has no options" in reasons["refused", 7]
    assert "could be a number or a text" in reasons["refused", 8]
    assert "none of the 2 options" in reasons["refused", 9] and "is answered 1, 3" in reasons["contradiction", 3]
    printed = capsys.readouterr().out
    assert "pairs: 6 found, 1 missing" in printed and "2 questions out of 13 rows" in printed
    card = (out / "card.md").read_text()
    assert "- left out, contradiction: 2" in card and "- format: jsonl" in card
    # By name the benchmark's row comes in, held out.
    kept = imported(source, out, "--videos", videos, "--format", "jsonl", "--include", "vsi-bench")
    assert len(kept) == 3 and json.loads((out / "splits.json").read_text())["heldout"] == ["scene0568_02"]


def test_fields_with_other_names_are_mapped(videos, tmp_path):
    row = {"problem": "How far?", "gold": "2.5", "clip": "kitchen.mp4", "cot": "<think>…</think>2.5", "extra": 1}
    source = write_rows(tmp_path / "mine.jsonl", [row])
    fields = "question=problem,answer=gold,video=clip,response=cot"
    question = imported(source, tmp_path / "out", "--videos", videos, "--map", fields)[0]
    assert (question.question, question.answer, question.answer_kind) == ("How far?", "2.5", "number")
    assert question.response == "<think>…</think>2.5" and question.id == "import_mine-0"


def test_two_imports_with_equal_video_names_share_one_folder(videos, tmp_path):
    extra = tmp_path / "videos"
    for place in ("a", "b"):
        write_mp4(extra / place / "room.mp4", GREYS[:4])
    rows = [{"question": "How wide?", "answer": "2", "video": f"{place}/room"} for place in ("a", "b", "a")]
    rows[2]["question"] = "How tall?"
    out = tmp_path / "out"
    first = imported(write_rows(tmp_path / "one.jsonl", rows), out, "--videos", extra)
    assert [question.scene for question in first] == ["room", "b--room", "room"]
    row = {"question": "How wide?", "answer": "2", "video": "kitchen"}
    both = imported(write_rows(tmp_path / "two.jsonl", [row]), out, "--videos", videos)
    assert both[:3] == first and both[3].scene == "kitchen"
    ambiguous = write_rows(tmp_path / "three.jsonl", [row, row | {"video": "room.mp4"}])
    write_mp4(extra / "mine/kitchen.mp4", GREYS[:4])
    assert imported(ambiguous, out, "--videos", extra)[-1].scene == "mine--kitchen"
    assert "'room.mp4' could be a/room.mp4 or b/room.mp4" in (out / "import_three-left-out.tsv").read_text()


def frames_of(out: Path, *videos: Path) -> dict[str, int]:
    """The first pixel of each scene's frames, after `frames` for each of the folders of videos."""
    for root in videos:
        assert main(["frames", str(root), str(out), "--frames", "2", "--max-pixels", "4000"]) == 0
    return {scene: int(FrameStore(out).read(scene, 2).pixels[0, 0, 0, 0]) for scene in FrameStore(out).scenes()}


def test_two_imports_videos_of_one_name_have_different_scenes_and_one_path_has_one(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    for place, grey in (("v/a", 40), ("b", 200)):
        write_mp4(videos / f"{place}/0001.mp4", (grey, grey))
    names = {"a": ("v", "a/0001"), "b": ("b", "0001"), "c": ("v", "a/0001"), "d": (".", "a/0001")}
    for name in "abcdab":
        root, video = names[name]
        row = {"question": "How wide?", "answer": "2", "video": video}
        rows = imported(write_rows(tmp_path / f"{name}.jsonl", [row]), out, "--videos", videos / root)
    scenes = {row.id.removesuffix("-0").removeprefix("import_"): row.scene for row in rows}
    assert scenes == {"a": "0001", "b": "import_b--0001", "c": "0001", "d": "v--a--0001"}


def test_a_video_whose_name_is_no_scenes_gives_a_plain_one(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    names = ("at 3.05.11\u202fPM", "at 3.05.11\u00a0PM", "kitchen ")
    rows = [{"question": "How wide?", "answer": "2", "video": f"{name}.mp4"} for name in names]
    for name, grey in zip(names, (40, 120, 200), strict=True):
        write_mp4(videos / f"{name}.mp4", (grey, grey))
    found = imported(write_rows(tmp_path / "set.jsonl", rows), out, "--videos", videos)
    assert [row.scene for row in found] == ["at 3.05.11 PM", "import_set--at 3.05.11 PM", "kitchen"]
    assert [value // 20 for value in frames_of(out, videos).values()] == [2, 6, 10]


def test_frames_that_are_replaced_from_another_source_are_named(tmp_path, capsys):
    videos, out = tmp_path / "videos", tmp_path / "out"
    write_mp4(videos / "0001.mp4", (40, 40))
    write_mp4(videos / "0002.mp4", (40, 40))
    rows = [{"question": "How wide?", "answer": "2", "video": name} for name in ("0001", "0002")]
    source = write_rows(tmp_path / "set.jsonl", rows)
    imported(source, out, "--videos", videos)
    frames_of(out, videos)
    write_mp4(videos / "0001.mp4", (200, 200, 200))
    imported(source, out, "--videos", videos)  # the only set about it: a better video is no other one
    capsys.readouterr()
    assert abs(frames_of(out, videos)["0001"] - 200) < 9
    printed = capsys.readouterr().out
    assert "replaced: 0001: the frames that were stored are of another source\n" in printed
    assert "frames of 1 scans written, of 1 there already" in printed and "0002" not in printed


@pytest.mark.parametrize("backwards", [False, True])
def test_a_name_that_another_row_contradicts_is_not_paired_whatever_the_order_of_rows(backwards, tmp_path, capsys):
    """Of each set of generic names only some are on this machine."""
    extra = tmp_path / "videos"
    for name in ("roomA/video", "kitchen/left", "hall", "attic"):
        write_mp4(extra / f"{name}.mp4", GREYS[:4])
    for name in ("scene0000_00/1.png", "scene0002_00/2.png"):
        (extra / name).parent.mkdir(exist_ok=True)
        (extra / name).write_bytes(picture_bytes("PNG"))
    media = {  # by the name in a row
        "roomA/video.mp4": "roomA/video.mp4", "roomB/video.mp4": None, "/data/other/roomC/video.mp4": None,
        "/nas/RoomA/video.avi": "roomA/video.mp4", "video": "roomA/video.mp4",  # nothing contradicts these
        "flat/kitchen/left": None, "house/kitchen/left": None, "kitchen/left": "kitchen/left.mp4",  # not which of two
        "/nas/train/hall.mp4": "hall.mp4", "train/hall.mp4": "hall.mp4",
        "/nas/train/attic.mp4": None, "/home/me/attic.mp4": None,
    }  # fmt: skip
    pictures = [["scene0000_00/1.png", "scene0002_00/2.png"], ["scene0001_00/1.png", "scene0002_00/2.png"]]
    rows = [{"question": f"How wide is {name}?", "answer": "2", "video": name} for name in media]
    rows += [{"question": f"How wide is {names}?", "answer": "2", "images": names} for names in pictures]
    source = write_rows(tmp_path / "set.jsonl", rows[::-1] if backwards else rows)
    kept = imported(source, tmp_path / "out", "--videos", extra)
    assert {one.question: one.video for one in kept if one.video} == {
        f"How wide is {name}?": path for name, path in media.items() if path
    }
    assert [one.images for one in kept if one.images] == [tuple(pictures[0])]
    listed = [line.split("\t") for line in (tmp_path / "out/import_set-left-out.tsv").read_text().splitlines()]
    assert [kind for kind, _, _ in listed] == ["unpaired"] * 7
    reasons = {reason for _, _, reason in listed}
    assert "'roomB/video.mp4' could only be roomA/video.mp4, which '/nas/RoomA/video.avi' fits better" in reasons
    assert "'/home/me/attic.mp4' could only be attic.mp4, which '/nas/train/attic.mp4' fits as well" in reasons
    assert "pairs: 7 found, 7 missing" in capsys.readouterr().out


def test_pictures_of_one_room_are_in_the_same_split(videos, tmp_path):
    extra = tmp_path / "pictures"
    rows = []
    for scan in range(12):
        for frame in range(2):
            path = extra / f"scene00{scan:02d}_0{frame}/{frame:06d}.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(picture_bytes("PNG", 8, 8))
            rows.append({"question": f"How wide {frame}?", "answer": "1", "image": f"{path.parent.name}/{path.name}"})
    imported(write_rows(tmp_path / "set.jsonl", rows), tmp_path / "out", "--videos", extra, "--heldout", "0.5",
             "--include", "scannet-val")  # fmt: skip
    splits = read_splits(tmp_path / "out")
    rooms = {split: {scene[:9] for scene in scenes} for split, scenes in splits.items()}
    assert rooms["train"] and rooms["heldout"] and not rooms["train"] & rooms["heldout"]


@pytest.mark.parametrize(
    ("text", "options", "kind", "expected"),
    [
        ("4", None, None, ("4", "number", None)),
        ("-.5", None, None, ("-.5", "number", None)),
        ("trash can", None, None, ("trash can", "word", None)),
        ("It stands on the left.", None, None, ("It stands on the left.", "text", None)),
        ("[0, 10, 20.5, 30]", None, None, ("[0, 10, 20.5, 30]", "box", None)),
        ("4", None, "text", ("4", "text", None)),
        ("b", ["sofa", "bed"], None, ("B", "choice", ("A. sofa", "B. bed"))),
        ("Bed", ["A) sofa", "B) bed"], None, ("B", "choice", ("A. sofa", "B. bed"))),
        ("(A) sofa", ["A. sofa", "B. bed"], "choice", ("A", "choice", ("A. sofa", "B. bed"))),
        ("left", ["left", "right"], "word", ("left", "word", ("A. left", "B. right"))),
        ("A", ["B. sofa", "A. bed"], None, ("A", "choice", ("A. bed", "B. sofa"))),
        ("A. Low", ["J. Orr", "A. Low"], None, ("B", "choice", ("A. J. Orr", "B. A. Low"))),
        ("B", ["x: 1 m", "y: 2 m"], None, ("B", "choice", ("A. x: 1 m", "B. y: 2 m"))),
    ],
)
def test_the_kind_of_an_answer_is_decided_by_options_and_form(text, options, kind, expected):
    answer = decide(text, options, kind)
    assert (answer.text, answer.kind, answer.options) == expected


@pytest.mark.parametrize(
    ("text", "options", "kind", "says"),
    [
        ("", None, None, "empty"),
        ("C", None, None, "letter"),
        ("3 m", None, None, "number or a text"),
        ("1,200", None, None, "number or a text"),
        ("1_0", None, "number", "is not a number"),
        ("nan", None, "number", "is not a number"),
        ("1e999", None, "number", "is not a number"),
        ("left", None, "choice", "no options"),
        ("C", ["sofa", "bed"], None, "none of the 2 options"),
        ("A. bed", ["sofa", "bed"], None, "none of the 2 options"),
        ("A", ["sofa", "Sofa "], None, "the same"),
        ("A", ["B", "A"], None, "the letter of one option and the words of another"),
        ("A", ["sofa", ""], None, "empty"),
        ("A", ["A. sofa", "B. bed", "Think."], None, "3 options have the letters A, B; expected all from A"),
        ("A", ["A. sofa", "A. bed"], None, "have the letters A, A; expected"),
        ("B", ["B. sofa", "C. bed"], None, "have the letters B, C; expected"),
        ("A", ["A. sofa", "bed"], None, "have the letters A; expected"),
        ("A", ["x"] * 27, None, "at most 26"),
        ("4", None, "integer", "not one of number"),
    ],
)
def test_an_answer_whose_kind_cannot_be_decided_is_refused(text, options, kind, says):
    with pytest.raises(RowError, match=says):
        decide(text, options, kind)


@pytest.mark.parametrize(
    ("content", "flags", "says"),
    [
        (None, "", "no such file"),
        ("", "", "no rows in it"),
        ("{", "", "set.jsonl line 1: not JSON"),
        ("[1]", "", "line 1: expected an object with fields, found list"),
        ('{"a": 1}', "", "unknown form with fields a; name them with --map"),
        ('{"question": "q", "answer": "1"}', "--format trl", "none of 1 rows could be imported; refused"),
        ('{"question": "q", "answer": "1", "video": "gone"}', "--videos VIDEOS", "nothing named 'gone'"),
        ('{"question": "q", "answer": "1", "video": "kitchen"}', "", "no --videos folder was given"),
        ('{"question": "q", "answer": "1"}', "--videos VIDEOS", "names neither video nor images"),
        ('{"question": "q", "answer": "1"}', "--videos NOWHERE", "no such folder"),
        ('{"question": "q", "answer": "1"}', "--map question:q", "expected OURS=THEIRS"),
        ('{"question": "q", "answer": "1"}', "--map frage=question", "OURS one of id, scene"),
        ('{"question": "q", "answer": "1"}', "--map answer=answer --format trl", "--map belongs to jsonl"),
        ('{"question": "q", "answer": "1"}', "--format csv", "invalid choice: 'csv'"),
        ('{"question": "q", "answer": "1"}', "--heldout 1.5", "--heldout: must be at least 0 and below 1, found 1.5"),
        ('{"question": "q", "answer": "1"}', "--seed -1", "--seed: must be at least 0, found -1"),
    ],
)
def test_wrong_input_is_one_line_and_code_2_and_writes_nothing(content, flags, says, videos, tmp_path, capsys):
    source, out = tmp_path / "set.jsonl", tmp_path / "out"
    if content is not None:
        source.write_text(content)
    words = flags.replace("VIDEOS", str(videos)).replace("NOWHERE", str(tmp_path / "nowhere")).split()
    assert main(["import", str(source), str(out), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and says in error
    assert not out.exists()


def test_a_media_name_outside_of_the_folder_is_refused(videos, tmp_path, capsys):
    (tmp_path / "secret.png").write_bytes(picture_bytes("PNG"))
    (tmp_path / "v").mkdir()
    row = {"question": "What?", "answer": "1", "image": "../secret.png"}
    assert main(["import", str(write_rows(tmp_path / "set.jsonl", [row])), str(tmp_path / "out"), "--videos",
                 str(tmp_path / "v")]) == 2  # fmt: skip
    assert "nothing named '../secret.png'" in capsys.readouterr().err
    out = tmp_path / "data"
    out.mkdir()
    hostile = Question("a", "a", "other", "What?", None, "1", "number", images=("../secret.png",))
    (out / "questions.jsonl").write_text(json.dumps(hostile.to_json()))
    assert main(["frames", str(tmp_path / "v"), str(out), "--frames", "1", "--max-pixels", "4000"]) == 2
    assert "leads out of the folder of videos" in capsys.readouterr().err


def test_unreadable_pictures_are_left_out(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    huge = bytearray(picture_bytes("PNG"))
    huge[16:24] = (200_000).to_bytes(4, "big") * 2  # the header's width and height
    images = [picture_bytes(), b"no picture_bytes", bytes(huge)]
    table = {"question": [f"How wide {i}?" for i in range(3)], "answer_value": [1.0] * 3, "answer_unit": ["m"] * 3,
             "image": [{"bytes": data, "path": "x.jpg"} for data in images]}  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "set.parquet")
    assert len(imported(tmp_path / "set.parquet", tmp_path / "out")) == 1
    printed = capsys.readouterr().out
    assert "imported as q-spatial" in printed and "left out, without video or images: 2" in printed
    assert len([path for path in (tmp_path / "out/images").rglob("*") if path.is_file()]) == 1


def test_benchmark_scenes_are_recognised_in_every_field_and_file_name(tmp_path):
    extra = tmp_path / "videos"
    for name in ("scannetpp_0d2ee665be", "41069025-rgb", "clip"):
        write_mp4(extra / f"{name}.mp4", GREYS[:4])
    rows = [
        {"prompt": "How wide?", "solution": "2", "video": "scannetpp_0d2ee665be.mp4"},
        {"prompt": "How wide?", "solution": "2", "video": "41069025-rgb.mp4"},
        {"prompt": "How wide?", "solution": "2", "video": "clip", "scene_name": "scene0568_02"},
        {"prompt": "How tall?", "solution": "2", "video": "clip", "scene_name": "scene0000_00"},
    ]
    source, out = write_rows(tmp_path / "set.jsonl", rows), tmp_path / "out"
    assert [row.question for row in imported(source, out, "--videos", extra)] == ["How tall?"]
    listed = [line.split("\t") for line in (out / "import_set-left-out.tsv").read_text().splitlines()]
    assert [kind for kind, _, _ in listed] == ["benchmark"] * 3 and "is a scene of vsi-bench" in listed[0][2]


def test_benchmark_scenes_stay_held_out_after_splits_are_deleted(videos, tmp_path):
    rows = [{"question": "How wide?", "answer": "2", "video": name} for name in ("scene0568_02", "scene0000_00")]
    out = tmp_path / "out"
    imported(write_rows(tmp_path / "one.jsonl", rows), out, "--videos", videos, "--include", "vsi-bench")
    (out / "splits.json").unlink()
    other = [{"question": "How wide?", "answer": "2", "video": "kitchen"}]
    imported(write_rows(tmp_path / "two.jsonl", other), out, "--videos", videos, "--heldout", "0")
    assert json.loads((out / "splits.json").read_text())["heldout"] == ["scene0568_02"]


def test_answers_are_compared_by_meaning(videos, tmp_path):
    def row(question, answer, *options):
        return {"question": question, "answer": answer, "video": "kitchen", "options": list(options) or None}

    rows = [
        row("How many?", "4"),
        row("How many?", "4.0"),  # the same number: said twice
        row("Nearest?", "B", "A. sofa", "B. bed"),
        row("Nearest?", "A", "A. bed", "B. sofa"),  # the same thing, by another letter: no contradiction
        row("Largest?", "A", "A. sofa", "B. bed"),
        row("Largest?", "A", "A. bed", "B. sofa"),  # another thing, by the same letter
    ]
    out = tmp_path / "out"
    kept = imported(write_rows(tmp_path / "set.jsonl", rows), out, "--videos", videos)
    assert [(one.question, one.answer) for one in kept] == [("How many?", "4"), ("Nearest?", "B"), ("Nearest?", "A")]
    left_out = (out / "import_set-left-out.tsv").read_text()
    assert left_out.count("contradiction\t") == 2 and "is answered bed, sofa" in left_out
    assert left_out.count("duplicate\t") == 1


def test_the_id_of_a_row_without_one_does_not_depend_on_other_rows(videos, tmp_path):
    rows = [
        {"question": "How wide?", "answer": "2", "video": "gone"},
        {"question": "How tall?", "answer": "", "video": "kitchen"},
        {"question": "How deep?", "answer": "2", "video": "kitchen"},
        {"question": "How old?", "answer": "2", "video": "kitchen", "id": 4},
        {"question": "How far?", "answer": "2", "video": "kitchen"},  # row 4, whose number another one has as its id
    ]
    kept = imported(write_rows(tmp_path / "set.jsonl", rows), tmp_path / "out", "--videos", videos)
    assert [one.id for one in kept] == ["import_set-2", "import_set-4", "import_set-row-4"]


def test_replacing_an_import_of_the_same_name_is_reported(videos, tmp_path, capsys):
    sources = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        row = {"question": f"How wide is {name}?", "answer": "2", "video": "kitchen"}
        sources.append(write_rows(tmp_path / name / "train.jsonl", [row]))
    assert len(imported(sources[0], tmp_path / "out", "--videos", videos)) == 1
    assert "in place of" not in capsys.readouterr().out
    assert [row.question for row in imported(sources[1], tmp_path / "out", "--videos", videos)] == ["How wide is b?"]
    assert "in place of 1 rows of an earlier import named import_train" in capsys.readouterr().out


def test_a_file_may_begin_with_a_byte_order_mark(videos, tmp_path):
    row = {"question": "How wide?", "answer": "2", "video": "kitchen"}
    source = tmp_path / "set.jsonl"
    source.write_text(json.dumps(row), encoding="utf-8-sig")
    assert len(imported(source, tmp_path / "out", "--videos", videos)) == 1


@pytest.mark.parametrize("given", ["object_rel_direction", "rel_direction", "Object Rel-Direction"])
def test_directions_of_left_or_right_are_vsi_benchs_easy_ones_whatever_the_set_calls_them(given):
    asked = "If I am standing by the bed and facing the tv, is the sofa to the left or the right of the tv?"
    assert question_type(given, asked, "x") == "object_rel_direction_easy"
    hard = asked.replace("the left or the right of the tv", "my front-left, front-right, back-left, or back-right")
    assert question_type(given, hard, "x") == "object_rel_direction_hard"
    assert question_type("object_rel_direction", "Where is the sofa?", "x") == "object_rel_direction"
