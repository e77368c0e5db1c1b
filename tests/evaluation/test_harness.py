"""lmms-eval itself on a small VSI-Bench of rooms, prediction for prediction against `evaluate.py --profile lmms-eval`.

    python -m venv harness
    harness/bin/pip install --no-deps lmms-eval==0.7.3 qwen-vl-utils
    harness/bin/pip install torch torchvision "transformers==5.24.0" "filelock<3.20" decord2 accelerate datasets \
        loguru pandas jsonlines pytablewriter sacrebleu tenacity requests python-dotenv sympy numexpr evaluate openai \
        tiktoken httpx
    JAXVSR_HARNESS=harness/bin/python python -m pytest -s tests/evaluation/test_harness.py

prints the counts that docs/evaluation.md shows. Nothing is downloaded.
"""

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jaxvsr.data.questions import read_questions
from jaxvsr.evaluation.predictions import read_predictions
from jaxvsr.evaluation.profiles import PROFILES
from jaxvsr.models.huggingface.hf_config import read_config
from jaxvsr.models.inputs.chat import Chat
from jaxvsr.runs.named_models import ROOMS_BASE, named_folder
from launch import build_data, evaluate

HARNESS = os.environ.get("JAXVSR_HARNESS", "")
pytestmark = pytest.mark.skipif(not HARNESS, reason="JAXVSR_HARNESS=PYTHON of an environment with lmms-eval")
ROOMS = 6


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`VSI-Bench` as downloaded, and `home/vsibench` with its videos."""
    place = tmp_path_factory.mktemp("bench")
    download, videos = place / "VSI-Bench", place / "home" / "vsibench" / "scannet"
    download.mkdir()
    videos.mkdir(parents=True)
    rooms = str(place / "rooms")
    assert build_data.main(["rooms", rooms, "--scenes", str(ROOMS), "--seed", "5", "--frames-per-scan", "90"]) == 0
    assert build_data.main(["questions", rooms, rooms, "--recipe", "vsi-bench"]) == 0
    with zipfile.ZipFile(download / "scannet.zip", "w") as archive:
        for scan in sorted(Path(rooms, "scans").iterdir()):
            video = videos / f"{scan.name}.mp4"
            assert build_data.main(["video", str(scan), str(video)]) == 0
            archive.write(video, f"scannet/{video.name}")
    rows = [
        {
            "id": number,
            "dataset": "scannet",
            "scene_name": question.scene,
            "question_type": question.question_type,
            "question": question.question,
            "options": list(question.options) if question.options else None,
            "ground_truth": question.answer,
        }
        for number, question in enumerate(read_questions(Path(rooms, "questions.jsonl")))
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), download / "test.parquet")
    return place


def comparable(tiny: Path, folder: Path) -> Path:
    """A copy of a random model that never draws what we never draw (a trained one does not either) and has one end.

    lmms-eval ends an answer at the tokenizer's own end alone.
    """
    shutil.copytree(tiny, folder)
    (folder / "SHA256SUMS").unlink()  # the change is meant
    chat = Chat.from_folder(folder, read_config(folder))
    settings = folder / "generation_config.json"
    values = json.loads(settings.read_text())
    values |= {"suppress_tokens": list(chat.suppressed_token_ids), "eos_token_id": [chat.tokenizer.eos_token_id]}
    settings.write_text(json.dumps(values))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "trained_positions"),
    [
        pytest.param("qwen2_vl", True, id="qwen2_vl-trained-positions"),
        pytest.param("qwen2_vl", False, id="qwen2_vl-transformers-own"),
        pytest.param("qwen2_5_vl", True, id="qwen2_5_vl-trained-positions"),
        pytest.param("qwen2_5_vl", False, id="qwen2_5_vl-transformers-own"),
        pytest.param("qwen3_vl", False, id="qwen3_vl"),  # transformers has them right
    ],
)
def test_predictions_and_scores_are_those_of_lmms_eval(family, trained_positions, bench, tiny_model, tmp_path, capsys):
    model = named_folder(ROOMS_BASE)
    if family != "qwen2_vl":
        model = comparable(tiny_model(family), tmp_path / family)
    out = tmp_path / "theirs"
    command = [HARNESS, "tests/support/run_lmms_eval.py", str(bench / "VSI-Bench" / "test.parquet")]
    command += ["--trained-positions"] * trained_positions
    most = PROFILES["lmms-eval"][family].max_pixels
    command += ["--model", family, "--model_args", f"pretrained={model},device=cpu,device_map=cpu,max_pixels={most}"]
    command += ["--tasks", "vsibench", "--batch_size", "1", "--log_samples", "--output_path", str(out)]
    settings = {"HF_HOME": str(bench / "home"), "HF_HUB_OFFLINE": "1", "FORCE_QWENVL_VIDEO_READER": "decord"}
    ran = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    (samples,), (results,) = list(out.rglob("*samples*.jsonl")), list(out.rglob("*results.json"))
    theirs = {row.question.id: row.prediction for row in read_predictions(samples)}

    asked = ["--model", str(model), "--data", str(bench / "VSI-Bench"), "--benchmark", "vsi-bench"]
    asked += ["--video-prompt", "wrapped"] * (family == "qwen3_vl")  # as transformers 5.24 writes it
    ours_at = tmp_path / "ours"
    assert evaluate.main([*asked, "--profile", "lmms-eval", "--device", "cpu", "--out", str(ours_at)]) == 0
    # lmms-eval takes white space off an answer's ends before it logs it.
    ours = {row.question.id: row.prediction.strip() for row in read_predictions(ours_at / "predictions.jsonl")}
    equal = sum(theirs[name] == ours[name] for name in ours)
    # Their answers by our reading of them, against the numbers that lmms-eval wrote.
    read_at = tmp_path / "read"
    assert evaluate.main(["--score", str(samples), "--benchmark", "vsi-bench", "--out", str(read_at)]) == 0
    written = json.loads(results.read_text())["results"]["vsibench"]
    read = json.loads((read_at / "scores-lmms-eval.json").read_text())
    score = json.loads((ours_at / "scores-lmms-eval.json").read_text())["overall"]
    with capsys.disabled():
        print(f"\n{family}, {'trained positions' if trained_positions else 'positions of transformers'}:", end=" ")
        print(f"{equal} of {len(ours)} predictions equal; overall {score:.4f}, lmms-eval {100 * _number(written):.4f}")
    assert set(theirs) == set(ours)
    assert read["overall"] == pytest.approx(100 * _number(written), abs=1e-4)
    if trained_positions or family == "qwen3_vl":
        assert theirs == ours and score == pytest.approx(read["overall"], abs=1e-9)


def _number(results: dict) -> float:
    return next(value for name, value in results.items() if name.startswith("vsibench_overall,"))
