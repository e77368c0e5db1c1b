"""From scans to a data folder, one command a step.

    python launch/build_data.py rooms data/rooms --scenes 50 --seed 0
    python launch/build_data.py questions data/rooms data/rooms --recipe vsi100k
    python launch/build_data.py frames data/rooms data/rooms --frames 8,16 --max-pixels 12544
    python launch/build_data.py features data/rooms --model rooms-base
    python launch/build_data.py import questions.jsonl data/imported --videos videos
    python launch/build_data.py check data/rooms
    python launch/build_data.py show data/rooms scene0000_00

SCANS is a folder with ScanNet's layout, `SCANS/scans/<scene>/…` or `SCANS/<scene>/…`; OUT is the data folder. They may
be the same. Every command adds to OUT, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from jaxvsr.command_line import ArgumentParser, int_list, positive_int, run, shard
from jaxvsr.errors import InputError
from jaxvsr.fields import replace_fields
from jaxvsr.progress import progress

if TYPE_CHECKING:
    from jaxvsr.data.video.frame_sampling import FrameRate


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description="Scans, questions and frames: from ScanNet scans to a data folder.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_rooms(commands.add_parser("rooms", help="procedural rooms, written as ScanNet scans"))
    _add_questions(commands.add_parser("questions", help="questions and answers from the geometry of scans"))
    _add_frames(commands.add_parser("frames", help="uniformly sampled frames at a pixel budget, in TensorStore"))
    _add_features(commands.add_parser("features", help="vision features of a frozen tower, once a scene"))
    _add_import(commands.add_parser("import", help="published question sets, paired with videos or images"))
    _add_show(commands.add_parser("show", help="one page of a scene: frames, plan, every question with its answer"))
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
    from jaxvsr.data.scannet.benchmark_scenes import BENCHMARKS

    parser.set_defaults(command=_questions)
    _add_scans_and_out(parser)
    parser.add_argument("--recipe", required=True, help="vsi100k, spatial-r1, vsi-bench, or a .py file with a RECIPE")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="change a recipe's option")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--heldout", type=float, default=0.1, help="share of rooms held out (default: 0.1)")
    parser.add_argument(
        "--include", action="append", default=[], choices=BENCHMARKS, help="also scenes of a benchmark, as held out"
    )
    parser.add_argument("--mirror", action="store_true", help="also the questions about the mirrored scenes")
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="i/n",
        help="only every n-th scan, from the i-th; without it all are put together",
    )


def _add_frames(parser: argparse.ArgumentParser) -> None:
    from jaxvsr.data.video.frame_sampling import SamplingRule

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


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_features)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--model", required=True, help="the model that a run will start from: folder, hub id or run")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument("--frames", type=int_list, default=(), metavar="N,…", help="default: all counts stored")
    parser.add_argument("--max-pixels", type=positive_int, help="as data.max_pixels of the run")
    parser.add_argument("--mirror", action="store_true", help="mirrored views too")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="as model.dtype of the run (auto: float32 on CPU, else bfloat16)",
    )


def _add_import(parser: argparse.ArgumentParser) -> None:
    from jaxvsr.data.importers.formats import FORMATS
    from jaxvsr.data.scannet.benchmark_scenes import BENCHMARKS

    parser.set_defaults(command=_import)
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="a .jsonl, .json or .parquet file, or a folder of them"
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="where videos, scans, image folders and images lie")
    parser.add_argument("--format", choices=("auto", *FORMATS), default="auto", help="default: by the first row")
    parser.add_argument("--map", metavar="OURS=THEIRS,…", help="names of fields, like question=problem,answer=solution")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--heldout", type=float, default=0.1, help="share of rooms held out (default: 0.1)")
    parser.add_argument(
        "--include", action="append", default=[], choices=BENCHMARKS, help="also rows of a benchmark, as held out"
    )
    parser.add_argument(
        "--mirror", action="store_true", help="also the mirrored rows, rewritten by rules; says how many cannot be"
    )


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_show)
    parser.add_argument("out", type=Path, metavar="OUT", help="data folder")
    parser.add_argument("scene", metavar="SCENE")
    parser.add_argument("--scans", type=Path, help="folder of scans (default: OUT)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="default: SCENE.html in the current folder")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_check)
    parser.add_argument("out", type=Path, metavar="OUT", help="a data folder, or a folder of scans")
    parser.add_argument("--label-map", type=Path, help="scannetv2-labels.combined.tsv (default: beside the scans)")
    parser.add_argument("--batches", metavar="CONFIG", help="also how many batches of a training config come a second")


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
    from jaxvsr.data.data_folder import check_can_be_added_to
    from jaxvsr.data.rooms.room_scans import DEFAULT_FRAMES, DEFAULT_SIZE, write_rooms

    start = time.monotonic()
    check_can_be_added_to(arguments.out)
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
    from jaxvsr.data.data_folder import check_can_be_added_to
    from jaxvsr.data.recipes import generate_questions
    from jaxvsr.data.recipes.recipe import load_recipe
    from jaxvsr.data.recipes.unfinished_questions import PARTS_DIR
    from jaxvsr.data.recipes.write_questions import QuestionSet, write_question_set
    from jaxvsr.data.scannet.read_scan import list_scans

    start = time.monotonic()
    _check_split(arguments)
    recipe = load_recipe(arguments.recipe)
    options = replace_fields(recipe.options, arguments.set)
    check_can_be_added_to(arguments.out)
    scans, excluded = generate_questions.without_benchmarks(list_scans(arguments.scans), arguments.include)
    for name, count in excluded.items():
        print(f"left out {count} scans of {name} (--include {name} takes them, as held out)")
    settings = generate_questions.QuestionSettings(arguments.recipe, options, arguments.seed, arguments.mirror)
    asked = generate_questions.shard_of(scans, *arguments.shard) if arguments.shard else scans
    out: Path = arguments.out
    with progress("questions", len(asked)) as on_done:
        report = generate_questions.generate_questions(
            asked, settings, out=out, census_over=scans, workers=arguments.workers, on_done=on_done
        )
    _account_for_broken(report.broken, len(asked), arguments.skip_broken)
    if arguments.shard:
        number, count = arguments.shard
        print(
            f"shard {number}/{count}: {len(asked)} of {len(scans)} scans asked, kept in {out / PARTS_DIR}; when all "
            f"shards are there, the same command without --shard puts them together ({time.monotonic() - start:.1f} s)"
        )
        return 0
    lines = write_question_set(out, QuestionSet(recipe, settings, scans, excluded, arguments.heldout), report)
    print("\n".join(lines).removesuffix(")") + f"; {time.monotonic() - start:.1f} s)")
    return 0


def _frames(arguments: argparse.Namespace) -> int:
    from jaxvsr.data import data_folder
    from jaxvsr.data.questions import read_questions
    from jaxvsr.data.video.frame_writer import FrameSettings, write_frames
    from jaxvsr.data.video.scene_sources import scene_sources

    start = time.monotonic()
    settings = FrameSettings(arguments.frames, arguments.max_pixels, arguments.rule, _frame_rate(arguments))
    out: Path = arguments.out
    data_folder.check_can_be_added_to(out)
    asked = read_questions(out / data_folder.QUESTIONS_FILE) if (out / data_folder.QUESTIONS_FILE).exists() else []
    found = scene_sources(arguments.scans, out, asked)
    index, count = arguments.shard
    mine = found.sources[index - 1 :: count]
    with progress("frames", len(mine)) as on_done:
        report = write_frames(mine, out, settings, workers=arguments.workers, on_done=on_done)
    if report.written or report.kept:
        data_folder.write_card_section(out, "Frames", data_folder.bullets(data_folder.frame_facts(out)))
    print(
        f"frames of {len(report.written)} scans written, of {len(report.kept)} there already, "
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
    from jaxvsr.data.video.frame_sampling import FrameRate

    bounds = {"min_frames": arguments.min_frames, "max_frames": arguments.max_frames}
    given = {name: value for name, value in bounds.items() if value is not None}
    if arguments.fps is None:
        if given:
            raise InputError(f"--{next(iter(given)).replace('_', '-')}: bounds what --fps takes, give that as well")
        if not arguments.frames:
            raise InputError("frames: give --frames N,… or --fps N")
        return None
    return FrameRate(arguments.fps, **given)


def _features(arguments: argparse.Namespace) -> int:
    from jaxvsr.data import data_folder
    from jaxvsr.data.frames import FrameStore
    from jaxvsr.devices.choose_devices import choose_devices
    from jaxvsr.devices.mesh_shape import MeshShape
    from jaxvsr.models.inputs.processor import SceneProcessor
    from jaxvsr.runs.model_source import open_model
    from jaxvsr.training.stored_features import write_features

    start, out = time.monotonic(), arguments.out
    scenes = FrameStore(out).scenes()
    model = open_model(arguments.model, arguments.revision)
    processor = SceneProcessor.from_folder(model.folder.path, max_pixels=arguments.max_pixels)
    (device,) = choose_devices("auto", MeshShape())
    dtype = arguments.dtype
    if dtype == "auto":
        dtype = "float32" if device.platform == "cpu" else "bfloat16"
    with progress("features", len(scenes)) as on_done:
        report = write_features(
            out,
            model,
            processor,
            dtype=dtype,
            counts=arguments.frames,
            views=(False, True) if arguments.mirror else (False,),
            device=device,
            on_done=on_done,
        )
    facts = {"model": model.name, "dtype": dtype, "max_pixels": arguments.max_pixels or "as stored"}
    arrays = report.written + report.kept
    data_folder.write_card_section(out, f"Features: {report.name}", data_folder.bullets({**facts, "arrays": arrays}))
    print(
        f"features {report.name} of {len(scenes)} scenes: {report.written} arrays written, {report.kept} there already "
        f"({time.monotonic() - start:.1f} s)"
    )
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from jaxvsr.data.data_folder import check_can_be_added_to
    from jaxvsr.data.importers.formats import parse_field_map
    from jaxvsr.data.importers.import_questions import ImportSettings, import_questions
    from jaxvsr.data.importers.mirrored_rows import add_mirrored_rows
    from jaxvsr.data.importers.write_import import former_rows, left_out_lines, write_import

    start = time.monotonic()
    _check_split(arguments)
    settings = ImportSettings(
        arguments.source,
        arguments.videos,
        None if arguments.format == "auto" else arguments.format,
        parse_field_map(arguments.map) if arguments.map else {},
        tuple(arguments.include),
    )
    check_can_be_added_to(arguments.out)
    report, pairing = import_questions(settings, arguments.out)
    replaced = former_rows(arguments.out, settings)
    splits = write_import(arguments.out, settings, report, pairing, arguments.heldout, arguments.seed)
    print("\n".join(left_out_lines(report)))
    if replaced:
        print(f"in place of {replaced:,} rows of a former import named {settings.name}; another name keeps both")
    print(
        f"{len(report.questions):,} questions out of {report.source_rows:,} rows of {settings.source} "
        f"imported as {report.format}, about {len({row.scene for row in report.questions}):,} scenes, "
        f"into {arguments.out} "
        f"({len(splits['train'])} train, {len(splits['heldout'])} held out; {time.monotonic() - start:.1f} s)"
    )
    if arguments.mirror:
        mirrored = add_mirrored_rows(arguments.out, settings.name, report.questions, arguments.videos)
        print(f"{len(mirrored.rows):,} mirrored ones; {mirrored.line()}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from jaxvsr.data.data_folder import check_can_be_added_to
    from jaxvsr.files import write_text
    from jaxvsr.report.scene_page import scene_page

    page: Path = arguments.page or Path(f"{arguments.scene}.html")
    check_can_be_added_to(page.parent)
    if page.is_dir():
        raise InputError(f"--page {page}: is a folder; name a file in it")
    written = scene_page(arguments.out, arguments.scene, arguments.scans or arguments.out)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, written)
    print(f"{page} ({len(written) / 1e6:.1f} MB)")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from jaxvsr.data.data_folder import check_folder

    check = check_folder(arguments.out, label_map=arguments.label_map)
    print("\n".join(check.lines))
    if arguments.batches:
        from jaxvsr.measure.batch_speed import batches_a_second

        print(batches_a_second(arguments.out, arguments.batches))
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


def _check_split(arguments: argparse.Namespace) -> None:
    """Before any work is done, rather than when the split is made."""
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: must be at least 0")
    if not 0 <= arguments.heldout < 1:
        raise InputError(f"held-out share {arguments.heldout}: must be at least 0 and below 1")


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    return arguments.command(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and run one command; returns the exit code (2: something given was wrong)."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
