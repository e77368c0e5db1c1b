"""evaluate.py with a model: VSI-Bench as downloaded, a run's checkpoints, a mesh, two processes; 56×56 pixels."""

import dataclasses
import json
import shutil
import socket
import zipfile

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image as Picture

from jaxvsr.config.train_config import ModelSettings, TrainConfig
from jaxvsr.data.questions import Question, write_questions
from jaxvsr.data.splits import write_splits
from jaxvsr.data.subsets import write_subsets
from jaxvsr.data.video.frame_writer import FrameSettings, write_frames
from jaxvsr.devices.mesh import open_mesh
from jaxvsr.evaluation.answering.answer_questions import AnswerSettings, weights_hash
from jaxvsr.evaluation.answering.choose_questions import choose_questions
from jaxvsr.evaluation.answering.greedy import GreedyModel
from jaxvsr.evaluation.answering.scene_media import SceneMedia
from jaxvsr.grpo.compiled_step import start_state
from jaxvsr.models.huggingface.stages import Stage
from jaxvsr.models.inputs.processor import ScenePrompt, Video
from jaxvsr.models.model_config import compute_dtype
from jaxvsr.prompts import PROMPTS
from jaxvsr.runs.checkpoints import Checkpoints
from jaxvsr.runs.model_source import open_model, start_record
from jaxvsr.runs.run_card import evaluations_of
from jaxvsr.runs.run_folder import make_run_folder
from launch.evaluate import main
from tests.support.forks import fork
from tests.support.models import DEEP
from tests.support.published_sets import write_parquet
from tests.support.scans import write_sens_scan

SCENES = {"scannet": "scene0011_00", "arkitscenes": "41069025"}
PRUNED = {1, 2, 5}


@pytest.fixture(scope="module")
def folder(tiny_model):
    return tiny_model(shape=DEEP, seed=3)


def frames_of(scene):
    rng = np.random.default_rng(len(scene))
    coarse = rng.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    return [np.asarray(Picture.fromarray(one).resize((56, 56), Picture.Resampling.NEAREST)) for one in coarse]


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """Eight questions about two videos; Pillow writes no mp4, and FFmpeg goes by what a file holds."""
    place = tmp_path_factory.mktemp("VSI-Bench")
    rows = []
    for number in range(8):
        source = list(SCENES)[number % 2]
        row = {"id": number, "dataset": source, "scene_name": SCENES[source], "pruned": number in PRUNED}
        is_choice = number % 3 == 2
        row |= {"question_type": "object_rel_distance" if is_choice else "object_counting"}
        row |= {"question": f"How many of the {number} chairs?", "ground_truth": "A" if is_choice else "4"}
        rows.append({**row, "options": ["A. sofa", "B. bed"] if is_choice else None})
    write_parquet(place / "test_debiased.parquet", [row for row in rows if not row["pruned"]])
    write_parquet(place / "test_pruned.parquet", [row for row in rows if row["pruned"]])
    for source, scene in SCENES.items():
        pictures = [Picture.fromarray(frame) for frame in frames_of(scene)]
        gif = place / "video.gif"
        pictures[0].save(gif, save_all=True, append_images=pictures[1:], duration=500)
        with zipfile.ZipFile(place / f"{source}.zip", "w") as archive:
            archive.write(gif, f"{source}/{scene}.mp4")
        gif.unlink()
    return place


def arguments(folder, data, out, *more):
    return ["--model", str(folder), "--data", str(data), "--benchmark", "vsi-bench", "--frames", "2",
            "--out", str(out), "--device", "cpu", *map(str, more)]  # fmt: skip


def evaluate(folder, data, out, *more):
    return main(arguments(folder, data, out, "--mesh", "1", *more))


def answers(out):
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    return {row["id"]: row["prediction"] for row in rows}


