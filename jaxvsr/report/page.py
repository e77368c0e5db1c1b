"""The page of a run: one self-contained HTML file with curves, scores, and answers beside what the model saw."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvsr.report.charts import Curve, line_chart, number
from jaxvsr.report.markup import advantage_bar, frame_strip, html_page, image, reward_bar, text
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


CHOICE = "Of the questions that were asked at both steps, the one whose mean reward changed most, up or down."


def render(page: Page) -> str:
    """The whole page as HTML."""
    sections = (
        _header(page),
        _scores(page),
        _savings(page),
        _curves(page),
        _before_after(page),
        _samples(page),
        _hacking(page),
        _config(page),
    )
    return html_page(page.name, sections)


def _header(page: Page) -> str:
    tiles = []
    reward = [row["reward/mean"] for row in page.metrics if math.isfinite(row.get("reward/mean", math.nan))]
    if page.metrics:
        tiles.append((str(int(page.metrics[-1]["step"])), "steps"))
    if reward:
        tenth = max(1, len(reward) // 10)
        start, end = sum(reward[:tenth]) / tenth, sum(reward[-tenth:]) / tenth
        tiles.append((f"{number(start)} → {number(end)}", "mean reward, first and last tenth"))
    for name, label, unit in (
        ("seconds/step", "a step (median)", " s"),
        ("tokens_per_second", "tokens a second (median)", ""),
    ):
        values = [row[name] for row in _without_compiling(page.metrics) if math.isfinite(row.get(name, math.nan))]
        if values:
            tiles.append((f"{number(statistics.median(values))}{unit}", label))
    if page.metrics and "compile_count" in page.metrics[-1]:
        tiles.append((number(page.metrics[-1]["compile_count"]), "compiled functions"))
    shown = "".join(f'<div class="tile"><b>{text(value)}</b><span>{text(label)}</span></div>' for value, label in tiles)
    facts = " · ".join(f"{text(name)} {text(value)}" for name, value in page.facts.items())
    return f'<h1>{text(page.name)}</h1><p class="soft">{facts}</p><div class="tiles">{shown}</div>'


def _scores(page: Page) -> str:
    if not page.scores:
        return ""
    return f"<h2>Greedy answers to questions of no training step, per cent</h2>{score_table(page.scores)}"


def _savings(page: Page) -> str:
    if not page.savings:
        return ""
    return f'<h2>What the scene tree saved in this run</h2><p class="saved">{text(page.savings)}</p>'


def _curves(page: Page) -> str:
    known = {name for _, names, _ in CHARTS for name in names}
    charts = [(title, names, note) for title, names, note in CHARTS]
    rewards = _names(page.metrics, "reward/", known)
    if len(rewards) > 1:
        charts.insert(1, ("Rewards by name", tuple(rewards), ""))
    evaluations = _names(page.metrics, "eval/", known)
    if evaluations:
        charts.insert(1, ("Held-out questions, greedy", tuple(evaluations), "Per cent."))
    hacking = _names(page.metrics, "hacking/", known)
    if hacking:
        charts.append(("Reward hacking", tuple(hacking), "Share of rollouts."))
    seconds = _names(page.metrics, "seconds/", known | {"seconds/step"})
    if seconds:
        charts.append(("Seconds a phase", tuple(seconds), "Steps that compiled are left out."))
    timed = {*seconds, "tokens_per_second"}
    drawn = []
    for title, names, note in charts:
        rows = _without_compiling(page.metrics) if set(names) & timed else page.metrics
        curves = [curve for name in names if (curve := metric_curve(rows, name)) is not None]
        drawn.append(line_chart(title, [_short(curve) for curve in curves], note, average=title != "Learning rate"))
    if not any(drawn):
        return ""
    return f'<h2>Curves over the steps</h2><div class="charts">{"".join(drawn)}</div>'


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


def _before_after(page: Page) -> str:
    shown = page.before_after
    if shown is None:
        return ""
    question = shown.before
    plan = ""
    if shown.plan is not None:
        picture = image(shown.plan.encode(), "svg+xml", f"plan of {question.scene} from above", "plan")
        plan = f"<div><h3>The room from above</h3>{picture}</div>"
    largest = max((abs(answer.advantage) for one in (shown.before, shown.after) for answer in one.answers), default=0.0)
    columns = "".join(
        f"<div><h3>{label} (step {one.step}, mean reward {number(one.mean_reward)})</h3>{_answers(one, largest)}</div>"
        for label, one in (("Before", shown.before), ("After", shown.after))
    )
    return (
        f'<h2>One question, before and after</h2><p class="note">{CHOICE}</p>'
        f"{_question(question)}{_frames(page, question.scene)}"
        f'<div class="beside">{columns}{plan}</div>'
    )


def _samples(page: Page) -> str:
    if not page.samples:
        return ""
    blocks = []
    for question in page.samples:
        largest = max((abs(answer.advantage) for answer in question.answers), default=0.0)
        blocks.append(
            f'<div class="sample">{_question(question, with_step=True)}{_frames(page, question.scene)}'
            f"{_answers(question, largest)}</div>"
        )
    return f"<h2>Sampled answers of the last steps</h2>{''.join(blocks)}"


def _hacking(page: Page) -> str:
    if not page.hacking:
        return ""
    rows = "".join(
        f"<tr><td>{text(one.text)}</td><td>{text(', '.join(one.tricks).replace('_', ' '))}</td>"
        f"<td>{number(one.reward)}</td><td>{text(one.answer)}</td></tr>"
        for one in page.hacking
    )
    return (
        f"<h2>Rollouts of step {page.hacking[0].step} that look like reward hacking</h2>"
        '<p class="note">Most tricks first, then the best paid. Shares of all rollouts are in metrics.jsonl, '
        "hacking/…</p>"
        '<table class="answers"><tr><th>answer</th><th>trick</th><th>reward</th><th>right answer</th></tr>'
        f"{rows}</table>"
    )


def _question(question: SampledQuestion, *, with_step: bool = False) -> str:
    tags = [question.question_type, question.scene] + ([f"step {question.step}"] if with_step else [])
    shown = "".join(f'<span class="tag">{text(tag)}</span>' for tag in tags)
    return (
        f'<p class="question">{text(question.question)}</p>'
        f"<p>{shown}<span class=soft>right answer:</span> <b>{text(question.answer)}</b></p>"
    )


def _frames(page: Page, scene: str) -> str:
    frames = page.frames.get(scene)
    if frames:
        return frame_strip(frames, scene)
    return f'<p class="note">{text(page.frames_note)}</p>' if page.frames_note else ""


def _answers(question: SampledQuestion, largest_advantage: float) -> str:
    largest_reward = max((answer.reward for answer in question.answers if math.isfinite(answer.reward)), default=0.0)
    rows = "".join(
        f"<tr><td>{text(answer.text) or '<span class=soft>(empty)</span>'}</td>"
        f"<td>{reward_bar(answer.reward, max(largest_reward, 1.0))}</td>"
        f"<td>{advantage_bar(answer.advantage, largest_advantage)}</td></tr>"
        for answer in question.answers
    )
    return f'<table class="answers"><tr><th>answer</th><th>reward</th><th>advantage</th></tr>{rows}</table>'


def _config(page: Page) -> str:
    if not page.config_text:
        return ""
    return f"<h2>Settings</h2><details><summary>config.yaml</summary><pre>{text(page.config_text)}</pre></details>"
