"""Figures over several runs, as PNG and PDF: the mean over the runs of a group and the range between them.

Matplotlib draws them, for papers and READMEs; the charts of a page are SVG (charts.py).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvsr.files import replacing
from jaxvsr.report.charts import PALETTE, smoothed
from jaxvsr.report.metric_labels import label, title
from jaxvsr.report.summary import Run


def group_curve(runs: Sequence[Run], metric: str) -> list[tuple[int, float, float, float]]:
    """(step, mean, least, greatest) over the runs, at the steps where all of them have the metric."""
    curves = [
        {int(row["step"]): row[metric] for row in run.metrics if math.isfinite(row.get(metric, math.nan))}
        for run in runs
    ]
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    points = []
    for step in steps:
        values = [curve[step] for curve in curves]
        points.append((step, statistics.fmean(values), min(values), max(values)))
    return points


@dataclasses.dataclass(frozen=True)
class Panel:
    """One chart: a metric, one line per group."""

    metric: str
    groups: Mapping[str, Sequence[Run]]
    title: str = ""  # else what the metric is called


def draw_curves(groups: Mapping[str, Sequence[Run]], metrics: Sequence[str], path: Path) -> None:
    """One panel per metric, one line per group; the format follows the file's ending (`.png`, `.pdf`)."""
    draw_panels([Panel(metric, groups) for metric in metrics], path)


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Panels in rows of three; groups that are the same in all of them are named once."""
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    shared = all(list(panel.groups) == list(panels[0].groups) for panel in panels)
    for index, panel in enumerate(panels):
        _draw_panel(axes[index], panel, legend=index == 0 or not shared)
    for unused in axes[len(panels) :]:
        unused.set_visible(False)
    # The same input gives the same bytes: no time of creation in the file.
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=160, metadata=metadata)


def _draw_panel(axes: Any, panel: Panel, *, legend: bool) -> None:
    for index, (group, runs) in enumerate(panel.groups.items()):
        points = group_curve(runs, panel.metric)
        if not points:
            continue
        steps, mean, least, greatest = (list(column) for column in zip(*points, strict=True))
        window = max(1, len(steps) // 12)
        colour = PALETTE[index % len(PALETTE)]
        axes.plot(steps, smoothed(mean, window), color=colour, linewidth=1.8, label=group)
        if len(runs) > 1:
            axes.fill_between(steps, smoothed(least, window), smoothed(greatest, window), color=colour, alpha=0.15)
    axes.set_title(panel.title or title(panel.metric), fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    if panel.title:
        axes.set_ylabel(label(panel.metric), fontsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if legend and axes.get_lines():
        axes.legend(fontsize=8, frameon=False)
