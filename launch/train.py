"""Train a model on scene trees with GRPO, SFT or DPO.

    python launch/train.py                                              the demo's GRPO recipe (and its data first)
    python launch/train.py --mesh 8                                     the same on eight devices
    python launch/train.py --config configs/vsgrpo-2b.yaml --model Qwen/Qwen2-VL-2B-Instruct --data data/vsi100k
    python launch/train.py --objective sft --set optimizer.learning_rate=1e-4 --steps 200
    python launch/train.py --run-dir runs/mine --resume                 continue where it stopped

Every flag is a field of the config; --set reaches all of them. Ctrl-C, SIGTERM and --time-limit save and stop.
Exit codes: 0 all steps done or time limit reached, 2 something given is wrong, 3 a loss, gradient or weight is not
finite, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

from jaxvsr.devices.large_pages import take_large_pages
from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_large_pages()
    take_signals()

import contextlib
import json
import re
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvsr.buckets.urls import bucket_url
from jaxvsr.command_line import EXIT_NOT_FINITE, ArgumentParser, add_process_flags, run
from jaxvsr.demo_stages import CONFIG as DEMO_CONFIG
from jaxvsr.demo_stages import DATA as DEMO_DATA
from jaxvsr.demo_stages import data_is_there, make_missing_data
from jaxvsr.errors import EndedError, InputError, NotFiniteError
from jaxvsr.files import check_can_be_written, write_text
from jaxvsr.locks import only_writer

if TYPE_CHECKING:
    from jaxvsr.buckets.publishing import Sending
    from jaxvsr.config.train_config import TrainConfig
    from jaxvsr.devices.cluster import Place

LAUNCH = Path(__file__).resolve().parent

# flag: (field of the config, metavar, help)
FIELDS = {
    "--objective": ("objective", "grpo|sft|dpo", "what is minimised"),
    "--model": ("model.path", "MODEL", "Hugging Face folder, hub id, or a run: RUN, RUN@best, RUN@STEP"),
    "--revision": ("model.revision", "NAME", "branch, tag or commit of a hub id"),
    "--base": ("model.base", "FOLDER", "base model of an adapter or a run, where it is not where they say"),
    "--data": ("data.folders", "DIR[:w],…", "data folders, with weights"),
    "--prompt": ("data.prompt", "NAME|FILE", "how a question is put to the model"),
    "--rewards": ("rewards", "[w*]NAME|FILE.py:fn,…", "rewards with weights"),
    "--mesh": ("mesh.spec", "SPEC", "8, or fsdp=4,tensor=2; default: all devices"),
    "--device": ("mesh.device", "auto|cpu|gpu|tpu", "kind of device"),
    "--steps": ("steps", "N", "updates of the policy"),
    "--log": ("logging.trackers", "tensorboard,wandb", "where numbers go besides metrics.jsonl"),
    "--profile": ("logging.profile", "10:13", "a trace of these steps, for XProf and TensorBoard"),
    "--seed": ("seed", "N", "of sampling, data order and fresh adapters"),
    "--time-limit": ("intervals.time_limit", "90s|30m|8h", "save and stop after this time"),
}
# Of a run, or of the devices that are here: a plan for a target has neither.
_NOT_PLANNED = {
    "--device", "--deterministic", "--resume", "--changed-data", "--coordinator", "--process-id", "--process-count",
}  # fmt: skip
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def _parser() -> ArgumentParser:
    from jaxvsr.config.train_config import IN_BUCKETS

    parser = ArgumentParser(prog="train.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="NAME|FILE", help=f"a file, or a recipe of configs/; default {DEMO_CONFIG}")
    parser.add_argument("--set", action="append", default=[], metavar="field=value", help="any field of the config")
    for flag, (field, metavar, text) in FIELDS.items():
        parser.add_argument(flag, dest=field, metavar=metavar, help=f"{text} ({field})")
    parser.add_argument("--deterministic", action="store_true", help="bit for bit on GPU (mesh.deterministic)")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="default: runs/<config>-<date>-<seed>")
    parser.add_argument("--resume", action="store_true", help="continue the run if it is there, else start it")
    parser.add_argument(
        "--changed-data", action="store_true", help="with --resume: go on with other questions, frames or features"
    )
    parser.add_argument("--dry-run", action="store_true", help="compile, print the plan (memory, time) and stop")
    parser.add_argument("--target", metavar="CHIPS", help="with --dry-run: compile for v5p:2x2x1, h100:8, h100:2x8, …")
    parser.add_argument(
        "--shape", metavar="NAME", help="with --target: a published model's shape, without data or weights"
    )
    parser.add_argument(
        "--fit", action="store_true", help="with --target: find the fastest mesh, remat and accumulation that fit"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --target: file for all figures")
    parser.take_buckets("run_dir", "set", *IN_BUCKETS)  # of the config, which knows what it takes
    add_process_flags(parser)
    return parser


def _parse(argv: Sequence[str] | None) -> Namespace:
    """The flags; one that TRL or EasyR1 has is answered with the field that it is here."""
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        from jaxvsr.config.known_names import known_name

        first = unknown[0]
        if not first.startswith("-"):
            named = (
                f"; did you mean --config {first}?" if first.endswith((".yaml", ".yml")) or _is_config(first) else ""
            )
            parser.error(f"unexpected argument {first}{named}")
        ours = known_name(first.lstrip("-").partition("=")[0].replace("-", "_"))
        parser.error(f"unknown flag {first}" + (f": here it is {ours} (--set field=value)" if ours else ""))
    return arguments


def _is_config(name: str) -> bool:
    from jaxvsr.config.config_file import find_config

    try:
        find_config(name)
    except InputError:
        return False
    return True


def _overrides(arguments: Namespace) -> list[tuple[str, str, str]]:
    from jaxvsr.config.config_file import parse_assignment

    overrides = [parse_assignment(text) for text in arguments.set]
    for flag, (field, *_) in FIELDS.items():
        text = getattr(arguments, field)
        if text is not None:
            overrides.append((f"{flag} {text}", field, _seconds(text) if flag == "--time-limit" else text))
    if arguments.deterministic:
        overrides.append(("--deterministic", "mesh.deterministic", "true"))
    return overrides


def _seconds(text: str) -> str:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise InputError(f"--time-limit {text}: expected a time such as 90s, 30m or 8h")
    return str(float(match[1]) * _UNITS[match[2]])


def _config(arguments: Namespace) -> tuple[TrainConfig, Path, Path]:
    """The config, the file it was read from, and the run folder. A resumed run has its own config."""
    from jaxvsr.config.config_file import find_config, read_config
    from jaxvsr.runs.run_folder import RunFolder, default_run_folder

    overrides = _overrides(arguments)
    path = find_config(arguments.config or DEMO_CONFIG)
    config = read_config(path, overrides)
    run_path = arguments.run_dir or default_run_folder(path.stem, config.seed, resume=arguments.resume)
    own = RunFolder(run_path).config
    if arguments.resume and arguments.config is None and own.is_file():
        return read_config(own, overrides), own, run_path
    return config, path, run_path


def _trains_on_demo_data(config: TrainConfig, path: Path) -> bool:
    """Whether this is the demo's recipe with the folder that it names; no other data is ever made here."""
    from jaxvsr.config.config_file import find_config

    return path == find_config(DEMO_CONFIG) and config.data.folders == (str(DEMO_DATA),)


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parse(argv)
    given = _parser().given_flags(arguments)
    if given & {"--target", "--shape", "--json", "--fit"}:
        return _plan_on_target(arguments, given)
    from jaxvsr.devices.cluster import place_of_process
    from jaxvsr.devices.joining import end_together, speak_as

    place = place_of_process(arguments.coordinator, arguments.process_id, arguments.process_count)
    speak_as(place)
    try:
        code = _train_and_send(arguments, place)
    except NotFiniteError:  # in the same step of every process; what is saved has been sent
        if place.count > 1:
            end_together()
        if place.process > 0:
            raise EndedError(EXIT_NOT_FINITE) from None
        raise
    if place.count > 1:
        end_together()
    return code


