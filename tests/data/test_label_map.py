"""ScanNet's label map, 2D label masks, the labelled mesh, official splits, and `check` of a folder of scans."""

import importlib.resources
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.scannet.label_map import (
    LABEL_MAP_FILE,
    LabelMasks,
    find_label_map,
    label_masks_path,
    labels_path,
    read_label_map,
    read_nyu40_labels,
)
from jaxvsr.data.scannet.official_splits import official_split
from jaxvsr.data.scannet.ply import Mesh, write_ply
from jaxvsr.errors import InputError
from launch.build_data import main
from tests.support.scans import GROUPS, png, write_scan, write_zip

# The columns of the real file, with a row that has no nyu40id and a label beyond ASCII.
COLUMNS = "id\traw_category\tcategory\tcount\tnyu40id\teigen13id\tnyuClass\tnyu40class"
WALL, COUCH = "1\twall\twall\t8277\t1\t12\twall\twall", "6\tcouch\tcouch\t496\t6\t9\tsofa\tsofa"
ROWS = [WALL, COUCH, "1357\tcafé table\ttable\t1\t\t\t\t"]


def write_map(folder: Path, rows: list[str] = ROWS, columns: str = COLUMNS) -> Path:
    path = folder / LABEL_MAP_FILE
    path.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return path


def test_the_label_map_is_read_by_column_names(tmp_path):
    found = read_label_map(write_map(tmp_path))
    assert found.raw_labels == {1: "wall", 6: "couch", 1357: "café table"}
    assert found.nyu40_ids == {"wall": 1, "couch": 6, "café table": 0}
    turned = read_label_map(write_map(tmp_path, ["9\tchair\t77"], "nyu40id\traw_category\tid"))
    assert turned.raw_labels == {77: "chair"} and turned.nyu40_ids == {"chair": 9}


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        (ROWS, "id\tcategory\tnyu40id", "no column 'raw_category'"),
        (ROWS, f"{COLUMNS}\tid", "2 columns 'id'; expected one"),
        ([], COLUMNS, "no labels in it"),
        (["1\twall"], COLUMNS, "line 2: 2 columns, the header has 8"),
        ([*ROWS, ROWS[0]], COLUMNS, "line 5: id 1 already names 'wall'"),
        (["x" + ROWS[0]], COLUMNS, "line 2: expected id, raw category, nyu40id"),
        (["9" * 50 + ROWS[0]], COLUMNS, "line 2: expected id"),
        (["1\t\twall\t8277\t1\t12\twall\twall"], COLUMNS, "line 2: expected id"),
    ],
)
def test_a_broken_label_map_is_refused_with_its_line(rows, columns, says, tmp_path):
    with pytest.raises(InputError, match=says):
        read_label_map(write_map(tmp_path, rows, columns))


def test_the_label_map_is_found_by_name_or_beside_the_scans(tmp_path):
    scans = tmp_path / "scannet/scans"
    scans.mkdir(parents=True)
    assert find_label_map(scans.parent) is None
    above = write_map(tmp_path)
    assert find_label_map(tmp_path / "scannet") == above.resolve()
    beside = write_map(scans)
    assert find_label_map(tmp_path / "scannet") == beside and find_label_map(scans) == beside
    assert find_label_map(scans, above) == above
    with pytest.raises(InputError, match="no such label map"):
        find_label_map(scans, tmp_path / "other.tsv")


@pytest.mark.parametrize("folder", ["label-filt", "label"])
def test_label_masks_hold_the_ids_of_the_map(folder, tmp_path):
    scan = write_scan(tmp_path)
    pixels = np.array([[0, 1, 1357], [40, 300, 65535]], np.uint16)
    path = write_zip(label_masks_path(scan), {f"{folder}/10.png": png(pixels), f"{folder}/2.png": png(pixels[:, ::-1])})
    masks = LabelMasks(path)
    assert masks.frames == (2, 10)
    np.testing.assert_array_equal(masks.read_labels(10), pixels)
    with pytest.raises(InputError, match=r"no mask for frame 3; expected label-filt/3\.png"):
        masks.read_labels(3)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("label-filt/0.png", png(np.zeros((2, 2), np.uint8)), "a 16-bit PNG"),
        ("label-filt/0.png", b"\0" * 100, "cannot be decoded"),
        ("../label-filt/0.png", png(np.zeros((2, 2), np.uint16)), "points outside the archive"),
    ],
)
def test_hostile_label_archives_are_refused(name, content, says, tmp_path):
    with pytest.raises(InputError, match=says):
        LabelMasks(write_zip(tmp_path / "labels.zip", {name: content})).read_labels(0)


