"""The README.md of what is exported from a run or from an adapter: gathered from the run's own files."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.buckets.fetching import fetched
from jaxvsr.buckets.urls import bucket_url
from jaxvsr.config.config_file import to_yaml
from jaxvsr.data.data_folder import card_sources
from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object, read_rows, read_text, write_text
from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.huggingface.model_card import DataSource, ScoreTable, base_licence, model_card
from jaxvsr.runs.checkpoints import RunRecord, is_run, open_run, step_of_run
from jaxvsr.runs.model_source import Model
from jaxvsr.runs.named_models import is_hub_id
from jaxvsr.runs.run_folder import RunFolder
from jaxvsr.runs.trained_as import TrainedAs

# What stands beside the numbers in evaluate.py's scores.json and says what they are of: all of it or a part.
_SETTINGS = ("model", "revision", "data", "split", "subset", "limit", "frames", "max_pixels", "prompt")


def export_card(
    model: Model, command: str, *, adapter: bool = False, scores: Sequence[Path] = (), trained: TrainedAs | None = None
) -> str:
    """Of a run, or of a PEFT adapter that is merged; `scores` are folders that evaluate.py wrote, of a run by default
    all those of this checkpoint; `trained` is how it was asked in training.

    Raises:
        InputError: a folder of `scores` holds none.
    """
    licence, measured = base_licence(model.folder.path), [_benchmark_scores(folder) for folder in scores]
    asked = "" if trained is None else trained.in_words()
    if not is_run(model.name):
        return model_card(
            base=model.base,
            on_hub=is_hub_id(model.base),
            revision=model.revision,
            licence=licence,
            what=f"Weights with the adapter `{model.name}` merged in.",
            origin=Path(model.name).name,
            commands=[command],
            serving=family_of(model.config).serving_note(),
            scores=measured,
            asked=asked,
        )
    run = open_run(model.name)
    measured = measured or [_benchmark_scores(folder) for folder in evaluations_of(run.folder, run.step)]
    config = RunFolder(run.folder).read_config()
    folders = [folder for folder, _ in config.data.weighted_folders()]
    return model_card(
        base=run.record.base,
        on_hub=loaded_by(run.record) == run.record.base and is_hub_id(run.record.base),
        revision=run.record.revision,
        licence=licence,
        what=f"{'LoRA adapter' if adapter else 'Weights'} after {run.step} steps of {config.objective} with jaxvsr.",
        origin=f"{run.folder.resolve().name}, step {run.step}",
        commands=["python launch/train.py --config config.yaml", command],
        serving=family_of(model.config).serving_note(),
        data=[DataSource(folder, tuple(card_sources(fetched(folder)))) for folder in folders],
        scores=[*_heldout_scores(run.folder, run.step), *measured],
        config=to_yaml(config),
        adapter=adapter,
        asked=asked,
    )


def note_evaluation(model: str, out: Path) -> None:
    """Write into a run's folder that `evaluate.py` wrote scores of one of its checkpoints to `out`; of another model
    than a run, and where the folder cannot be written or is in a bucket, nothing is noted."""
    if bucket_url(model) or not is_run(model):
        return
    folder, step = step_of_run(model)
    path = RunFolder(folder).evaluations
    note = {"step": step, "model": model, "scores": os.path.abspath(out)}
    others = [row for row in read_rows(path) if row.get("scores") != note["scores"]]
    with contextlib.suppress(OSError):
        write_text(path, "".join(json.dumps(row) + "\n" for row in [*others, note]))


def evaluations_of(run: Path, step: int) -> list[Path]:
    """The folders with scores of a checkpoint that were noted and are still about it, in the order of their making."""
    found = []
    for row in read_rows(RunFolder(run).evaluations):
        folder = Path(str(row.get("scores")))
        if row.get("step") == step and all((folder / name).is_file() for name in ("scores.json", "table.md")):
            found += [folder] if read_json_object(folder / "scores.json").get("model") == row.get("model") else []
    return found


def loaded_by(record: RunRecord) -> str:
    """What others load a run's base model by: its hub id, or the folder's whole path."""
    folder, given = Path(record.base_folder).parts, Path(os.path.normpath(record.base)).parts
    is_folder = os.path.isabs(record.base) or given[:1] == ("..",) or folder[len(folder) - len(given) :] == given
    return record.base_folder if is_folder else record.base


def _heldout_scores(run: Path, step: int) -> list[ScoreTable]:
    """What the run itself measured last, at this step or before it."""
    found: dict[int, list[str]] = {}
    for row in read_rows(RunFolder(run).metrics):
        scores = {name.removeprefix("eval/"): value for name, value in row.items() if name.startswith("eval/")}
        if scores and row["step"] <= step:
            found[row["step"]] = [f"| {name} | {value:.4g} |" for name, value in scores.items() if value is not None]
    if not found:
        return []
    last = max(found)
    title = f"Held-out questions of its own data, greedy, per cent, after step {last}"
    return [ScoreTable(title, "\n".join(["| task | score |", "| --- | --- |", *found[last]]))]


def _benchmark_scores(folder: Path) -> ScoreTable:
    """The table that evaluate.py wrote, under what it says of model, data and settings."""
    file, table = folder / "scores.json", folder / "table.md"
    for path in (file, table):
        if not path.is_file():
            raise InputError(f"--scores {folder}: has no {path.name}; give a folder that evaluate.py wrote")
    scores = read_json_object(file)
    settings = [f"{name} {scores[name]}" for name in _SETTINGS if scores.get(name) is not None]
    if scores.get("blank"):
        settings.append("on blank video")
    title = f"{scores.get('benchmark', folder.name)} ({', '.join(settings)})"
    return ScoreTable(title, read_text(table))
