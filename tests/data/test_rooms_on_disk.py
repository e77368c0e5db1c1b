"""Procedural rooms written as ScanNet scans and read again: bytes, geometry, pictures."""

from __future__ import annotations

import collections
import hashlib
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.data_folder import adding_to
from jaxvsr.data.rooms.room import build_room
from jaxvsr.data.rooms.room_scans import write_rooms
from jaxvsr.data.scannet import read_scan
from jaxvsr.data.scannet.instance_masks import InstanceMasks
from jaxvsr.data.scannet.sens import SensReader
from jaxvsr.errors import InputError
from jaxvsr.files import partial_name

SEED, FRAMES, SIZE = 5, 12, (80, 60)
INDICES = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rooms")
    write_rooms(folder, scenes=len(INDICES), seed=SEED, frames=FRAMES, size=SIZE)
    return folder


def hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(root: Path, tmp_path: Path):
    names = write_rooms(tmp_path / "two", scenes=len(INDICES), seed=SEED, frames=FRAMES, size=SIZE, workers=2)
    assert names == ["scene0000_00", "scene0001_00", "scene0002_00", "scene0003_00"]
    assert hashes(tmp_path / "two") == hashes(root)
    assert len(hashes(root)) == 6 * len(INDICES)
    write_rooms(tmp_path / "other", scenes=1, seed=SEED + 1, frames=FRAMES, size=SIZE)
    ours, theirs = hashes(root), hashes(tmp_path / "other")
    assert all(ours[name] != theirs[name] for name in theirs)


def test_every_file_of_scannets_layout_is_there_under_its_name(root: Path):
    scans = read_scan.list_scans(root)
    assert [scan.name for scan in scans] == [build_room(SEED, index).name for index in INDICES]
    suffixes = (
        ".sens", "_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json", ".txt",
        "_2d-instance-filt.zip"
    )  # fmt: skip
    for scan in scans:
        assert sorted(path.name for path in scan.iterdir()) == sorted(scan.name + suffix for suffix in suffixes)


@pytest.mark.parametrize("index", INDICES)
def test_a_scan_read_back_is_the_room_that_was_built(root: Path, index: int):
    room = build_room(SEED, index)
    scene = read_scan.read_scene(root / "scans" / room.name)
    assert scene.flaws == {} and scene.has_axis_alignment
    assert collections.Counter(item.category for item in scene.objects) == collections.Counter(
        item.category for item in room.objects
    )
    for read, built in zip(scene.objects, room.objects, strict=True):
        assert (read.id, read.category, read.raw_label) == (built.id, built.category, built.raw_label)
        np.testing.assert_allclose(read.aabb.minimum, built.aabb.minimum, atol=1e-4)
        np.testing.assert_allclose(read.aabb.maximum, built.aabb.maximum, atol=1e-4)
    # The stored frame is another one: without the alignment the boxes would be wrong by metres.
    assert np.abs(scene.axis_alignment - np.eye(4)).max() > 0.1
    # The floor is sampled densely enough for its outline: no point of the room is further than a cell from a floor
    # point.
    grid = scene.floor_points[:, :2]
    inside = np.random.default_rng(0).uniform(room.plan.outline.min(0), room.plan.outline.max(0), (500, 2))
    inside = inside[room.plan.contains(inside)]
    assert np.linalg.norm(inside[:, None] - grid, axis=-1).min(axis=1).max() < 0.12
    np.testing.assert_allclose(scene.floor_points[:, 2], 0, atol=1e-5)


