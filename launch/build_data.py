"""From scans to a data folder, one command per step.

    python launch/build_data.py rooms data/rooms --scenes 50 --seed 0
    python launch/build_data.py questions data/rooms data/rooms --recipe vsi100k
    python launch/build_data.py frames data/rooms data/rooms --frames 8,16 --max-pixels 12544
    python launch/build_data.py features data/rooms --model rooms-base
    python launch/build_data.py import questions.jsonl data/imported --videos videos
    python launch/build_data.py check data/rooms
    python launch/build_data.py show data/rooms scene0000_00
    python launch/build_data.py video data/rooms/scans/scene0000_00 room.mp4
    python launch/build_data.py tag data/rooms data/rooms-think --tag think
    python launch/build_data.py trim data/rooms --questions 16

SCANS is a folder with ScanNet's layout, `SCANS/scans/<scene>/…` or `SCANS/<scene>/…`; OUT is the data folder. They may
be the same. Every command adds to OUT, and goes on where it was stopped.
"""

from __future__ import annotations

from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_signals()

import argparse
import contextlib
import os
import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from jaxvsr.command_line import (
    ArgumentParser,
    add_process_flags,
    int_list,
    natural_int,
    positive_int,
    run,
    shard,
    share,
)
from jaxvsr.errors import InputError
from jaxvsr.fields import replace_fields
from jaxvsr.progress import progress

if TYPE_CHECKING:
    from jaxvsr.buckets.publishing import Sending
    from jaxvsr.data.recipes.generate_questions import QuestionReport
    from jaxvsr.data.shards import Shard
    from jaxvsr.data.video.frame_sampling import FrameRate

DATA_FOLDER = "data folder, new or existing"


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="build_data.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, purpose: str) -> ArgumentParser:
        return commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")

    _add_rooms(command("rooms", "procedural rooms, written as ScanNet scans"))
    _add_questions(command("questions", "questions and answers from the geometry of scans"))
    _add_frames(command("frames", "uniformly sampled frames at a pixel budget, in TensorStore"))
    _add_features(command("features", "vision features of a frozen tower, once per scene"))
    _add_import(command("import", "published question sets, paired with videos or images"))
    _add_show(command("show", "a page about a scene: frames, plan, every question with its answer"))
    _add_video(command("video", "the frames of a scan, or a folder of images, as an mp4"))
    _add_check(command("check", "what is in a data folder and what is missing"))
    _add_tag(command("tag", "a copy of a data folder with its answers in a thinking mode's tags"))
    _add_trim(command("trim", "take scenes with few questions out of the splits"))
    return parser


def _add_rooms(parser: ArgumentParser) -> None:
    parser.take_buckets("out")
    parser.set_defaults(command=_rooms)
    parser.add_argument("out", type=Path, metavar="OUT", help=DATA_FOLDER)
    parser.add_argument("--scenes", type=positive_int, required=True, metavar="N", help="number of scans; required")
    parser.add_argument("--seed", type=natural_int, default=0, metavar="N", help="of the rooms; default 0")
    parser.add_argument(
        "--frames-per-scan", type=positive_int, metavar="N", help="frames in a scan's .sens; default 16"
    )
    parser.add_argument("--size", type=_size, metavar="WxH", help="pixels of a frame; default 160x120")
    _add_workers(parser)


def _add_questions(parser: ArgumentParser) -> None:
    parser.set_defaults(command=_questions)
    _add_scans_and_out(parser)
    recipes = "vsi100k, spatial-r1, vsi-bench, rooms, rough-rooms, or a .py file with a RECIPE; required"
    parser.add_argument("--recipe", required=True, metavar="NAME|FILE", help=recipes)
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="change a recipe's option")
    _add_split(parser)
    parser.add_argument("--mirror", action="store_true", help="mirrored questions too")
    _add_shard(parser, "scan")