def _train_and_send(arguments: Namespace, place: Place) -> int:
    from jaxvsr.buckets.places import place as place_of_folder
    from jaxvsr.buckets.publishing import published

    if arguments.run_dir is None or arguments.dry_run:
        return _train(arguments, place, None)
    if place.count > 1 and (url := bucket_url(arguments.run_dir)) is not None:
        return _train_into_bucket(arguments, place, url)
    arguments.run_dir = place_of_folder(arguments.run_dir, "written")
    with published(arguments.run_dir) as sending:
        return _train(arguments, place, sending)


def _train_into_bucket(arguments: Namespace, place: Place, url: str) -> int:
    """A training of several processes whose run is in a bucket: the first writes and sends it, each other has a copy of
    its own of what was there at the start."""
    from jaxvsr.buckets.fetching import bring
    from jaxvsr.buckets.own_folders import own_folder
    from jaxvsr.buckets.places import below
    from jaxvsr.buckets.places import place as place_of_folder
    from jaxvsr.buckets.publishing import published
    from jaxvsr.devices.joining import join, wait_for_all

    join(place)
    if place.process == 0:
        arguments.run_dir = place_of_folder(arguments.run_dir, "written")
        with published(arguments.run_dir) as sending:
            wait_for_all("run folder")  # what is there now is what all go on with
            return _train(arguments, place, sending)
    with own_folder() as own:
        arguments.run_dir = below(own / "run", url)
        wait_for_all("run folder")
        bring(url, arguments.run_dir, empty=True)
        return _train(arguments, place, None)


