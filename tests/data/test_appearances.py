"""First appearances from 2D instance masks: equal to a look at every pixel, counted once, kept for all recipes."""

import zipfile

import numpy as np
import pytest

from jaxvsr.data.scannet.appearances import count_appearances, first_appearances
from jaxvsr.data.scannet.instance_masks import InstanceMasks, write_instance_masks
from jaxvsr.data.scannet.read_scan import instance_masks_path, sens_path
from jaxvsr.data.scannet.sens import SensFrame, SensHeader, write_sens
from jaxvsr.errors import InputError


def write_scan(root, masks):
    scan = root / "scene0000_00"
    scan.mkdir(parents=True, exist_ok=True)
    write_instance_masks(instance_masks_path(scan), masks)
    return scan


@pytest.fixture
def masks():
    """20 frames in which objects 0 to 5 come and go, some as a few pixels only; object 254 is the largest id."""
    rng = np.random.default_rng(0)
    frames = np.zeros((20, 12, 16), np.uint8)
    for object_id in (0, 1, 2, 3, 5, 254):
        for frame in np.flatnonzero(rng.random(20) < 0.3):
            spots = rng.integers(0, 12 * 16, rng.integers(1, 40))
            frames[frame].reshape(-1)[spots] = object_id + 1
    return frames


@pytest.mark.parametrize("minimum_pixels", [0, 1, 8, 30])
@pytest.mark.parametrize("sampled", [None, 7, 20, 99])
def test_first_appearances_equal_those_of_a_full_scan(masks, tmp_path, minimum_pixels, sampled):
    counts, flaws = count_appearances(write_scan(tmp_path, masks), None)
    looked_at = range(20) if sampled in (None, 20, 99) else np.linspace(0, 19, sampled, dtype=int).tolist()
    expected = {}
    for frame in looked_at:
        for object_id in range(255):
            pixels = int((masks[frame] == object_id + 1).sum())
            if pixels and pixels >= minimum_pixels:
                expected.setdefault(object_id, frame)
    share = minimum_pixels / (12 * 16)
    assert first_appearances(counts, minimum_share=share, sampled_frames=sampled) == expected
    assert flaws == {"no_frame_times": 1} and counts.times_s[3] == pytest.approx(0.1)


def test_missing_frames_do_not_change_the_numbers_of_others(masks, tmp_path):
    scan = write_scan(tmp_path, masks)
    path = instance_masks_path(scan)
    entries = {name: zipfile.ZipFile(path).read(name) for name in zipfile.ZipFile(path).namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(entries):  # as text: 0, 1, 10, 11, …
            if name != "instance-filt/0.png":
                archive.writestr(name, entries[name])
    counts, _ = count_appearances(scan, None)
    assert counts.frames.tolist() == list(range(1, 20))
    assert counts.times_s[0] == pytest.approx(1 / 30)
    seen = masks[1:] == 255
    row = first_appearances(counts)[254]
    assert row == int(seen.any(axis=(1, 2)).argmax())


def test_masks_are_counted_once_and_again_when_they_change(masks, tmp_path, monkeypatch):
    scan, cache = write_scan(tmp_path, masks), tmp_path / "cache"
    passes = []
    count = InstanceMasks.count_pixels
    monkeypatch.setattr(InstanceMasks, "count_pixels", lambda self: passes.append(self.path) or count(self))
    first, _ = count_appearances(scan, cache)
    stored = (cache / "scene0000_00.npz").read_bytes()
    again, _ = count_appearances(scan, cache)
    assert len(passes) == 1 and [path.name for path in cache.iterdir()] == ["scene0000_00.npz"]
    for name in ("frames", "times_s", "object_ids", "shares"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    # The same masks give the same bytes, whenever they are counted.
    (cache / "scene0000_00.npz").unlink()
    count_appearances(scan, cache)
    assert (cache / "scene0000_00.npz").read_bytes() == stored and len(passes) == 2
    changed = masks.copy()
    changed[0] = 7
    write_scan(tmp_path, changed)
    counts, _ = count_appearances(scan, cache)
    assert len(passes) == 3 and first_appearances(counts)[6] == 0
    # A cache that cannot be read is as good as none.
    (cache / "scene0000_00.npz").write_bytes(stored[:100])
    count_appearances(scan, cache)
    assert len(passes) == 4


def test_an_interrupted_count_leaves_no_file_that_looks_complete(masks, tmp_path, monkeypatch):
    scan, cache = write_scan(tmp_path, masks), tmp_path / "cache"

    def stop(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxvsr.files.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        count_appearances(scan, cache)
    assert not (cache / "scene0000_00.npz").exists()
    monkeypatch.undo()
    assert count_appearances(scan, cache)[0] is not None


def test_missing_and_broken_masks_are_named(masks, tmp_path):
    scan = write_scan(tmp_path, masks)
    path = instance_masks_path(scan)
    data = path.read_bytes()
    path.unlink()
    assert count_appearances(scan, None) == (None, {"no_instance_masks": 1})
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"_2d-instance-filt\.zip: not a readable zip"):
        count_appearances(scan, None)
    broken = bytearray(data)
    broken[60:90] = bytes(30)
    path.write_bytes(bytes(broken))
    with pytest.raises(InputError, match=r"instance-filt/0\.png cannot be decoded"):
        count_appearances(scan, None)


def write_times(path, times_us):
    """A .sens of frames of one pixel, taken at these times."""
    eye = np.eye(4, dtype=np.float32)
    header = SensHeader("test", eye, eye, eye, eye, "raw", "raw_ushort", 1, 1, 1, 1)
    write_sens(path, header, [SensFrame(eye, time, time, bytes(3), bytes(2)) for time in times_us])


def test_times_come_from_the_sens_file_and_a_broken_one_loses_only_the_times(masks, tmp_path):
    scan = write_scan(tmp_path, masks)
    write_times(sens_path(scan), [7 + index * 40_000 for index in range(20)])
    counts, flaws = count_appearances(scan, None)
    assert flaws == {} and counts.times_s.tolist() == pytest.approx([index * 0.04 for index in range(20)])
    for broken in (sens_path(scan).read_bytes()[:50], b""):
        sens_path(scan).write_bytes(broken)
        counts, flaws = count_appearances(scan, None)
        assert flaws == {"no_frame_times": 1} and counts.times_s[3] == pytest.approx(0.1)
    write_times(sens_path(scan), [0, 40_000])  # fewer frames than masks
    assert count_appearances(scan, None)[1] == {"no_frame_times": 1}
