"""The page of a run, and tables and curves over several runs.

    python launch/report.py runs/demo                                     runs/demo/report.html
    python launch/report.py runs/a-* runs/b-* --group-by grpo.beta        summary.md, .csv, .tex; curves.png, .pdf

Runs that differ in nothing but the seed are one group; --group-by names the config field that makes the groups.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.command_line import ArgumentParser, run


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="report.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--group-by", metavar="FIELD", help="a config field, such as grpo.beta")
    parser.add_argument("--metrics", help="metrics of tables and curves: reward/mean,kl,…")
    parser.add_argument("--out", type=Path, default=Path("runs/summary"), help="folder of tables and curves")
    parser.add_argument(
        "--scans", type=Path, action="append", default=[], help="scans behind the data, if they lie elsewhere"
    )
    parser.add_argument("--share-frames", action="store_true", help="put frames of real scans on the page")
    return parser


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    if len(arguments.runs) > 1 or arguments.group_by:
        _summarise(arguments.runs, arguments.group_by, arguments.metrics, arguments.out)
        return 0
    from jaxvsr.report.build import write_report

    print(write_report(arguments.runs[0], arguments.scans, share_frames=arguments.share_frames))
    return 0


def _summarise(runs: Sequence[Path], group_by: str | None, metrics: str | None, out: Path) -> None:
    from jaxvsr.grpo.run_folder import write_text
    from jaxvsr.report.build import read_run
    from jaxvsr.report.curves import draw
    from jaxvsr.report.summary import group_runs, metric_names, summarise, to_csv, to_latex, to_markdown

    loaded = [read_run(path) for path in runs]
    groups = group_runs(loaded, group_by)
    names = metrics.split(",") if metrics else metric_names(loaded)
    summary = summarise(groups, names)
    out.mkdir(parents=True, exist_ok=True)
    for ending, form in ((".md", to_markdown), (".csv", to_csv), (".tex", to_latex)):
        write_text(out / f"summary{ending}", form(summary))
    for ending in (".png", ".pdf"):
        draw(groups, names, out / f"curves{ending}")
    print(to_markdown(summary), end="")
    print(f"{out}: summary.md, summary.csv, summary.tex, curves.png, curves.pdf")


def main(argv: Sequence[str] | None = None) -> int:
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