def _train(arguments: Namespace, place: Place, sending: Sending | None) -> int:
    from jaxvsr.buckets.places import url_at
    from jaxvsr.devices.choose_devices import explain_out_of_memory, keep_compiled_programs
    from jaxvsr.devices.joining import join
    from jaxvsr.devices.mesh import open_mesh
    from jaxvsr.devices.mesh_shape import MeshShape, check_mesh
    from jaxvsr.prompts import prompt_from
    from jaxvsr.runs.run_folder import RunFolder, check_run_folder, note_start
    from jaxvsr.stop_signals import noting
    from jaxvsr.training.stopping import EXIT_CODES, StopRequest, stop_line

    config, path, run_path = _config(arguments)
    stop = StopRequest(config.intervals.time_limit)
    if place.count > 1 and arguments.run_dir is None and not arguments.dry_run:
        raise InputError("--run-dir is missing: several processes have to write into one run folder")
    own_disk = place.count > 1 and url_at(run_path) is not None
    if not own_disk:  # else they have met already
        join(place)
    settings, first_process = config.mesh, place.process == 0
    mesh, line = open_mesh(settings.device, settings.spec, place.count, deterministic=settings.deterministic)
    print(line, flush=True)
    if _trains_on_demo_data(config, path):
        if arguments.dry_run and not data_is_there():
            raise InputError(f"{DEMO_DATA}: the demo's data is not there, and a dry run makes none; `make demo` does")
        check_mesh(MeshShape(**dict(mesh.shape)), scenes=config.data.scenes, accumulation=config.update.accumulation)
        if first_process and not arguments.dry_run:
            check_run_folder(run_path, config, resume=arguments.resume)
        code = make_missing_data(LAUNCH)
        if code:
            raise EndedError(code)
    if arguments.dry_run:
        from jaxvsr.measure.dry_run import plan

        for planned in plan(config, mesh):
            print(planned, flush=True)
        return 0
    cache = keep_compiled_programs()

    from jaxvsr.training.assemble import ready_run
    from jaxvsr.training.heldout import benchmark_score
    from jaxvsr.training.loop import train

    with (
        stop.listening(),
        noting(" before a step was done: nothing new is saved"),
        only_writer(run_path) if first_process else contextlib.nullcontext(),
        explain_out_of_memory(MeshShape(**dict(mesh.shape))),
        ready_run(
            config,
            run_path,
            mesh,
            resume=arguments.resume,
            changed_data=arguments.changed_data,
            cache=cache,
            score_answers=benchmark_score(config.data.prompt),
            own_disk=own_disk,
        ) as ready,
    ):
        if first_process:
            note_start(RunFolder(run_path), line)
        if sending is not None:
            ready.run.checkpoints.after_save = sending.try_to_send
        console = ready.run.console
        console.say(f"run {run_path}, config {path}" + (f", going on after step {ready.first}" if ready.first else ""))
        prompt = prompt_from(config.data.prompt)
        budget = f"{config.sampling.answer_tokens} answer tokens (the prompt's own: {prompt.max_answer_tokens})"
        console.say(f"prompt {prompt.name}, {budget}, answers read by {prompt.extraction}")
        if ready.first >= config.steps:
            console.say(f"all {config.steps} steps are done; --steps asks for more")
        _, reason = train(ready.run, ready.state, stop, first=ready.first)
        if reason != "all steps":
            console.say(stop_line(reason, ready.run.checkpoints.finished(), run_path))
    if first_process and not (ready.first >= config.steps and RunFolder(run_path).report.is_file()):
        from jaxvsr.report.build import write_report

        print(f"report {write_report(run_path)}", flush=True)
    if place.count > 1 and stop.has_left_step:  # alone: the others are told, and end
        raise EndedError(EXIT_CODES[reason])
    return EXIT_CODES[reason]


def _plan_on_target(arguments: Namespace, given: set[str]) -> int:
    """Print what the run needs on chips that are not here, and keep it in --json."""
    if not arguments.dry_run or arguments.target is None:
        raise InputError(
            "--target, --shape, --fit and --json belong together with --dry-run: --dry-run --target v5e:2x2"
        )
    if unused := sorted(given & _NOT_PLANNED):
        of_run = "; a run's own config is --config RUN/config.yaml" if arguments.resume else ""
        raise InputError(f"{', '.join(unused)}: not with --target, which names the chips and runs nothing{of_run}")
    if arguments.json is not None:
        check_can_be_written(arguments.json, "--json")
    from jaxvsr.devices.targets import parse_target, prepare_compiler

    target = parse_target(arguments.target)
    prepare_compiler(target)

    from jaxvsr.measure.fit_search import fit_on_target
    from jaxvsr.measure.target_plan import plan_on_target

    config, results = _config(arguments)[0], dict[str, Any]()
    if arguments.fit and config.mesh.spec:
        raise InputError("--mesh goes without --fit, which finds the mesh")
    for line in (fit_on_target if arguments.fit else plan_on_target)(config, target, arguments.shape, results):
        print(line, flush=True)
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(results, indent=2) + "\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
