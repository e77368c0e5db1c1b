"""The charts of the report page: round ticks, honest gaps, well-formed SVG."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvsr.report.charts import Curve, line_chart, smoothed, tick_labels, ticks
from jaxvsr.report.rendering import number

FINITE = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-6)


@pytest.mark.parametrize(("low", "high"), [(104_000, 104_300), (1.0, 1.00001), (2e6, 2.00004e6), (1e-7, 1.01e-7)])
def test_ticks_of_a_narrow_range_have_different_labels(low: float, high: float):
    marks = [low + (high - low) * index / 4 for index in range(5)]
    assert len(set(tick_labels(marks))) == 5


@given(FINITE, st.floats(1e-3, 1e6))
def test_ticks_are_round_numbers_inside_the_range(low: float, extent: float):
    found = ticks(low, low + extent)
    assert 1 <= len(found) <= 12
    assert all(low - 1e-6 * extent <= tick <= low + extent * (1 + 1e-6) for tick in found)
    spacings = [after - before for before, after in itertools.pairwise(found)]
    for spacing in spacings:
        leading = f"{spacing:.3e}"
        assert leading[0] in "125", f"{leading} is no round spacing"


@pytest.mark.slow
@given(st.lists(FINITE | st.just(math.nan), min_size=1, max_size=40))
def test_a_chart_of_any_values_is_well_formed_and_inside_its_box(values: list[float]):
    figure = line_chart("reward <mean> & more", [Curve("a & b", tuple(range(1, len(values) + 1)), tuple(values))])
    if not any(math.isfinite(value) for value in values):
        assert figure == ""
        return
    tree = ET.fromstring(figure)
    svg = tree.find("svg")
    assert svg is not None
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for path in svg.iter("path"):
        coordinates = path.attrib["d"].replace("M", " ").replace("L", " ").split()
        for x, y in zip(coordinates[::2], coordinates[1::2], strict=True):
            assert 0 <= float(x) <= width and 0 <= float(y) <= height


def test_missing_values_leave_a_gap_in_the_line():
    figure = line_chart("kl", [Curve("kl", (1, 2, 3, 4, 5), (0.1, 0.2, math.nan, 0.3, 0.4))])
    line = next(ET.fromstring(figure).iter("path")).attrib["d"]
    assert line.count("M") == 2 and line.count("L") == 2


def test_a_value_between_gaps_is_a_dot():
    figure = line_chart("kl", [Curve("kl", (1, 2, 3), (math.nan, 0.2, math.nan))])
    (start, end) = re.findall(r"[ML]([\d.]+ [\d.]+)", next(ET.fromstring(figure).iter("path")).attrib["d"])
    assert start == end


def test_moving_average_equals_the_mean_of_the_window():
    values = [1.0, 5.0, math.nan, 7.0, 100.0]
    assert smoothed(values, 3) == pytest.approx([3.0, 3.0, 6.0, 53.5, 53.5])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.63012, "0.63"), (1234.0, "1234"), (13440.0, "13.4k"), (7.69e-6, "7.69e-6"), (math.nan, "–")],
)
def test_numbers_are_printed_short(value: float, shown: str):
    assert number(value) == shown


def test_a_long_run_is_drawn_small_with_its_peak_and_its_gap() -> None:
    values = [math.sin(step / 50) for step in range(10_000)]
    values[7_000], values[3_000] = 40.0, math.nan
    chart = str(line_chart("reward", [Curve("reward", tuple(range(1, 10_001)), tuple(values))]))
    short = str(line_chart("reward", [Curve("reward", tuple(range(1, 601)), tuple(values[:600]))]))
    assert len(chart) < 1.2 * len(short) < 30_000
    assert min(float(place.split()[1]) for place in re.findall(r"L([\d.]+ [\d.]+)", chart)) < 25  # the peak, on top
    assert chart.count("M") > short.count("M")  # the gap
