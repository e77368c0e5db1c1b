"""Line charts of a page, as inline SVG: text that can be searched and lines that say their value, in a few kilobytes.

Figures for a paper or a README (PNG, PDF, bands between seeds) are Matplotlib's, in curves.py: as SVG one of them would
be larger than a whole page, and without the hover text.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

from markupsafe import Markup

from jaxvsr.report.rendering import number, render

# Told apart with the common colour-vision deficiencies, and dark enough on white.
PALETTE = ("#2563c9", "#d1620a", "#2a8a57", "#b4305a", "#6f52b5", "#6b7280")


class Box:
    """The drawing and, in it, the axes' edges, in pixels."""

    width, height = 360, 200
    left, right, top, bottom = 46, 348, 10, 174


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line: values over steps. Values that are not finite leave a gap."""

    label: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


def ticks(low: float, high: float, target: int = 4) -> list[float]:
    """About `target` round numbers (1, 2 or 5 times a power of ten) in [low, high].

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    power = 10.0 ** math.floor(math.log10((high - low) / target))
    spacing = min((1 * power, 2 * power, 5 * power, 10 * power), key=lambda size: abs((high - low) / size - target))
    first, last = math.ceil(low / spacing - 1e-9), math.floor(high / spacing + 1e-9)
    return [round(index * spacing, 12) for index in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Texts of evenly spaced ticks, with just enough decimals to tell them apart.

    >>> tick_labels([6.47, 6.475, 6.48]), tick_labels([10400, 10420, 10440])
    (['6.470', '6.475', '6.480'], ['10.4k', '10.42k', '10.44k'])
    """
    if len(values) < 2 or max(abs(value) for value in values) >= 1e4 or values[1] - values[0] < 1e-4:
        labels = [number(value) for value in values]
        for digits in range(4, 17):
            if len(set(labels)) == len(values):
                break
            labels = [number(value, digits) for value in values]
        return labels
    decimals = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
    return [f"{value:.{decimals}f}" for value in values]


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Mean of the finite values in a centred window of `window` steps, shorter at the ends; nan where none is."""
    half = window // 2
    sums = [0.0, *itertools.accumulate(value if math.isfinite(value) else 0.0 for value in values)]
    counts = [0, *itertools.accumulate(int(math.isfinite(value)) for value in values)]
    result = []
    for index in range(len(values)):
        start, end = max(0, index - half), min(len(values), index + half + 1)
        count = counts[end] - counts[start]
        result.append((sums[end] - sums[start]) / count if count else math.nan)
    return result


def _thinned(
    points: Sequence[tuple[float, float]], most: int = 2 * (Box.right - Box.left)
) -> Sequence[tuple[float, float]]:
    """At most about `most` of the points: of each stretch the least and the greatest, so that peaks stay, and one of
    those that are not finite, so that gaps do.

    >>> _thinned([(0, 1), (1, 3), (2, 2), (3, 0), (4, 1), (5, 2), (6, 9), (7, 3)], most=4)
    [(1, 3), (3, 0), (4, 1), (6, 9)]
    """
    if len(points) <= most:
        return points
    kept: list[tuple[float, float]] = []
    for part in range(most // 2):
        stretch = points[part * len(points) // (most // 2) : (part + 1) * len(points) // (most // 2)]
        finite = [point for point in stretch if math.isfinite(point[1])]
        chosen = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])} if finite else set()
        if len(finite) < len(stretch):
            chosen.add(next(point for point in stretch if not math.isfinite(point[1])))
        kept += sorted(chosen)
    return kept


def _path(points: Sequence[tuple[float, float]]) -> str:
    """SVG path data through the points; one that is not finite lifts the pen, one between two such is a dot.

    >>> _path([(0, 1), (5, 1), (10, math.nan), (15, 2)])
    'M0.0 1.0 L5.0 1.0 M15.0 2.0 L15.0 2.0'
    """
    pieces: list[str] = []
    for is_finite, run in itertools.groupby(_thinned(points), key=lambda point: math.isfinite(point[1])):
        places = [f"{x:.1f} {y:.1f}" for x, y in run]
        if is_finite:
            pieces += [f"M{places[0]}", *(f"L{place}" for place in places[1:] or places)]
    return " ".join(pieces)


def _value_range(curves: Sequence[Curve]) -> tuple[float, float]:
    finite = [value for curve in curves for value in curve.values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    if high - low < 1e-12 * max(abs(high), abs(low), 1e-12):
        return (0.0, 2 * high) if high > 0 else (2 * low, 0.0) if low < 0 else (0.0, 1.0)
    if 0 < low < 0.5 * high:  # show zero where it is near
        low = 0.0
    margin = 0.06 * (high - low)
    return (low if low == 0 else low - margin), high + margin


def line_chart(title: str, curves: Sequence[Curve], note: str = "", *, average: bool = True) -> Markup:
    """A figure with one or several lines over the training step; empty where nothing is finite.

    With `average`, lines of more than a dozen values are drawn faint with their moving average on top. Pointing at a
    line shows its last value.
    """
    curves = [curve for curve in curves if any(math.isfinite(value) for value in curve.values)]
    if not curves:
        return Markup()
    low, high = _value_range(curves)
    first = min(curve.steps[0] for curve in curves)
    last = max(max(curve.steps[-1] for curve in curves), first + 1)

    def x_of(step: float) -> float:
        return Box.left + (Box.right - Box.left) * (step - first) / (last - first)

    def y_of(value: float) -> float:
        return Box.top + (Box.bottom - Box.top) * (high - value) / (high - low)

    def path(steps: Sequence[int], values: Sequence[float]) -> str:
        return _path([(x_of(step), y_of(value)) for step, value in zip(steps, values, strict=True)])

    lines = []
    for colour, curve in zip(itertools.cycle(PALETTE), curves, strict=False):
        steps, values = curve.steps, curve.values
        line = {"label": curve.label, "colour": colour, "is_dot": len(values) == 1, "raw": ""}
        line |= {"tip": f"{curve.label}: {number(values[-1])} at step {steps[-1]}", "path": path(steps, values)}
        if average and len(values) > 12:
            line |= {"raw": line["path"], "path": path(steps, smoothed(values, max(5, len(values) // 12)))}
        lines.append(line)
    marks = ticks(low, high)
    last_value = [value for value in curves[0].values if math.isfinite(value)][-1]
    return render(
        "chart.html.jinja",
        title=title,
        note=note,
        last=number(last_value) if len(curves) == 1 else "",
        box=Box,
        lines=lines,
        y_ticks=[(y_of(tick), label) for tick, label in zip(marks, tick_labels(marks), strict=True)],
        x_ticks=[(x_of(tick), int(tick)) for tick in ticks(first, last, target=5) if tick == int(tick)],
    )