def read(path):
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_downloaded_benchmark_is_evaluated_with_its_debiased_subset(folder, download, tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate(folder, download, out) == 0
    assert "repetition penalty 1" in capsys.readouterr().out
    found = answers(out)
    assert list(found) == [f"vsi-bench-{number}" for number in range(8)]
    scores = read(out / "scores.json")
    wanted = {"frames": 2, "max_pixels": None, "prompt": "vsi-bench", "parser": "official", "repetition_penalty": 1.0}
    wanted |= {"split": "all", "questions": 8}
    assert {name: scores[name] for name in wanted} == wanted and scores["commit"]

    model = GreedyModel(open_model(str(folder)), open_mesh("cpu", "1")[0], answer_tokens=16)
    prompt, number = PROMPTS["vsi-bench"], 2
    asked = Question("x", "x", "x", "How many of the 2 chairs?", ("A. sofa", "B. bed"), "A", "choice")
    frames = frames_of(SCENES["scannet"])
    video = Video(np.stack([frames[0], frames[4]]), np.array([0.0, 2.0]))
    alone = model.answer([model.processor.encode(ScenePrompt((video,), (prompt.render(asked),)))])
    assert alone == [[found[f"vsi-bench-{number}"]]]

    debiased = tmp_path / "debiased"
    command = ["--score", str(out / "predictions.jsonl"), "--benchmark", "vsi-bench", "--data", str(download)]
    assert main([*command, "--subset", "debiased", "--out", str(debiased)]) == 0
    assert "3 of 8 predictions answer other questions" in capsys.readouterr().out
    by_type = read(debiased / "details.json")["by_type"]
    assert sum(one["n"] for one in by_type.values()) == 5
    assert read(debiased / "scores.json")["subset"] == "debiased"

    assert evaluate(folder, download, out) == 0
    assert "resuming, 8 of 8 questions are answered" in capsys.readouterr().out
    assert evaluate(folder, download, out, "--subset", "debiased") == 2
    assert "has answers to 3 questions that are not asked now (first: vsi-bench-1)" in capsys.readouterr().err
    assert answers(out) == found


@pytest.mark.slow
def test_a_profile_sets_what_a_harness_does_and_flags_beside_it_win(folder, download, tmp_path, capsys):
    command = ["--model", str(folder), "--data", str(download), "--benchmark", "vsi-bench", "--device", "cpu",
               "--mesh", "1", "--limit", "3", "--profile", "lmms-eval", "--out"]  # fmt: skip
    assert main([*command, str(tmp_path / "out"), "--show-prompt"]) == 0
    printed = capsys.readouterr().out
    assert "32 frames by the rule lmms-eval, at most 602,112 and at least 3,136 pixels per frame" in printed
    assert "system line 'You are a helpful assistant.'" in printed and "'You are a helpful assistant.'" in printed
    # Of five frames at two a second qwen-vl-utils takes four: two temporal patches of 2 × 2 tokens.
    assert "vision    <|video_pad|> x 8" in printed
    own = read(tmp_path / "out" / "scores-lmms-eval.json")
    assert f"profile lmms-eval: overall {own['overall']:.2f}, lmms-eval parser" in printed
    assert (own["rule"], own["min_pixels"], own["stop"]) == ("lmms-eval", 3136, ["\n\n"])
    assert main([*command, str(tmp_path / "own"), "--frames", "2", "--rule", "linspace", "--max-pixels", "3136"]) == 0
    assert "2 frames by the rule linspace, at most 3,136 and at least 3,136" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--subset", "small"], "no subset 'small'; it only has debiased"),
        (["--split", "train"], "VSI-Bench has no questions to train on"),
        (["--frames", "9"], "scene0011_00.mp4: has 5 frames, fewer than the 9 asked for"),
        (["--profile", "lmms-eval", "--fps", "1"], "--fps and --frames: give one of them"),
        (["--min-pixels", "5000"], "--min-pixels 5000: needs a --max-pixels"),
        (["--checkpoints", "all"], "--checkpoints all: --model must be a run folder"),
    ],
)
def test_a_wrong_download_is_refused_in_one_line(folder, download, tmp_path, capsys, more, words):
    assert evaluate(folder, download, tmp_path / "out", *more) == 2
    complaint = capsys.readouterr().err
    assert words in complaint and len(complaint.strip().splitlines()) == 1


