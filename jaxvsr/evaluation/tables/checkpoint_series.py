"""Scores of a run's checkpoints by step, as in SVQA-R1's Table 10."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxvsr.buckets.fetching import fetched
from jaxvsr.errors import InputError
from jaxvsr.evaluation.benchmarks import Result
from jaxvsr.evaluation.tables.text_table import Cells, format_number, markdown_table, plain_table
from jaxvsr.files import write_text
from jaxvsr.runs.checkpoints import Checkpoints
from jaxvsr.runs.run_folder import RunFolder


def chosen_steps(run: str, wanted: str) -> list[int]:
    """The steps that `all` or `500,1000` means, ascending.

    Raises:
        InputError: not a run folder, or it has no such checkpoint.
    """
    folder = RunFolder(fetched(run))
    if not folder.config.is_file():
        raise InputError(f"--checkpoints {wanted}: --model must be a run folder, found {run!r}")
    if not folder.checkpoints.is_dir():
        raise InputError(f"--checkpoints {wanted}: {run} has no checkpoint yet")
    checkpoints = Checkpoints(folder.checkpoints)
    try:
        steps = list(checkpoints.steps)
    finally:
        checkpoints.close()
    if wanted == "all":
        return steps
    parts = [part.strip() for part in wanted.split(",")]
    for part in parts:
        if not part.isdecimal() or int(part) not in steps:
            have = ", ".join(map(str, steps)) or "none"
            raise InputError(f"--checkpoints {wanted}: no checkpoint {part!r} in {run}; it has {have}")
    return sorted({int(part) for part in parts})


def series_table(scores: Mapping[int, Mapping[str, Any]]) -> Cells:
    """One row per step, one column per number in the scores; a star marks the best overall."""
    names = list(dict.fromkeys(name for one in scores.values() for name, value in one.items() if _is_number(value)))
    found = {step: one.get("overall") for step, one in scores.items()}
    best = max((value for value in found.values() if value is not None), default=None)
    rows = [
        [
            f"{step}{' *' if best is not None and found[step] == best else ''}",
            *(_shown(one.get(name)) for name in names),
        ]
        for step, one in sorted(scores.items())
    ]
    return [["step", *names], *rows]


def write_series(out: Path, results: Mapping[int, Result]) -> str:
    """Write series.json (a list of scores, each with its step), series-robust.json if the benchmark has a second
    parser, and series.md with both; returns the tables for a terminal.
    """
    scores = {step: result.scores for step, result in sorted(results.items())}
    robust = {step: one.by_parser["robust"] for step, one in sorted(results.items()) if "robust" in one.by_parser}
    tables = [series_table(scores)] + ([series_table(robust)] if robust else [])
    texts = {"series.json": _rows(scores), "series.md": "\n\nRobust parser:\n\n".join(map(markdown_table, tables))}
    texts["series.md"] += "\n\n\\* the best overall\n"
    if robust:
        texts["series-robust.json"] = _rows(robust)
    for name, text in texts.items():
        write_text(out / name, text)
    return "\n\nrobust parser\n\n".join(map(plain_table, tables))


def _rows(scores: Mapping[int, Mapping[str, Any]]) -> str:
    return json.dumps([{"step": step, **one} for step, one in scores.items()], indent=1) + "\n"


def _shown(value: float | None) -> str:
    return str(value) if isinstance(value, int) else format_number(value, 2)  # counts of questions are int


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
