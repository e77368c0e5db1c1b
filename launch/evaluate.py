"""Benchmark scores of a model, of a file of predictions, or of answers that need no model.

    python launch/evaluate.py --model runs/x@best --data data/vsi --benchmark vsi-bench --frames 16 --out scores/x
    python launch/evaluate.py --score runs/x/predictions.jsonl --benchmark vsi-bench --out scores/x
    python launch/evaluate.py --model chance-frequency --data data/vsi --benchmark vsi-bench --out scores/chance
    python launch/evaluate.py --model runs/x --checkpoints all --data data/vsi --benchmark vsi-bench --out scores/series

DIR is a data folder, or VSI-Bench as downloaded (parquet and zips). A model answers greedily; the questions of a scene
share its video. Answers go to OUT/predictions.jsonl as they come, and the same command resumes a killed evaluation.

Writes OUT/scores.json (the official metric, per cent), scores-lmms-eval.json and scores-robust.json (parsers that
accept more forms of an answer), details.json and table.md. --profile asks as another harness does. Models without
weights: chance-random and chance-frequency (VSI-Bench's rows), and best-constant (one answer per question type, fitted
on the training split).
"""

from __future__ import annotations

from jaxvsr.devices.large_pages import take_large_pages
from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_large_pages()
    take_signals()

import contextlib
import functools
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jaxvsr.buckets.fetching import fetched
from jaxvsr.buckets.places import place as place_of_folder
from jaxvsr.buckets.publishing import published
from jaxvsr.command_line import ArgumentParser, add_process_flags, positive_int, run
from jaxvsr.data.splits import SPLITS
from jaxvsr.data.video.frame_sampling import SamplingRule
from jaxvsr.devices.cluster import Place, place_of_process
from jaxvsr.errors import InputError
from jaxvsr.evaluation.answering.baselines import BASELINES
from jaxvsr.evaluation.answering.choose_questions import choose_questions
from jaxvsr.evaluation.benchmarks import BENCHMARKS
from jaxvsr.evaluation.evaluate_benchmark import Evaluation
from jaxvsr.evaluation.output_folder import check_out
from jaxvsr.evaluation.profiles import PROFILES, Profile, profile_of
from jaxvsr.locks import only_writer
from jaxvsr.models.model_config import VIDEO_PROMPTS
from jaxvsr.rewards.svqa_r1 import MODEL as SENTENCE_MODEL
from jaxvsr.rewards.svqa_r1 import check_model
from jaxvsr.user_functions import function_of_file

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxvsr.evaluation.answering.answer_questions import AnswerSettings
    from jaxvsr.evaluation.answering.choose_questions import ChosenQuestions
    from jaxvsr.runs.trained_as import TrainedAs

DEFAULT_PROMPTS = {"vsi-bench": "vsi-bench", "q-spatial": "q-spatial", "open-ended": "question"}
ONLY_WITH_WEIGHTS = (
    *("revision", "base", "checkpoints", "frames", "fps", "rule", "max_pixels", "min_pixels", "video_prompt", "blank"),
    *("profile", "show_prompt"),
    *("scenes", "questions", "mesh", "device"),
    *("coordinator", "process_id", "process_count"),
)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="evaluate.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--score", type=Path, metavar="FILE", help="predictions.jsonl, or lmms-eval's sample log")
    models = f"Hugging Face folder, hub id, or a run: RUN, RUN@best, RUN@STEP; or {', '.join(BASELINES)}"
    source.add_argument("--model", metavar="MODEL", help=models)
    parser.add_argument("--benchmark", required=True, choices=BENCHMARKS)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the scores")
    parser.add_argument(
        "--data",
        type=_folders,
        metavar="DIR,…",
        help="data folders, or VSI-Bench as downloaded; with --score: the questions that should have been answered",
    )
    parser.add_argument("--split", choices=(*SPLITS, "all"), help="default: heldout if the folder has splits, else all")
    parser.add_argument("--subset", metavar="NAME", help="part of the questions, such as VSI-Bench's debiased")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N questions")
    parser.add_argument(
        "--prompt",
        metavar="NAME|FILE",
        help="default: as the model was trained, else the benchmark's own; with --score: the one recorded beside the "
        "predictions",
    )
    parser.add_argument(
        "--judge", metavar="FILE.py:fn", help="for open-ended: fn(question, answer, prediction) -> bool"
    )
    similarity = f"for open-ended's similarity: name or folder, or none; default {SENTENCE_MODEL}"
    parser.add_argument("--sentence-model", metavar="MODEL", help=similarity)
    model = parser.add_argument_group("a model with weights")
    model.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    model.add_argument(
        "--base", metavar="FOLDER", help="base model of an adapter or a run, where it is not where they say"
    )
    model.add_argument("--checkpoints", metavar="STEP,…|all", help="of the run given by --model: scores by step")
    model.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        help="ask as this harness does: prompt, frames, rule, pixels; flags given beside it win",
    )
    model.add_argument("--frames", type=positive_int, metavar="N", help="per video; default: as trained, or stored")
    model.add_argument("--fps", type=float, metavar="N", help="frames per second instead, of videos as downloaded")
    model.add_argument("--rule", choices=get_args(SamplingRule), help="which frames; default: as trained, or stored")
    model.add_argument("--max-pixels", type=positive_int, metavar="N", help="per frame; default: as trained, or stored")
    model.add_argument(
        "--min-pixels", type=positive_int, metavar="N", help="per frame, beside --max-pixels; default: the model's"
    )
    model.add_argument(
        "--video-prompt", choices=VIDEO_PROMPTS, help="how a video of Qwen3-VL is written; default: as trained"
    )
    model.add_argument("--show-prompt", action="store_true", help="print the first question's tokens, and what each is")
    model.add_argument("--blank", action="store_true", help="as a control: mid-grey frames of the same shape")
    model.add_argument("--scenes", type=positive_int, metavar="N", help="scenes per batch, default 8")
    model.add_argument(
        "--questions", type=positive_int, metavar="N", help="per scene at once; default: what computes least"
    )
    model.add_argument("--mesh", metavar="SPEC", help="8, or fsdp=4,tensor=2; default: all devices")
    model.add_argument("--device", choices=("auto", "cpu", "gpu", "tpu"), help="kind of device, default auto")
    parser.take_buckets("data", "model", "base", "out")
    add_process_flags(model)
    return parser


