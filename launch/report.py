"""The page of a run, and tables and curves over several runs.

    python launch/report.py runs/demo                                     runs/demo/report.html
    python launch/report.py runs                                          runs/index.html: all runs in it
    python launch/report.py runs/demo --compare start=scores/start after=scores/after
                                                                          with a table of scores on it
    python launch/report.py runs/a-* runs/b-* --group-by grpo.beta        summary.md, .csv, .tex; curves.png, .pdf
    python launch/report.py --answers start=scores/start after=scores/after --out runs/answers
                                                                          answers.html, .csv: side by side

Runs that differ only in the seed are one group; --group-by groups by a config field instead. --compare and --answers
take folders that evaluate.py wrote. --compare gives the differences of the last of them to each of the others, and to
the constant answers that are best on the run's training questions (each once, without mirror images).
"""

from __future__ import annotations

from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_signals()

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.command_line import ArgumentParser, run
from jaxvsr.errors import InputError


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="report.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders, or one folder of runs")
    parser.add_argument("--group-by", metavar="FIELD", help="a config field, such as grpo.beta")
    parser.add_argument("--metrics", help="metrics of tables and curves: reward/mean,kl,…")
    parser.add_argument("--out", type=Path, default=Path("runs/summary"), help="folder of tables, curves and answers")
    parser.add_argument(
        "--scans", type=Path, action="append", default=[], help="folder of scans, if they are not in the data folder"
    )
    parser.add_argument("--compare", nargs="+", metavar="NAME=DIR", help="folders of evaluate.py, trained model last")
    parser.add_argument("--answers", nargs="+", metavar="NAME=DIR", help="folders of evaluate.py: answers side by side")
    parser.add_argument("--share-frames", action="store_true", help="put frames of real scans on the page")
    return parser


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    from jaxvsr.evaluation.output_folder import check_out

    check_out(arguments.out)
    if arguments.answers:
        if arguments.runs:
            raise InputError(f"--answers {arguments.answers[0]}: takes no runs, found {arguments.runs[0]}")
        _side_by_side(arguments.answers, arguments.out)
        return 0
    if not arguments.runs:
        _parser().error("expected RUN…, or --answers NAME=DIR NAME=DIR")
    if len(arguments.runs) > 1 or arguments.group_by:
        if arguments.compare:
            raise InputError(f"--compare {arguments.compare[0]}: needs exactly one run, found {len(arguments.runs)}")
        _summarise(arguments.runs, arguments.group_by, arguments.metrics, arguments.out)
        return 0
    from jaxvsr.report.build import write_report
    from jaxvsr.report.index_page import runs_in, write_index

    if runs_in(arguments.runs[0]) and not arguments.compare:
        print(write_index(arguments.runs[0]))
        return 0
    if arguments.compare:
        _compare(arguments.runs[0], arguments.compare)
    print(write_report(arguments.runs[0], arguments.scans, share_frames=arguments.share_frames))
    return 0


def _compare(run_path: Path, named: Sequence[str]) -> None:
    """Write RUN/comparison.json from predictions.jsonl of several models, and print it."""
    from jaxvsr.buckets.fetching import fetched
    from jaxvsr.evaluation.answering.baselines import best_constants
    from jaxvsr.evaluation.answering.choose_questions import training_questions
    from jaxvsr.evaluation.provenance import read_answers
    from jaxvsr.evaluation.tables.comparison import CONSTANT, compare_predictions
    from jaxvsr.files import write_text
    from jaxvsr.report.build import COMPARISON
    from jaxvsr.runs.run_folder import RunFolder

    folders = _named_folders("--compare", named)
    data = RunFolder(run_path).read_config().data
    training = training_questions([fetched(folder) for folder, _ in data.weighted_folders()], data.split)
    last = list(folders)[-1]
    comparison = compare_predictions(
        {name: read_answers(folder / "predictions.jsonl") for name, folder in folders.items()},
        constants=best_constants(training),
        differences=[(last, name) for name in (*list(folders)[:-1], CONSTANT)],
    )
    write_text(run_path / COMPARISON, json.dumps(comparison.to_json(), indent=1) + "\n")
    print(comparison.to_text())


def _named_folders(flag: str, named: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in named:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder) or name in folders:
            raise InputError(f"{flag} {text!r}: expected NAME=DIR, each name once")
        folders[name] = Path(folder)
    return folders


def _side_by_side(named: Sequence[str], out: Path) -> None:
    """Write the answers of several models to the questions that all of them were asked."""
    from jaxvsr.evaluation.metrics.vsi_bench_scores import score_vsi_bench
    from jaxvsr.evaluation.predictions import read_predictions
    from jaxvsr.evaluation.provenance import read_answers
    from jaxvsr.files import write_text
    from jaxvsr.report.answers_page import AnsweredQuestion, answers_csv, answers_html

    folders = _named_folders("--answers", named)
    if len(folders) < 2:
        raise InputError(f"--answers {named[0]}: expected at least two folders")
    answered = {}
    for name, folder in folders.items():
        path = folder / "predictions.jsonl"
        scores = score_vsi_bench(read_answers(path)).per_question
        rows = zip(read_predictions(path), map(float, scores), strict=True)
        answered[name] = {prediction.question.id: (prediction, value) for prediction, value in rows}
    first, *_ = answered.values()
    shared = [key for key in first if all(key in one for one in answered.values())]
    if not shared:
        raise InputError(f"--answers: {' and '.join(folders)} have no question in common")
    questions = []
    for key in shared:
        predictions, values = zip(*(one[key] for one in answered.values()), strict=True)
        questions.append(AnsweredQuestion(predictions[0].question, [one.prediction for one in predictions], values))
    for name, one in answered.items():
        if len(one) > len(shared):
            print(f"{name}: {len(one) - len(shared):,} of {len(one):,} answers left out: questions not asked of all")
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "answers.csv", answers_csv(list(folders), questions))
    write_text(out / "answers.html", answers_html(list(folders), questions))
    print(f"{out}: answers.html, answers.csv, {len(questions):,} questions")


def _summarise(runs: Sequence[Path], group_by: str | None, metrics: str | None, out: Path) -> None:
    from jaxvsr.files import write_text
    from jaxvsr.report import summary as tables
    from jaxvsr.report.build import read_run
    from jaxvsr.report.curves import draw_curves

    loaded = [read_run(path) for path in runs]
    groups = tables.group_runs(loaded, group_by)
    names = tables.metric_names(loaded, metrics.split(",") if metrics else ())
    summary = tables.summarise(groups, names)
    out.mkdir(parents=True, exist_ok=True)
    markdown = f"{tables.to_markdown(summary)}\n{tables.CAPTION}\n"
    latex = f"% {tables.CAPTION}\n% \\usepackage{{booktabs}}\n{tables.to_latex(summary)}"
    texts = {".md": markdown, ".csv": tables.to_csv(summary), ".tex": latex}
    for ending, text in texts.items():
        write_text(out / f"summary{ending}", text)
    for ending in (".png", ".pdf"):
        draw_curves(groups, names, out / f"curves{ending}")
    print(markdown)
    print(f"{out}: summary.md, summary.csv, summary.tex, curves.png, curves.pdf")


def main(argv: Sequence[str] | None = None) -> int:
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
