"""Frames: the sampling rules and sizes of the places they come from, and a store that gives back what went in."""

import json
from io import BytesIO
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.scannet.sens import SensReader
from jaxvsr.data.video.frame_sampling import SamplingRule, most_frames, sample_indices
from jaxvsr.data.video.frame_writer import FrameSettings, Outcome, write_frames, write_scene_frames
from jaxvsr.errors import InputError
from tests.support.files import contents
from tests.support.scans import write_sens_scan


def decode(scan: Path, index: int) -> Image.Image:
    """A frame by way of the bytes alone."""
    return Image.open(BytesIO(SensReader(scan / f"{scan.name}.sens").color_jpeg(index)))


@pytest.mark.parametrize("total", [8, 9, 31, 32, 100, 1500, 5577])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_sampling_rules_equal_the_original_implementations(total, count):
    torch = pytest.importorskip("torch")
    lmms_eval = np.linspace(0, total - 1, count, dtype=int).tolist()
    qwen_vl_utils = torch.linspace(0, total - 1, count).round().long().tolist()
    hugging_face = torch.arange(0, total, total / count).int().tolist()
    assert sample_indices(total, count).tolist() == lmms_eval
    assert sample_indices(total, count, "qwen-vl-utils").tolist() == qwen_vl_utils
    assert sample_indices(total, count, "huggingface").tolist() == hugging_face[:count]