def _add_frames(parser: ArgumentParser) -> None:
    from jaxvsr.data.video.frame_sampling import SamplingRule

    parser.set_defaults(command=_frames)
    _add_scans_and_out(parser)
    parser.add_argument("--frames", type=int_list, default=(), metavar="N,…", help="frame counts, such as 8,16,32")
    parser.add_argument("--fps", type=float, metavar="N", help="frames per second, instead of --frames or besides")
    least = "with --fps; default 4, with linspace none"
    parser.add_argument("--min-frames", type=positive_int, metavar="N", help=least)
    parser.add_argument("--max-frames", type=positive_int, metavar="N", help="with --fps; default 768")
    budget = "pixel budget per frame, such as 100352; required"
    parser.add_argument("--max-pixels", type=positive_int, required=True, metavar="N", help=budget)
    parser.add_argument("--rule", choices=get_args(SamplingRule), default="linspace", help="which; default linspace")
    _add_shard(parser, "scene")


def _add_features(parser: ArgumentParser) -> None:
    parser.take_buckets("out", "model")
    parser.set_defaults(command=_features)
    parser.add_argument("out", type=Path, metavar="OUT", help="data folder with frames")
    models = "the model that a run will start from: folder, hub id or run; required"
    parser.add_argument("--model", required=True, metavar="MODEL", help=models)
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    parser.add_argument("--frames", type=int_list, default=(), metavar="N,…", help="default: all counts stored")
    pixels = "the run's data.max_pixels; default: frames as stored"
    parser.add_argument("--max-pixels", type=positive_int, metavar="N", help=pixels)
    parser.add_argument("--mirror", action="store_true", help="mirrored views too")
    dtypes = ("auto", "float32", "bfloat16")
    parser.add_argument(
        "--dtype", choices=dtypes, default="auto", help="the run's model.dtype; default auto: by device"
    )
    _add_shard(parser, "scene")
    add_process_flags(parser)


def _add_import(parser: ArgumentParser) -> None:
    parser.take_buckets("out", "videos")
    from jaxvsr.data.importers.formats import FORMATS

    parser.set_defaults(command=_import)
    parser.add_argument("source", type=Path, metavar="SRC", help=".jsonl, .json or .parquet file, or a folder of them")
    parser.add_argument("out", type=Path, metavar="OUT", help=DATA_FOLDER)
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder of videos, scans, image folders and images")
    parser.add_argument("--format", choices=("auto", *FORMATS), default="auto", help="default: by the first row")
    parser.add_argument("--map", metavar="OURS=THEIRS,…", help="names of fields: question=problem,answer=solution")
    _add_split(parser)
    parser.add_argument("--mirror", action="store_true", help="mirrored rows too, as far as rules can rewrite them")
    text = "with auto: of a cluster's tasks the first imports, the others end"
    parser.add_argument("--shard", type=shard, metavar="i/n", help=text)


def _add_show(parser: ArgumentParser) -> None:
    parser.take_buckets("out", "scans")
    parser.set_defaults(command=_show)
    parser.add_argument("out", type=Path, metavar="OUT", help="data folder")
    parser.add_argument("scene", metavar="SCENE", help="its name, such as scene0000_00")
    parser.add_argument("--scans", type=Path, metavar="DIR", help="folder of scans; default: OUT")
    parser.add_argument("--page", type=Path, metavar="FILE", help="default: SCENE.html in the current folder")


def _add_video(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_video)
    parser.add_argument("source", type=Path, metavar="SCAN", help="scan, .sens, folder of images, or video")
    parser.add_argument("out", type=Path, metavar="FILE", help="an .mp4; one that is there is replaced")


def _add_check(parser: ArgumentParser) -> None:
    parser.take_buckets("out")
    parser.set_defaults(command=_check)
    parser.add_argument("out", type=Path, metavar="OUT", help="a data folder, or a folder of scans")
    labels = "scannetv2-labels.combined.tsv; default: beside the scans"
    parser.add_argument("--label-map", type=Path, metavar="FILE", help=labels)
    parser.add_argument("--batches", metavar="CONFIG", help="batches of a training config per second, too")


