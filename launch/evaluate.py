"""Benchmark scores: of a model, of a file of predictions, or of answers that need no model.

    python launch/evaluate.py --model runs/x@best --data data/vsi --benchmark vsi-bench --frames 16 --out scores/x
    python launch/evaluate.py --score runs/x/predictions.jsonl --benchmark vsi-bench --out scores/x
    python launch/evaluate.py --model chance-frequency --data data/vsi --benchmark vsi-bench --out scores/chance

A model answers greedily, the questions of a scene sharing its video. OUT/predictions.jsonl grows while it does, and a
killed evaluation goes on with the same command.

Writes OUT/scores.json (the official metric, per cent), scores-robust.json (a parser that understands more),
details.json and table.md. Model names without a model: chance-random and chance-frequency (VSI-Bench's rows),
best-constant (one answer a question type, fitted on the training split).
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxvsr.command_line import ArgumentParser, positive_int, progress, run
from jaxvsr.data.folder import QUESTIONS_FILE
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.splits import SPLITS, SPLITS_FILE, read_splits
from jaxvsr.errors import InputError
from jaxvsr.evaluation import provenance
from jaxvsr.evaluation.baselines import best_constants, chance_frequency, chance_random, constant_predictions
from jaxvsr.evaluation.benchmarks import BENCHMARKS, evaluate, write_result
from jaxvsr.evaluation.predictions import Prediction, read_predictions, write_predictions
from jaxvsr.evaluation.predictions_log import SETTINGS_FILE, PredictionsLog
from jaxvsr.rewards.prompts import Prompt, prompt_from
from jaxvsr.rewards.user_file import function_of_file

MODELS_WITHOUT_WEIGHTS = ("chance-random", "chance-frequency", "best-constant")
DEFAULT_PROMPTS = {"vsi-bench": "vsi-bench", "q-spatial": "q-spatial", "open-ended": "question"}
SCENES = 8  # of a batch
LINE_SECONDS = 30.0  # between lines about progress where there is no terminal


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="evaluate.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--score", type=Path, metavar="FILE", help="predictions.jsonl, or lmms-eval's sample log")
    models = f"Hugging Face folder, hub id, or a run: RUN, RUN@best, RUN@STEP; or {', '.join(MODELS_WITHOUT_WEIGHTS)}"
    source.add_argument("--model", metavar="MODEL", help=models)
    parser.add_argument("--benchmark", required=True, choices=BENCHMARKS)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the scores")
    parser.add_argument(
        "--data", type=_folders, metavar="DIR,…", help="data folders; with --score, to find missing predictions"
    )
    parser.add_argument(
        "--split", choices=(*SPLITS, "all"), help="default: heldout where the folder has splits, else all"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N questions of the split")
    default = "the benchmark's own for a model, the predictions' own with --score"
    parser.add_argument("--prompt", metavar="NAME|FILE", help=f"default: {default}")
    parser.add_argument(
        "--judge", metavar="FILE.py:fn", help="fn(question, answer, prediction) -> bool, for open-ended"
    )
    model = parser.add_argument_group("a model")
    model.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    model.add_argument("--frames", type=positive_int, metavar="N", help="frames of a video; default: the stored count")
    model.add_argument("--max-pixels", type=positive_int, metavar="N", help="of a frame; default: as stored")
    model.add_argument("--blank", action="store_true", help="mid-grey frames of the same shape: the control")
    model.add_argument("--scenes", type=positive_int, metavar="N", help=f"scenes of a batch, default {SCENES}")
    model.add_argument("--mesh", metavar="SPEC", help="8, or fsdp=4,tensor=2; default: all devices")
    model.add_argument("--device", choices=("auto", "cpu", "gpu", "tpu"), help="kind of device, default auto")
    return parser


def _folders(text: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in text.split(",") if part)


def _questions(folders: Sequence[Path], split: str | None, limit: int | None) -> list[tuple[Path, Question]]:
    """The questions of a split, each with its folder; `limit` counts all folders together."""
    asked = [(folder, question) for folder in folders for question in _of_folder(folder, split)]
    folder_of: dict[str, Path] = {}
    for folder, question in asked:
        if folder_of.setdefault(question.id, folder) != folder:
            raise InputError(
                f"question id {question.id!r} is in {folder_of[question.id]} and in {folder}; evaluate one"
            )
    return asked[:limit]


def _of_folder(folder: Path, split: str | None) -> list[Question]:
    questions = read_questions(folder / QUESTIONS_FILE)
    if split is None:
        split = "heldout" if (folder / SPLITS_FILE).is_file() else "all"
    if split != "all":
        scenes = set(read_splits(folder)[split])
        questions = [question for question in questions if question.scene in scenes]
    if not questions:
        raise InputError(f"{folder}: no questions in split {split!r}; --split is one of {', '.join((*SPLITS, 'all'))}")
    return questions


def _without_weights(arguments: Namespace, questions: Sequence[Question]) -> list[Prediction]:
    if arguments.model == "chance-random":
        return chance_random(questions)
    if arguments.model == "chance-frequency":
        return chance_frequency(questions)
    train = [question for _, question in _questions(arguments.data, "train", None)]
    return constant_predictions(best_constants(train), questions)


def _generated(
    arguments: Namespace, asked: Sequence[tuple[Path, Question]], prompt: Prompt
) -> tuple[list[Prediction], dict[str, Any]]:
    """A model's greedy answers, and what they came from. OUT/predictions.jsonl is written on the way."""
    from jaxvsr.evaluation.generate import GreedyModel, Videos, generate, open_mesh, stored_frame_count, weights_hash
    from jaxvsr.grpo.devices import keep_compiled_programs
    from jaxvsr.grpo.start_model import open_model

    start = time.monotonic()
    videos = Videos(arguments.frames or stored_frame_count(asked), arguments.blank)
    videos.check(asked)
    chosen = open_model(arguments.model, arguments.revision)
    mesh, line = open_mesh(arguments.device or "auto", arguments.mesh)
    print(line, flush=True)
    keep_compiled_programs()
    settings = {
        "weights": weights_hash(chosen),
        "data": [os.path.abspath(folder) for folder in arguments.data],
        **dataclasses.asdict(videos),
        "max_pixels": arguments.max_pixels,
        "prompt": dataclasses.asdict(prompt),
        "platform": mesh.devices.flat[0].platform,
    }
    log = PredictionsLog(arguments.out, settings)
    questions = [question for _, question in asked]
    todo = {question.id for question in log.open_questions(questions)}
    if log.different:
        print(f"{arguments.out}: predictions of other settings ({log.different}) are replaced")
    elif len(todo) < len(questions):
        print(f"{arguments.out}: going on, {len(questions) - len(todo):,} of {len(questions):,} questions are answered")
    if todo:
        model = GreedyModel(chosen, mesh, answer_tokens=prompt.max_answer_tokens, max_pixels=arguments.max_pixels)
        model.program.on_compile = lambda name, bucket: print(f"compiling {name}, bucket {bucket}", flush=True)
        penalty = model.processor.chat.generation.repetition_penalty
        if penalty != 1:
            print(f"note: the model's repetition_penalty {penalty} is not applied")
        last = time.monotonic()
        rest = [(folder, question) for folder, question in asked if question.id in todo]
        with log, progress("answers", len(rest)) as advance:
            for batch in generate(model, prompt, rest, videos, scenes=arguments.scenes or SCENES):
                log.append(batch)
                for one in batch:
                    advance(one)
                if time.monotonic() - last > LINE_SECONDS and not sys.stderr.isatty():
                    last = time.monotonic()
                    print(f"{len(log.answered):,} of {len(questions):,} questions", flush=True)
        seconds = time.monotonic() - start
        print(
            f"{len(rest):,} answers in {seconds:.1f} s, {model.program.seconds:.1f} s of them compiling\n", flush=True
        )
    names = ("model", "revision", "split", "limit", "max_pixels")
    origin = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    origin |= {"data": ",".join(map(str, arguments.data)), **dataclasses.asdict(videos), "decoding": "greedy"}
    return log.finish(questions), {**origin, **provenance.of_prompt(prompt), "commit": provenance.commit()}


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.judge and arguments.benchmark != "open-ended":
        raise InputError(f"--judge {arguments.judge}: only --benchmark open-ended has a judge")
    if arguments.score or arguments.model in MODELS_WITHOUT_WEIGHTS:
        for flag in ("revision", "frames", "max_pixels", "blank", "scenes", "mesh", "device"):
            if getattr(arguments, flag):
                raise InputError(f"--{flag.replace('_', '-')}: only a --model with weights looks at videos")
    judge = function_of_file(arguments.judge, "judge") if arguments.judge else None
    asked = _questions(arguments.data, arguments.split, arguments.limit) if arguments.data else None
    questions = None if asked is None else [question for _, question in asked]
    answer_of: Callable[[str], str] | None = None
    if arguments.score:
        predictions = read_predictions(arguments.score)
        origin: dict[str, Any] = {"predictions": str(arguments.score), **provenance.beside(arguments.score)}
        if arguments.prompt:
            origin |= provenance.of_prompt(prompt_from(arguments.prompt))
        answer_of = provenance.answer_rule(origin)
        if questions is not None:
            wanted = {question.id for question in questions}
            predictions = [one for one in predictions if one.question.id in wanted]
    elif asked is None or questions is None:
        raise InputError(f"--model {arguments.model}: needs --data DIR, the questions to answer")
    elif arguments.model in MODELS_WITHOUT_WEIGHTS:
        predictions = _without_weights(arguments, questions)
        origin = {"model": arguments.model, "data": ",".join(map(str, arguments.data)), "commit": provenance.commit()}
    else:
        prompt = prompt_from(arguments.prompt or DEFAULT_PROMPTS[arguments.benchmark])
        predictions, origin = _generated(arguments, asked, prompt)
        answer_of = prompt.answer
    result = evaluate(arguments.benchmark, predictions, answer_of=answer_of, questions=questions, judge=judge)
    write_result(arguments.out, result, {"benchmark": arguments.benchmark, **origin})
    if arguments.model in MODELS_WITHOUT_WEIGHTS:
        (arguments.out / SETTINGS_FILE).unlink(missing_ok=True)  # no model may go on from these answers
        write_predictions(arguments.out / "predictions.jsonl", predictions)
    print(result.to_text())
    print(f"\nwritten to {arguments.out}/scores.json")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
