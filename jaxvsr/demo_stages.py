"""The stages of the demo: commands that one could type, each kept once it is done.

runs/demo-data                rooms, questions and frames: `launch/train.py` without arguments makes them too
runs/demo-data-stages.json    {"rooms": "python launch/build_data.py rooms …"}: the stages done, and by which command
runs/demo                     the run; runs/demo-stages.json the stages that belong to it
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxvsr.command_line import run_child
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.splits import read_splits
from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object, write_text

CONFIG = "demo-grpo"
DATA = Path("runs/demo-data")  # what the config's data.folders names
ROOMS = 240
HELDOUT_SHARE = 0.25
FRAMES, FRAME_PIXELS = 16, 112 * 168
BASE = "rooms-base"  # comes with jaxvsr; see docs/base-model.md
RECIPE = "rooms"


@dataclasses.dataclass(frozen=True)
class DemoStage:
    """One command, and the file or folder that is there when it is done."""

    title: str
    arguments: tuple[str, ...]  # of `python`, the script first
    result: Path
    run_dir: Path | None = None  # None: shared by all runs, as the data is
    fresh: Path | None = None  # a folder that the command refuses to find, or to find with answers about other frames

    @property
    def command(self) -> str:
        """As one would type it."""
        return shlex.join(("python", f"launch/{self.arguments[0]}", *self.arguments[1:]))

    def is_done(self) -> bool:
        """Whether the result is there and was made by this very command."""
        return self.result.exists() and self._journal().get(self.title) == self.command

    def prepare(self) -> None:
        """Remove what an earlier command of this stage left."""
        if self.fresh is not None and self.fresh.exists():
            shutil.rmtree(self.fresh)

    def record(self) -> None:
        """Note in the journal by which command the result was made."""
        path = self._journal_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({**self._journal(), self.title: self.command}, indent=1) + "\n")

    def _journal_path(self) -> Path:
        home = DATA if self.run_dir is None else self.run_dir
        return home.with_name(f"{home.name}-stages.json")

    def _journal(self) -> dict[str, str]:
        path = self._journal_path()
        return read_json_object(path) if path.exists() else {}


def data_stages() -> list[DemoStage]:
    """What makes DATA."""
    build = ("build_data.py",)
    rooms = (*build, "rooms", str(DATA), "--scenes", str(ROOMS), "--seed", "0")
    asked = (*build, "questions", str(DATA), str(DATA), "--recipe", RECIPE, "--heldout", str(HELDOUT_SHARE))
    seen = (*build, "frames", str(DATA), str(DATA), "--frames", str(FRAMES), "--max-pixels", str(FRAME_PIXELS))
    return [
        DemoStage("rooms", rooms, DATA / "scans"),
        DemoStage("questions", asked, DATA / "questions.jsonl"),
        DemoStage("frames", seen, DATA / "frames"),
    ]


def demo_stages(run_dir: Path, seed: int) -> list[DemoStage]:
    """The whole demo, in order."""
    beside = run_dir.with_name
    blank = beside(f"{run_dir.name}-blank")
    scores = {name: beside(f"{run_dir.name}-scores") / name for name in ("start", "blank", "after")}

    def train(out: Path, *more: str) -> tuple[str, ...]:
        flags = ("--config", CONFIG, "--data", str(DATA), "--seed", str(seed), *more)
        return ("train.py", *flags, "--run-dir", str(out), "--resume")

    def evaluate(name: str, model: str, *more: str) -> DemoStage:
        asked = ("--data", str(DATA), "--benchmark", "vsi-bench", *more, "--out", str(scores[name]))
        arguments = ("evaluate.py", "--model", model, *asked)  # frames and prompt: as the model was trained
        result = scores[name] / "scores.json"
        return DemoStage(f"greedy answers: {name}", arguments, result, run_dir, fresh=scores[name])

    hf = run_dir / "hf"
    named = (f"{name}={folder}" for name, folder in scores.items())
    saved = ("bench.py", "--run", str(run_dir), "--scenes", "1")
    return [
        *data_stages(),
        DemoStage("GRPO", train(run_dir), run_dir / "report.html", run_dir),
        DemoStage(
            "control: GRPO on blank video", train(blank, "--set", "data.blank=true"), blank / "report.html", run_dir
        ),
        evaluate("start", BASE),
        evaluate("blank", str(blank), "--blank"),
        evaluate("after", str(run_dir)),
        DemoStage("what the tree saved", saved, run_dir / "tree_savings.json", run_dir),
        DemoStage("the page", ("report.py", str(run_dir), "--compare", *named), run_dir / "comparison.json", run_dir),
        DemoStage("export", ("convert.py", "to-hf", str(run_dir), str(hf)), hf / "config.json", run_dir, fresh=hf),
    ]


def example_question() -> tuple[Path, Question]:
    """A held-out room of the demo's data, as the folder of its scan, and a question about it that GRPO teaches."""
    heldout = set(read_splits(DATA)["heldout"])
    questions = read_questions(DATA / "questions.jsonl")
    chosen = next(one for one in questions if one.scene in heldout and one.question_type == "room_size_estimation")
    return DATA / "scans" / chosen.scene, chosen