def test_a_download_without_zips_or_frames_is_refused_before_the_model_is_read(folder, download, tmp_path, capsys):
    part = tmp_path / "part"
    part.mkdir()
    for path in download.glob("*.parquet"):
        (part / path.name).write_bytes(path.read_bytes())
    assert evaluate("nowhere", part, tmp_path / "out") == 2
    assert ".zip: no such file" in capsys.readouterr().err
    command = [
        "--model",
        str(folder),
        "--data",
        str(download),
        "--benchmark",
        "vsi-bench",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(command) == 2
    assert "--frames is missing" in capsys.readouterr().err


def test_a_video_is_told_by_its_bytes_in_a_zip_as_unpacked(download, tmp_path):
    place = tmp_path / "unpacked"
    shutil.copytree(download, place)
    asked = choose_questions([place]).asked
    zipped = SceneMedia(2).identities(asked)
    assert sorted(zipped) == sorted(f"{place / scene}" for scene in SCENES.values())
    for source in SCENES:
        with zipfile.ZipFile(place / f"{source}.zip") as archive:
            archive.extractall(place)
    assert SceneMedia(2).identities(asked) == zipped
    video = place / "scannet" / f"{SCENES['scannet']}.mp4"
    content = bytearray(video.read_bytes())
    content[-9] ^= 1
    video.write_bytes(content)
    now = SceneMedia(2).identities(asked)
    assert [scene for scene in now if now[scene] != zipped[scene]] == [f"{place / SCENES['scannet']}"]


def test_baselines_need_no_zips(download, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    for path in download.glob("*.parquet"):
        (part / path.name).write_bytes(path.read_bytes())
    command = ["--model", "chance-frequency", "--data", str(part), "--benchmark", "vsi-bench", "--out"]
    assert main([*command, str(tmp_path / "out"), "--subset", "debiased"]) == 0
    assert read(tmp_path / "out" / "scores.json")["overall"] == 100  # all answers of a type are the same here


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two scans with four and two questions."""
    root = tmp_path_factory.mktemp("data")
    names = ("scene0000_00", "scene0001_00")
    scans = [write_sens_scan(root, name, frames=6, height=56, width=56, seed=seed) for seed, name in enumerate(names)]
    write_frames(scans, root / "data", FrameSettings((2,), 4000))
    asked = [
        Question(f"{name}-{k}", name, "object_counting", f"How many of the {k} chairs?", None, "4", "number")
        for name, count in zip(names, (4, 2), strict=True)
        for k in range(count)
    ]
    write_questions(root / "data" / "questions.jsonl", asked)
    write_splits(root / "data", {"train": [], "heldout": list(names)})
    write_subsets(root / "data", {"few": [asked[0].id, asked[4].id]})
    return root / "data"


@pytest.mark.slow
def test_questions_one_at_a_time_have_the_same_answers(folder, data, tmp_path):
    assert evaluate(folder, data, tmp_path / "tree") == 0
    assert evaluate(folder, data, tmp_path / "alone", "--questions", 1, "--scenes", 1) == 0
    assert answers(tmp_path / "tree") == answers(tmp_path / "alone")
    assert evaluate(folder, data, tmp_path / "few", "--subset", "few") == 0
    assert set(answers(tmp_path / "few")) == {"scene0000_00-0", "scene0001_00-0"}
    assert read(tmp_path / "few" / "scores.json")["max_pixels"] == 4000


def write_run(path, folder, steps, dtype="auto"):
    """A run with checkpoints of other weights at each step, as the trainer leaves it."""
    settings = ModelSettings(path=str(folder), dtype=dtype)
    run_folder = make_run_folder(path, TrainConfig(model=settings, lora=None, objective="sft"))
    model = open_model(str(folder))
    name = "language_model.norm.weight"
    checkpoints = Checkpoints(run_folder.checkpoints, keep=len(steps))
    for step in steps:
        weight = np.random.default_rng(step).normal(size=model.read(name).shape).astype(np.float32)
        checkpoints.save(step, start_state({name: jnp.asarray(weight)}, optax.sgd(0.1), 0), start_record(model))
    checkpoints.close()
    return path


def test_dtype_auto_is_float32_only_on_cpu_and_other_settings_hold_everywhere():
    assert [compute_dtype("auto", platform) for platform in ("cpu", "gpu", "tpu")] == ["float32", *["bfloat16"] * 2]
    for setting in ("float32", "bfloat16"):
        assert {compute_dtype(setting, platform) for platform in ("cpu", "gpu", "tpu")} == {setting}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_a_run_is_evaluated_in_its_training_dtype(dtype, folder, tmp_path):
    run = write_run(tmp_path / "run", folder, (5,), dtype)
    mesh, _ = open_mesh("cpu", "1")
    model = GreedyModel(open_model(str(run)), mesh, answer_tokens=2)
    video = Video(np.stack(frames_of("scannet")[:2]), np.arange(2.0))
    model.answer([model.processor.encode(ScenePrompt((video,), ("How many?",)))])
    (program,) = model.program.compiled.values()
    assert ("bf16[" in program.as_text()) == (dtype == "bfloat16")


def test_a_model_is_told_by_every_bit_of_its_stages(folder):
    weight = np.zeros((64, 64), np.float32)
    changed = weight.copy()
    changed[32, 32] = 1e-30
    plain = open_model(str(folder))
    hashes = {
        weights_hash(dataclasses.replace(plain, stages=stages))
        for stages in ((), (Stage({"w": weight}, None),), (Stage({"w": changed}, None),), (Stage({"v": weight}, None),))
    }
    assert len(hashes) == 4


def test_predictions_of_a_run_in_another_dtype_are_not_resumed(folder, tmp_path):
    mesh, _ = open_mesh("cpu", "1")
    settings = AnswerSettings(PROMPTS["vsi-bench"], SceneMedia(2))
    runs = [write_run(tmp_path / dtype, folder, (5,), dtype) for dtype in ("auto", "float32")]
    auto, float32 = (settings.to_json(open_model(str(run)), [], mesh) for run in runs)
    assert float32 == {**auto, "dtype": "float32"}


@pytest.mark.slow
def test_a_series_of_checkpoints_is_scored_per_step_with_one_compiled_program(
    folder, data, tmp_path, capsys, monkeypatch
):
    run = write_run(tmp_path / "run", folder, (5, 10, 20))
    assert evaluate(run, data, tmp_path / "out", "--checkpoints", "all") == 0
    printed = capsys.readouterr().out
    assert printed.count("compiling answers") == 1
    series = read(tmp_path / "out" / "series.json")
    assert [row["step"] for row in series] == [5, 10, 20]
    assert evaluations_of(run, 10) == [tmp_path / "out" / "step-10"]
    for row in series:
        scores = read(tmp_path / "out" / f"step-{row['step']}" / "scores.json")
        assert scores["overall"] == row["overall"] and scores["model"] == f"{run}@{row['step']}"
    assert len({json.dumps(answers(tmp_path / "out" / f"step-{step}")) for step in (5, 10, 20)}) == 3
    assert (tmp_path / "out" / "series.md").read_text().startswith("| step | overall |")

    assert evaluate(f"{run}@10", data, tmp_path / "alone") == 0
    assert answers(tmp_path / "alone") == answers(tmp_path / "out" / "step-10")
    monkeypatch.setattr(GreedyModel, "answer", None)  # nothing is left to answer
    assert evaluate(run, data, tmp_path / "out", "--checkpoints", "20,5") == 0
    assert [row["step"] for row in read(tmp_path / "out" / "series.json")] == [5, 20]
    capsys.readouterr()
    assert evaluate(run, data, tmp_path / "new", "--checkpoints", "5,7") == 2
    assert "no checkpoint '7'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mesh_and_two_processes_give_the_same_answers(folder, data, tmp_path):
    assert evaluate(folder, data, tmp_path / "one") == 0
    mesh = fork("evaluate.py", *arguments(folder, data, tmp_path / "mesh", "--mesh", "fsdp=2"), cwd=tmp_path)
    assert mesh.finish()[0] == 0 and mesh.out().startswith("2 virtual CPU devices"), mesh.out() + mesh.err()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = ["--mesh", "fsdp=2", "--coordinator", f"127.0.0.1:{port}", "--process-count", "2"]
    both = [
        fork("evaluate.py", *arguments(folder, data, tmp_path / "two", *shared, "--process-id", index), cwd=tmp_path)
        for index in range(2)
    ]
    codes = [process.finish()[0] for process in both]
    outputs = [process.out() for process in both]
    assert codes == [0, 0], [*outputs, *(process.err() for process in both)]
    assert "in 2 processes" in outputs[0] and "overall" in outputs[0] and "overall" not in outputs[1]
    assert answers(tmp_path / "one") == answers(tmp_path / "mesh") == answers(tmp_path / "two")
