"""Benchmark scores: of a model, of a file of predictions, or of answers that need no model.

    python launch/evaluate.py --model runs/x@best --data data/vsi --benchmark vsi-bench --frames 16 --out scores/x
    python launch/evaluate.py --score runs/x/predictions.jsonl --benchmark vsi-bench --out scores/x
    python launch/evaluate.py --model chance-frequency --data data/vsi --benchmark vsi-bench --out scores/chance
    python launch/evaluate.py --model runs/x --checkpoints all --data data/vsi --benchmark vsi-bench --out scores/series

DIR is a data folder, or VSI-Bench as downloaded (parquet and zips). A model answers greedily, the questions of a scene
sharing its video. OUT/predictions.jsonl grows while it does, and a killed evaluation goes on with the same command.

Writes OUT/scores.json (the official metric, per cent), scores-robust.json (a parser that understands more),
details.json and table.md. Model names without a model: chance-random and chance-frequency (VSI-Bench's rows),
best-constant (one answer a question type, fitted on the training split).
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvsr.command_line import ArgumentParser, positive_int, run
from jaxvsr.data.questions import Question
from jaxvsr.data.splits import SPLITS
from jaxvsr.errors import InputError
from jaxvsr.evaluation import provenance
from jaxvsr.evaluation.answering.baselines import (
    MODELS_WITHOUT_WEIGHTS,
    best_constants,
    chance_frequency,
    chance_random,
    constant_predictions,
)
from jaxvsr.evaluation.answering.choose_questions import asked_questions, split_in_words, training_questions
from jaxvsr.evaluation.answering.resumable_predictions import SETTINGS_FILE
from jaxvsr.evaluation.benchmarks import BENCHMARKS, Result, check_out, check_questions, evaluate, write_result
from jaxvsr.evaluation.predictions import Prediction, read_predictions, write_predictions
from jaxvsr.evaluation.tables.text_table import format_number
from jaxvsr.prompts import Prompt, prompt_from
from jaxvsr.rewards.svqa_r1 import MODEL as SENTENCE_MODEL
from jaxvsr.rewards.svqa_r1 import check_model
from jaxvsr.user_functions import function_of_file

if TYPE_CHECKING:
    from jaxvsr.evaluation.answering.answer_questions import AnswerSettings

DEFAULT_PROMPTS = {"vsi-bench": "vsi-bench", "q-spatial": "q-spatial", "open-ended": "question"}
ONLY_WITH_WEIGHTS = (
    *("revision", "checkpoints", "frames", "max_pixels", "blank", "scenes", "questions", "mesh", "device"),
    *("coordinator", "process_id", "process_count"),
)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="evaluate.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--score", type=Path, metavar="FILE", help="predictions.jsonl, or lmms-eval's sample log")
    models = f"Hugging Face folder, hub id, or a run: RUN, RUN@best, RUN@STEP; or {', '.join(MODELS_WITHOUT_WEIGHTS)}"
    source.add_argument("--model", metavar="MODEL", help=models)
    parser.add_argument("--benchmark", required=True, choices=BENCHMARKS)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the scores")
    parser.add_argument(
        "--data",
        type=_folders,
        metavar="DIR,…",
        help="data folders, or VSI-Bench as downloaded; with --score, to find missing predictions",
    )
    parser.add_argument(
        "--split", choices=(*SPLITS, "all"), help="default: heldout where the folder has splits, else all"
    )
    parser.add_argument("--subset", metavar="NAME", help="part of the questions, such as VSI-Bench's debiased")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N questions of the split")
    default = "the benchmark's own for a model, the predictions' own with --score"
    parser.add_argument("--prompt", metavar="NAME|FILE", help=f"default: {default}")
    parser.add_argument(
        "--judge", metavar="FILE.py:fn", help="fn(question, answer, prediction) -> bool, for open-ended"
    )
    sentences = f"of open-ended's similarity, by name or folder; none: without; default {SENTENCE_MODEL}"
    parser.add_argument("--sentence-model", metavar="MODEL", help=sentences)
    model = parser.add_argument_group("a model")
    model.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    model.add_argument("--checkpoints", metavar="STEP,…|all", help="of the run that --model is: the score by step")
    model.add_argument("--frames", type=positive_int, metavar="N", help="frames of a video; default: the stored count")
    model.add_argument("--max-pixels", type=positive_int, metavar="N", help="of a frame; default: as stored")
    model.add_argument("--blank", action="store_true", help="mid-grey frames of the same shape: the control")
    model.add_argument("--scenes", type=positive_int, metavar="N", help="scenes of a batch, default 8")
    model.add_argument(
        "--questions", type=positive_int, metavar="N", help="of a scene together; default: what computes least"
    )
    model.add_argument("--mesh", metavar="SPEC", help="8, or fsdp=4,tensor=2; default: all devices")
    model.add_argument("--device", choices=("auto", "cpu", "gpu", "tpu"), help="kind of device, default auto")
    model.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, with several processes")
    model.add_argument("--process-id", type=int, metavar="I", help="of this process, from 0")
    model.add_argument("--process-count", type=int, metavar="N", help="number of processes")
    return parser


def _folders(text: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in text.split(",") if part)


def _in_words(arguments: Namespace, asked: Sequence[tuple[Path, Question]]) -> str:
    """How many questions, and that they are the held-out ones where nobody asked for a split."""
    held_out = arguments.split is None and "heldout" in split_in_words(arguments.data, None)
    rest = " of the held-out split (--split all asks all)" if held_out else ""
    return f"{len(asked):,} questions{rest}"


def _without_weights(arguments: Namespace, questions: Sequence[Question]) -> list[Prediction]:
    if arguments.model == "chance-random":
        return chance_random(questions)
    if arguments.model == "chance-frequency":
        return chance_frequency(questions)
    return constant_predictions(best_constants(training_questions(arguments.data)), questions)


def _with_weights(
    arguments: Namespace, asked: Sequence[tuple[Path, Question]], prompt: Prompt, score: Callable[..., Result]
) -> None:
    """Answer with a model, or with a run's checkpoints one after another; score and write each."""
    from jaxvsr.devices.choose_devices import join_processes, keep_compiled_programs
    from jaxvsr.evaluation.answering.answer_questions import Answering, AnswerSettings
    from jaxvsr.evaluation.answering.greedy import open_mesh
    from jaxvsr.evaluation.answering.scene_media import Videos, stored_frame_count
    from jaxvsr.evaluation.tables.checkpoint_series import chosen_steps, write_series
    from jaxvsr.runs.model_source import open_model

    videos = Videos(arguments.frames or stored_frame_count(asked), arguments.blank)
    videos.check(asked)
    steps = chosen_steps(arguments.model, arguments.checkpoints) if arguments.checkpoints else None
    names = [arguments.model] if steps is None else [f"{arguments.model}@{step}" for step in steps]
    chosen = open_model(names[0], arguments.revision)
    settings = AnswerSettings(prompt, videos, arguments.max_pixels, arguments.scenes, arguments.questions)
    processes = join_processes(arguments.coordinator, arguments.process_id, arguments.process_count)
    mesh, line = open_mesh(arguments.device or "auto", arguments.mesh, processes)
    is_first = not arguments.process_id

    def say(text: str) -> None:
        if is_first:
            print(text, flush=True)

    say(line)
    say(_in_words(arguments, asked))
    keep_compiled_programs()
    answering = Answering(asked, settings, mesh, arguments.data, say)
    results: dict[int, Result] = {}
    for index, name in enumerate(names):
        out = arguments.out if steps is None else arguments.out / f"step-{steps[index]}"
        chosen = chosen if index == 0 else open_model(name, arguments.revision)
        predictions = answering.predictions(chosen, out)
        if is_first:
            origin = {**_origin(arguments, asked, settings), **provenance.of_model(chosen), "model": name}
            result = score(predictions)
            write_result(out, result, {"benchmark": arguments.benchmark, **origin})
            overall = format_number(result.scores["overall"], 2)
            say(result.to_text() if steps is None else f"step {steps[index]}: overall {overall}")
            results[0 if steps is None else steps[index]] = result
    if is_first and steps is not None:
        say("\n" + write_series(arguments.out, results))


