"""Splits by room, and the scenes that belong to benchmarks."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvsr.data.scannet.benchmark_scenes import benchmark_in, benchmark_of, excluded_by
from jaxvsr.data.splits import read_splits, room_of, split_by_room, write_splits
from jaxvsr.errors import InputError

scans = st.lists(
    st.builds(lambda room, walk: f"scene{room:04d}_{walk:02d}", st.integers(0, 60), st.integers(0, 3)), min_size=1
)


@given(scans, st.floats(0, 0.9), st.integers(0, 5))
def test_scenes_of_one_room_share_a_split_and_every_scene_has_one(scenes, share, seed):
    splits = split_by_room(scenes, share, seed=seed)
    assert sorted(splits["train"] + splits["heldout"]) == sorted(set(scenes))
    assert not {room_of(s) for s in splits["train"]} & {room_of(s) for s in splits["heldout"]}
    rooms = {room_of(scene) for scene in scenes}
    heldout = {room_of(s) for s in splits["heldout"]}
    assert len(heldout) == max(round(share * len(rooms)), 1 if share > 0 and len(rooms) > 1 else 0)
    assert splits == split_by_room(reversed(scenes), share, seed=seed)


@given(scans, scans)
def test_scenes_added_later_do_not_move_others(first, more):
    before = split_by_room(first, 0.3)
    after = split_by_room(first + more, 0.3, before=before)
    for split in ("train", "heldout"):
        assert {room_of(s) for s in before[split]} <= {room_of(s) for s in after[split]}


def test_benchmark_scenes_are_always_held_out():
    splits = split_by_room([f"scene{i:04d}_00" for i in range(20)], 0.1, always_heldout=["scene0011_00"])
    assert "scene0011_00" in splits["heldout"] and len(splits["heldout"]) == 2


def test_scenes_with_other_names_are_separate_rooms():
    assert [room_of(name) for name in ("scene0000_01", "41069025", "0d2ee665be", "scene12_00")] == [
        "scene0000", "41069025", "0d2ee665be", "scene12_00"
    ]  # fmt: skip


def test_splits_read_back_and_broken_ones_are_refused(tmp_path):
    splits = {"train": ["scene0000_00"], "heldout": ["scene0001_00"]}
    write_splits(tmp_path, splits)
    assert read_splits(tmp_path) == splits
    for text, says in [
        ("{", "not JSON"),
        ("[]", 'expected {"train": [...], "heldout": [...]}'),
        ('{"train": []}', 'expected {"train"'),
        ('{"train": [1], "heldout": []}', "'train' must be a list of scene names"),
        ('{"train": ["scene0000_00"], "heldout": ["scene0000_01"]}', "room scene0000 is in train and in heldout"),
    ]:
        (tmp_path / "splits.json").write_text(text)
        with pytest.raises(InputError, match=re.escape(says)):
            read_splits(tmp_path)
    with pytest.raises(InputError, match="held-out share 1"):
        split_by_room(["a"], 1.0)


def test_a_folder_of_another_schema_is_refused(tmp_path):
    write_splits(tmp_path, {"train": ["a"], "heldout": []})
    path = tmp_path / "splits.json"
    assert json.loads(path.read_text())["schema"] == 1
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(InputError, match="schema 2, but this jaxvsr reads schema 1"):
        read_splits(tmp_path)
    path.write_text('{"train": ["a"], "heldout": []}')  # of folders that said nothing
    assert read_splits(tmp_path)["train"] == ["a"]


def test_scannet_validation_and_vsi_bench_scenes_are_known():
    assert benchmark_of("scene0000_00") is None  # in ScanNet's training split
    assert benchmark_of("scene0568_00") == "scannet-val"
    assert benchmark_of("scene0568_02") == benchmark_of("41069025") == benchmark_of("0d2ee665be") == "vsi-bench"
    named = [benchmark_of(f"scene{room:04d}_{walk:02d}") for room in range(807) for walk in range(10)]
    assert named.count("vsi-bench") == 88 and named.count("scannet-val") == 312 - 88


def test_a_benchmark_is_allowed_only_by_its_name():
    assert excluded_by("scene0568_00", ()) == "scannet-val" and excluded_by("scene0568_02", ()) == "vsi-bench"
    assert excluded_by("scene0568_00", ("scannet-val",)) is None
    assert excluded_by("scene0568_02", ("scannet-val",)) == "vsi-bench"
    assert excluded_by("scene0000_00", ()) is None


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("nas/Scene0568_02_vh_clean.mp4", "vsi-bench"),
        ("pictures--scene0568_00--000100", "scannet-val"),
        ("scannetpp-0d2ee665be.mp4", "vsi-bench"),
        ("arkitscenes_41069025_rgb", "vsi-bench"),
        ("scene0568_021", None),
        ("x41069025", None),
        ("kitchen", None),
    ],
)
def test_a_benchmark_scene_is_found_within_longer_names(name, owner):
    assert benchmark_in(name) == owner
