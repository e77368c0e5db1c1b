"""A study: several trainings that differ in a few settings, one table, one figure, and what the papers say.

    python launch/study.py                                      the papers' comparisons (configs/studies/papers.yaml)
    python launch/study.py --dry-run                            every command and the hours it takes
    python launch/study.py --seeds 0,1,2                        three seeds; what is done is kept
    python launch/study.py --arms base,sft,grpo                 some of the arms
    python launch/study.py --config mine.yaml --out runs/mine   any base × overrides × seeds

Every arm is a training and its evaluation, each printed as the command that you would type. A command that is done is
not run again, and one that was stopped continues: the same line continues a study. Writes OUT/study.md, study.csv,
study.png and study.pdf with the results so far, also when it is stopped.
"""

from __future__ import annotations

from jaxvsr.devices.large_pages import take_large_pages
from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_large_pages()
    take_signals()

import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvsr.command_line import ArgumentParser, run, run_child
from jaxvsr.errors import InputError, prefixed
from jaxvsr.locks import only_writer

if TYPE_CHECKING:
    from jaxvsr.study.commands import Command, Manifest

LAUNCH = Path(__file__).resolve().parent
STUDIES = "studies"  # in configs/
DEFAULT = "papers"


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="study.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", default=DEFAULT, metavar="NAME|FILE", help=f"a file, or one of configs/{STUDIES}; default {DEFAULT}"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the study, default runs/study-NAME")
    parser.add_argument("--seeds", metavar="N,…", help="seeds of the trainings; default: those of the study's file")
    parser.add_argument("--arms", metavar="NAME,…", help="only these arms, and those that they start from")
    parser.add_argument(
        "--set", action="append", default=[], metavar="field=value", help="change a config field of every training"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print the commands and their hours")
    return parser


def _seeds(text: str) -> tuple[int, ...]:
    from jaxvsr.fields import read_text
    from jaxvsr.study.definition import checked_seeds

    with prefixed(f"--seeds {text}"):
        return checked_seeds(read_text(tuple[int, ...], text))


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    from jaxvsr.config.config_file import find_config, parse_assignment
    from jaxvsr.study.commands import STUDY_LOCK, Manifest, commands, plan_lines
    from jaxvsr.study.definition import read_study
    from jaxvsr.study.results import write_results

    study = read_study(find_config(arguments.config, STUDIES))
    if arguments.arms:
        study = study.chosen(arguments.arms.split(","))
    seeds = _seeds(arguments.seeds) if arguments.seeds else study.seeds
    out = arguments.out or Path("runs") / f"study-{study.name}"
    more = [parse_assignment(text) for text in arguments.set]
    if any(field == "seed" for _, field, _ in more):
        raise InputError("--set seed: a study takes --seeds")
    planned, manifest = commands(study, out, seeds, more), Manifest(out)
    manifest.check(planned)
    if arguments.dry_run:
        print("\n".join(plan_lines(study, planned, manifest, more)))
        return 0
    with only_writer(out, name=STUDY_LOCK):
        code = _run(planned, manifest)
        written = write_results(study, out, seeds)
    if written:
        print(f"\n{written[0].read_text(encoding='utf-8')}\n{out}: {', '.join(path.name for path in written)}")
    return code


def _run(planned: Sequence[Command], manifest: Manifest) -> int:
    """Run what is not done, up to the first command that fails or is stopped. Returns its exit code, else 0."""
    for number, command in enumerate(planned, start=1):
        print(f"\n[{number}/{len(planned)}] {command.key}\n$ {command.text}", flush=True)
        if manifest.is_done(command):
            print("already done", flush=True)
            continue
        start = time.monotonic()
        code = run_child([str(LAUNCH / command.arguments[0]), *command.arguments[1:]])
        if code:
            print(f"the study stopped in {command.key}; the same command continues it", file=sys.stderr)
            return code
        manifest.record(command, time.monotonic() - start)
        print(f"({time.monotonic() - start:.1f} s)", flush=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
