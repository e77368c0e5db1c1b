"""Videos, pictures, label files and question sets, cut and overwritten at random: one clear error or a value."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.importers.formats import FORMATS
from jaxvsr.data.importers.import_questions import ImportSettings, import_questions
from jaxvsr.data.scannet.label_map import LabelMasks, label_masks_path, labels_path, read_label_map, read_nyu40_labels
from jaxvsr.data.scannet.ply import Mesh, write_ply
from jaxvsr.data.scannet.sens import SensReader
from jaxvsr.data.video.video_sources import open_video
from jaxvsr.errors import InputError
from tests.support.damage import MEMORY_LIMIT_BYTES, mutated
from tests.support.published_sets import PUBLISHED, chat, picture_bytes
from tests.support.scans import NAME, png, write_scan, write_zip
from tests.support.sens_files import POSE, sens_bytes
from tests.support.videos import jpeg, mp4_bytes, write_mp4

MUTATIONS_A_FILE = 100
MUTATIONS_AN_IMPORT = 50  # slower: all of a set is read and paired
LABELS = "id\traw_category\tcategory\tnyu40id\n1\twall\twall\t1\n2\tchair\tchair\t5\n9\tcafé table\ttable\t\n"


def every_frame(path: Path) -> None:
    source = open_video(path)
    for index in [*range(min(len(source), 6)), len(source) - 1]:
        assert source.frame(index).dtype == np.uint8
    assert np.isfinite(source.timestamps([0, len(source) - 1])).all() and source.fps > 0


def every_payload(path: Path) -> None:
    reader = SensReader(path)
    for index in range(len(reader)):
        reader.color(index)
        reader.depth(index)
    assert np.isfinite(reader.timestamps).all()


def every_label(path: Path) -> None:
    masks = LabelMasks(path)
    for frame in masks.frames:
        masks.read_labels(frame)


def import_it(path: Path) -> None:
    """All of it as each form that its rows might have; whatever comes of it, every row is a question or named."""
    out = path.parent / "out"
    report, pairing = import_questions(ImportSettings(path, path.parent / "videos"), out)
    pairing.discard()
    assert report.questions and all(one.reason and one.where for one in report.left_out)


def sample(kind: str, folder: Path) -> tuple[Path, Callable[[Path], object]]:
    """A sound file of this kind, and what reads it to the end."""
    write_mp4(folder / "videos/scannet/scene0000_00.mp4", (0, 90, 180))
    write_mp4(folder / "videos/kitchen.mp4", (0, 90, 180))
    (folder / "videos/pictures").mkdir()
    (folder / "videos/pictures/a.png").write_bytes(picture_bytes("PNG", 8, 8))
    rows = [row for name in ("spacer", "video-r1", "jsonl") for row in [PUBLISHED[name][0]]]
    if kind.endswith("jsonl"):
        path = folder / f"{NAME}.jsonl"
        chosen = {
            "trl.jsonl": [PUBLISHED["trl"][0]],
            "vqasynth.jsonl": [{"messages": [chat("user", "What?"), chat("assistant", "It.")], "images": ["a.png"]}],
            "vsi-bench.jsonl": [PUBLISHED["vsi-bench"][0] | {"scene_name": "scene0000_00"}],
        }.get(kind, [PUBLISHED["vsi100k"][0], *rows])
        path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
        return path, import_it
    path = folder / f"{NAME}{Path(kind).suffix}"
    match kind:
        case "png.sens" | "raw.sens":
            color, depth = (1, 1) if kind == "png.sens" else (0, 0)
            path.write_bytes(sens_bytes(color_kind=color, depth_kind=depth, poses=(POSE, POSE), times=(0, 1)))
            return path, every_payload
        case "video.mp4":
            path.write_bytes(mp4_bytes([np.full((28, 56, 3), grey, np.uint8) for grey in (0, 60, 120)]))
            return path, every_frame
        case "picture.png" | "picture.jpg":
            pixels = np.random.default_rng(0).integers(0, 256, (28, 56, 3), np.uint8)
            path.write_bytes(png(pixels) if kind.endswith("png") else jpeg(pixels))
            return path, every_frame
        case "labels.tsv":
            path.write_text(LABELS, encoding="utf-8")
            return path, read_label_map
        case "labels.zip":
            scan = write_scan(folder)
            frames = {f"label-filt/{index}.png": png(np.full((6, 8), 300 + index, np.uint16)) for index in range(2)}
            return write_zip(label_masks_path(scan), frames), every_label
        case "labels.ply":
            scan = write_scan(folder)
            vertices = np.arange(18, dtype=np.float32).reshape(6, 3)
            labels = np.array([1, 5, 50, 149, 0, 40], np.uint16)
            write_ply(labels_path(scan), Mesh(vertices, np.array([[0, 1, 2]], np.int32), labels=labels))
            return labels_path(scan), lambda path: read_nyu40_labels(path.parent)
        case "rows.json":
            path.write_text(json.dumps({"rows": [PUBLISHED["spacer"][0]]}))
            return path, import_it
    import pyarrow
    import pyarrow.parquet

    images = [{"bytes": picture_bytes("PNG", 8, 8), "path": None} for _ in range(2)]
    table = {"question": ["How wide?"] * 2, "answer_value": [1.5, 2.5], "answer_unit": ["m", "cm"], "image": images}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return path, import_it


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("video.mp4", marks=pytest.mark.slow),
        "picture.png",
        "picture.jpg",
        "png.sens",
        "raw.sens",
        "labels.tsv",
        "labels.zip",
        "labels.ply",
        pytest.param("rows.jsonl", marks=pytest.mark.slow),
        pytest.param("trl.jsonl", marks=pytest.mark.slow),
        pytest.param("vqasynth.jsonl", marks=pytest.mark.slow),
        pytest.param("vsi-bench.jsonl", marks=pytest.mark.slow),
        pytest.param("rows.json", marks=pytest.mark.slow),
        pytest.param("rows.parquet", marks=pytest.mark.slow),
    ],
)
def test_a_mutated_file_is_an_input_error_or_is_read(tmp_path: Path, kind: str, alarm):
    path, read = sample(kind, tmp_path)
    data = path.read_bytes()
    read(path)
    before = {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file() and one != path}
    rng = np.random.default_rng(11)
    mutations = MUTATIONS_AN_IMPORT if read is import_it else MUTATIONS_A_FILE
    refused = 0
    tracemalloc.start()
    try:
        for number in range(mutations):
            path.write_bytes(mutated(rng, data))
            tracemalloc.reset_peak()
            alarm()
            try:
                read(path)
            except InputError as error:
                refused += 1
                assert NAME in str(error) or "rows could be imported" in str(error), f"mutation {number}: {error}"
                assert "\n" not in str(error), f"mutation {number}"
            assert tracemalloc.get_traced_memory()[1] < MEMORY_LIMIT_BYTES, f"mutation {number}"
    finally:
        tracemalloc.stop()
    assert refused > mutations / 10, "the mutations hardly touch what is read"
    assert {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file() and one != path} == before


@pytest.mark.parametrize("form", FORMATS)
def test_rows_whose_fields_hold_anything_are_questions_or_named(form, tmp_path):
    """Every field of every form replaced by values of other kinds, unicode among them."""
    write_mp4(tmp_path / "videos/kitchen.mp4", (0, 90, 180))
    (tmp_path / "videos/a.png").write_bytes(picture_bytes("PNG", 8, 8))
    messages = {"messages": [chat("user", "What?"), chat("assistant", "It.")], "images": ["a.png"]}
    row = messages if form == "vqasynth" else PUBLISHED[form][0]
    odd: list[object] = [None, True, 0, -1.5, float("nan"), 10**400, "", " ", "\ud800", "café ☕", "../../etc"]
    odd += ["x" * 5000, [], [None], [[]], {}, {"bytes": 3}, {"path": 7}, [{"role": "user"}]]
    odd += [[{"role": 1, "content": [{"type": "image"}]}]]
    rows = [row | {name: value} for name in row for value in odd]
    (tmp_path / "set.jsonl").write_text("\n".join(json.dumps(one) for one in rows))
    settings = ImportSettings(tmp_path / "set.jsonl", tmp_path / "videos", form)
    try:
        report, _ = import_questions(settings, tmp_path / "out")
    except InputError as error:
        assert "rows could be imported" in str(error)
    else:
        places = {one.where for one in report.left_out}
        assert len(places) + len(report.questions) >= len(rows) == report.source_rows
        for question in report.questions:
            json.dumps(question.to_json(), ensure_ascii=False).encode()
    assert not (tmp_path / "out").exists()
