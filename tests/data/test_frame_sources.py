"""Frames of everything that holds frames: sampled as the sources sample, found by name, resumable to the byte."""

import ast
import json
import math
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.questions import Question, write_questions
from jaxvsr.data.stored_arrays import recover_array
from jaxvsr.data.video.frame_sampling import FrameRate, SamplingRule, frame_count, sample_indices
from jaxvsr.data.video.frame_writer import FrameSettings, write_frames, write_scene_frames
from jaxvsr.data.video.media_index import MediaIndex
from jaxvsr.data.video.scene_sources import scene_sources
from jaxvsr.data.video.video_sources import open_video
from jaxvsr.errors import InputError
from launch.build_data import main
from tests.support.files import contents
from tests.support.scans import write_sens_scan
from tests.support.videos import write_mp4


def transformers_sample_frames(family):
    """`sample_frames` of a family's video processor out of its source: importing that module needs torchvision."""
    import torch

    spec = find_spec(f"transformers.models.{family}.video_processing_{family}")
    tree = ast.parse(Path(spec.origin).read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "sample_frames"]
    for argument in found[0].args.args:
        argument.annotation = None
    namespace = {"math": math, "torch": torch, "np": np}
    exec(compile(ast.Module(found, []), "sample_frames", "exec"), namespace)
    return lambda total, video_fps, fps, low, high: namespace["sample_frames"](
        SimpleNamespace(num_frames=None, fps=None, temporal_patch_size=2, min_frames=low, max_frames=high),
        SimpleNamespace(total_num_frames=total, fps=video_fps),
        fps=fps,
    ).tolist()


