"""From scans to a data folder, one command a step.

    python launch/build_data.py rooms data/rooms --scenes 50 --seed 0
    python launch/build_data.py questions data/rooms data/rooms --recipe vsi100k
    python launch/build_data.py frames data/rooms data/rooms --frames 8,16 --max-pixels 12544
    python launch/build_data.py check data/rooms

SCANS is a folder with ScanNet's layout, `SCANS/scans/<scene>/…` or `SCANS/<scene>/…`; OUT is the data folder. They may
be the same. Every command adds to OUT, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from jaxvsr.command_line import ArgumentParser, int_list, positive_int, progress, replace_fields, run, shard
from jaxvsr.errors import InputError

if TYPE_CHECKING:
    from jaxvsr.data.frame_sampling import FrameRate


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description="Scans, questions and frames: from ScanNet scans to a data folder.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_rooms(commands.add_parser("rooms", help="procedural rooms, written as ScanNet scans"))
    _add_questions(commands.add_parser("questions", help="questions and answers from the geometry of scans"))
    _add_frames(commands.add_parser("frames", help="uniformly sampled frames at a pixel budget, in TensorStore"))
    _add_check(commands.add_parser("check", help="what a data folder holds and what is missing"))
    return parser


def _add_rooms(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_rooms)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--scenes", type=positive_int, required=True, help="number of scans")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames-per-scan", type=positive_int, help="frames of each scan's .sens")
    parser.add_argument("--size", type=_size, metavar="WxH", help="pixels of a frame, like 160x120")
    parser.add_argument("--workers", type=positive_int, default=os.cpu_count(), help="processes (default: all cores)")


def _add_questions(parser: argparse.ArgumentParser) -> None:
    from jaxvsr.data.benchmark_scenes import BENCHMARKS

    parser.set_defaults(command=_questions)
    _add_scans_and_out(parser)
    parser.add_argument("--recipe", required=True, help="vsi100k, or a .py file with a RECIPE")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="change a recipe's option")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--heldout", type=float, default=0.1, help="share of rooms held out (default: 0.1)")
    parser.add_argument(
        "--include", action="append", default=[], choices=BENCHMARKS, help="also scenes of a benchmark, as held out"
    )


def _add_frames(parser: argparse.ArgumentParser) -> None:
    from jaxvsr.data.frame_sampling import SamplingRule

    parser.set_defaults(command=_frames)
    _add_scans_and_out(parser)
    parser.add_argument("--frames", type=int_list, default=(), metavar="N,…", help="frame counts, like 8,16,32")
    parser.add_argument(
        "--fps", type=float, help="instead of or beside --frames: as many as the rule takes at this rate"
    )
    parser.add_argument("--min-frames", type=positive_int, help="with --fps (default: 4; linspace has no minimum)")
    parser.add_argument("--max-frames", type=positive_int, help="with --fps (default: 768)")
    parser.add_argument("--max-pixels", type=positive_int, required=True, help="pixel budget of one frame")
    parser.add_argument("--rule", choices=get_args(SamplingRule), default="linspace", help="which frames")
    parser.add_argument(
        "--shard", type=shard, default=(1, 1), metavar="i/n", help="only every n-th scene, from the i-th"
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_check)
    parser.add_argument("out", type=Path, metavar="OUT")


def _add_scans_and_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scans", type=Path, metavar="SCANS")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--skip-broken", action="store_true", help="go without scans that cannot be read")
    parser.add_argument("--workers", type=positive_int, default=os.cpu_count(), help="default: all cores")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT like 160x120, found {text!r}")
    return int(width), int(height)


def _rooms(arguments: argparse.Namespace) -> int:
    from jaxvsr.data.room_scans import DEFAULT_FRAMES, DEFAULT_SIZE, write_rooms

    start = time.monotonic()
    with progress("rooms", arguments.scenes) as on_scene:
        names = write_rooms(
            arguments.out,
            scenes=arguments.scenes,
            seed=arguments.seed,
            workers=arguments.workers,
            frames=arguments.frames_per_scan or DEFAULT_FRAMES,
            size=arguments.size or DEFAULT_SIZE,
            on_scene=on_scene,
        )
    print(f"{len(names)} rooms in {arguments.out / 'scans'} ({time.monotonic() - start:.1f} s)")
    return 0


def _questions(arguments: argparse.Namespace) -> int:
    from jaxvsr.data import folder, generate
    from jaxvsr.data.benchmark_scenes import benchmark_of
    from jaxvsr.data.questions import write_questions
    from jaxvsr.data.recipe import load_recipe
    from jaxvsr.data.scannet import list_scans
    from jaxvsr.data.splits import SPLITS_FILE, read_splits, split_by_room, write_splits

    start = time.monotonic()
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: must be at least 0")
    recipe = load_recipe(arguments.recipe)
    options = replace_fields(recipe.options, arguments.set)
    found = list_scans(arguments.scans)
    scans, excluded = generate.without_benchmarks(found, arguments.include)
    for name, count in excluded.items():
        print(f"left out {count} scans of {name} (--include {name} takes them, as held out)")
    settings = generate.QuestionSettings(arguments.recipe, options, arguments.seed)
    with progress("questions", len(scans)) as on_done:
        report = generate.generate_questions(scans, settings, workers=arguments.workers, on_done=on_done)
    _account_for_broken(report.broken, len(scans), arguments.skip_broken)
    if not report.questions:
        raise InputError(f"{arguments.scans}: no question could be asked of its {len(scans)} scans")

    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    rows = folder.merge_questions(out, recipe.name, report.questions)
    procedural = {scan.name for scan in scans if generate.is_procedural(scan)}
    benchmark = [scan.name for scan in scans if benchmark_of(scan.name) and scan.name not in procedural]
    before = read_splits(out) if (out / SPLITS_FILE).exists() else None
    splits = split_by_room(
        {row.scene for row in rows}, arguments.heldout, seed=arguments.seed, always_heldout=benchmark, before=before
    )
    write_questions(out / folder.QUESTIONS_FILE, rows)
    write_splits(out, splits)
    table = folder.summary_table(report.questions, recipe.paper_counts)
    facts = {
        "source": recipe.source,
        "scans": f"{len(scans)}, {len(procedural)} of them procedural rooms",
        "scans left out as benchmarks": sum(excluded.values()),
        "scans left out as broken": len(report.broken),
        "flaws worked around": report.flaws or "none",
        "seed": arguments.seed,
        **dataclasses.asdict(options),
    }
    folder.write_card_section(out, f"Questions: {recipe.name}", f"{_bullets(facts)}\n\n{table}")
    print(table)
    if report.flaws:
        print("flaws worked around: " + ", ".join(f"{name} {count}" for name, count in report.flaws.items()))
    print(
        f"{len(report.questions):,} questions about {len(scans) - len(report.broken)} scans in {out} "
        f"({len(splits['train'])} train, {len(splits['heldout'])} held out; {time.monotonic() - start:.1f} s)"
    )
    return 0


def _frames(arguments: argparse.Namespace) -> int:
    from jaxvsr.data import folder
    from jaxvsr.data.frame_writer import FrameSettings, write_frames
    from jaxvsr.data.questions import read_questions
    from jaxvsr.data.scene_sources import scene_sources

    start = time.monotonic()
    settings = FrameSettings(arguments.frames, arguments.max_pixels, arguments.rule, _frame_rate(arguments))
    out: Path = arguments.out
    asked = read_questions(out / folder.QUESTIONS_FILE) if (out / folder.QUESTIONS_FILE).exists() else []
    found = scene_sources(arguments.scans, asked)
    index, count = arguments.shard
    mine = found.sources[index - 1 :: count]
    with progress("frames", len(mine)) as on_done:
        report = write_frames(mine, out, settings, workers=arguments.workers, on_done=on_done)
    if report.written or report.kept:
        folder.write_card_section(out, "Frames", _bullets(folder.frame_facts(out)))
    print(
        f"frames of {len(report.written)} scenes written, of {len(report.kept)} there already, "
        f"{len(report.broken)} broken ({time.monotonic() - start:.1f} s)"
    )
    if report.flaws:
        print("flaws worked around: " + ", ".join(f"{name} {count}" for name, count in report.flaws.items()))
    if found.elsewhere:
        first = ", ".join(found.elsewhere[:3])
        print(f"{len(found.elsewhere)} scenes with questions have nothing in {arguments.scans}: {first}")
    _account_for_broken(report.broken, len(mine), arguments.skip_broken)
    return 0


def _frame_rate(arguments: argparse.Namespace) -> FrameRate | None:
    from jaxvsr.data.frame_sampling import FrameRate

    bounds = {"min_frames": arguments.min_frames, "max_frames": arguments.max_frames}
    given = {name: value for name, value in bounds.items() if value is not None}
    if arguments.fps is None:
        if given:
            raise InputError(f"--{next(iter(given)).replace('_', '-')}: bounds what --fps takes, give that as well")
        if not arguments.frames:
            raise InputError("frames: give --frames N,… or --fps N")
        return None
    return FrameRate(arguments.fps, **given)


def _check(arguments: argparse.Namespace) -> int:
    from jaxvsr.data.folder import check_folder

    check = check_folder(arguments.out)
    print("\n".join(check.lines))
    print("\n".join(f"missing: {line}" for line in check.missing) or "nothing is missing")
    return 1 if check.missing else 0


def _account_for_broken(broken: Mapping[str, str], scans: int, skip: bool) -> None:
    """Every broken scan on a line of its own; without `--skip-broken` they end the command."""
    for scene, reason in broken.items():
        print(f"broken: {scene}: {reason}")
    if broken and not skip:
        scene, reason = next(iter(broken.items()))
        raise InputError(
            f"{len(broken)} of {scans} scans cannot be read, the first is {scene} ({reason}); "
            "mend them, or go without them by --skip-broken"
        )


def _bullets(facts: Mapping[str, object]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    return arguments.command(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and run one command; returns the exit code (2: something given was wrong)."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
