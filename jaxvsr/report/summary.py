"""Several runs side by side: mean and spread over seeds, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Mapping, Sequence

from jaxvsr.errors import InputError
from jaxvsr.evaluation.tables.text_table import markdown_table
from jaxvsr.outside_text import csv_cell
from jaxvsr.report.metric_labels import label

# What a table shows unless other metrics are asked for, after those that start with `eval/`.
DEFAULT_METRICS = ("reward/mean", "kl", "completion_length", "seconds/step")
TAIL = 10  # the end of a run is the last tenth of its steps
CAPTION = (
    "Mean ± sample standard deviation over runs. Held-out scores are those of each run's last evaluation, all else is "
    "the mean over the last tenth of its steps."
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: its name, its config as flat fields, and its rows of metrics.jsonl."""

    name: str
    fields: Mapping[str, object]
    metrics: Sequence[Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean over runs, and their sample standard deviation (nan for a single run)."""

    mean: float
    deviation: float
    count: int

    def shown(self, form: str) -> str:
        """`mean ± deviation`, both in this format; only the mean for a single run, a dash for none."""
        if self.count == 0:
            return "–"
        mean = format(self.mean, form)
        return mean if math.isnan(self.deviation) else f"{mean} ± {self.deviation:{form}}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of the finite values."""
    finite = [value for value in values if math.isfinite(value)]
    mean = statistics.fmean(finite) if finite else math.nan
    return Spread(mean, statistics.stdev(finite) if len(finite) > 1 else math.nan, len(finite))


def final_value(metrics: Sequence[Mapping[str, float]], name: str) -> float:
    """A metric at the end of a run: the last value of an evaluation, else the mean over the last tenth of the steps."""
    values = [row[name] for row in metrics if math.isfinite(row.get(name, math.nan))]
    if not values:
        return math.nan
    return values[-1] if name.startswith("eval/") else statistics.fmean(values[-max(1, len(values) // TAIL) :])


def group_runs(runs: Sequence[Run], field: str | None) -> dict[str, list[Run]]:
    """Runs by the value of a config field; without one, runs whose configs differ only in the seed are one group.

    Raises:
        InputError: a run's config has no such field.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if field is None:
            key = repr(sorted((name, value) for name, value in run.fields.items() if name != "seed"))
        elif field in run.fields:
            key = f"{field}={run.fields[field]}"
        else:
            raise InputError(f"--group-by {field}: the config of {run.name} has no such field")
        groups.setdefault(key, []).append(run)
    if field is not None:
        return groups
    more = {key: f" and {len(members) - 1} more" if len(members) > 1 else "" for key, members in groups.items()}
    return {members[0].name + more[key]: members for key, members in groups.items()}


def metric_names(runs: Sequence[Run], wanted: Sequence[str] = ()) -> list[str]:
    """The wanted metrics; without any, every evaluation and the default metrics, as far as a run has them.

    Raises:
        InputError: no run has a metric that is wanted.
    """
    known = dict.fromkeys(name for run in runs for row in run.metrics for name in row if name != "step")
    for name in wanted:
        if name not in known:
            raise InputError(f"--metrics {name}: no run has it; there are {', '.join(sorted(known))}")
    evaluations = [name for name in known if name.startswith("eval/")]
    return list(wanted) or evaluations + [name for name in DEFAULT_METRICS if name in known]


def summarise(groups: Mapping[str, Sequence[Run]], metrics: Sequence[str]) -> dict[str, dict[str, Spread]]:
    """group: metric: spread of the runs' final values."""
    return {
        group: {name: spread([final_value(run.metrics, name) for run in runs]) for name in metrics}
        for group, runs in groups.items()
    }


def to_markdown(summary: Mapping[str, Mapping[str, Spread]]) -> str:
    """One row per group with `mean ± standard deviation` in each cell, the same decimals down a column."""
    return markdown_table(_cells(summary)) + "\n"


def to_csv(summary: Mapping[str, Mapping[str, Spread]]) -> str:
    """One line per group and metric, in full precision, metrics by their names in metrics.jsonl."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", "metric", "mean", "standard_deviation", "runs"])
    for group, values in summary.items():
        for name, value in values.items():
            writer.writerow([csv_cell(group), csv_cell(name), _full(value.mean), _full(value.deviation), value.count])
    return out.getvalue()


def to_latex(summary: Mapping[str, Mapping[str, Spread]]) -> str:
    """A tabular in booktabs style."""
    header, *rows = [" & ".join(map(_latex, cells)) + r" \\" for cells in _cells(summary)]
    columns = "l" + "r" * header.count(" & ")
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _cells(summary: Mapping[str, Mapping[str, Spread]]) -> list[list[str]]:
    """The header, and a row per group."""
    metrics = list(dict.fromkeys(name for values in summary.values() for name in values))
    forms = {name: _form([values[name] for values in summary.values()]) for name in metrics}
    rows = []
    for group, values in summary.items():
        count = max((value.count for value in values.values()), default=0)
        rows.append([group, str(count), *(values[name].shown(forms[name]) for name in metrics)])
    return [["group", "runs", *map(label, metrics)], *rows]


def _form(values: Sequence[Spread]) -> str:
    """The format of a column: one number of decimals, so that its cells compare at a glance."""
    largest = max((abs(value.mean) for value in values if math.isfinite(value.mean)), default=0.0)
    if 0 < largest < 1e-3:
        return ".3g"
    return ".4f" if 0 < largest < 1 else ".2f" if largest < 1000 else ".0f"


def _full(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""


def _latex(cell: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
    }
    special |= {character: "\\" + character for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in cell)
