"""Tables over several runs: the statistics, and the three formats."""

import csv
import io
import math
import re
import statistics

import numpy as np
import pytest

from jaxvsr.errors import InputError
from jaxvsr.report.curves import Panel, draw_curves, draw_panels, group_curve
from jaxvsr.report.summary import Run, final_value, group_runs, spread, summarise, to_csv, to_latex, to_markdown


def run(seed: int, beta: float, final: float, steps: int = 20) -> Run:
    rows = [{"step": float(step), "reward/mean": final * step / steps, "kl": 0.01} for step in range(1, steps + 1)]
    rows[-1]["eval/overall"] = 100 * final
    return Run(f"beta-{beta}-seed-{seed}", {"seed": seed, "grpo.beta": beta}, rows)


RUNS = [run(0, 0.0, 0.4), run(1, 0.0, 0.6), run(2, 0.0, 0.5), run(0, 0.04, 0.8), run(1, 0.04, 0.9)]


def test_spread_is_the_mean_and_sample_deviation_over_seeds():
    values = [0.4, 0.6, 0.5, math.nan]
    found = spread(values)
    assert found.mean == pytest.approx(statistics.fmean(values[:3]))
    assert found.deviation == pytest.approx(np.std(values[:3], ddof=1))
    assert found.count == 3
    assert math.isnan(spread([1.0]).deviation)
    assert spread([]).shown(".2f") == "–"


def test_final_value_is_the_last_tenth_for_rewards_and_the_last_for_evaluations():
    metrics = run(0, 0.0, 1.0, steps=20).metrics
    assert final_value(metrics, "reward/mean") == pytest.approx((0.95 + 1.0) / 2)
    assert final_value(metrics, "eval/overall") == 100
    assert math.isnan(final_value(metrics, "no such metric"))


def test_runs_are_grouped_by_a_field_or_by_all_settings_except_the_seed():
    assert {name: len(members) for name, members in group_runs(RUNS, "grpo.beta").items()} == {
        "grpo.beta=0.0": 3,
        "grpo.beta=0.04": 2,
    }
    assert sorted(len(members) for members in group_runs(RUNS, None).values()) == [2, 3]
    with pytest.raises(InputError, match=r"--group-by beta: the config of beta-0.0-seed-0 has no such field"):
        group_runs(RUNS, "beta")


def test_csv_markdown_and_latex_hold_the_same_numbers():
    summary = summarise(group_runs(RUNS, "grpo.beta"), ["eval/overall", "kl"])
    rows = list(csv.DictReader(io.StringIO(to_csv(summary))))
    assert [(row["group"], row["metric"], row["runs"]) for row in rows][:2] == [
        ("grpo.beta=0.0", "eval/overall", "3"),
        ("grpo.beta=0.0", "kl", "3"),
    ]
    assert float(rows[0]["mean"]) == pytest.approx(50.0) and float(rows[0]["standard_deviation"]) == pytest.approx(10.0)
    assert "| grpo.beta=0.0 | 3 | 50.00 ± 10.00 |" in to_markdown(summary)
    assert r"grpo.beta=0.0 & 3 & 50.00 $\pm$ 10.00" in to_latex(summary)


def test_latex_escapes_what_latex_reads_as_commands():
    latex = to_latex({"a_b & 50% \\x": {"kl": spread([1.0])}})
    assert r"a\_b \& 50\% \textbackslash{}x & 1 & 1.00 \\" in latex
    assert not re.search(r"(?<!\\)[%#]", latex)


def test_group_curve_has_mean_and_range_where_all_runs_have_the_step():
    short = Run("short", {"seed": 9}, [{"step": float(step), "kl": 0.03} for step in range(1, 4)])
    points = group_curve([run(0, 0.0, 0.5), short], "kl")
    assert [point[0] for point in points] == [1, 2, 3]
    assert points[0] == pytest.approx((1, 0.02, 0.01, 0.03))


@pytest.mark.slow
def test_curves_are_drawn_as_png_and_pdf_with_the_same_bytes_every_time(tmp_path):
    groups = group_runs(RUNS, "grpo.beta")
    for ending, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        paths = [tmp_path / f"{name}{ending}" for name in ("one", "two")]
        for path in paths:
            draw_curves(groups, ["reward/mean", "kl"], path)
        first, second = (path.read_bytes() for path in paths)
        assert first.startswith(magic) and first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pdf", "one.png", "two.pdf", "two.png"]


def test_a_column_has_the_same_decimals_in_all_rows():
    score = {"a": spread([8.0, 9.0]), "b": spread([50.0]), "c": spread([39.8, 39.9])}
    summary = {
        name: {"score": value, "kl": spread([0.1]), "rate": spread([1e-5]), "tokens": spread([2345.6])}
        for name, value in score.items()
    }
    lines = to_markdown(summary).splitlines()
    assert lines[2:] == [
        "| a | 2 | 8.50 ± 0.71 | 0.1000 | 1e-05 | 2346 |",
        "| b | 1 | 50.00 | 0.1000 | 1e-05 | 2346 |",
        "| c | 2 | 39.85 ± 0.07 | 0.1000 | 1e-05 | 2346 |",
    ]


def test_panels_name_their_axes(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: (drawn.append(figure), path.touch()))
    groups = group_runs(RUNS, "grpo.beta")
    draw_panels([Panel("eval/overall", groups, "KL penalty"), Panel("kl", groups)], tmp_path / "x.png")
    shown = [axes for axes in drawn[0].axes if axes.get_visible()]
    labels = [(axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) for axes in shown]
    kl = "KL (nats per token)"
    assert labels == [("KL penalty", "step", "held-out score (%)"), (kl, "step", "")]