def _chosen(arguments: Namespace) -> dict[str, Any]:
    """Which questions: folders, split (also where it is the usual one), subset and limit if given."""
    chosen = {"data": ",".join(map(str, arguments.data)), "split": split_in_words(arguments.data, arguments.split)}
    given = {name: getattr(arguments, name) for name in ("subset", "limit")}
    return chosen | {name: value for name, value in given.items() if value is not None}


def _origin(arguments: Namespace, asked: Sequence[tuple[Path, Question]], settings: AnswerSettings) -> dict[str, Any]:
    """What stands beside the scores: everything that was chosen."""
    from jaxvsr.evaluation.answering.scene_media import stored_pixels

    origin = {"revision": arguments.revision} if arguments.revision else {}
    origin |= {**_chosen(arguments), **dataclasses.asdict(settings.videos)}
    pixels = [budget for budget in (settings.max_pixels, stored_pixels(asked)) if budget is not None]
    origin["max_pixels"] = min(pixels, default=None)  # of a frame; None: the model folder's own limits
    return {**origin, "decoding": "greedy", **provenance.of_prompt(settings.prompt), "commit": provenance.commit()}


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    check_out(arguments.out)
    if arguments.judge and arguments.benchmark != "open-ended":
        raise InputError(f"--judge {arguments.judge}: only --benchmark open-ended has a judge")
    if arguments.sentence_model and arguments.benchmark != "open-ended":
        raise InputError(f"--sentence-model {arguments.sentence_model}: only --benchmark open-ended compares sentences")
    if arguments.score or arguments.model in MODELS_WITHOUT_WEIGHTS:
        for flag in ONLY_WITH_WEIGHTS:
            if getattr(arguments, flag):
                raise InputError(f"--{flag.replace('_', '-')}: only a --model with weights looks at videos")
    if arguments.model in MODELS_WITHOUT_WEIGHTS:
        if arguments.prompt:
            raise InputError(f"--prompt {arguments.prompt}: {arguments.model} reads no prompt")
        if arguments.benchmark != "vsi-bench":
            raise InputError(f"--model {arguments.model}: answers for --benchmark vsi-bench alone")
    if not arguments.data:
        for flag in ("split", "subset", "limit"):
            if getattr(arguments, flag):
                raise InputError(f"--{flag}: needs --data DIR, the questions that it chooses from")
        if not arguments.score:
            raise InputError(f"--model {arguments.model}: needs --data DIR, the questions to answer")
    asked = None
    if arguments.data:
        asked = asked_questions(arguments.data, split=arguments.split, subset=arguments.subset, limit=arguments.limit)
    questions = None if asked is None else [question for _, question in asked]
    if questions is not None:
        check_questions(arguments.benchmark, questions)
    options = _open_ended_options(arguments)
    score = functools.partial(evaluate, arguments.benchmark, questions=questions, **options)
    if asked is None or arguments.score or arguments.model in MODELS_WITHOUT_WEIGHTS:
        _without_a_model(arguments, asked, score)
    else:
        prompt = prompt_from(arguments.prompt or DEFAULT_PROMPTS[arguments.benchmark])
        _with_weights(arguments, asked, prompt, functools.partial(score, answer_of=prompt.answer))
    if not arguments.process_id:
        print(f"\nwritten to {arguments.out}/{'series' if arguments.checkpoints else 'scores'}.json")
    return 0