def run_stages(stages: Sequence[DemoStage], launch: Path) -> tuple[int, list[float]]:
    """Run the stages that are not done, with the scripts in `launch`, and print each command.

    Returns:
        Exit code of the first stage that failed, else 0; seconds of each stage until then, 0 of those kept.
    """
    seconds: list[float] = []
    after_a_new_one = False  # a stage of a run that ran makes those after it run again
    for number, stage in enumerate(stages, start=1):
        print(f"\n[{number}/{len(stages)}] {stage.title}\n$ {stage.command}", flush=True)
        if stage.is_done() and (stage.run_dir is None or not after_a_new_one):
            print(f"kept: {stage.result} is there", flush=True)
            seconds.append(0.0)
            continue
        start = time.monotonic()
        stage.prepare()
        # The demo is the same on every machine: on the CPU.
        code = run_child([str(launch / stage.arguments[0]), *stage.arguments[1:]], {"JAX_PLATFORMS": "cpu"})
        seconds.append(time.monotonic() - start)
        if code:
            print(f"stopped in stage {number}, {stage.title}; the same command continues it", file=sys.stderr)
            return code, seconds
        print(f"({seconds[-1]:.1f} s)", flush=True)
        stage.record()
        after_a_new_one = after_a_new_one or stage.run_dir is not None
    return 0, seconds


def make_missing_data(launch: Path) -> int:
    """Make DATA, or finish it, unless it is there; returns an exit code.

    A folder that was filled by hand, without a journal beside it, is taken as it is. Of several processes one makes the
    data and the others wait.

    Raises:
        InputError: Open3D, which the rooms are made with, is not installed.
    """
    if data_is_there():
        return 0
    if importlib.util.find_spec("open3d") is None:
        raise InputError(
            f"{DATA}: the demo's data is not there, and making it needs open3d; `pip install jaxvsr[scans]` installs "
            "it, --data DIR trains on other data"
        )
    with _only_maker():
        if data_is_there():  # another process made it meanwhile
            return 0
        print(f"{DATA}: the demo's data is not there yet; making it takes less than a minute", flush=True)
        code, _ = run_stages(data_stages(), launch)
    print(flush=True)
    return code


def data_is_there() -> bool:
    stages = data_stages()
    journal = stages[0]._journal_path()
    by_hand = stages[1].result.exists() and not journal.exists()
    return by_hand or all(stage.is_done() for stage in stages)


@contextlib.contextmanager
def _only_maker() -> Iterator[None]:
    """Wait until no other process makes the data; the lock on its folder ends with the process that holds it."""
    try:
        DATA.mkdir(parents=True, exist_ok=True)
        folder = os.open(DATA, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{DATA}: cannot be made ({error.strerror}); --data DIR trains on other data") from None
    try:
        import fcntl  # not on Windows, where nothing else needs it

        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
