"""The demo: everything that jaxvsr does, in small, on two cores.

    make demo                                            in a fresh checkout: installs first
    python launch/demo.py                                from an environment
    python launch/demo.py --seed 1 --run-dir runs/seed1  another seed on the same rooms

Each stage is a command that you could type yourself, and is shown as such. A stage that was done by the same command is
kept, so a demo that was stopped goes on; delete runs/ to begin again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.command_line import ArgumentParser, run, run_child
from jaxvsr.errors import InputError

LAUNCH = Path(__file__).resolve().parent
ROOMS = 320
HELDOUT_SHARE = 0.2
FRAMES, FRAME_PIXELS = 8, 112 * 140
BASE = "rooms-base"  # comes with jaxvsr; see docs/base-model.md
# Also categories that a room has once or not at all: counting "two or more" is a guess between two and three.
QUESTIONS = ("count_absent=true", "count_minimum=1", "per_task=2")
DATA = Path("runs/demo-data")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command, and the file or folder that is there when it is done."""

    title: str
    arguments: tuple[str, ...]  # of `python`, the script first
    result: Path
    run_dir: Path
    shared: bool = False  # by all seeds: rooms, questions, frames and the untrained model
    fresh: Path | None = None  # a folder that the command wants to make itself

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
        """Remember by which command the result was made, beside it."""
        write_json(self._journal_path(), {**self._journal(), self.title: self.command})

    def _journal_path(self) -> Path:
        home = DATA if self.shared else self.run_dir
        return home.with_name(f"{home.name}-stages.json")

    def _journal(self) -> dict[str, str]:
        path = self._journal_path()
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def stages(run_dir: Path, seed: int) -> list[Stage]:
    """The demo, in order."""
    beside = run_dir.with_name
    untrained, blank = Path("runs/demo-untrained"), beside(f"{run_dir.name}-blank")
    scores = {name: beside(f"{run_dir.name}-scores") / name for name in ("untrained", "start", "blank", "after")}

    def train(out: Path, *more: str) -> tuple[str, ...]:
        flags = ("--config", "demo-grpo", "--data", str(DATA), "--seed", str(seed), *more)
        return ("train.py", *flags, "--run-dir", str(out), "--resume")

    def evaluate(name: str, model: str, *more: str) -> Stage:
        asked = ("--data", str(DATA), "--benchmark", "vsi-bench", "--frames", str(FRAMES))
        prompt = ("--prompt", "vsgrpo-vanilla-train")  # the one the models were trained with
        arguments = ("evaluate.py", "--model", model, *asked, *prompt, *more, "--out", str(scores[name]))
        return Stage(f"greedy answers: {name}", arguments, scores[name] / "scores.json", run_dir)

    build, chosen = ("build_data.py",), [flag for option in QUESTIONS for flag in ("--set", option)]
    asked = (*build, "questions", str(DATA), str(DATA), "--recipe", "vsi100k", *chosen, "--heldout", str(HELDOUT_SHARE))
    seen = (*build, "frames", str(DATA), str(DATA), "--frames", str(FRAMES), "--max-pixels", str(FRAME_PIXELS))
    rooms = (*build, "rooms", str(DATA), "--scenes", str(ROOMS), "--seed", "0")
    tiny, hf = ("convert.py", "tiny", str(untrained)), run_dir / "hf"
    named = (f"{name}={folder}" for name, folder in scores.items())
    saved = ("bench.py", "--run", str(run_dir), "--scenes", "2")
    return [
        Stage("rooms", rooms, DATA / "scans", run_dir, shared=True),
        Stage("questions", asked, DATA / "questions.jsonl", run_dir, shared=True),
        Stage("frames", seen, DATA / "frames", run_dir, shared=True),
        Stage("a model without training", tiny, untrained / "config.json", run_dir, shared=True, fresh=untrained),
        Stage("GRPO", train(run_dir), run_dir / "report.html", run_dir),
        Stage("control: GRPO on blank video", train(blank, "--set", "data.blank=true"), blank / "report.html", run_dir),
        evaluate("untrained", str(untrained)),
        evaluate("start", BASE),
        evaluate("blank", str(blank), "--blank"),
        evaluate("after", str(run_dir)),
        Stage("what the tree saved", saved, run_dir / "tree_savings.json", run_dir),
        Stage("the page", ("report.py", str(run_dir), "--compare", *named), run_dir / "comparison.json", run_dir),
        Stage("export", ("convert.py", "to-hf", str(run_dir), str(hf)), hf / "config.json", run_dir, fresh=hf),
    ]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="demo.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/demo"), help="folder of the GRPO run")
    parser.add_argument(
        "--seed", type=int, default=0, help="of model, sampling and data order; the rooms stay the same"
    )
    return parser


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: must be at least 0")
    planned = stages(arguments.run_dir, arguments.seed)
    seconds: list[float] = []
    behind_a_new_one = False  # a stage that ran makes those behind it run again
    for number, stage in enumerate(planned, start=1):
        print(f"\n[{number}/{len(planned)}] {stage.title}\n$ {stage.command}", flush=True)
        if stage.is_done() and (stage.shared or not behind_a_new_one):
            print(f"kept: {stage.result} is there", flush=True)
            seconds.append(0.0)
            continue
        start = time.monotonic()
        stage.prepare()
        # The demo is the same on every machine: on the CPU.
        code = run_child([str(LAUNCH / stage.arguments[0]), *stage.arguments[1:]], {"JAX_PLATFORMS": "cpu"})
        seconds.append(time.monotonic() - start)
        if code:
            print(f"the demo stopped in stage {number}, {stage.title}; the same command goes on there", file=sys.stderr)
            return code
        print(f"({seconds[-1]:.1f} s)", flush=True)
        stage.record()
        behind_a_new_one = behind_a_new_one or not stage.shared
    print(_summary(planned, seconds, arguments.run_dir))
    return 0


def write_json(path: Path, value: object) -> None:
    """Write a whole file: to a temporary name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _summary(planned: Sequence[Stage], seconds: Sequence[float], run_dir: Path) -> str:
    """What took how long, and where everything lies."""
    lines = [f"{spent:8.1f} s  {stage.title}" for stage, spent in zip(planned, seconds, strict=True)]
    return "\n".join(
        [
            "",
            *lines,
            f"{sum(seconds):8.1f} s  in all",
            "",
            f"the page of the run         {run_dir / 'report.html'}",
            f"the trained model           {run_dir / 'hf'}",
            f"ask it                      python launch/ask.py --model {run_dir} --video FILE 'How many chairs?'",
            "train again                 python launch/train.py --mesh 8",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
