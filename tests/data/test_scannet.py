"""Scans in ScanNet's layout, written by hand: labels, alignment, known flaws and refusals."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxvsr.data.scannet.categories import STRUCTURAL, category_of, is_structural
from jaxvsr.data.scannet.instance_masks import InstanceMasks, write_instance_masks
from jaxvsr.data.scannet.read_scan import list_scans, read_scene
from jaxvsr.errors import InputError
from tests.support.scans import ALIGNED, ALIGNMENT, GROUPS, NAME, SEGMENTS, VERTICES, png, write_scan, write_zip


def test_objects_have_their_points_in_the_aligned_frame(tmp_path: Path):
    scan = write_scan(tmp_path)
    scene = read_scene(scan)
    assert (scene.name, scene.scan_dir, scene.flaws, scene.has_axis_alignment) == (NAME, scan, {}, True)
    assert [(item.id, item.category, item.raw_label) for item in scene.objects] == [
        (0, "floor", "floor"),
        (1, "sofa", "Couch"),
    ]
    np.testing.assert_allclose(scene.objects[0].points, ALIGNED[:3], atol=1e-12)
    np.testing.assert_allclose(scene.objects[1].points, ALIGNED[3:], atol=1e-12)
    np.testing.assert_allclose(scene.floor_points, ALIGNED[:3], atol=1e-12)
    np.testing.assert_allclose(scene.vertices, ALIGNED, atol=1e-6)
    np.testing.assert_allclose(scene.objects[1].aabb.minimum, [-2, 4, 0.5])
    np.testing.assert_allclose(scene.objects[1].obb.extent, [2**0.5, 0.5**0.5, 0], atol=1e-9)


def test_a_scan_without_alignment_keeps_its_frame_and_counts_the_flaw(tmp_path: Path):
    scene = read_scene(write_scan(tmp_path, info="sceneType = Apartment\n"))
    assert not scene.has_axis_alignment and scene.flaws == {"no_axis_alignment": 1}
    np.testing.assert_array_equal(scene.vertices, np.array(VERTICES, np.float32))


def test_an_alignment_after_a_byte_order_mark_is_read(tmp_path: Path):
    scene = read_scene(write_scan(tmp_path, info=f"\ufeffaxisAlignment = {ALIGNMENT}\n"))
    assert scene.has_axis_alignment and not scene.flaws


def with_group(**changes: Any) -> list[dict[str, Any]]:
    groups = copy.deepcopy(GROUPS)
    groups[1].update(changes)
    return groups


@pytest.mark.parametrize(
    ("change", "flaws", "categories"),
    [
        # scene0217_00 lists its objects twice.
        (
            {"groups": GROUPS + [{**group, "objectId": group["objectId"] + 2} for group in GROUPS]},
            {"repeated_objects": 2},
            ["floor", "sofa"],
        ),
        ({"groups": with_group(segments=[])}, {"objects_without_points": 1}, ["floor"]),
        ({"groups": with_group(segments=[30, 77])}, {"unknown_segments": 1}, ["floor", "sofa"]),
        ({"groups": with_group(segments=[30, 0])}, {"shared_segments": 1}, ["floor", "sofa"]),
        ({"groups": with_group(label=" ")}, {"empty_labels": 1}, ["floor"]),
        ({"groups": with_group(label="沙发")}, {}, ["floor", "沙发"]),
        ({"groups": []}, {}, []),
        (
            {"vertices": [*VERTICES[:3], (float("nan"), 0, 0), (1e30, 0, 0), (0, 0, float("-inf"))]},
            {"unusable_vertices": 3, "objects_without_points": 1},
            ["floor"],
        ),
    ],
)
def test_known_flaws_are_worked_around_and_counted(
    tmp_path: Path, change: dict[str, Any], flaws: dict[str, int], categories: list[str]
):
    scene = read_scene(write_scan(tmp_path, **change))
    assert scene.flaws == flaws
    assert [item.category for item in scene.objects] == categories
    assert np.isfinite(scene.vertices).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"segments": SEGMENTS[:-1]}, "5 segIndices, but the mesh has 6 vertices"),
        ({"segments": [*SEGMENTS[:-1], "5"]}, "list of integers"),
        ({"segments": [*SEGMENTS[:-1], True]}, "list of integers"),
        ({"segments": [*SEGMENTS[:-1], -1]}, "list of integers"),
        ({"segments": [*SEGMENTS[:-1], 10**30]}, "list of integers"),
        ({"segments": "none"}, "list 'segIndices'"),
        ({"groups": {"segGroups": 1}}, "list 'segGroups'"),
        ({"groups": [1]}, r"segGroups\[0\] must be an object"),
        ({"groups": with_group(objectId="1")}, "objectId must be an integer"),
        ({"groups": with_group(objectId=0)}, "objectId 0 already names another"),
        ({"groups": with_group(label=None)}, "label must be a string"),
        ({"groups": with_group(label="\ud800")}, "not valid text"),
        ({"groups": with_group(segments=[1.5])}, "list of integers"),
        ({"info": "axisAlignment = 1 0 0\n"}, "16 numbers"),
        ({"info": "axisAlignment = " + "nan " * 16 + "\n"}, "a rotation and a translation"),
        ({"info": "axisAlignment = " + "1e300 " * 16 + "\n"}, "a rotation and a translation"),
        ({"info": "axisAlignment = -1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n"}, "a rotation and a translation"),  # a mirror
        ({"groups": [GROUPS[0]] * 1001}, "1,001 objects in segGroups; expected at most 1,000"),
        ({"info": "axisAlignment = 2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1\n"}, "a rotation and a translation"),
    ],
)
def test_a_broken_scan_is_refused_with_file_and_reason(tmp_path: Path, change: dict[str, Any], reason: str):
    scan = write_scan(tmp_path, **change)
    with pytest.raises(InputError, match=reason) as error:
        read_scene(scan)
    assert str(scan) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json", ".txt"])
def test_a_missing_file_is_named(tmp_path: Path, suffix: str):
    scan = write_scan(tmp_path)
    (scan / f"{NAME}{suffix}").unlink()
    with pytest.raises(InputError, match="No such file") as error:
        read_scene(scan)
    assert f"{NAME}{suffix}" in str(error.value)


def test_deeply_nested_json_is_refused(tmp_path: Path):
    scan = write_scan(tmp_path)
    (scan / f"{NAME}.aggregation.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="not JSON"):
        read_scene(scan)


def test_scans_are_listed_in_both_layouts_and_a_folder_without_scans_is_refused(tmp_path: Path):
    write_scan(tmp_path, name="scene0001_00")
    write_scan(tmp_path, name="scene0000_01")
    (tmp_path / "scans" / "notes").mkdir()
    for root in (tmp_path, tmp_path / "scans"):
        assert [path.name for path in list_scans(root)] == ["scene0000_01", "scene0001_00"]
    with pytest.raises(InputError, match="no scans in it"):
        list_scans(tmp_path / "scans" / "notes")
    with pytest.raises(InputError, match="no such folder"):
        list_scans(tmp_path / "nowhere")


def test_scans_with_only_colour_frames_are_listed_too(tmp_path: Path):
    first = write_scan(tmp_path)
    second = tmp_path / "scans" / "scene0124_00"
    (second / "color").mkdir(parents=True)
    assert list_scans(tmp_path) == [first, second]


def test_masks_are_read_by_frame_index(tmp_path: Path):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = write_zip(
        tmp_path / "masks.zip",
        {"instance-filt/": b"", "instance-filt/10.png": png(pixels), "instance-filt/2.png": png(pixels + 1)},
    )
    masks = InstanceMasks(path)
    assert masks.frames == (2, 10)
    np.testing.assert_array_equal(masks.read(10), pixels)
    with pytest.raises(InputError, match=r"no mask for frame 0"):
        masks.read(0)


def test_written_masks_are_read_again_and_carry_no_time(tmp_path: Path):
    pixels = [np.full((3, 4), value, np.uint8) for value in (0, 7)]
    write_instance_masks(tmp_path / "masks.zip", pixels)
    masks = InstanceMasks(tmp_path / "masks.zip")
    assert masks.frames == (0, 1) and (masks.read(1) == 7).all()
    import zipfile

    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"../instance-filt/0.png": b""}, "outside the archive"),
        ({"instance-filt/../../0.png": b""}, "outside the archive"),
        ({"/instance-filt/0.png": b""}, "outside the archive"),
        ({"instance-filt/0.png": b"no picture"}, "cannot be decoded"),
        ({"instance-filt/0.png": png(np.zeros((2, 2), np.uint16))}, "an 8-bit PNG"),
        ({"instance-filt/0.png": png(np.zeros((2, 2, 3), np.uint8))}, "an 8-bit PNG"),
        # A picture that would unpack to 2^31 pixels: width and height of a small one overwritten.
        (
            {
                "instance-filt/0.png": png(np.zeros((2, 2), np.uint8)).replace(
                    b"\0\0\0\2\0\0\0\2", b"\0\0\x80\0\0\1\0\0"
                )
            },
            "cannot be decoded|an 8-bit PNG",
        ),
    ],
)
def test_hostile_mask_archives_are_refused(tmp_path: Path, entries: dict[str, bytes], reason: str):
    path = write_zip(tmp_path / "masks.zip", entries)
    with pytest.raises(InputError, match=reason) as error:
        InstanceMasks(path).read(0)
    assert str(path) in str(error.value)


def test_synonyms_and_plurals_mean_one_category():
    for labels in (("doors", "door"), ("couch", "Sofa ", "couches"), ("trash bin", "trash can", "garbage  bin")):
        assert len({category_of(label) for label in labels}) == 1
    # Not every s is a plural, and a kind of chair is not a chair.
    assert [category_of(label) for label in ("blinds", "glasses", "office chair")] == [
        "blinds",
        "glasses",
        "office chair",
    ]
    assert category_of(" ") == ""
    # Labels that look the same are the same, however their letters are composed.
    assert category_of("caf\u00e9 table") == category_of("Cafe\u0301  table") == "caf\u00e9 table"


def test_the_table_of_categories_is_consistent():
    from jaxvsr.data.scannet.categories import _SYNONYMS

    labels = [label for synonyms in _SYNONYMS.values() for label in synonyms]
    assert len(set(labels)) == len(labels), "a label means two categories"
    assert not set(labels) & set(_SYNONYMS), "a category is the synonym of another"
    assert all(category_of(name) in STRUCTURAL for name in ("Walls", "floors", "ceiling", "objects", "window sill"))
    assert not any(is_structural(category_of(name)) for name in ("door", "windows", "shelves", "curtains"))
    assert json.dumps(sorted(STRUCTURAL)) == json.dumps(sorted({name.lower() for name in STRUCTURAL}))
