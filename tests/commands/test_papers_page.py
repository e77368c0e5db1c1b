"""Every command of docs/papers.md runs, with small things under the names that the page uses: models, scans and sets in
the published forms, fewer steps, smaller groups, shorter answers. The commands that need no model run always; the
trainings, their evaluations and the reports with JAXVSR_ALL=1.
"""

import dataclasses
import io
import json
import re
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from jaxvsr.files import read_rows
from jaxvsr.models.model_config import FamilyName
from jaxvsr.models.tiny.tiny_model import write_tiny_model
from jaxvsr.prompts import PROMPTS
from jaxvsr.runs.run_folder import RunFolder
from launch import build_data, evaluate, report, train
from tests.support.everything import ALL
from tests.support.models import SMALL as TINY
from tests.support.published_sets import write_q_spatial, write_vqasynth

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"build_data": build_data, "train": train, "evaluate": evaluate, "report": report}
HUBS = ("Qwen", "UCSC-VLAA", "remyxai")
# A whole run in small; paths, frames, pixels, objectives, rewards and prompts are the page's.
SMALL = {
    "steps": 4,
    "data.scenes": 2,
    "data.questions": 1,
    "sampling.group": 2,
    "sampling.answer_tokens": 8,
    "intervals.checkpoint": 1,
    "intervals.keep": 4,
    "intervals.evaluate": 0,
    "evaluation.questions": 2,
    "logging.sample_questions": 2,
}
ASKED = {"VSI-Bench": 8, "data/q-spatial": 3, "data/spacellava-test": 2, "data/openspaces": 2}  # questions of each set
HERE = {"500,1000,1500,2000": "1,2,3,4", "20": "4", "100": "12", "64": "32"}  # checkpoints, steps, rooms and frames


def commands() -> list[str]:
    """The page's command lines, in its order."""
    lines = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.startswith("    ")]


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (56, 56, 3), np.uint8))