def _folders(text: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in text.split(",") if part)


def _has_weights(arguments: Namespace) -> bool:
    return arguments.score is None and arguments.model not in BASELINES


def _check(arguments: Namespace) -> None:
    """Flags that need one another or exclude one another."""
    if arguments.judge and arguments.benchmark != "open-ended":
        raise InputError(f"--judge {arguments.judge}: only for --benchmark open-ended")
    if arguments.sentence_model and arguments.benchmark != "open-ended":
        raise InputError(f"--sentence-model {arguments.sentence_model}: only for --benchmark open-ended")
    for flag in () if _has_weights(arguments) else ONLY_WITH_WEIGHTS:
        if getattr(arguments, flag):
            raise InputError(f"--{flag.replace('_', '-')}: only for a --model with weights")
    if arguments.profile and arguments.benchmark != "vsi-bench":
        raise InputError(f"--profile {arguments.profile}: only for --benchmark vsi-bench")
    if arguments.model in BASELINES and arguments.prompt:
        raise InputError(f"--prompt {arguments.prompt}: --model {arguments.model} reads no prompt")
    if arguments.model in BASELINES and arguments.benchmark != "vsi-bench":
        raise InputError(f"--model {arguments.model}: only for --benchmark vsi-bench")
    if arguments.checkpoints and arguments.revision:
        raise InputError(f"--revision {arguments.revision}: only for a hub id; --checkpoints are those of a run")
    if not arguments.data:
        for flag in ("split", "subset", "limit"):
            if getattr(arguments, flag):
                raise InputError(f"--{flag}: needs --data DIR, the questions to choose from")
        if not arguments.score:
            raise InputError(f"--model {arguments.model}: needs --data DIR, the questions to answer")


def _open_ended_options(arguments: Namespace) -> dict[str, Any]:
    """Judge and sentence model, loaded before anything is answered, so that a mistake shows first."""
    if arguments.benchmark != "open-ended":
        return {}
    judge = function_of_file(arguments.judge, "judge") if arguments.judge else None
    model = arguments.sentence_model or SENTENCE_MODEL
    if model != "none":
        check_model(model)
    return {"judge": judge, "sentence_model": None if model == "none" else model}


def _evaluate_model(arguments: Namespace, evaluation: Evaluation, processes: int) -> None:
    from jaxvsr.devices.choose_devices import keep_compiled_programs
    from jaxvsr.devices.mesh import open_mesh
    from jaxvsr.evaluation.answering.answer_questions import Answerer, first_prompt
    from jaxvsr.evaluation.tables.checkpoint_series import chosen_steps
    from jaxvsr.evaluation.tables.text_table import format_number
    from jaxvsr.runs.model_source import open_model
    from jaxvsr.runs.trained_as import trained_as

    chosen, say = evaluation.chosen, evaluation.say
    assert chosen is not None
    looked_at = arguments.profile or arguments.show_prompt
    model = open_model(arguments.model, arguments.revision, arguments.base) if looked_at else None
    profile = profile_of(arguments.profile, model.config.family) if model and arguments.profile else None
    trained = None if profile else trained_as(arguments.model, arguments.revision)
    settings = _settings(arguments, chosen, profile, trained)

    def devices() -> Mesh:
        mesh, line = open_mesh(arguments.device or "auto", arguments.mesh, processes)
        say(line)
        say(chosen.to_text())
        if trained is not None:
            say(f"trained with {trained}")
        if profile is not None:
            say(f"profile {arguments.profile}: {_described(profile, settings)}; from {profile.source}")
        else:
            frames = settings.media.frames
            say(f"asked with prompt {settings.prompt.name}" + ("" if frames is None else f", {frames} frames"))
        keep_compiled_programs()
        return mesh

    if model and arguments.show_prompt:
        say("\n".join(first_prompt(model, settings, chosen.asked)))
    answerer = Answerer(chosen, settings, devices, say)
    if arguments.checkpoints:
        evaluation.of_checkpoints(
            arguments.model, chosen_steps(arguments.model, arguments.checkpoints), answerer, arguments.base
        )
        return
    result = evaluation.of_model(arguments.model, answerer, arguments.revision, arguments.base)
    if result is not None and profile is not None:
        overall = format_number({"official": result.scores, **result.by_parser}[profile.parser]["overall"], 2)
        say(f"\nprofile {arguments.profile}: overall {overall}, {profile.parser} parser")


