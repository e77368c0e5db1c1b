"""Line charts as inline SVG: no script, no font, no picture to load."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Callable, Sequence

# Distinguishable with the common colour-vision deficiencies, and dark enough on white.
PALETTE = ("#2563c9", "#d1620a", "#2a8a57", "#b4305a", "#6f52b5", "#6b7280")

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 26


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line: values over steps. Values that are not finite leave a gap."""

    label: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


def ticks(low: float, high: float, target: int = 4) -> list[float]:
    """About `target` round numbers (1, 2 or 5 times a power of ten) that lie in [low, high].

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    power = 10.0 ** math.floor(math.log10((high - low) / target))
    spacing = min((1 * power, 2 * power, 5 * power, 10 * power), key=lambda size: abs((high - low) / size - target))
    first, last = math.ceil(low / spacing - 1e-9), math.floor(high / spacing + 1e-9)
    return [round(index * spacing, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """A short text: three significant digits, thousands as k, exponents where they save space.

    >>> number(0.12345), number(13440.0), number(120.0), number(1e-5)
    ('0.123', '13.4k', '120', '1e-5')
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.3g}" if size < 1e3 else f"{value:.0f}"


def tick_labels(values: Sequence[float]) -> list[str]:
    """Texts of evenly spaced ticks, with as many decimals as tell them apart.

    >>> tick_labels([6.47, 6.475, 6.48])
    ['6.470', '6.475', '6.480']
    """
    if len(values) < 2 or max(abs(value) for value in values) >= 1e4 or values[1] - values[0] < 1e-4:
        return [number(value) for value in values]
    decimals = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
    return [f"{value:.{decimals}f}" for value in values]


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Mean of the finite values in a centred window of `window` steps, shorter at the ends; nan where none is."""
    half = window // 2
    result = []
    for index in range(len(values)):
        near = [value for value in values[max(0, index - half) : index + half + 1] if math.isfinite(value)]
        result.append(sum(near) / len(near) if near else math.nan)
    return result


def _path(points: Sequence[tuple[float, float]]) -> str:
    """SVG path data through the points; a point that is not finite lifts the pen."""
    pieces: list[str] = []
    pen_down = False
    for x, y in points:
        if math.isfinite(y):
            pieces.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
        pen_down = math.isfinite(y)
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


def line_chart(title: str, curves: Sequence[Curve], note: str = "", *, average: bool = True) -> str:
    """A figure with one or several lines over the training step, or an empty string where nothing is finite.

    With `average`, lines of more than a dozen values are drawn faint with their moving average on top. Pointing at a
    line shows its last value.
    """
    curves = [curve for curve in curves if any(math.isfinite(value) for value in curve.values)]
    if not curves:
        return ""
    low, high = _value_range(curves)
    first = min(curve.steps[0] for curve in curves)
    last = max(max(curve.steps[-1] for curve in curves), first + 1)

    def x_of(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first)

    def y_of(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = []
    values = ticks(low, high)
    for tick, label in zip(values, tick_labels(values), strict=True):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_of(tick):.1f}" y2="{y_of(tick):.1f}"/>'
        )
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y_of(tick) + 3.5:.1f}" text-anchor="end">{label}</text>')
    for tick in ticks(first, last, target=5):
        if tick == int(tick):
            parts.append(
                f'<text class="tick" x="{x_of(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{int(tick)}</text>'
            )
    for index, curve in enumerate(curves):
        colour = PALETTE[index % len(PALETTE)]
        parts.append(_curve(curve, colour, x_of, y_of, with_average=average and len(curve.values) > 12))
    legend = "".join(
        f'<span><i style="background:{PALETTE[index % len(PALETTE)]}"></i>{html.escape(curve.label)}</span>'
        for index, curve in enumerate(curves)
    )
    heading = html.escape(title)
    if len(curves) == 1:
        finite = [value for value in curves[0].values if math.isfinite(value)]
        heading += f' <span class="last">{number(finite[-1])}</span>'
    description = html.escape(f"{title} over the step")
    return (
        f'<figure class="chart"><figcaption>{heading}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{description}">{"".join(parts)}</svg>'
        + (f'<div class="legend">{legend}</div>' if len(curves) > 1 else "")
        + (f'<div class="note">{html.escape(note)}</div>' if note else "")
        + "</figure>"
    )


def _curve(
    curve: Curve, colour: str, x_of: Callable[[float], float], y_of: Callable[[float], float], *, with_average: bool
) -> str:
    points = [(x_of(step), y_of(value)) for step, value in zip(curve.steps, curve.values, strict=True)]
    label = html.escape(f"{curve.label}: {number(curve.values[-1])} at step {curve.steps[-1]}")
    if len(points) == 1:
        x, y = points[0]
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{label}</title></circle>'
    if not with_average:
        return f'<path class="line" stroke="{colour}" d="{_path(points)}"><title>{label}</title></path>'
    window = max(5, len(curve.values) // 12)
    average = [
        (x_of(step), y_of(value)) for step, value in zip(curve.steps, smoothed(curve.values, window), strict=True)
    ]
    return (
        f'<path class="raw" stroke="{colour}" d="{_path(points)}"/>'
        f'<path class="line" stroke="{colour}" d="{_path(average)}"><title>{label}</title></path>'
    )
