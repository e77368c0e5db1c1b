"""VSI-Bench as downloaded: parquet by pyarrow, zips by zipfile; what is hostile and what contradicts itself."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxvsr.data.importers import source_rows
from jaxvsr.data.importers import vsi_bench_download as vsi_bench
from jaxvsr.data.importers.vsi_bench_download import BenchmarkVideos, is_download, question_of_row, read_vsi_bench
from jaxvsr.data.subsets import read_subset, write_subsets
from jaxvsr.errors import InputError
from launch.build_data import main
from tests.support.published_sets import write_parquet

SCENES = {"scannet": "scene0011_00", "scannetpp": "0a7cc12c0e", "arkitscenes": "41069025"}


def row(number, question_type="object_counting", source="scannet", **changes):
    is_choice = vsi_bench.KINDS[question_type] == "choice"
    fields = {"id": number, "dataset": source, "scene_name": SCENES[source], "question_type": question_type}
    fields |= {"question": f"Question {number}?", "options": ["A. left", "B. right"] if is_choice else None}
    return {**fields, "ground_truth": "B" if is_choice else "4", **changes}


ROWS = [row(index, name, list(SCENES)[index % 3]) for index, name in enumerate(vsi_bench.KINDS)]
PRUNED = {1, 4, 8}


def write_video(path, greys):
    """Pillow writes no mp4; FFmpeg goes by what a file holds, not by its name."""
    frames = [Image.fromarray(np.full((56, 84, 3), grey, np.uint8)) for grey in greys]
    gif = path.with_suffix(".gif")
    frames[0].save(gif, save_all=True, append_images=frames[1:], duration=500)
    gif.rename(path)


@pytest.fixture
def download(tmp_path):
    folder = tmp_path / "VSI-Bench"
    folder.mkdir()
    for name, is_pruned in (("test_debiased", False), ("test_pruned", True)):
        rows = [{**one, "pruned": is_pruned} for one in ROWS if (one["id"] in PRUNED) == is_pruned]
        write_parquet(folder / f"{name}.parquet", rows)
    (folder / "pruned_ids.txt").write_text("\n".join(map(str, PRUNED)))
    for source, scene in SCENES.items():
        write_video(tmp_path / "video.mp4", (10, 90, 170))
        with zipfile.ZipFile(folder / f"{source}.zip", "w") as archive:
            archive.write(tmp_path / "video.mp4", f"{source}/{scene}.mp4")
    (tmp_path / "video.mp4").unlink()
    return folder


def test_all_rows_are_read_once_in_id_order_with_kind_options_and_video(download):
    (download / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in ROWS))  # the same questions again
    found = read_vsi_bench(download)
    assert [question.id for question in found.questions] == [f"vsi-bench-{one['id']}" for one in ROWS]
    for question, one in zip(found.questions, ROWS, strict=True):
        assert question.video == f"{one['dataset']}/{one['scene_name']}.mp4" and question.scene == one["scene_name"]
        assert (question.question, question.answer) == (one["question"], one["ground_truth"])
        assert question.options == (None if one["options"] is None else tuple(one["options"]))
        assert (question.answer_kind == "choice") == (question.options is not None)
    assert is_download(download)
    (download / "questions.jsonl").touch()
    assert not is_download(download)


@pytest.mark.parametrize("witness", ["field", "files", "list", "none"])
def test_the_pruned_ids_are_read_from_each_of_the_three_places(tmp_path, witness):
    if witness == "files":
        write_parquet(tmp_path / "test_debiased.parquet", [one for one in ROWS if one["id"] not in PRUNED])
        write_parquet(tmp_path / "test_pruned.parquet", [one for one in ROWS if one["id"] in PRUNED])
    else:
        flags = {"pruned": None} if witness != "field" else {}
        rows = [{**one, **(flags or {"pruned": one["id"] in PRUNED})} for one in ROWS]
        write_parquet(tmp_path / "test-00000-of-00001.parquet", rows)
    if witness == "list":
        (tmp_path / "pruned_ids.txt").write_text("".join(f"{number}\n" for number in PRUNED))
    if witness == "field":  # the same rows as text has them
        words = [{**one, "pruned": str(one["pruned"])} for one in rows]
        (tmp_path / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in words))
    found = read_vsi_bench(tmp_path)
    assert len(found.questions) == len(ROWS)
    if witness == "none":
        assert found.pruned is None and found.debiased is None
    else:
        assert found.pruned == {f"vsi-bench-{number}" for number in PRUNED}
        assert found.debiased == tuple(f"vsi-bench-{one['id']}" for one in ROWS if one["id"] not in PRUNED)


@pytest.mark.parametrize("witness", ["field", "files", "list", "none"])
def test_an_import_keeps_the_debiased_subset(tmp_path, witness, capsys):
    source, out = tmp_path / "set", tmp_path / "out"
    source.mkdir()
    for dataset, scene in SCENES.items():
        (tmp_path / "videos" / dataset).mkdir(parents=True)
        write_video(tmp_path / "videos" / dataset / f"{scene}.mp4", (10, 90, 170))
    if witness == "files":
        write_parquet(source / "test_debiased.parquet", [one for one in ROWS if one["id"] not in PRUNED])
        write_parquet(source / "test_pruned.parquet", [one for one in ROWS if one["id"] in PRUNED])
    else:
        flags = [{"pruned": one["id"] in PRUNED} if witness == "field" else {} for one in ROWS]
        rows = [json.dumps({**one, **flag}) for one, flag in zip(ROWS, flags, strict=True)]
        (source / "questions.jsonl").write_text("\n".join(rows))
    if witness == "list":
        (source / "pruned_ids.txt").write_text("".join(f"{number}\n" for number in PRUNED))
    command = ["import", str(source), str(out), "--videos", str(tmp_path / "videos"), "--include", "vsi-bench"]
    assert main([*command, "--include", "scannet-val"]) == 0
    printed = capsys.readouterr().out
    if witness == "none":
        assert not (out / "subsets.json").exists() and "subset debiased" not in printed
    else:
        kept = {f"import_set-{one['id']}" for one in ROWS if one["id"] not in PRUNED}
        assert read_subset(out, "debiased") == kept
        assert f"subset debiased: {len(kept)} questions" in printed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "pruned_ids.txt").write_text("0"), "'vsi-bench-0' is both pruned and kept"),
        (
            lambda folder: write_parquet(folder / "test.parquet", [row(0, question="Another?")]),
            "question 'vsi-bench-0' differs",
        ),
        (lambda folder: (folder / "test_pruned.parquet").write_bytes(b"PAR1" * 99), "not a readable parquet file"),
        (lambda folder: write_parquet(folder / "test.parquet", [row(99, question_type_="x")]), None),
        (
            lambda folder: write_parquet(folder / "test.parquet", [{**row(99), "question_type": "colour"}]),
            "question_type 'colour' is not one of VSI-Bench's",
        ),
        (
            lambda folder: write_parquet(folder / "test.parquet", [{**row(99), "scene_name": "../../etc/passwd"}]),
            "scene_name must be a name",
        ),
        (
            lambda folder: write_parquet(folder / "test.parquet", [{**row(99), "ground_truth": None}]),
            "ground_truth is missing",
        ),
        (
            lambda folder: (folder / "test.jsonl").write_text(json.dumps({**ROWS[0], "pruned": "perhaps"})),
            "test.jsonl line 1: field pruned is 'perhaps'; expected true or false",
        ),
        (lambda folder: (folder / "test.jsonl").write_text("{"), "test.jsonl line 1: not JSON"),
        (lambda folder: (folder / "test.jsonl").write_text("[]"), "expected an object with fields, found list"),
        (lambda folder: [path.unlink() for path in folder.glob("test*")], "expected VSI-Bench as downloaded"),
    ],
)
def test_contradictions_and_broken_files_are_refused_in_one_line(download, change, words):
    change(download)
    if words is None:  # a column that is not the benchmark's is not read
        assert len(read_vsi_bench(download).questions) == len(ROWS) + 1
        return
    with pytest.raises(InputError, match=r".") as error:
        read_vsi_bench(download)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_parquet_file_of_absurd_size_is_refused_by_its_header(download, monkeypatch):
    monkeypatch.setattr(source_rows, "_ROWS_LIMIT", 5)
    with pytest.raises(InputError, match="says it has 7 rows"):
        read_vsi_bench(download)


def test_videos_are_read_from_zips_or_folders_and_no_temporary_file_remains(download, tmp_path, monkeypatch):
    places = tmp_path / "places"
    places.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(places))
    videos = BenchmarkVideos(download)
    for source, scene in SCENES.items():
        videos.check(f"{source}/{scene}.mp4")
        with videos.open(f"{source}/{scene}.mp4") as frames:
            assert len(frames) == 3 and [int(frames.frame(index)[9, 9, 0]) for index in (0, 2)] == [10, 170]
            assert list(places.iterdir())
        assert not list(places.iterdir())
    (download / "scannet").mkdir()
    write_video(download / "scannet" / "scene0011_00.mp4", (60, 120))
    with videos.open("scannet/scene0011_00.mp4") as frames:
        assert len(frames) == 2


def rezip(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b"PK\3\4" + b"x" * 50), "not a readable zip"),
        (lambda path: rezip(path, [("../../scene0011_00.mp4", b"x")]), "points outside the archive"),
        (lambda path: rezip(path, [("/tmp/scene0011_00.mp4", b"x")]), "points outside the archive"),
        (lambda path: rezip(path, [("a/scene0011_00.mp4", b"x"), ("b/scene0011_00.mp4", b"x")]), "in it twice"),
        (lambda path: rezip(path, [("scannet/other.mp4", b"x")]), "has no scene0011_00.mp4; it has 1 videos"),
        (lambda path: rezip(path, [("scannet/scene0011_00.mp4", b"x" * 5000)]), "not a video that FFmpeg can read"),
    ],
)
def test_broken_and_hostile_zips_are_refused_in_one_line(download, make, words):
    make(download / "scannet.zip")
    with pytest.raises(InputError) as error, BenchmarkVideos(download).open("scannet/scene0011_00.mp4"):
        pass
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_zip_entry_of_absurd_size_and_a_damaged_one_are_refused(download, monkeypatch):
    path = download / "scannet.zip"
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF  # inside the entry's bytes: its checksum no longer fits
    path.write_bytes(data)
    videos = BenchmarkVideos(download)
    with pytest.raises(InputError, match=r"cannot be read \(Bad CRC-32"), videos.open("scannet/scene0011_00.mp4"):
        pass
    monkeypatch.setattr(vsi_bench, "_MOST_VIDEO_BYTES", 100)
    vsi_bench._entries.cache_clear()
    with pytest.raises(InputError, match="says it has"):
        videos.check("scannet/scene0011_00.mp4")


@pytest.mark.parametrize("video", ["../scannet/x.mp4", "scannet/../../x.mp4", "x.mp4", "/etc/passwd", "a b/c.mp4"])
def test_a_video_name_that_is_not_an_entry_of_the_zip_is_refused(download, video):
    with pytest.raises(InputError, match=r"expected <source>/<scene>\.mp4"):
        BenchmarkVideos(download).check(video)


def test_subsets_are_written_and_read_by_name(tmp_path):
    write_subsets(tmp_path, {"debiased": ["a", "b"]})
    write_subsets(tmp_path, {"small": ["a"]})
    assert read_subset(tmp_path, "debiased") == {"a", "b"} and read_subset(tmp_path, "small") == {"a"}
    with pytest.raises(InputError, match="no subset 'other'; it has debiased, small"):
        read_subset(tmp_path, "other")
    # What another import put there stays; a subset left empty goes.
    write_subsets(tmp_path, {"debiased": ["c"]}, owner="b")
    assert read_subset(tmp_path, "debiased") == {"a", "c"}
    write_subsets(tmp_path, {"debiased": [], "none": []})
    assert json.loads((tmp_path / "subsets.json").read_text()) == {"small": ["a"]}
    (tmp_path / "subsets.json").write_text("[]")
    with pytest.raises(InputError, match="expected a JSON object of lists"):
        read_subset(tmp_path, "debiased")


def test_options_in_one_string_are_refused():
    row = {
        "id": 1, "dataset": "scannet", "scene_name": "scene0568_02", "question_type": "object_rel_distance",
        "question": "Which?", "ground_truth": "A", "options": "['A. x', 'B. y']",
    }  # fmt: skip
    with pytest.raises(InputError, match="options must be a list or null"):
        question_of_row(row, "row 1")
