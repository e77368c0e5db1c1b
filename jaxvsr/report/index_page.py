"""The page over a folder of runs: a line for each, with a link to its own page."""

from __future__ import annotations

import time
from pathlib import Path

from jaxvsr.errors import InputError
from jaxvsr.files import write_text
from jaxvsr.report.metric_labels import label
from jaxvsr.report.rendering import number, render
from jaxvsr.report.run_page import ends, finite
from jaxvsr.report.run_rows import read_metrics
from jaxvsr.runs.run_folder import RunFolder

INDEX = "index.html"
COLUMNS = ("reward/mean", "eval/overall", "loss")


def runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, the newest first; none where it is a run itself."""
    if not folder.is_dir() or RunFolder(folder).config.is_file():
        return []
    found = [
        path for path in folder.iterdir() if RunFolder(path).config.is_file() and RunFolder(path).metrics.is_file()
    ]
    return sorted(found, key=lambda path: (-RunFolder(path).metrics.stat().st_mtime, path.name))


def write_index(folder: Path) -> Path:
    """Write FOLDER/index.html; returns its path. A run that cannot be read is listed with the reason."""
    rows = [_row(RunFolder(path)) for path in runs_in(folder)]
    columns = [label(name) for name in COLUMNS]
    write_text(folder / INDEX, render("index.html.jinja", name=folder.resolve().name, columns=columns, rows=rows))
    return folder / INDEX


def _row(run: RunFolder) -> dict[str, object]:
    row: dict[str, object] = {"name": run.path.name, "has_page": run.report.is_file(), "cells": [], "problem": ""}
    row["changed"] = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.metrics.stat().st_mtime))
    try:
        config, metrics = run.read_config(), read_metrics(run.metrics)
    except InputError as error:
        return row | {"problem": str(error)}
    facts = [config.objective, config.model.path, ", ".join(config.data.folders), str(config.seed)]
    facts.append(f"{int(metrics[-1]['step']) if metrics else 0} of {config.steps}")
    for name in COLUMNS:
        values = finite(metrics, name)
        first, last = (values[0], values[-1]) if name.startswith("eval/") and values else ends(values or [0.0])
        facts.append(f"{number(first)} → {number(last)}" if len(values) > 1 else number(last) if values else "–")
    return row | {"cells": facts}