def _add_tag(parser: argparse.ArgumentParser) -> None:
    from jaxvsr.data.tagged_answers import TAGS

    parser.set_defaults(command=_tag)
    parser.add_argument("source", type=Path, metavar="DATA", help="data folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="data folder to write")
    parser.add_argument("--tag", choices=TAGS, required=True, help="tag of the thought; required")


def _add_trim(parser: ArgumentParser) -> None:
    parser.take_buckets("out")
    parser.set_defaults(command=_trim)
    parser.add_argument("out", type=Path, metavar="DATA", help="data folder; its splits.json is rewritten")
    parser.add_argument("--questions", type=positive_int, required=True, metavar="N", help="fewest per scene; required")


def _add_scans_and_out(parser: ArgumentParser) -> None:
    parser.take_buckets("scans", "out")
    parser.add_argument("scans", type=Path, metavar="SCANS", help="folder of scans; of videos for frames")
    parser.add_argument("out", type=Path, metavar="OUT", help=DATA_FOLDER)
    parser.add_argument("--skip-broken", action="store_true", help="skip scans that cannot be read")
    _add_workers(parser)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    text = "processes; default: all cores"
    parser.add_argument("--workers", type=positive_int, default=os.cpu_count(), metavar="N", help=text)


def _add_split(parser: argparse.ArgumentParser) -> None:
    from jaxvsr.data.scannet.benchmark_scenes import BENCHMARKS

    parser.add_argument("--seed", type=natural_int, default=0, metavar="N", help="of choices and the split; default 0")
    text = "share of rooms held out; default 0.1"
    parser.add_argument("--heldout", type=share, default=0.1, metavar="SHARE", help=text)
    text = "take a benchmark's scenes too, as held out; repeatable"
    parser.add_argument("--include", action="append", default=[], choices=BENCHMARKS, help=text)


def _add_shard(parser: argparse.ArgumentParser, thing: str) -> None:
    text = f"only every n-th {thing}, from the i-th; auto or auto/N: as the cluster numbers its tasks; default: all"
    parser.add_argument("--shard", type=shard, metavar="i/n", help=text)


def _shard(arguments: argparse.Namespace) -> Shard | None:
    """The share that this process takes; None: all."""
    from jaxvsr.data.shards import Shard
    from jaxvsr.devices.cluster import share_of_task

    if arguments.shard is None:
        return None
    index, count = arguments.shard
    return Shard(index, count) if index is not None else Shard(*share_of_task(count), by_cluster=True)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 160x120, found {text!r}")
    return int(width), int(height)


def _rooms(arguments: argparse.Namespace) -> int:
    from jaxvsr.data.data_folder import adding_to
    from jaxvsr.data.rooms.room_scans import DEFAULT_FRAMES, DEFAULT_SIZE, write_rooms

    start = time.monotonic()
    with adding_to(arguments.out), progress("rooms", arguments.scenes) as on_scene:
        names = write_rooms(
            arguments.out,
            scenes=arguments.scenes,
            seed=arguments.seed,
            workers=arguments.workers,
            frames=arguments.frames_per_scan or DEFAULT_FRAMES,
            size=arguments.size or DEFAULT_SIZE,
            on_scene=on_scene,
        )
    return _done([f"{len(names)} rooms in {arguments.out / 'scans'}"], start)


def _questions(arguments: argparse.Namespace) -> int:
    from jaxvsr.buckets.scans_in_buckets import listed
    from jaxvsr.data.data_folder import adding_to
    from jaxvsr.data.recipes.generate_questions import QuestionSettings, generate_questions, without_benchmarks
    from jaxvsr.data.recipes.recipe import load_recipe
    from jaxvsr.data.recipes.shared_questions import SharedQuestions
    from jaxvsr.data.recipes.write_questions import QuestionSet, shard_line, write_question_set
    from jaxvsr.data.scannet.read_scan import list_scans
    from jaxvsr.data.shards import lacking_line

    start = time.monotonic()
    recipe = load_recipe(arguments.recipe)
    options = replace_fields(recipe.options, arguments.set)
    shard = _shard(arguments)
    described = (".txt", ".aggregation.json")  # which scans are procedural, and what all of them have
    with listed(arguments.scans, described) as root, adding_to(arguments.out, shared=shard is not None) as sending:
        scans, left_out = without_benchmarks(list_scans(root), arguments.include)
        for benchmark, count in left_out.items():
            print(f"left out {count} scans of {benchmark} (--include {benchmark} takes them, as held out)")
        settings = QuestionSettings(arguments.recipe, options, arguments.seed, arguments.mirror)
        question_set = QuestionSet(recipe, settings, scans, left_out, arguments.heldout)

        def ask(asked: Sequence[Path]) -> QuestionReport:
            with progress("questions", len(asked)) as on_done:
                report = generate_questions(
                    asked,
                    settings,
                    out=arguments.out,
                    census_over=scans,
                    workers=arguments.workers,
                    on_done=_sending(sending, on_done),
                )
            _account_for_broken(report.broken, len(asked), arguments.skip_broken)
            return report

        if shard is None:
            return _done(write_question_set(arguments.out, question_set, ask(scans)), start)
        share = shard.of(scans)
        if not shard.by_cluster:
            ask(share)
            return _done([shard_line(arguments.out, shard, len(share), len(scans))], start)
        shared = SharedQuestions(arguments.out, question_set, shard)
        if shared.are_together():
            return _done([f"shard {shard}: all are in {arguments.out} already"], start)
        ask(share)
        line = f"shard {shard}: {len(share)} of {len(scans)} scans asked"
        with shared.alone():
            if shared.are_together():
                return _done([f"{line}; another task has put all together"], start)
            if lacking := shared.lacking():
                return _done([f"{line}; {lacking_line(lacking, shard.count, 'scans')}"], start)
            report = ask(scans)
            with shared.recorded():
                lines = write_question_set(arguments.out, question_set, report)
        return _done([f"{line}, the last: put together", *lines], start)


def _frames(arguments: argparse.Namespace) -> int:
    from jaxvsr.buckets.scans_in_buckets import listed
    from jaxvsr.data.data_folder import adding_to, questions_in, write_frames_section
    from jaxvsr.data.video.frame_writer import FrameSettings, has_frames, write_frames
    from jaxvsr.data.video.scene_sources import scene_sources

    start = time.monotonic()
    settings = FrameSettings(arguments.frames, arguments.max_pixels, arguments.rule, _frame_rate(arguments))
    shard = _shard(arguments)
    with listed(arguments.scans) as root, adding_to(arguments.out, shared=shard is not None) as sending:
        found = scene_sources(root, arguments.out, questions_in(arguments.out))
        sources = found.sources if shard is None else shard.of(found.sources)
        with progress("frames", len(sources)) as on_done:
            report = write_frames(
                sources, arguments.out, settings, workers=arguments.workers, on_done=_sending(sending, on_done)
            )
        if report.written or report.kept:
            write_frames_section(arguments.out)
        lines = [*found.lines(root), *report.lines()]
        if shard is not None and shard.by_cluster:
            lacking = shard.lacking(found.sources, lambda source: has_frames(arguments.out, source, settings))
            lines.append(_shard_line(shard, lacking))
        _done(lines, start)
        _account_for_broken(report.broken, len(sources), arguments.skip_broken)
        return 0


def _sending(sending: Sending | None, on_done: Callable[[str], object]) -> Callable[[str], None]:
    """`on_done`; into a bucket, what is there by then is sent now and then."""

    def sent(scene: str) -> None:
        on_done(scene)
        if sending is not None:
            sending.send_now_and_then()

    return sent


def _shard_line(shard: Shard, lacking: dict[int, int]) -> str:
    """What a task of a cluster says at its end about all."""
    from jaxvsr.data.shards import lacking_line

    rest = lacking_line(lacking, shard.count, "scenes") if lacking else "the others are done too"
    return f"shard {shard} is done; {rest}"


def _frame_rate(arguments: argparse.Namespace) -> FrameRate | None:
    from jaxvsr.data.video.frame_sampling import FrameRate

    bounds = {"min_frames": arguments.min_frames, "max_frames": arguments.max_frames}
    given = {name: value for name, value in bounds.items() if value is not None}
    if arguments.fps is not None:
        return FrameRate(arguments.fps, **given)
    if given:
        raise InputError(f"--{next(iter(given)).replace('_', '-')}: bounds what --fps takes; give --fps as well")
    if not arguments.frames:
        raise InputError("frames: give --frames N,… or --fps N")
    return None


def _features(arguments: argparse.Namespace) -> int:
    from jaxvsr.data.data_folder import adding_to
    from jaxvsr.data.features import FeatureStore, write_features_section
    from jaxvsr.data.frames import FrameStore
    from jaxvsr.devices.choose_devices import choose_devices
    from jaxvsr.devices.cluster import Place, place_of_process
    from jaxvsr.devices.joining import join, speak_as
    from jaxvsr.devices.processes import sum_of_processes
    from jaxvsr.models.inputs.processor import SceneProcessor
    from jaxvsr.models.model_config import compute_dtype
    from jaxvsr.runs.model_source import open_model
    from jaxvsr.training.stored_features import write_features

    start = time.monotonic()
    shard, flags = _shard(arguments), (arguments.coordinator, arguments.process_id, arguments.process_count)
    if shard is not None and flags != (None, None, None):
        raise InputError("--shard: each share is done alone; leave --coordinator, --process-id and --process-count out")
    place = Place() if shard is not None else place_of_process(*flags)
    speak_as(place)
    join(place)
    with adding_to(arguments.out, shared=shard is not None or place.count > 1) as sending:
        found = FrameStore(arguments.out)
        scenes = found.scenes() if shard is None else shard.of(found.scenes())
        model = open_model(arguments.model, arguments.revision)
        processor = SceneProcessor.from_folder(model.folder.path, max_pixels=arguments.max_pixels)
        devices = choose_devices("auto", None, processes=place.count)
        device = next(one for one in devices if one.process_index == place.process)
        dtype = compute_dtype(arguments.dtype, device.platform)
        views = (False, True) if arguments.mirror else (False,)
        with progress("features", len(scenes)) as on_done:
            report = write_features(
                arguments.out,
                model,
                processor,
                dtype=dtype,
                counts=arguments.frames,
                views=views,
                scenes=scenes,
                device=device,
                on_done=_sending(sending, on_done),
            )
        if sending is not None:
            sending.send()
            sum_of_processes(0)  # all have sent theirs
        if place.process == 0:
            write_features_section(arguments.out, report.name, model.name, dtype, arguments.max_pixels)
        counts = f"{report.written} arrays written, {report.kept} there already"
        lines = [f"features {report.name} of {len(scenes)} scenes: {counts}"]
        if shard is not None and shard.by_cluster:
            store = FeatureStore(arguments.out, report.name)
            lines.append(
                _shard_line(
                    shard,
                    shard.lacking(
                        found.scenes(),
                        lambda scene: all(
                            store.has(scene, count, mirrored=mirrored)
                            for count in arguments.frames or found.counts(scene)
                            for mirrored in views
                        ),
                    ),
                )
            )
        return _done(lines, start)


def _import(arguments: argparse.Namespace) -> int:
    from jaxvsr.buckets.scans_in_buckets import listed
    from jaxvsr.data.data_folder import adding_to
    from jaxvsr.data.importers.formats import parse_field_map
    from jaxvsr.data.importers.import_questions import ImportSettings, import_questions
    from jaxvsr.data.importers.mirrored_rows import add_mirrored_rows
    from jaxvsr.data.importers.write_import import write_import

    start, shard = time.monotonic(), _shard(arguments)
    if shard is not None and shard.index > 1:
        return _done([f"shard {shard}: nothing to do, the first imports all: it compares all rows"], start)
    with contextlib.ExitStack() as inside:
        settings = ImportSettings(
            arguments.source,
            arguments.videos and inside.enter_context(listed(arguments.videos, (".txt",))),
            None if arguments.format == "auto" else arguments.format,
            parse_field_map(arguments.map) if arguments.map else {},
            tuple(arguments.include),
        )
        inside.enter_context(adding_to(arguments.out))
        report, pairing = import_questions(settings, arguments.out)
        _done(write_import(arguments.out, settings, report, pairing, arguments.heldout, arguments.seed), start)
        if arguments.mirror:
            mirrored = add_mirrored_rows(arguments.out, settings.name, report.questions, settings.videos)
            print(f"{len(mirrored.rows):,} mirrored ones; {mirrored.line()}")
    return 0


def _tag(arguments: argparse.Namespace) -> int:
    from jaxvsr.data.tagged_answers import write_tagged
    from jaxvsr.models.tiny.tiny_text import CATEGORIES

    count = write_tagged(arguments.source, arguments.out, arguments.tag, CATEGORIES)
    print(f"{count:,} answers in tags in {arguments.out}")
    return 0


def _trim(arguments: argparse.Namespace) -> int:
    from jaxvsr.buckets.places import url_at
    from jaxvsr.data.data_folder import adding_to
    from jaxvsr.data.trimmed_splits import keep_scenes_with_questions

    if url_at(arguments.out) is None and not arguments.out.is_dir():
        raise InputError(f"{arguments.out}: no such data folder")
    with adding_to(arguments.out):
        changed = keep_scenes_with_questions(arguments.out, arguments.questions)
    for split, (kept, out) in changed.items():
        print(f"{split}: {kept} scenes with {arguments.questions} questions or more, {out} with fewer taken out")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from jaxvsr.buckets.fetching import fetched
    from jaxvsr.buckets.scans_in_buckets import listed
    from jaxvsr.data.data_folder import check_can_be_added_to
    from jaxvsr.files import write_text
    from jaxvsr.report.scene_page import scene_page

    page: Path = arguments.page or Path(f"{arguments.scene}.html")
    check_can_be_added_to(page.parent)
    if page.is_dir():
        raise InputError(f"--page {page}: is a folder; name a file in it")
    data = fetched(arguments.out)
    with listed(arguments.scans or data, (".txt",)) as scans:
        written = scene_page(data, arguments.scene, scans)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, written)
    print(f"{page} ({len(written) / 1e6:.1f} MB)")
    return 0


