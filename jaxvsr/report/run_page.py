"""The page of a run: one self-contained HTML file with curves, scores, and answers beside what the model saw."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from jaxvsr.report.charts import Curve, line_chart
from jaxvsr.report.rendering import number, render
from jaxvsr.report.run_rows import HackedRollout, SampledQuestion, metric_curve
from jaxvsr.report.score_table import score_table


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
    metrics: Sequence[Mapping[str, float]]  # rows of metrics.jsonl
    config_text: str = ""  # config.yaml as it lies in the run folder
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # shown under the title, in this order
    scores: Sequence[Mapping[str, Any]] = ()  # rows of comparison.json
    before_after: BeforeAfter | None = None
    savings: str | None = None  # the line of what the tree saved
    samples: Sequence[SampledQuestion] = ()
    hacking: Sequence[HackedRollout] = ()
    frames: Mapping[str, Sequence[bytes]] = dataclasses.field(default_factory=dict)  # scene: its frames as JPEG
    frames_note: str | None = None  # why frames are missing, if they are


# Charts in the order in which they help: title, metric names, what the reader should know.
CHARTS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("Reward", ("reward/mean",), ""),
    ("Reward spread within a group", ("reward/std",), ""),
    (
        "Groups without spread",
        ("frac_reward_zero_std",),
        "All answers of the group have the same reward: nothing to learn from.",
    ),
    ("Gain from the video", ("video_gain",), "Mean reward, minus that with another scene's video."),
    ("KL to the reference policy", ("kl",), ""),
    ("Entropy", ("entropy",), "Nats a token."),
    ("Clipped ratios", ("clip_ratio",), "Share of tokens outside the clip range."),
    ("Answer length", ("completion_length",), "Tokens."),
    ("Gradient norm", ("grad_norm",), ""),
    ("Loss", ("loss",), "Near zero on policy by construction: it says little in GRPO."),
    ("Learning rate", ("learning_rate",), ""),
    ("Tokens a second", ("tokens_per_second",), ""),
)


def run_page(page: Page) -> str:
    """The whole page as HTML."""
    return render(
        "run.html.jinja",
        page=page,
        tiles=_tiles(page.metrics),
        score_table=score_table(page.scores),
        charts=_charts(page.metrics),
    )


def _tiles(metrics: Sequence[Mapping[str, float]]) -> list[tuple[str, str]]:
    """What the run comes to, in a handful of numbers: value and label."""
    tiles = []
    reward = [row["reward/mean"] for row in metrics if math.isfinite(row.get("reward/mean", math.nan))]
    if metrics:
        tiles.append((str(int(metrics[-1]["step"])), "steps"))
    if reward:
        tenth = max(1, len(reward) // 10)
        start, end = sum(reward[:tenth]) / tenth, sum(reward[-tenth:]) / tenth
        tiles.append((f"{number(start)} → {number(end)}", "mean reward, first and last tenth"))
    for name, label, unit in (
        ("seconds/step", "a step (median)", " s"),
        ("tokens_per_second", "tokens a second (median)", ""),
    ):
        values = [row[name] for row in _without_compiling(metrics) if math.isfinite(row.get(name, math.nan))]
        if values:
            tiles.append((f"{number(statistics.median(values))}{unit}", label))
    if metrics and "compile_count" in metrics[-1]:
        tiles.append((number(metrics[-1]["compile_count"]), "compiled functions"))
    return tiles


def _charts(metrics: Sequence[Mapping[str, float]]) -> list[Markup]:
    known = {name for _, names, _ in CHARTS for name in names}
    charts = [(title, names, note) for title, names, note in CHARTS]
    rewards = _names(metrics, "reward/", known)
    if len(rewards) > 1:
        charts.insert(1, ("Rewards by name", tuple(rewards), ""))
    evaluations = _names(metrics, "eval/", known)
    if evaluations:
        charts.insert(1, ("Held-out questions, greedy", tuple(evaluations), "Per cent."))
    hacking = _names(metrics, "hacking/", known)
    if hacking:
        charts.append(("Reward hacking", tuple(hacking), "Share of rollouts."))
    seconds = _names(metrics, "seconds/", known | {"seconds/step"})
    if seconds:
        charts.append(("Seconds a phase", tuple(seconds), "Steps that compiled are left out."))
    timed = {*seconds, "tokens_per_second"}
    drawn = []
    for title, names, note in charts:
        rows = _without_compiling(metrics) if set(names) & timed else metrics
        curves = [curve for name in names if (curve := metric_curve(rows, name)) is not None]
        drawn.append(line_chart(title, [_short(curve) for curve in curves], note, average=title != "Learning rate"))
    return [chart for chart in drawn if chart]


def _without_compiling(metrics: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The steps in which nothing was compiled: the others would hide what a step takes."""
    before = [0.0, *(row.get("compile_count", 0.0) for row in metrics)]
    return [row for row, count in zip(metrics, before, strict=False) if row.get("compile_count", 0.0) == count]


def _names(metrics: Sequence[Mapping[str, float]], prefix: str, without: set[str]) -> list[str]:
    """Metrics with this prefix in the order of their first appearance, one level deep."""
    names = dict.fromkeys(name for row in metrics for name in row if name.startswith(prefix))
    return [name for name in names if name not in without and name.count("/") == prefix.count("/")]


def _short(curve: Curve) -> Curve:
    return dataclasses.replace(curve, label=curve.label.rpartition("/")[2])
