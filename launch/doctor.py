"""A setup looked over before it is trained or served.

    python launch/doctor.py out/demo                         a model: files, ends of answers, positions, prompt
    python launch/doctor.py runs/demo demo-data              and a data folder: what is missing, leaks, frames, features

MODEL is a folder (of a model, or a PEFT adapter's), a hub id, or a run (RUN, RUN@best, RUN@STEP). A line is fine, a
note or wrong; exit code 1 where one is wrong. Positions and prompt are compared where torch and torchvision are.
"""

from __future__ import annotations

from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_signals()

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.command_line import ArgumentParser, run

EXIT_WRONG = 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="doctor.py", description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="folder, hub id, RUN, RUN@best or RUN@STEP")
    parser.add_argument(
        "data", metavar="DATA", nargs="?", type=Path, help="data folder that it is trained on or asked about"
    )
    parser.add_argument("--revision", metavar="REV", help="of a hub id")
    parser.add_argument(
        "--base", metavar="FOLDER", help="base model of an adapter or a run, where it is not where they say"
    )
    parser.take_buckets("model", "data")
    return parser


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    from jaxvsr.buckets.fetching import fetched
    from jaxvsr.measure.setup_check import examine_data, examine_model
    from jaxvsr.runs.model_source import open_model
    from jaxvsr.runs.trained_as import trained_as

    model = open_model(arguments.model, arguments.revision, arguments.base)
    trained = trained_as(arguments.model, arguments.revision)
    of_data = examine_data(fetched(arguments.data), model, trained) if arguments.data else ()
    wrong = 0
    for finding in itertools.chain(examine_model(model, trained), of_data):
        print(finding.to_text(), flush=True)
        wrong += finding.level == "wrong"
    return EXIT_WRONG if wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
