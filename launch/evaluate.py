"""Benchmark scores: of a file of predictions, or of answers that need no model.

    python launch/evaluate.py --score runs/x/predictions.jsonl --benchmark vsi-bench --out scores/x
    python launch/evaluate.py --model chance-frequency --data data/vsi --benchmark vsi-bench --out scores/chance

Writes OUT/scores.json (the official metric, per cent), scores-robust.json (a parser that understands more),
details.json and table.md. Model names without a model: chance-random and chance-frequency (VSI-Bench's rows),
best-constant (one answer a question type, fitted on the training split).
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxvsr.command_line import ArgumentParser, positive_int, run
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.splits import SPLITS, SPLITS_FILE, read_splits
from jaxvsr.errors import InputError
from jaxvsr.evaluation import provenance
from jaxvsr.evaluation.baselines import best_constants, chance_frequency, chance_random, constant_predictions
from jaxvsr.evaluation.benchmarks import BENCHMARKS, evaluate, write_result
from jaxvsr.evaluation.predictions import Prediction, read_predictions, write_predictions
from jaxvsr.rewards.prompts import prompt_from
from jaxvsr.rewards.user_file import function_of_file

MODELS_WITHOUT_WEIGHTS = ("chance-random", "chance-frequency", "best-constant")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="evaluate.py", description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--score", type=Path, metavar="FILE", help="predictions.jsonl, or lmms-eval's sample log")
    source.add_argument("--model", metavar="MODEL", help=", ".join(MODELS_WITHOUT_WEIGHTS))
    parser.add_argument("--benchmark", required=True, choices=BENCHMARKS)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the scores")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="data folder; with --score, to find missing predictions"
    )
    parser.add_argument(
        "--split", choices=(*SPLITS, "all"), help="default: heldout where the folder has splits, else all"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N questions of the split")
    parser.add_argument("--prompt", metavar="NAME|FILE", help="whose extraction applies; default: the predictions' own")
    parser.add_argument(
        "--judge", metavar="FILE.py:fn", help="fn(question, answer, prediction) -> bool, for open-ended"
    )
    return parser


def _questions(folder: Path, split: str | None, limit: int | None) -> list[Question]:
    questions = read_questions(folder / "questions.jsonl")
    if split is None:
        split = "heldout" if (folder / SPLITS_FILE).is_file() else "all"
    if split != "all":
        scenes = set(read_splits(folder)[split])
        questions = [question for question in questions if question.scene in scenes]
    if not questions:
        raise InputError(f"{folder}: no questions in split {split!r}; --split is one of {', '.join((*SPLITS, 'all'))}")
    return questions[:limit]


def _without_weights(arguments: Namespace, questions: Sequence[Question]) -> list[Prediction]:
    if arguments.model == "chance-random":
        return chance_random(questions)
    if arguments.model == "chance-frequency":
        return chance_frequency(questions)
    return constant_predictions(best_constants(_questions(arguments.data, "train", None)), questions)


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.judge and arguments.benchmark != "open-ended":
        raise InputError(f"--judge {arguments.judge}: only --benchmark open-ended has a judge")
    judge = function_of_file(arguments.judge, "judge") if arguments.judge else None
    questions = _questions(arguments.data, arguments.split, arguments.limit) if arguments.data else None
    answer_of: Callable[[str], str] | None = None
    if arguments.score:
        predictions = read_predictions(arguments.score)
        origin = {"predictions": str(arguments.score), **provenance.beside(arguments.score)}
        if arguments.prompt:
            origin |= provenance.of_prompt(prompt_from(arguments.prompt))
        answer_of = provenance.answer_rule(origin)
        if questions is not None:
            asked = {question.id for question in questions}
            predictions = [one for one in predictions if one.question.id in asked]
    else:
        if arguments.model not in MODELS_WITHOUT_WEIGHTS:
            raise InputError(f"--model {arguments.model}: not one of {', '.join(MODELS_WITHOUT_WEIGHTS)}")
        if questions is None:
            raise InputError(f"--model {arguments.model}: needs --data DIR, the questions to answer")
        predictions = _without_weights(arguments, questions)
        origin = {"model": arguments.model, "data": str(arguments.data), "commit": provenance.commit()}
    result = evaluate(arguments.benchmark, predictions, answer_of=answer_of, questions=questions, judge=judge)
    write_result(arguments.out, result, {"benchmark": arguments.benchmark, **origin})
    if not arguments.score:
        write_predictions(arguments.out / "predictions.jsonl", predictions)
    print(result.to_text())
    print(f"\nwritten to {arguments.out}/scores.json")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