def _video(arguments: argparse.Namespace) -> int:
    from jaxvsr.data.data_folder import check_can_be_added_to
    from jaxvsr.data.video.video_sources import open_video
    from jaxvsr.data.video.write_mp4 import write_mp4

    out: Path = arguments.out
    if out.suffix != ".mp4" or out.is_dir():
        raise InputError(f"{out}: expected the name of a file that ends in .mp4")
    check_can_be_added_to(out.parent)
    source = open_video(arguments.source)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(source, out)
    print(f"{out}: {len(source):,} frames, {out.stat().st_size / 1e6:.1f} MB")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from jaxvsr.buckets.fetching import fetched
    from jaxvsr.buckets.scans_in_buckets import listed
    from jaxvsr.data.data_folder import check_folder, is_data_folder

    with listed(arguments.out, (".txt", ".tsv")) as there:  # scans are not brought all at once
        data = fetched(arguments.out) if is_data_folder(there) else there
        check = check_folder(data, label_map=arguments.label_map)
    print("\n".join(check.lines))
    if arguments.batches:
        from jaxvsr.measure.batch_speed import batches_per_second

        print(batches_per_second(data, arguments.batches))
    print("\n".join(f"missing: {line}" for line in check.missing) or "nothing is missing")
    return 1 if check.missing else 0


