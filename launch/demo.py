"""The demo: everything that jaxvsr does, in small, on two cores.

    make demo                                            in a fresh checkout: installs first
    python launch/demo.py                                from an environment
    python launch/demo.py --seed 1 --run-dir runs/seed1  another seed on the same rooms

Each stage is a command that you could type yourself, and is printed as one. A stage that was done by the same command
is kept, so a demo that was stopped continues; delete runs/ to begin again.
"""

from __future__ import annotations

from jaxvsr.devices.large_pages import take_large_pages
from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_large_pages()
    take_signals()

import shlex
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.command_line import ArgumentParser, natural_int, run
from jaxvsr.demo_stages import DemoStage, demo_stages, example_question, run_stages

LAUNCH = Path(__file__).resolve().parent


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="demo.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/demo"), help="folder of the GRPO run")
    parser.add_argument(
        "--seed", type=natural_int, default=0, help="of model, sampling and data order; the rooms stay the same"
    )
    return parser


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    stages = demo_stages(arguments.run_dir, arguments.seed)
    code, seconds = run_stages(stages, LAUNCH)
    if code == 0:
        print(_summary(stages, seconds, arguments.run_dir))
    return code


def _summary(stages: Sequence[DemoStage], seconds: Sequence[float], run_dir: Path) -> str:
    """How long each stage took, and where its results are."""
    room, question = example_question()
    video = run_dir.with_name("room.mp4")
    film = shlex.join(["python", "launch/build_data.py", "video", str(room), str(video)])
    ask = shlex.join(["python", "launch/ask.py", "--model", str(run_dir), "--video", str(video), question.question])
    lines = [f"{spent:8.1f} s  {stage.title}" for stage, spent in zip(stages, seconds, strict=True)]
    return "\n".join(
        [
            "",
            *lines,
            f"{sum(seconds):8.1f} s  in all",
            "",
            f"the page of the run         {run_dir / 'report.html'}",
            f"the trained model           {run_dir / 'hf'}",
            f"a new room as a video       {film}",
            f"ask the model about it      {ask}",
            f"the true answer             {question.answer}",
            "train again                 python launch/train.py --mesh 8",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