@pytest.mark.parametrize("total", [8, 9, 31, 247, 1500, 5577])
@pytest.mark.parametrize("video_fps", [2, 24, 29.97])
def test_lmms_evals_rule_is_linspace_of_two_frames_a_second(total, video_fps):
    torch = pytest.importorskip("torch")
    # `smart_nframes` of qwen-vl-utils without nframes or fps, then lmms-eval's `qwen2_vl` with 32 frames.
    at_two = int(min(max(total / video_fps * 2, 4), 768, total) // 2 * 2)
    first = torch.linspace(0, total - 1, at_two).round().long().numpy()
    theirs = first[np.unique(np.linspace(0, at_two - 1, 32, dtype=int))].tolist()
    assert most_frames(total, video_fps, "lmms-eval") == at_two
    assert sample_indices(total, min(32, at_two), "lmms-eval", video_fps).tolist() == theirs
    with pytest.raises(InputError, match="fewer than"):
        sample_indices(total, at_two + 1, "lmms-eval", video_fps)


def test_every_sampling_rule_gives_each_frame_once_and_refuses_too_short_videos():
    for rule in get_args(SamplingRule):
        for total in range(4, 60):
            for count in range(1, most_frames(total, 3.0, rule) + 1):
                indices = sample_indices(total, count, rule, 3.0)
                assert len(indices) == count and len(set(indices.tolist())) == count
                assert indices.min() >= 0 and indices.max() < total and (np.diff(indices) > 0).all()
        with pytest.raises(InputError, match="has 5 frames, fewer than the 8 asked for"):
            sample_indices(5, 8, rule)


def test_frames_for_qwen3_vl_have_sides_in_multiples_of_32(tmp_path):
    scan = write_sens_scan(tmp_path, "scene0000_00")
    write_scene_frames(scan, tmp_path / "out", FrameSettings((4,), 7000, "qwen3-vl"))
    attributes = FrameStore(tmp_path / "out").attributes("scene0000_00")
    assert attributes["rule"] == "qwen3-vl" and attributes["height_width"] == [64, 96]
    with pytest.raises(InputError, match="must be at least 1024"):
        FrameSettings((4,), 1000, "qwen3-vl")


def test_stored_frames_are_the_resized_frames_of_the_source(tmp_path):
    scan = write_sens_scan(tmp_path, "scene0000_00")
    assert write_scene_frames(scan, tmp_path / "out", FrameSettings((4, 6), 6000))
    store = FrameStore(tmp_path / "out")
    assert store.scenes() == ["scene0000_00"] and store.counts("scene0000_00") == (4, 6)
    for count in (4, 6):
        frames = store.read("scene0000_00", count)
        expected = np.linspace(0, 39, count, dtype=int)
        assert frames.indices.tolist() == expected.tolist()
        assert frames.timestamps == pytest.approx(expected * 0.033333, abs=1e-6)
        assert frames.pixels.shape == (count, 56, 84, 3)
        for pixels, index in zip(frames.pixels, expected, strict=True):
            small = decode(scan, int(index)).resize((84, 56), Image.Resampling.BICUBIC)
            assert (pixels == np.asarray(small)).all()
    store.check("scene0000_00")
    flipped = frames.mirrored()
    assert (flipped.pixels == frames.pixels[:, :, ::-1]).all() and (flipped.indices == frames.indices).all()


def test_a_frames_array_records_its_source(tmp_path):
    scan = write_sens_scan(tmp_path, "scene0000_00")
    write_scene_frames(scan, tmp_path / "out", FrameSettings((4,), 6000, "huggingface"))
    path = tmp_path / "out/frames/scene0000_00/zarr.json"
    attributes = json.loads(path.read_text())["attributes"]
    assert attributes["rule"] == "huggingface" and attributes["max_pixels"] == 6000
    assert attributes["source"] == "scene0000_00.sens" and attributes["source_frames"] == 40
    assert attributes["index_sets"] == {"4": [0, 10, 20, 30]} and attributes["indices"] == [0, 10, 20, 30]
    assert len(attributes["source_frames_sha256"]) == len(attributes["pixels_sha256"]) == 64
    assert attributes["source_height_width"] == [96, 128]


def test_the_same_scan_gives_the_same_bytes(tmp_path):
    scan = write_sens_scan(tmp_path, "scene0000_00")
    stored = []
    for out in (tmp_path / "a", tmp_path / "b"):
        write_scene_frames(scan, out, FrameSettings((4,), 6000))
        stored.append(contents(out))
    assert stored[0] == stored[1] and len(stored[0]) == 2


def test_an_error_about_a_missing_frame_count_gives_the_command_that_adds_it(tmp_path):
    scan = write_sens_scan(tmp_path, "scene0000_00")
    out = tmp_path / "out"
    write_scene_frames(scan, out, FrameSettings((4,), 6000))
    with pytest.raises(InputError, match=r"4 frames stored, not 8.* frames SCANS .*out --frames 8 --max-pixels 6000"):
        FrameStore(out).read("scene0000_00", 8)
    before = FrameStore(out).read("scene0000_00", 4)
    assert write_scene_frames(scan, out, FrameSettings((8,), 6000))
    after = FrameStore(out)
    assert after.counts("scene0000_00") == (4, 8)
    assert (after.read("scene0000_00", 4).pixels == before.pixels).all()
    assert after.read("scene0000_00", 8).pixels.shape[0] == 8
    with pytest.raises(InputError, match="no frames of scene0007_00"):
        after.read("scene0007_00", 4)
    with pytest.raises(InputError, match=r"build_data\.py frames"):
        FrameStore(tmp_path)


def test_writing_again_keeps_stored_frames_and_refuses_another_budget_or_rule(tmp_path):
    scan = write_sens_scan(tmp_path, "scene0000_00")
    out = tmp_path / "out"
    assert write_scene_frames(scan, out, FrameSettings((4, 8), 6000))
    assert not write_scene_frames(scan, out, FrameSettings((4,), 6000))
    with pytest.raises(InputError, match="written with max_pixels 6000, not 9000"):
        write_scene_frames(scan, out, FrameSettings((4,), 9000))
    with pytest.raises(InputError, match="written with rule linspace, not huggingface"):
        write_scene_frames(scan, out, FrameSettings((4,), 6000, "huggingface"))


def test_a_changed_source_is_read_again(tmp_path):
    out = tmp_path / "out"
    write_scene_frames(write_sens_scan(tmp_path / "a", "scene0000_00"), out, FrameSettings((4,), 6000))
    other = write_sens_scan(tmp_path / "b", "scene0000_00", seed=1)
    assert write_scene_frames(other, out, FrameSettings((8,), 6000)) is Outcome.REPLACED
    assert FrameStore(out).counts("scene0000_00") == (4, 8)
    small = decode(other, 0).resize((84, 56), Image.Resampling.BICUBIC)
    assert (FrameStore(out).read("scene0000_00", 4).pixels[0] == np.asarray(small)).all()
    assert write_scene_frames(other, out, FrameSettings((2,), 6000)) is Outcome.WRITTEN
    sens = other / "scene0000_00.sens"
    jpeg = SensReader(sens).color_jpeg(0)
    sens.write_bytes(sens.read_bytes().replace(jpeg, jpeg[:-20] + bytes([jpeg[-20] ^ 1]) + jpeg[-19:]))
    assert write_scene_frames(other, out, FrameSettings((3,), 6000)) is Outcome.REPLACED  # of the same size


def test_broken_sources_are_named_with_reasons_and_leave_nothing(tmp_path):
    scans = [write_sens_scan(tmp_path, f"scene000{i}_00", frames=12, seed=i) for i in range(4)]
    whole = (scans[1] / "scene0001_00.sens").read_bytes()
    (scans[1] / "scene0001_00.sens").write_bytes(whole[: len(whole) // 2])
    (scans[2] / "scene0002_00.sens").unlink()
    done = []
    out = tmp_path / "out"
    report = write_frames(scans, out, FrameSettings((8,), 6000), workers=2, on_done=done.append)
    assert report.written == ("scene0000_00", "scene0003_00") and report.kept == ()
    assert set(report.broken) == {"scene0001_00", "scene0002_00"}
    assert "truncated" in report.broken["scene0001_00"] and "no such file" in report.broken["scene0002_00"]
    assert sorted(path.name for path in (out / "frames").iterdir()) == ["scene0000_00", "scene0003_00"]
    assert done == [scan.name for scan in scans]
    again = write_frames(scans, out, FrameSettings((8,), 6000), workers=2)
    assert again.written == () and again.kept == ("scene0000_00", "scene0003_00") and again.broken == report.broken
    too_short = write_frames(scans[:1], tmp_path / "other", FrameSettings((16,), 6000))
    assert too_short.broken == {"scene0000_00": "has 12 frames, fewer than the 16 asked for"}


def test_damaged_arrays_are_refused_and_never_read_as_black(tmp_path):
    scan = write_sens_scan(tmp_path, "scene0000_00")
    out = tmp_path / "out"
    write_scene_frames(scan, out, FrameSettings((4,), 6000))
    shard = out / "frames/scene0000_00/c/0/0/0/0"
    whole = shard.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        shard.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot read the frames"):
            FrameStore(out).read("scene0000_00", 4)
    shard.unlink()
    with pytest.raises(InputError, match="cannot read the frames"):
        FrameStore(out).read("scene0000_00", 4)


def test_black_frames_are_stored_and_read_back(tmp_path, monkeypatch):
    scan = write_sens_scan(tmp_path, "scene0000_00")
    monkeypatch.setattr(
        "jaxvsr.data.scannet.sens.SensReader.color", lambda self, index: np.zeros((96, 128, 3), np.uint8)
    )
    write_scene_frames(scan, tmp_path / "out", FrameSettings((4,), 6000))
    assert not FrameStore(tmp_path / "out").read("scene0000_00", 4).pixels.any()


@pytest.mark.parametrize(
    ("settings", "says"),
    [(((), 6000), "one or more counts"), (((0,), 6000), "one or more counts"), (((8,), 100), "max_pixels 100")],
)
def test_impossible_settings_are_refused(settings, says):
    with pytest.raises(InputError, match=says):
        FrameSettings(*settings)