@pytest.mark.parametrize("index", INDICES)
def test_depth_and_pose_put_every_pixel_on_the_object_that_its_mask_names(root: Path, index: int):
    room = build_room(SEED, index)
    scan = root / "scans" / room.name
    alignment = read_scan.read_scene(scan).axis_alignment
    reader, masks = SensReader(read_scan.sens_path(scan)), InstanceMasks(read_scan.instance_masks_path(scan))
    assert masks.frames == tuple(range(FRAMES)) and len(reader) == FRAMES
    camera = reader.header.intrinsic_depth
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    checked = 0
    for frame in range(FRAMES):
        pose, depth, mask = reader.pose(frame), reader.depth(frame), masks.read(frame)
        assert depth.shape == mask.shape == reader.color(frame).shape[:2] == SIZE[::-1]
        if pose is None:
            continue
        local = np.stack(
            [(u - camera[0, 2]) / camera[0, 0], (v - camera[1, 2]) / camera[1, 1], np.ones_like(u)], axis=-1
        )
        points = (local * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
        points = points @ alignment[:3, :3].T + alignment[:3, 3]
        for item in room.objects:
            seen = points[mask == item.id + 1]
            checked += len(seen)
            assert (seen > item.aabb.minimum - 0.01).all() and (seen < item.aabb.maximum + 0.01).all(), item.category
    assert checked > 0.7 * FRAMES * SIZE[0] * SIZE[1]


def test_frames_are_upright_and_show_nearly_all_of_the_furniture(root: Path):
    shown = total = 0
    for index in INDICES:
        room = build_room(SEED, index)
        masks = InstanceMasks(read_scan.instance_masks_path(root / "scans" / room.name))
        frames = np.stack([masks.read(frame) for frame in masks.frames])
        rows = {
            category: np.concatenate(
                [np.nonzero(frames == item.id + 1)[1] for item in room.objects if item.category == category]
            )
            for category in ("floor", "ceiling")
        }
        assert rows["floor"].mean() > SIZE[1] * 0.55
        if len(rows["ceiling"]):
            assert rows["ceiling"].mean() < SIZE[1] * 0.3
        for item in room.objects:
            if item.category not in ("wall", "floor", "ceiling"):
                total += 1
                shown += (frames == item.id + 1).sum(axis=(1, 2)).max() >= 5
    assert shown >= 0.95 * total


@pytest.mark.slow
def test_the_camera_moves_through_the_room_and_some_frames_have_no_pose(tmp_path: Path):
    write_rooms(tmp_path, scenes=2, seed=SEED, frames=150, size=(16, 16))
    lost = 0
    for index in range(2):
        room = build_room(SEED, index)
        scan = tmp_path / "scans" / room.name
        alignment = read_scan.read_scene(scan).axis_alignment
        reader = SensReader(read_scan.sens_path(scan))
        lost += reader.invalid_poses
        poses = [pose for frame in range(len(reader)) if (pose := reader.pose(frame)) is not None]
        positions = np.stack([(alignment @ pose)[:3, 3] for pose in poses])
        assert room.plan.contains(positions[:, :2]).all()
        assert (positions[:, 2] > 1.2).all() and (positions[:, 2] < 2.0).all()
        assert (np.ptp(positions[:, :2], axis=0) > 1.0).all()
        np.testing.assert_allclose(
            [pose[:3, :3] @ pose[:3, :3].T for pose in poses], [np.eye(3)] * len(poses), atol=1e-5
        )
        assert (np.diff(reader.timestamps) > 0).all()
    assert 1 <= lost <= 30


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_and_other_arguments_are_refused(root: Path, tmp_path: Path):
    write_rooms(tmp_path, scenes=2, seed=SEED, frames=FRAMES, size=SIZE)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    # What a killed run leaves: a scan under its temporary name.
    half = partial_name(tmp_path / "scans" / "scene0002_00") / "scene0002_00"
    half.mkdir(parents=True)
    (half / "scene0002_00.sens").write_bytes(b"half")
    done: list[str] = []
    with adding_to(tmp_path):
        write_rooms(tmp_path, scenes=4, seed=SEED, frames=FRAMES, size=SIZE, on_scene=done.append)
    assert len(done) == 4 and hashes(tmp_path) == hashes(root)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    with pytest.raises(InputError, match="scene0000_00: exists and was not written by"):
        write_rooms(tmp_path, scenes=1, seed=SEED + 1, frames=FRAMES, size=SIZE)


@pytest.mark.parametrize("change", [{"scenes": 0}, {"seed": -1}, {"workers": 0}, {"frames": 0}, {"size": (8, 60)}])
def test_arguments_out_of_range_are_refused_by_name(tmp_path: Path, change: dict):
    arguments = {"scenes": 1, "seed": 0, **change}
    with pytest.raises(InputError, match="must be from"):
        write_rooms(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