def test_a_mask_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    bomb = png(np.zeros((1, 1), np.uint16))
    path = tmp_path / "labels.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("label-filt/0.png", bomb + b"\0" * (64 << 20))
    assert path.stat().st_size < 1 << 20
    masks = LabelMasks(path)
    assert masks.read_labels(0).shape == (1, 1)  # the picture ends long before what was appended
    header = bytearray(png(np.zeros((4, 4), np.uint16)))
    header[16:24] = (100_000).to_bytes(4, "big") * 2
    with pytest.raises(InputError, match=r"cannot be decoded|100000x100000"):
        LabelMasks(write_zip(tmp_path / "huge.zip", {"label-filt/0.png": bytes(header)})).read_labels(0)


def test_invalid_labels_of_the_mesh_become_none_and_are_counted(tmp_path):
    scan = write_scan(tmp_path)
    labels = np.array([1, 40, 50, 149, 0, 50], np.uint16)
    vertices, faces = np.zeros((6, 3), np.float32), np.array([[0, 1, 2]], np.int32)
    write_ply(labels_path(scan), Mesh(vertices, faces, labels=labels))
    found, unknown = read_nyu40_labels(scan)
    assert found.tolist() == [1, 40, 0, 0, 0, 0] and unknown == 3
    write_ply(labels_path(scan), Mesh(vertices, faces))
    with pytest.raises(InputError, match="no property 'label'"):
        read_nyu40_labels(scan)


def test_the_official_splits_are_complete_and_disjoint():
    package = importlib.resources.files("jaxvsr.data.scannet")
    lists = {name: (package / f"scannetv2_{name}.txt").read_text().split() for name in ("train", "val", "test")}
    assert {name: len(scans) for name, scans in lists.items()} == {"train": 1201, "val": 312, "test": 100}
    assert len({scan for scans in lists.values() for scan in scans}) == 1613
    assert all(official_split(scan) == name for name, scans in lists.items() for scan in scans)
    assert official_split("scene0011_00") == "val" and official_split("kitchen") is None


def test_check_lists_what_a_folder_of_scans_has_and_lacks(tmp_path, capsys):
    write_scan(tmp_path, name="scene0000_00")
    write_scan(tmp_path, name="scene0011_00", info="sceneType = Hallway\n")
    odd = {"id": 2, "objectId": 2, "segments": [2], "label": "Ding"}
    whole = write_scan(tmp_path, name="scene0707_00", groups=[*GROUPS, odd])
    (whole / "color").mkdir()
    (tmp_path / "scans/scene0011_00/scene0011_00.aggregation.json").unlink()
    write_map(tmp_path, [*ROWS, "2\tfloor\tfloor\t1\t2\t2\tfloor\tfloor", "3\tCouch\tsofa\t1\t6\t9\tsofa\tsofa"])
    assert main(["check", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "scans: 3 (1 test, 1 train, 1 val)" in printed
    assert "without axisAlignment: 1 (scene0011_00)" in printed and "1 colour folder" in printed
    assert "raw labels: 3 of 5 objects, 1 joined as synonyms" in printed  # Couch is a sofa
    assert f"labels that {LABEL_MAP_FILE} does not have: 1 (Ding)" in printed
    assert "without .sens or colour folder: 2 (scene0000_00, scene0011_00)" in printed
    assert "without mesh, segments, aggregation or .txt: 1 (scene0011_00)" in printed
    (whole / "scene0707_00.aggregation.json").write_text("{")
    assert main(["check", str(tmp_path)]) == 1
    assert "missing: scene0707_00: " in capsys.readouterr().out
    assert main(["check", str(tmp_path), "--label-map", str(tmp_path / "none.tsv")]) == 2
    assert "no such label map" in capsys.readouterr().err