def _settings(
    arguments: Namespace, chosen: ChosenQuestions, profile: Profile | None, trained: TrainedAs | None
) -> AnswerSettings:
    """How questions are put: as the flags say, else as the profile, else as in training."""
    from jaxvsr.data.video.frame_sampling import FrameRate
    from jaxvsr.evaluation.answering.answer_questions import AnswerSettings
    from jaxvsr.evaluation.answering.scene_media import SceneMedia, has_videos, stored_frame_count
    from jaxvsr.runs.trained_as import prompt_of

    prompt = prompt_of(trained, arguments.prompt, DEFAULT_PROMPTS[arguments.benchmark])
    rate = None if arguments.fps is None else FrameRate(arguments.fps)
    if rate and arguments.frames:
        raise InputError("--fps and --frames: give one of them")
    count, rule = arguments.frames, arguments.rule
    max_pixels, min_pixels = arguments.max_pixels, arguments.min_pixels
    if usual := profile or trained:
        count, rule = count or (usual.frames if has_videos(chosen.asked) else None), rule or usual.rule
        max_pixels = max_pixels or usual.max_pixels
    if profile is not None:
        prompt, min_pixels = prompt if arguments.prompt else profile.prompt, min_pixels or profile.min_pixels
    if min_pixels and min_pixels > (max_pixels or 0):
        raise InputError(f"--min-pixels {min_pixels}: needs a --max-pixels of at least as many")
    media = SceneMedia(
        None if rate else count or stored_frame_count(chosen.asked),
        arguments.blank,
        rule,
        rate,
        profile is not None and profile.seconds_of_length,
    )
    media.check(chosen.asked)
    return AnswerSettings(
        prompt, media, max_pixels, arguments.scenes, arguments.questions, arguments.video_prompt, min_pixels
    )


def _described(profile: Profile, settings: AnswerSettings) -> str:
    """What is set, with what other flags have changed."""
    media, prompt = settings.media, settings.prompt
    frames = "images" if media.frames is None else f"{media.frames} frames by the rule {media.rule}"
    if media.rate is not None:
        frames = f"{media.rate.fps:g} frames per second by the rule {media.rule}"
    least = "" if settings.min_pixels is None else f" and at least {settings.min_pixels:,}"
    said = [frames, f"at most {settings.max_pixels:,}{least} pixels per frame", f"prompt {prompt.name}"]
    said += [f"system line {prompt.system!r}"] if prompt.system else []
    said += ["seconds by the video's length"] if media.seconds_of_length else []
    return ", ".join([*said, f"parser {profile.parser}"])


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    arguments.out = place_of_folder(arguments.out, "written")
    check_out(arguments.out)
    _check(arguments)
    chosen = None
    if arguments.data:
        folders = [fetched(folder) for folder in arguments.data]
        chosen = choose_questions(folders, split=arguments.split, subset=arguments.subset, limit=arguments.limit)
    place = Place()
    if _has_weights(arguments):
        from jaxvsr.devices.joining import join, speak_as

        place = place_of_process(arguments.coordinator, arguments.process_id, arguments.process_count)
        speak_as(place)
        join(place)
    say = functools.partial(print, flush=True)
    options = _open_ended_options(arguments)
    evaluation = Evaluation(arguments.benchmark, arguments.out, chosen, say=say, **options)
    # Of several processes the first writes.
    with contextlib.ExitStack() as writing:
        if place.process == 0:
            writing.enter_context(published(arguments.out))
            writing.enter_context(only_writer(arguments.out))
        if arguments.score:
            evaluation.of_file(arguments.score, arguments.prompt)
        elif arguments.model in BASELINES:
            evaluation.of_baseline(arguments.model)
        else:
            _evaluate_model(arguments, evaluation, place.count)
    say(f"\nwritten to {arguments.out}/{'series' if arguments.checkpoints else 'scores'}.json")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
