"""The page of a run: one self-contained HTML file with curves, scores, and answers beside what the model saw."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from jaxvsr.report.charts import Curve, line_chart
from jaxvsr.report.metric_labels import label, name_in_legend, title
from jaxvsr.report.rendering import number, render
from jaxvsr.report.run_rows import HackedRollout, SampledQuestion
from jaxvsr.report.score_table import score_table

Metrics = Sequence[Mapping[str, float]]  # rows of metrics.jsonl


@dataclasses.dataclass(frozen=True)
class BeforeAfter:
    """One question with its rollouts at the start of the run and at its end, and the room's plan as SVG."""

    before: SampledQuestion
    after: SampledQuestion
    plan: str | None = None


@dataclasses.dataclass(frozen=True)
class Page:
    """What the page of a run shows. Everything but name and metrics may be missing: its section is left out."""

    name: str
    metrics: Metrics
    config_text: str = ""  # config.yaml as it is in the run folder
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # shown under the title, in this order
    scores: Sequence[Mapping[str, Any]] = ()  # rows of comparison.json
    before_after: BeforeAfter | None = None
    savings: str | None = None  # one line: what the scene tree saved
    samples: Sequence[SampledQuestion] = ()  # of GRPO's last steps, or the held-out answers of SFT and DPO
    given: Sequence[SampledQuestion] = ()  # what SFT and DPO learned from in their last steps
    hacking: Sequence[HackedRollout] = ()
    frames: Mapping[str, Sequence[bytes]] = dataclasses.field(default_factory=dict)  # scene: its frames as JPEG
    frames_note: str | None = None  # why frames are missing, if they are


# Charts in the order in which they help, and what to know about each. A name that ends in "/" is all metrics under it.
CHARTS = {
    "reward/mean": "",
    "eval/": "Greedy answers.",
    "reward/": "",
    "reward/std": "Standard deviation.",
    "rewards/accuracies": "The chosen answer has the higher implicit reward.",
    "rewards/": "Log-ratio to the reference policy times β.",
    "frac_reward_zero_std": "All answers to the question have the same reward: nothing to learn from.",
    "video_gain": "Mean reward minus that with the video of another scene.",
    "kl": "To the reference policy.",
    "entropy": "",
    "clip_ratio": "Tokens outside the clip range.",
    "completion_length": "",
    "grad_norm": "",
    "loss": "",
    "learning_rate": "",
    "tokens_per_second": "",
    "hacking/": "",
    "seconds/": "Without the steps that compiled.",
}
LOSS_OF_GRPO = "Near zero on policy by construction: it says little in GRPO."
TIMES = ("seconds/", "tokens_per_second")


def run_page(page: Page) -> str:
    """The whole page as HTML."""
    notes = CHARTS | ({"loss": LOSS_OF_GRPO} if finite(page.metrics, "reward/mean") else {})
    charts = [chart for name, note in notes.items() if (chart := _chart(page.metrics, name, note))]
    tiles, scores = _tiles(page.metrics), score_table(page.scores)
    return render("run.html.jinja", page=page, tiles=tiles, score_table=scores, charts=charts)


def _tiles(metrics: Metrics) -> list[tuple[str, str]]:
    """The run in a handful of numbers: value and label."""
    tiles = []
    if metrics:
        tiles.append((str(int(metrics[-1]["step"])), "steps"))
    for name in ("reward/mean", "rewards/accuracies", "loss"):  # of GRPO, of DPO, of SFT
        if values := finite(metrics, name):
            start, end = ends(values)
            tiles.append((f"{number(start)} → {number(end)}", f"{label(name)}, first and last tenth of the steps"))
            break
    if len(scores := finite(metrics, "eval/overall")) > 1:
        tiles.append((f"{number(scores[0])} → {number(scores[-1])}", f"{label('eval/overall')}, first and last"))
    steady = _without_compiling(metrics)
    if seconds := finite(steady, "seconds/step"):
        tiles.append((f"{number(statistics.median(seconds))} s", "per step (median)"))
    if tokens := finite(steady, "tokens_per_second"):
        tiles.append((number(statistics.median(tokens)), "tokens per second (median)"))
    if metrics and "compile_count" in metrics[-1]:
        tiles.append((number(metrics[-1]["compile_count"]), "compiled functions"))
    return tiles


def ends(values: Sequence[float]) -> tuple[float, float]:
    """Means over the first and the last tenth."""
    tenth = max(1, len(values) // 10)
    return statistics.fmean(values[:tenth]), statistics.fmean(values[-tenth:])


def finite(metrics: Metrics, name: str) -> list[float]:
    """The values of a metric, in order."""
    return [row[name] for row in metrics if math.isfinite(row.get(name, math.nan))]


def _without_compiling(metrics: Metrics) -> Metrics:
    """The steps in which nothing was compiled: the others would hide how long a step takes."""
    before = [0.0, *(row.get("compile_count", 0.0) for row in metrics)]
    return [row for row, count in zip(metrics, before, strict=False) if row.get("compile_count", 0.0) == count]


def _chart(metrics: Metrics, name: str, note: str) -> Markup:
    """One figure of CHARTS; empty where nothing of it was logged."""
    names = [name]
    if name.endswith("/"):
        logged = dict.fromkeys(metric for row in metrics for metric in row if metric.startswith(name))
        names = [metric for metric in logged if metric not in {*CHARTS, "seconds/step"} and metric.count("/") == 1]
    if name == "reward/" and len(names) == 1:  # it is the mean reward
        return Markup()
    return line_chart(title(name), [_curve(metrics, one) for one in names], note, average=name != "learning_rate")


def _curve(metrics: Metrics, name: str) -> Curve:
    """A metric over the steps in which it was logged."""
    rows = [row for row in (_without_compiling(metrics) if name.startswith(TIMES) else metrics) if name in row]
    shown = label(name) if name in CHARTS else name_in_legend(name)
    return Curve(shown, tuple(int(row["step"]) for row in rows), tuple(row[name] for row in rows))
