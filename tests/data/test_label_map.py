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
    assert found.raw_labels == {1: ("wall",), 6: ("couch",), 1357: ("café table",)}
    assert found.nyu40_ids == {"wall": 1, "couch": 6, "café table": 0}
    turned = read_label_map(write_map(tmp_path, ["9\tchair\t77"], "nyu40id\traw_category\tid"))
    assert turned.raw_labels == {77: ("chair",)} and turned.nyu40_ids == {"chair": 9}


def test_an_id_with_several_names_has_them_all(tmp_path):
    """As in the real file, where 2 is a chair and a stack of chairs, and 28 four kinds of lamp."""
    rows = [
        "2\tchair\tchair\t4646\t5\t4\tchair\tchair",
        "28\tlamp\tlamp\t419\t35\t7\tlamp\tlamp",
        "2\tstack of chairs\tchair\t7\t5\t4\tchair\tchair",
        "28\tlamp base\tlamp\t6\t35\t7\tlamp\tlamp",
        "28\twall lamp\tlamp\t2\t35\t7\tlamp\tlamp",
    ]
    found = read_label_map(write_map(tmp_path, rows))
    assert found.raw_labels == {2: ("chair", "stack of chairs"), 28: ("lamp", "lamp base", "wall lamp")}
    assert found.nyu40_ids["stack of chairs"] == 5 and len(found.nyu40_ids) == 5


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        (ROWS, "id\tcategory\tnyu40id", "no column 'raw_category'"),
        (ROWS, f"{COLUMNS}\tid", "2 columns 'id'; expected one"),
        ([], COLUMNS, "no labels in it"),
        (["1\twall"], COLUMNS, "line 2: 2 columns, the header has 8"),
        ([*ROWS, ROWS[0]], COLUMNS, "line 5: 'wall' is in an earlier line, too"),
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


def named_missing(printed):
    return [line.removeprefix("missing: ") for line in printed.splitlines() if line.startswith("missing: ")]


def test_check_lists_what_a_folder_of_scans_has_and_lacks(tmp_path, capsys):
    write_scan(tmp_path, name="scene0000_00")
    write_scan(tmp_path, name="scene0011_00", info="sceneType = Hallway\n")
    odd = {"id": 2, "objectId": 2, "segments": [2], "label": "Ding"}
    whole = write_scan(tmp_path, name="scene0707_00", groups=[*GROUPS, odd])
    (whole / "color").mkdir()
    (tmp_path / "scans/scene0011_00/scene0011_00.aggregation.json").unlink()
    write_map(tmp_path, [*ROWS, "2\tfloor\tfloor\t1\t2\t2\tfloor\tfloor", "3\tCouch\tsofa\t1\t6\t9\tsofa\tsofa"])
    assert main(["check", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "scans: 3 (1 test, 1 train, 1 val)" in printed
    assert "without axisAlignment: 1 (scene0011_00)" in printed and "1 colour folder" in printed
    assert "raw labels: 3 of 5 objects, 1 joined as synonyms" in printed  # Couch is a sofa
    assert f"labels that {LABEL_MAP_FILE} does not have: 1 (Ding)" in printed
    assert "without .sens or colour folder: 2 (scene0000_00, scene0011_00)" in printed
    assert "without mesh, segments, aggregation or .txt: 1 (scene0011_00)" in printed
    assert named_missing(printed) == [
        "scene0011_00: no scene0011_00.aggregation.json",
        "scene0000_00: neither a .sens nor a colour folder, as other scans have",
        "scene0011_00: neither a .sens nor a colour folder, as other scans have",
    ]
    assert main(["check", str(tmp_path), "--label-map", str(tmp_path / "none.tsv")]) == 2
    assert "no such label map" in capsys.readouterr().err


def check_of(folder, capsys):
    """The exit code of `check`, and the lines about what is missing."""
    code = main(["check", str(folder)])
    printed = capsys.readouterr().out
    assert ("nothing is missing" in printed) == (code == 0)
    return code, named_missing(printed)


def test_check_passes_with_everything_and_without_what_may_be_deleted_or_does_not_exist(tmp_path, capsys):
    """Frames may be deleted once they are stored; ScanNet's test scans have no annotation."""
    write_scan(tmp_path, name="scene0000_00")
    test = write_scan(tmp_path, name="scene0707_00", info="sceneType = Hallway\n")
    (test / "scene0707_00.aggregation.json").unlink()
    (test / "scene0707_00_vh_clean_2.0.010000.segs.json").unlink()
    write_map(tmp_path, [*ROWS, "2\tfloor\tfloor\t1\t2\t2\tfloor\tfloor", "2\tCouch\tsofa\t1\t6\t9\tsofa\tsofa"])
    assert check_of(tmp_path, capsys) == (0, [])


PAGE = b"<!DOCTYPE HTML PUBLIC>\n<html><head><title>404 Not Found</title></head></html>\n"
SUFFIXES = (
    ".sens", "_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json", ".txt",
    "_2d-instance-filt.zip", "_2d-label-filt.zip", "_vh_clean_2.labels.ply",
)  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_check_names_every_file_that_is_empty_or_a_web_page_or_something_else(suffix, tmp_path, capsys):
    path = write_scan(tmp_path, name="scene0000_00") / f"scene0000_00{suffix}"
    path.write_bytes(b"")
    assert check_of(tmp_path, capsys) == (1, [f"scene0000_00: {path.name} is empty"])
    path.write_bytes(b"\n" + PAGE)
    says = f"scene0000_00: {path.name} is a web page instead of the file; download it again"
    assert check_of(tmp_path, capsys) == (1, [says])
    if suffix != ".txt":  # in which any line may stand
        path.write_bytes(b"neither this nor that")
        code, (line,) = check_of(tmp_path, capsys)
        assert code == 1 and path.name in line


def test_check_names_what_is_missing_or_does_not_fit(tmp_path, capsys):
    scan = write_scan(tmp_path, name="scene0000_00")
    (tmp_path / "scans/scene0001_00").mkdir()
    mesh = scan / "scene0000_00_vh_clean_2.ply"
    mesh.write_text(mesh.read_text().replace("vertex 6", "vertex 5").replace("0 0 0\n", "", 1))
    code, lines = check_of(tmp_path, capsys)
    assert code == 1 and lines[0] == "scene0001_00: none of a scan's files is in it"
    assert lines[1].startswith("scene0000_00: ") and "6 segIndices, but the mesh has 5 vertices" in lines[1]
    mesh.unlink()
    (scan / "color").mkdir()
    (scan / "color/0.jpg").write_bytes(b"")
    write_map(tmp_path).write_bytes(PAGE)
    assert check_of(tmp_path, capsys)[1] == [
        "scene0001_00: none of a scan's files is in it",
        "scene0000_00: no scene0000_00_vh_clean_2.ply",
        "scene0000_00: 1 files in color/ are empty (0.jpg)",
        f"{LABEL_MAP_FILE} is a web page instead of the file; download it again",
    ]
