"""ask.py in process: video files, scans and folders of images; mistakes in one line."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvsr.data.video.video_sources import open_video
from jaxvsr.errors import InputError
from jaxvsr.prompts import PROMPTS
from jaxvsr.runs.trained_as import TrainedAs
from launch.ask import main
from tests.support.scans import write_sens_scan

GREYS = (0, 40, 80, 120, 160, 200)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """The same six grey frames of 56×84 as a video file and as images, and a scan of other frames."""
    root = tmp_path_factory.mktemp("videos")
    frames = [Image.fromarray(np.full((56, 84, 3), grey, np.uint8)) for grey in GREYS]
    # Pillow writes GIF and nothing else that moves; FFmpeg opens it by the same way as mp4.
    frames[0].save(root / "room.gif", save_all=True, append_images=frames[1:], duration=500)
    for folder in ("images", "scene0001_00/color"):
        (root / folder).mkdir(parents=True)
        for index, frame in enumerate(frames):
            frame.save(root / folder / f"{index:03d}.png")
    write_sens_scan(root, "scene0000_00", frames=6, height=56, width=84)
    return root


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model(seed=3)


def ask(model, video, *more):
    return main(["--model", str(model), "--video", str(video), "--device", "cpu", "--mesh", "1",
                 "--answer-tokens", "4", *more, "How many chairs are in this room?"])  # fmt: skip


def test_frames_and_seconds_of_a_video_file_and_of_a_folder_of_images(videos):
    for name, seconds in (("room.gif", (0, 1, 2.5)), ("images", (0, 2, 5))):
        source = open_video(videos / name)
        assert len(source) == 6
        assert [int(source.frame(index)[20, 30, 0]) for index in (0, 2, 5)] == [0, 80, 200]
        np.testing.assert_allclose(source.timestamps([0, 2, 5]), seconds, atol=1e-6)
        assert source.frame(0).shape == (56, 84, 3) and source.bytes_on_disk > 0
        assert source.sha256([0, 2]) != source.sha256([0, 3])


def test_a_scan_is_opened_by_its_folder_and_by_its_sens_file(videos):
    scan = next(videos.rglob("scene0000_00"))
    by_folder, by_file = open_video(scan), open_video(scan / "scene0000_00.sens")
    np.testing.assert_array_equal(by_folder.frame(3), by_file.frame(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["room.gif", "images", "scene0001_00"])
def test_ask_prints_answer_frames_tokens_and_seconds(videos, model, capsys, name):
    assert ask(model, videos / name, "--frames", "4") == 0
    answer, _, line = capsys.readouterr().out.splitlines()
    assert answer
    assert line.startswith("4 of 6 frames, 12 video tokens, ")  # 4/2 rows of 2×3 merged patches


@pytest.mark.slow
def test_without_frames_all_frames_of_a_short_video_are_used(videos, model, capsys):
    assert ask(model, videos / "images", "--max-pixels", str(28 * 28)) == 0
    assert "6 of 6 frames, 3 video tokens" in capsys.readouterr().out


@pytest.mark.slow
def test_without_max_pixels_frames_have_the_size_of_the_model_folders_limits(videos, model, capsys):
    large = videos / "large"
    large.mkdir()
    for index in range(2):
        Image.fromarray(np.zeros((560, 560, 3), np.uint8)).save(large / f"{index}.png")
    assert ask(model, large) == 0
    assert "2 of 2 frames, 64 video tokens" in capsys.readouterr().out  # its limit; 400 merged patches as they are


@pytest.mark.parametrize(
    ("model_name", "video", "more", "words"),
    [
        ("nowhere", "images", (), "no such folder"),
        (None, "gone.mp4", (), "no such video"),
        (None, "broken.mp4", (), "not a video that FFmpeg can read"),
        (None, "empty", (), "no images"),
        (None, "thin", (), "thin: a frame of 2×900 pixels"),
        (None, "mixed", (), "28×28 pixels, but the first image of the folder has 56×56"),
        (None, "images", ("--frames", "7"), "has 6 frames, fewer than the 7"),
        (None, "images", ("--prompt", "nonsense"), "prompt 'nonsense'"),
        (None, "v" * 300, (), "File name too long"),
        (None, "images", ("--frames", "x"), "expected an integer, found 'x'"),
    ],
)
def test_a_mistake_ends_in_one_line_and_exit_code_2(videos, model, capsys, model_name, video, more, words):
    (videos / "broken.mp4").write_bytes(b"no video" * 100)
    (videos / "empty").mkdir(exist_ok=True)
    (videos / "mixed").mkdir(exist_ok=True)
    (videos / "thin").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((2, 900, 3), np.uint8)).save(videos / "thin" / "0.png")
    for index, size in enumerate((56, 28)):
        Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(videos / "mixed" / f"{index}.png")
    assert ask(model_name or model, videos / video, *more) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("1 CPU device")]
    assert len(lines) == 1 and words in lines[0] and not printed.out


@pytest.mark.parametrize(("question", "words"), [(" ", "question is empty"), ("a<|im_end|>", "contains <|im_end|>")])
def test_an_invalid_question_is_refused_before_the_model_is_loaded(videos, model, capsys, question, words):
    assert main(["--model", str(model), "--video", str(videos / "images"), "--device", "cpu", question]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_more_tokens_than_the_context_window_are_refused_with_the_numbers(videos, model, capsys):
    assert ask(model, videos / "images", "--answer-tokens", "100000000") == 2
    error = capsys.readouterr().err
    assert "the answer may be 100,000,000: the context window is 32,768 tokens" in error


def test_an_out_of_memory_error_says_what_to_change(videos, model, capsys, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")

    monkeypatch.setattr("jaxvsr.evaluation.answering.greedy.GreedyModel.answer", full)
    assert ask(model, videos / "images") == 2
    assert "error: out of device memory: use fewer --frames" in capsys.readouterr().err


def test_an_image_that_cannot_be_read_is_named(videos):
    folder = videos / "cut"
    folder.mkdir()
    (folder / "a.png").write_bytes((videos / "images" / "000.png").read_bytes()[:40])
    with pytest.raises(InputError, match=r"cut/a\.png"):
        open_video(folder).frame(0)


@pytest.mark.slow
def test_an_export_is_asked_as_it_was_trained_unless_told_otherwise(videos, tiny_model, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(tiny_model(seed=3), model)
    TrainedAs(PROMPTS["vsgrpo-vanilla-train"], 4, 28 * 28).write(model)
    assert ask(model, videos / "images") == 0
    shown = capsys.readouterr()
    assert "asked with prompt vsgrpo-vanilla-train, 4 frames of at most 784 pixels" in shown.err
    assert "4 of 6 frames, 2 video tokens" in shown.out
    assert ask(model, videos / "images", "--frames", "6", "--prompt", "question", "--max-pixels", "6272") == 0
    shown = capsys.readouterr()
    assert "trained with prompt vsgrpo-vanilla-train, 4 frames, at most 784 pixels per frame" in shown.err
    assert "asked with prompt question, 6 frames of at most 6,272 pixels" in shown.err