def write_vsi_bench(folder: Path) -> None:
    """Eight questions about two videos; Pillow writes no mp4, and FFmpeg goes by what a file holds."""
    kinds = (
        ("object_counting", None, "4"),
        ("object_rel_distance", ["A. sofa", "B. bed"], "A"),
        ("object_rel_direction_easy", ["A. left", "B. right"], "B"),
        ("room_size_estimation", None, "20.5"),
    )
    scenes, rows = ("scene0011_00", "scene0015_00"), []
    for number in range(8):
        kind, options, truth = kinds[number % 4]
        row = {"id": number, "dataset": "scannet", "scene_name": scenes[number // 4], "question_type": kind}
        row |= {"question": f"Question {number}?", "options": options, "ground_truth": truth, "pruned": False}
        rows.append(row)
    folder.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "test.parquet")
    with zipfile.ZipFile(folder / "scannet.zip", "w") as archive:
        for scene in scenes:
            frames, video = [picture(int(scene[5:9]) + at) for at in range(34)], io.BytesIO()
            frames[0].save(video, "GIF", save_all=True, append_images=frames[1:], duration=100)
            archive.writestr(f"scannet/{scene}.mp4", video.getvalue())


def write_thoughts(name: str, form: str, count: int = 12) -> None:
    """`name`.jsonl in Video-R1's form with a chain of thought each, and the pictures or videos in folder `form`."""
    rows, folder = [], Path(form)
    folder.mkdir()
    for number in range(count):
        file = f"{number}.png" if "picture" in form else f"{number}.gif"
        frames = [picture(500 + number + at) for at in range(1 if "picture" in form else 17)]
        if len(frames) == 1:
            frames[0].save(folder / file)
        else:
            frames[0].save(folder / file, save_all=True, append_images=frames[1:], duration=100)
        row = {"problem": f"How many cups are there beside cup {number}?", "options": [], "path": file}
        row |= {"problem_type": "numerical", "data_type": "image" if "picture" in form else "video"}
        row |= {"solution": f"<answer>{number}</answer>", "process": "<think>I count the cups one by one.</think>"}
        rows.append({"problem_id": number, **row})
    Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the page's commands run in: what it names, of the published forms."""
    root = tmp_path_factory.mktemp("papers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, prompt in PROMPTS.items():
            short = dataclasses.replace(prompt, max_answer_tokens=min(prompt.max_answer_tokens, 8))
            patch.setitem(PROMPTS, name, short)
        shutil.copytree(ROOT / "configs", "configs")
        rooms = ["rooms", "scannet", "--scenes", "24", "--seed", "0", "--frames-per-scan", "32", "--size", "80x60"]
        rooms += ["--workers", "1"]
        assert build_data.main(rooms) == 0
        for path, count in (("spacellava/data/train-0", 16), ("spacellava/data/test-0", 2), ("OpenSpaces/train", 2)):
            write_vqasynth(Path(f"{path}.parquet"), count)
        write_q_spatial(Path("QSpatial_plus.parquet"))
        write_vsi_bench(Path("VSI-Bench"))
        write_thoughts("cot", "cot-videos")
        write_thoughts("cot-pictures", "cot-pictures")
        Path("judge.py").write_text("def judge(question, answer, prediction):\n    return answer.startswith('Yes')\n")
        yield root


def small(words: list[str]) -> list[str]:
    """A command of the page, with tiny models in place of published ones and, of a training, the sizes in `SMALL`."""
    script, rest = words[0], list(words[1:])
    if script == "train" and "--model" not in rest:
        rest += ["--model", train._config(train._parse(rest))[0].model.path]
    rest = [tiny_model(word) if "/" in word and word.split("/")[0] in HUBS else word for word in rest]
    rest = [HERE.get(word, word) for word in rest]
    if script == "train":
        sft = "sft" in " ".join(rest)
        sizes = {**SMALL, "sampling.answer_tokens": 64} if sft else SMALL
        rest += [word for field, value in sizes.items() for word in ("--set", f"{field}={value}")]
    if script == "build_data" and rest[0] in ("rooms", "questions", "frames"):
        rest += ["--workers", "1"]
    on_cpu = script == "train" or (script == "evaluate" and "chance-" not in " ".join(rest))
    return [script, *rest, *(("--device", "cpu", "--mesh", "1") if on_cpu else ())]


def tiny_model(hub_id: str) -> str:
    """The folder of a tiny model of the family that `hub_id` is of."""
    family: FamilyName = "qwen3_vl" if "Qwen3" in hub_id else "qwen2_5_vl" if "Qwen2.5" in hub_id else "qwen2_vl"
    if not Path(family).exists():
        write_tiny_model(Path(family), 0, shape=TINY, family=family)
    return family


def run_line(line: str) -> int:
    """The exit status of one line of the page."""
    if not line.startswith("python launch/"):
        return subprocess.run(line, shell=True, check=False).returncode
    words = shlex.split(line, comments=True)[1:]
    script, *rest = small([Path(words[0]).stem, *words[1:]])
    return SCRIPTS[script].main(rest)


def value_of(line: str, flag: str) -> str:
    words = shlex.split(line, comments=True)
    return words[words.index(flag) + 1]


def needs_a_model(line: str) -> bool:
    return bool(re.match(r"python launch/(train|evaluate|report)", line)) and "chance-" not in line


@pytest.fixture(scope="module")
def without_a_model(place: Path) -> dict[str, int]:
    """The lines that need no model, with their exit status."""
    return {line: run_line(line) for line in commands() if not needs_a_model(line)}


def test_commands_of_the_papers_page_for_data_and_baselines_run(without_a_model: dict[str, int]) -> None:
    assert without_a_model == dict.fromkeys(without_a_model, 0)
    for line in without_a_model:
        if " questions " in line or " import " in line:
            folder = Path(shlex.split(line)[4])
            assert (folder / "splits.json").is_file() and (folder / "frames").is_dir()
    assert json.loads(Path("scores/chance-frequency/scores.json").read_text())["overall"] > 0


@pytest.mark.skipif(not ALL, reason="long: JAXVSR_ALL=1 runs it")
def test_commands_of_the_papers_page_for_training_evaluation_and_reports_run(without_a_model: dict[str, int]) -> None:
    """In the page's order; a line that fails does not keep the others from running."""
    lines = [line for line in commands() if needs_a_model(line)]
    waiting = [line for line in lines if "--answers" in line]  # beside each other once both are there
    failed = []
    for line in [*(line for line in lines if line not in waiting), *waiting]:
        try:
            if run_line(line) != 0:
                failed.append(line)
        except Exception as error:
            failed.append(f"{line}: {error!r}")
    assert not failed, "\n".join(failed)
    check_outputs(lines)


def check_outputs(lines: list[str]) -> None:
    """Every step of each training, every question of each evaluation, every checkpoint of a series."""
    for line in lines:
        if "train.py" in line:
            run = RunFolder(Path(value_of(line, "--run-dir")))
            assert [row["step"] for row in read_rows(run.path / "metrics.jsonl")] == [1, 2, 3, 4]
        elif "evaluate.py" in line and "--checkpoints" not in line:
            out = Path(value_of(line, "--out"))
            scores = json.loads((out / "scores.json").read_text())
            assert scores["prompt"] == (value_of(line, "--prompt") if "--prompt" in line else "vsi-bench")
            answered, data = len((out / "predictions.jsonl").read_text().splitlines()), value_of(line, "--data")
            assert answered == ASKED[data] if data in ASKED else answered > 0
        elif "evaluate.py" in line:
            series = json.loads((Path(value_of(line, "--out")) / "series.json").read_text())
            assert [row["step"] for row in series] == [1, 2, 3, 4]
        else:
            written = "answers.html" if "--answers" in line else "summary.md"
            assert (Path(value_of(line, "--out")) / written).is_file()