def _done(lines: Sequence[str], start: float) -> int:
    """Print the lines, the last one with the seconds since `start`; returns the exit code 0."""
    print("\n".join(lines) + f" ({time.monotonic() - start:.1f} s)")
    return 0


def _account_for_broken(broken: Mapping[str, str], scans: int, skip: bool) -> None:
    """Print every broken scan; without `--skip-broken` they end the command."""
    for scene, reason in broken.items():
        print(f"broken: {scene}: {reason}")
    if broken and not skip:
        scene, reason = next(iter(broken.items()))
        raise InputError(
            f"{len(broken)} of {scans} scans cannot be read, the first is {scene} ({reason}); "
            "fix them, or skip them with --skip-broken"
        )


def _command(argv: Sequence[str] | None) -> int:
    from jaxvsr.buckets.own_folders import own_folder
    from jaxvsr.buckets.places import below, place
    from jaxvsr.buckets.urls import bucket_url

    arguments = _parser().parse_args(argv)
    if arguments.command not in (_rooms, _questions, _frames, _features, _import, _trim):
        return arguments.command(arguments)
    url = bucket_url(arguments.out)
    if url is None or (arguments.command is not _features and getattr(arguments, "shard", None) is None):
        arguments.out = place(arguments.out, "written")
        return arguments.command(arguments)
    with own_folder() as own:  # others of this machine may write for the same folder
        arguments.out = below(own / "out", url)
        return arguments.command(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and run one command; returns the exit code (2: something given was wrong)."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