def _open_ended_options(arguments: Namespace) -> dict[str, Any]:
    """Judge and sentence model, loaded before anything is answered: what is wrong with them is said now."""
    if arguments.benchmark != "open-ended":
        return {}
    judge = function_of_file(arguments.judge, "judge") if arguments.judge else None
    model = arguments.sentence_model or SENTENCE_MODEL
    if model != "none":
        check_model(model)
    return {"judge": judge, "sentence_model": None if model == "none" else model}


def _without_a_model(
    arguments: Namespace, asked: Sequence[tuple[Path, Question]] | None, score: Callable[..., Result]
) -> None:
    """Score a file of predictions, or answers that need no weights."""
    questions = None if asked is None else [question for _, question in asked]
    answer_of: Callable[[str], str] | None = None
    if arguments.score:
        predictions = read_predictions(arguments.score)
        origin: dict[str, Any] = {"predictions": str(arguments.score), **provenance.beside(arguments.score)}
        if arguments.prompt:
            origin = provenance.read_as(origin, prompt_from(arguments.prompt))
        answer_of = provenance.answer_rule(origin)
        if answer_of is None and arguments.benchmark != "open-ended":
            print(f"{arguments.score}: nothing beside it says how it was asked: completions are read whole (--prompt)")
        if questions is not None:
            wanted = {question.id for question in questions}
            kept = [one for one in predictions if one.question.id in wanted]
            if len(kept) < len(predictions):
                left_out = len(predictions) - len(kept)
                print(f"{arguments.score}: {left_out:,} of {len(predictions):,} predictions answer other questions")
            predictions = kept
        if arguments.data:
            chosen = _chosen(arguments)
            origin = {"data": chosen.pop("data"), **origin, **chosen}
    else:
        assert asked is not None and questions is not None
        print(_in_words(arguments, asked))
        predictions = _without_weights(arguments, questions)
        origin = {"model": arguments.model, **_chosen(arguments), "commit": provenance.commit()}
    if arguments.model == "chance-random":
        result, predictions = _of_drawn_answers(predictions, score)
    else:
        result = score(predictions, answer_of=answer_of)
    write_result(arguments.out, result, {"benchmark": arguments.benchmark, **origin})
    if arguments.model in MODELS_WITHOUT_WEIGHTS:
        (arguments.out / SETTINGS_FILE).unlink(missing_ok=True)  # no model may go on from these answers
        write_predictions(arguments.out / "predictions.jsonl", predictions)
    print(result.to_text())


def _of_drawn_answers(
    predictions: Sequence[Prediction], score: Callable[..., Result]
) -> tuple[Result, list[Prediction]]:
    """The row of random answers, over what was drawn: no number is, and 0 points for one would be no chance level."""
    drawn = [one for one in predictions if one.prediction is not None]
    result = score(drawn, questions=[one.question for one in drawn])
    if len(drawn) == len(predictions):
        return result, drawn
    left_out = len(predictions) - len(drawn)
    note = f"{left_out:,} of {len(predictions):,} questions are left out: nothing is drawn for them (numbers), as in"
    notes = (*result.notes, f"{note} the benchmark's row")
    return dataclasses.replace(result, notes=notes, details={**result.details, "notes": list(notes)}), drawn


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
