"""Curves of several runs as PNG and PDF: the mean over the runs of a group, and the range between them."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxvsr.report.charts import PALETTE, smoothed
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


def draw(groups: Mapping[str, Sequence[Run]], metrics: Sequence[str], path: Path) -> None:
    """One panel a metric, one line a group; the format follows the file's ending (`.png`, `.pdf`)."""
    from matplotlib.figure import Figure

    columns = min(3, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, metric in zip(panels, metrics, strict=False):
        for index, (group, runs) in enumerate(groups.items()):
            points = group_curve(runs, metric)
            if not points:
                continue
            steps, mean, least, greatest = (list(column) for column in zip(*points, strict=True))
            window = max(1, len(steps) // 12)
            colour = PALETTE[index % len(PALETTE)]
            panel.plot(steps, smoothed(mean, window), color=colour, linewidth=1.8, label=group)
            if len(runs) > 1:
                panel.fill_between(steps, smoothed(least, window), smoothed(greatest, window), color=colour, alpha=0.15)
        panel.set_title(metric, fontsize=10)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    panels[0].legend(fontsize=8, frameon=False)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    # The same input gives the same bytes: no time of creation in the file.
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
    figure.savefig(partial, dpi=160, metadata=metadata)
    os.replace(partial, path)