def qwen_vl_utils(total, video_fps, fps, low, high):
    """`smart_nframes` and its linspace, restated in integers of pairs of frames."""
    import torch

    low, high = 2 * -(-low // 2), 2 * (high // 2)
    wanted = total / video_fps * fps
    bounded = min(high, wanted if wanted > low else low)
    pairs = int((bounded if bounded < total else total) // 2)
    if pairs < 1:
        raise ValueError
    return torch.linspace(0, total - 1, 2 * pairs).round().long().tolist()


def lmms_eval(total, video_fps, fps, low, high):
    """`load_video_stream` with fps: at most `num_frm`, truncated, the last frame always there."""
    count = min(high, int(total / video_fps * fps), total)
    if count < 1:
        raise ValueError
    return [int(position) for position in np.linspace(0, total - 1, count)]


@pytest.mark.parametrize("rule", [rule for rule in get_args(SamplingRule) if rule != "lmms-eval"])
def test_sampling_by_frames_per_second_equals_the_original_implementations(rule):
    pytest.importorskip("torch")
    theirs = {
        "linspace": lmms_eval, "qwen-vl-utils": qwen_vl_utils, "huggingface": transformers_sample_frames("qwen2_vl"),
        "qwen3-vl": transformers_sample_frames("qwen3_vl"),
    }[rule]  # fmt: skip
    rng = np.random.default_rng(0)
    refused = compared = 0
    for _ in range(400):
        total, video_fps = int(rng.integers(1, 3000)), float(rng.choice([10, 24, 29.97, 30]))
        rate = FrameRate(float(rng.choice([0.5, 1, 2, 4])), *[(4, 768), (4, 16), (3, 33)][int(rng.integers(3))])
        total = total if rng.random() < 0.8 else total % 12 + 1
        try:
            expected = theirs(total, video_fps, rate.fps, rate.min_frames, rate.max_frames)
        except (ValueError, ZeroDivisionError):
            expected = []
        if not expected:
            assert rule != "qwen3-vl"  # which takes any video
            refused += 1
            with pytest.raises(InputError, match="too few for"):
                frame_count(total, video_fps, rate, rule)
            continue
        compared += 1
        count = frame_count(total, video_fps, rate, rule)
        # arange gives one frame more in some cases; a count of ours is a promise (frame_sampling.py).
        assert len(expected) - count in ((0, 1) if rule == "huggingface" else (0,))
        assert sample_indices(total, count, rule).tolist() == expected[:count]
    assert compared > 300 and (refused > 0 or rule == "qwen3-vl")


def test_arange_gives_an_extra_frame_in_3_to_6_percent_of_cases():
    torch = pytest.importorskip("torch")
    pairs = extra = 0
    for total in range(1, 1501, 7):
        for count in range(1, min(total, 64) + 1):
            indices = torch.arange(0, total, total / count).int().tolist()
            pairs += 1
            extra += len(indices) != count
            assert indices[:count] == sample_indices(total, count, "huggingface").tolist()
    assert 0.03 < extra / pairs < 0.06


@pytest.mark.parametrize(("arguments", "says"), [((0.0,), "fps 0.0"), ((1, 8, 4), "min_frames 8, max_frames 4")])
def test_impossible_rates_are_refused(arguments, says):
    with pytest.raises(InputError, match=says):
        FrameRate(*arguments)
    with pytest.raises(InputError, match=r"0\.0 frames per second"):
        frame_count(10, 0.0, FrameRate(1))
    with pytest.raises(InputError, match="lmms-eval takes a number of frames"):
        frame_count(10, 1.0, FrameRate(1), "lmms-eval")


def grey_images(folder: Path, names: list[str], step: int = 20) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(np.full((56, 84, 3), index * step, np.uint8)).save(folder / name)
    return folder


def greys(scene: str, out: Path, frames: int) -> list[int]:
    return [int(pixels[20, 30, 0]) for pixels in FrameStore(out).read(scene, frames).pixels]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """An mp4, a folder of images, and two scans of which only colour frames are there."""
    root = tmp_path_factory.mktemp("videos")
    write_mp4(root / "clips/kitchen.mp4", tuple(range(0, 240, 20)), fps=10)
    grey_images(root / "walk", [f"{index}.png" for index in range(12)])  # 10 comes after 9
    grey_images(root / "scene0000_00/color", [f"{20 * index}.png" for index in range(12)])
    (root / "scene0000_00/scene0000_00.txt").write_text("numColorFrames = 240\n")
    grey_images(root / "scene0001_00/exported/color", [f"frame-{index:06d}.color.png" for index in range(12)])
    (root / "scene0001_00/scene0001_00.txt").write_text("numColorFrames = 15\n")
    return root


def test_every_kind_of_source_gives_the_same_frames_and_its_times(videos):
    for name, seconds in (("clips/kitchen.mp4", 0.1), ("walk", 1.0), ("scene0000_00", 2 / 3), ("scene0001_00", 1 / 30)):
        source = open_video(videos / name)
        assert len(source) == 12 and source.fps == pytest.approx(1 / seconds)
        assert [abs(int(source.frame(index)[20, 30, 0]) - 20 * index) for index in (0, 9, 10, 11)] == [0] * 4
        assert source.timestamps([0, 1, 11]) == pytest.approx([0, seconds, 11 * seconds], abs=1e-5)
        assert source.sha256([0, 1]) != source.sha256([0, 2])
    assert open_video(videos / "scene0000_00").flaws == {}  # every twentieth frame: no claim of completeness
    assert open_video(videos / "scene0001_00").flaws == {"color_frames_differ": 3}


def test_frames_of_a_folder_of_videos_are_stored_by_name(videos, tmp_path, capsys):
    arguments = ["frames", str(videos), str(tmp_path), "--frames", "3", "--max-pixels", "6000"]
    # Scans come first: a folder that holds some is a folder of scans.
    assert main(arguments) == 0
    assert FrameStore(tmp_path).scenes() == ["scene0000_00", "scene0001_00"]
    assert greys("scene0000_00", tmp_path, 3) == [0, 100, 220]
    assert "flaws worked around: color_frames_differ 3" in capsys.readouterr().out
    only = tmp_path / "only"
    only.mkdir()
    for name in ("clips", "walk"):
        os.symlink(videos / name, only / name)
    out = tmp_path / "out"
    assert main(["frames", str(only), str(out), "--frames", "3", "--max-pixels", "6000"]) == 0
    assert FrameStore(out).scenes() == ["kitchen", "walk"] and greys("kitchen", out, 3) == [0, 100, 220]


def test_frames_by_rate_are_as_many_as_the_rule_takes(videos, tmp_path, capsys):
    base = ["frames", str(videos / "clips"), str(tmp_path / "out"), "--max-pixels", "6000"]
    assert main([*base, "--fps", "5", "--rule", "qwen-vl-utils", "--max-frames", "4"]) == 0
    assert FrameStore(tmp_path / "out").counts("kitchen") == (4,)
    assert main([*base, "--fps", "5", "--rule", "qwen-vl-utils", "--frames", "2"]) == 0
    assert FrameStore(tmp_path / "out").counts("kitchen") == (2, 4, 6)
    capsys.readouterr()
    assert main(base) == 2 and "give --frames N,… or --fps N" in capsys.readouterr().err
    assert main([*base, "--frames", "2", "--max-frames", "4"]) == 2 and "--max-frames" in capsys.readouterr().err
    base[2] = str(tmp_path / "other")
    assert main([*base, "--fps", "0.1"]) == 2 and "too few for 0.1 per second" in capsys.readouterr().err


def test_several_threads_store_the_frames_of_one_video_that_a_single_one_does(tmp_path):
    scan = write_sens_scan(tmp_path / "scans", "scene0000_00", frames=24, height=56, width=84)
    video = write_mp4(tmp_path / "walk.mp4", tuple(range(0, 240, 10)))
    stored = []
    for workers in (1, 6):
        out = tmp_path / f"out{workers}"
        for source in (scan, video):
            assert write_frames([source], out, FrameSettings((5, 24), 3000), workers=workers).broken == {}
        stored.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert len(stored[0]) == 4 and stored[0] == stored[1]


def test_no_frames_folder_is_left_if_all_sources_are_broken(tmp_path, capfd):
    (tmp_path / "v").mkdir()
    (tmp_path / "v/a.mp4").write_bytes(b"no video" * 100)
    out = tmp_path / "out"
    assert main(["frames", str(tmp_path / "v"), str(out), "--frames", "2", "--max-pixels", "6000"]) == 2
    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1, "FFmpeg says nothing of its own"
    assert "broken: a: " in captured.out and "not a video that FFmpeg can read" in captured.out
    assert captured.err.count("error: ") == 1 and not out.exists()


def test_two_videos_of_one_name_are_refused(tmp_path):
    write_mp4(tmp_path / "a/room.mp4", (0, 20))
    write_mp4(tmp_path / "b/room.mp4", (0, 20))
    with pytest.raises(InputError, match=r"two videos are named 'room': a/room"):
        scene_sources(tmp_path, tmp_path / "out")


def test_stored_frames_do_not_hide_a_folder_of_images_of_their_name(tmp_path):
    picture = Image.new("RGB", (64, 48))
    out, clip = tmp_path / "out", tmp_path / "media/frames/clip"
    for folder in (out, clip):
        folder.mkdir(parents=True)
    for number in range(4):
        picture.save(clip / f"{number}.jpg")
    write_questions(
        out / "questions.jsonl", [Question("a", "clip", "question", "How many?", None, "1", "number", "frames/clip")]
    )
    command = ["frames", str(tmp_path / "media"), str(out), "--max-pixels", "4000", "--frames"]
    assert main([*command, "2"]) == 0 and main([*command, "2,4"]) == 0
    assert len(FrameStore(out).read("clip", 4).indices) == 4


def test_media_are_found_by_the_end_of_their_paths(videos):
    index = MediaIndex(videos, images=True)
    kinds = {medium.path.as_posix(): medium.kind for medium in index.media}
    assert kinds["scene0000_00"] == "scan" and kinds["walk"] == "folder" and kinds["walk/3.png"] == "image"
    assert kinds["scene0000_00/color/20.png"] == "image" and "scene0000_00/color" not in kinds
    found = index.find("/nas/Clips/KITCHEN.avi", ("video", "scan", "folder"))
    assert not isinstance(found, str) and found.path.as_posix() == "clips/kitchen.mp4"
    picture = index.find("walk\\3.jpg", ("image",))
    assert not isinstance(picture, str) and picture.path.as_posix() == "walk/3.png"
    assert "nothing named 'garden'" in str(index.find("garden", ("video",)))
    assert isinstance(index.find("..", ("video",)), str)


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_together_give_the_bytes_of_one_run(shards, tmp_path):
    for index in range(5):
        write_sens_scan(tmp_path, f"scene000{index}_00", frames=9, seed=index)
    command = ["frames", str(tmp_path), "OUT", "--frames", "4,8", "--max-pixels", "4000"]
    whole, parts = tmp_path / "whole" / "data", tmp_path / "parts" / "data"
    assert main([*command[:2], str(whole), *command[3:]]) == 0
    for index in range(1, shards + 1):
        assert main([*command[:2], str(parts), *command[3:], "--shard", f"{index}/{shards}"]) == 0
    assert contents(parts) == contents(whole)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_an_impossible_shard_is_refused(text, tmp_path, capsys):
    assert main(["frames", str(tmp_path), str(tmp_path), "--frames", "1", "--max-pixels", "4000", "--shard", text]) == 2
    assert "expected i/n like 2/8" in capsys.readouterr().err


def test_a_run_killed_between_two_renames_keeps_all_frame_counts(tmp_path, monkeypatch):
    scan = write_sens_scan(tmp_path, "scene0000_00", frames=9)
    out = tmp_path / "out"
    write_scene_frames(scan, out, FrameSettings((4,), 4000))
    before = contents(out)
    real, renames = os.replace, []

    def killed(source, target):
        if Path(source).is_dir():
            renames.append(target)
        if len(renames) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("jaxvsr.data.stored_arrays.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_scene_frames(scan, out, FrameSettings((8,), 4000))
    monkeypatch.undo()
    assert not (out / "frames/scene0000_00").exists()
    recover_array(out / "frames/scene0000_00")
    assert {name: data for name, data in contents(out).items() if "partial" not in name} == before
    assert write_scene_frames(scan, out, FrameSettings((8,), 4000))
    assert FrameStore(out).counts("scene0000_00") == (4, 8)
    assert [path.name for path in (out / "frames").iterdir()] == ["scene0000_00"]


@pytest.mark.slow
def test_a_run_killed_at_any_point_is_resumed_and_gives_the_same_bytes(tmp_path):
    for index in range(8):
        write_sens_scan(tmp_path, f"scene000{index}_00", frames=12, height=480, width=640, seed=index)
    arguments = ["--frames", "4,8", "--max-pixels", "300000", "--workers", "1"]
    whole, killed = tmp_path / "a" / "data", tmp_path / "b" / "data"
    assert main(["frames", str(tmp_path), str(whole), *arguments]) == 0
    command = [sys.executable, "-m", "launch.build_data", "frames", str(tmp_path), str(killed), *arguments]
    stored: set[str] = set()
    for wait in (0.0, 0.05, 0.1, 0.2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        # As soon as one scene more is there, at a different moment of the next one each time.
        while process.poll() is None and time.monotonic() < deadline:
            found = {path.parent.name for path in killed.glob("frames/scene*/zarr.json")}
            if found - stored:
                break
            time.sleep(0.005)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        stored = {path.parent.name for path in killed.glob("frames/scene*/zarr.json")}
        for scene in stored:
            FrameStore(killed).check(scene)
    assert stored
    times = {scene: (killed / f"frames/{scene}/zarr.json").stat().st_mtime_ns for scene in stored}
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert contents(killed) == contents(whole)
    assert times == {scene: (killed / f"frames/{scene}/zarr.json").stat().st_mtime_ns for scene in stored}


def test_flaws_of_a_sens_are_counted(tmp_path):
    scan = write_sens_scan(tmp_path, "scene0000_00", frames=9)
    (scan / "scene0000_00.txt").write_text("axisAlignment = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\nnumColorFrames = 12\n")
    report = write_frames([scan], tmp_path / "out", FrameSettings((4,), 4000))
    assert report.flaws == {"color_frames_differ": 3}
    path = tmp_path / "out/frames/scene0000_00/zarr.json"
    assert json.loads(path.read_text())["attributes"]["flaws"] == {"color_frames_differ": 3}


def test_stored_frames_are_used_after_their_video_is_deleted(tmp_path):
    scan, out = write_sens_scan(tmp_path, "scene0000_00", frames=9), tmp_path / "out"
    assert write_scene_frames(scan, out, FrameSettings((4,), 4000))
    (scan / "scene0000_00.sens").unlink()
    assert not write_scene_frames(scan, out, FrameSettings((4,), 4000))
    with pytest.raises(InputError, match=r"no such file scene0000_00\.sens"):
        write_scene_frames(scan, out, FrameSettings((8,), 4000))
    FrameStore(out).check("scene0000_00")


def test_a_photo_is_turned_upright_by_its_orientation_tag(tmp_path):
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:, :30] = 255  # white on the left
    tag = Image.Exif()
    tag[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(np.rot90(upright)).save(tmp_path / "held.png", exif=tag)
    np.testing.assert_array_equal(open_video(tmp_path / "held.png").frame(0), upright)
