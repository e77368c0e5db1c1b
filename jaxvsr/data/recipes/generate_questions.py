"""Generate a recipe's questions for many scans, in several processes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jaxvsr
from jaxvsr.buckets.scans_in_buckets import brought
from jaxvsr.data.questions import Question
from jaxvsr.data.recipes.recipe import Census, Recipe, ask_scene, load_recipe, mirror_questions, own_mistakes
from jaxvsr.data.recipes.task import Task
from jaxvsr.data.recipes.unfinished_questions import load_part, part_key, parts_folder, store_part
from jaxvsr.data.scannet.appearances import APPEARANCES_DIR, count_appearances
from jaxvsr.data.scannet.benchmark_scenes import excluded_by
from jaxvsr.data.scannet.categories import category_of
from jaxvsr.data.scannet.read_scan import (
    aggregation_path,
    geometry_paths,
    instance_masks_path,
    is_procedural,
    mesh_path,
    read_scene,
    sens_path,
)
from jaxvsr.errors import InputError, hits_all_files
from jaxvsr.parent_process import end_worker_with_parent

LEFT_OUT_UNALIGNED = "left_out_without_axis_alignment"
# Below this many scans or bytes, starting worker processes takes longer than the work itself.
_SCANS_WORTH_PROCESSES = 24
_BYTES_WORTH_PROCESSES = 1 << 26


@dataclasses.dataclass(frozen=True)
class QuestionSettings:
    """Which questions to generate: a recipe's name or file, its options, the seed; `mirror` adds the mirror images."""

    recipe: str
    options: Any
    seed: int = 0
    mirror: bool = False


@dataclasses.dataclass(frozen=True)
class QuestionReport:
    """Questions in the order of the scans, the mirror images of a scene's questions after them; broken scans with the
    reason; flaws that were worked around, summed over scans, with the scans left out for lack of axisAlignment."""

    questions: tuple[Question, ...]
    broken: dict[str, str]
    flaws: dict[str, int]


def without_benchmarks(scan_dirs: Sequence[Path], included: Collection[str]) -> tuple[list[Path], dict[str, int]]:
    """The scans that are in no benchmark, and how many were left out per benchmark; those in `included` stay."""
    kept: list[Path] = []
    excluded: Counter[str] = Counter()
    for scan_dir in scan_dirs:
        owner = excluded_by(scan_dir.name, included)
        if owner is None or is_procedural(scan_dir):
            kept.append(scan_dir)
        else:
            excluded[owner] += 1
    return kept, dict(excluded)


def take_census(scan_dirs: Sequence[Path]) -> Census:
    """In how many scans each category is annotated; unreadable scans are skipped, `generate_questions` reports them."""
    scans_with: Counter[str] = Counter()
    for scan_dir in scan_dirs:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            groups = json.loads(aggregation_path(scan_dir).read_text(encoding="utf-8"))["segGroups"]
            scans_with.update({category_of(group["label"]) for group in groups} - {""})
    return Census(len(scan_dirs), dict(sorted(scans_with.items())))


def generate_questions(
    scan_dirs: Sequence[Path],
    settings: QuestionSettings,
    *,
    out: Path | None = None,
    census_over: Sequence[Path] | None = None,
    workers: int | None = None,
    on_done: Callable[[str], object] = lambda scene: None,
) -> QuestionReport:
    """Generate a recipe's questions for all scans; the rows are the same for every number of workers.

    Broken scans are listed, not raised: the caller decides whether they may be missing.

    Args:
        scan_dirs: scans to generate questions for.
        settings: which questions to generate.
        out: a data folder that keeps the questions of finished scans until all are done (`unfinished_questions`) and
            the first appearances of objects (`appearances`); None keeps nothing.
        census_over: the scans of the whole data set, if `scan_dirs` is a shard of it.
        workers: processes; None takes one per core.
        on_done: called with the name of each finished scan.
    """
    recipe = load_recipe(settings.recipe)
    work = _Work(settings, _census(recipe, settings, census_over or scan_dirs), out)
    questions: list[Question] = []
    broken: dict[str, str] = {}
    flaws: Counter[str] = Counter()
    for scan_dir, outcome in zip(scan_dirs, _outcomes(scan_dirs, work, workers), strict=True):
        if isinstance(outcome, str):
            broken[scan_dir.name] = outcome
        else:
            questions += outcome[0]
            flaws.update(outcome[1])
        on_done(scan_dir.name)
    return QuestionReport(tuple(questions), broken, dict(sorted(flaws.items())))


def settings_key(settings: QuestionSettings, census_over: Sequence[Path]) -> str:
    """What the rows of a scan depend on besides the scan, as a hash."""
    recipe = load_recipe(settings.recipe)
    return _settings_key(recipe, settings, _census(recipe, settings, census_over))


def _census(recipe: Recipe, settings: QuestionSettings, scan_dirs: Sequence[Path]) -> Census:
    return take_census(scan_dirs) if recipe.uses_census(settings.options) else Census()


def _settings_key(recipe: Recipe, settings: QuestionSettings, census: Census) -> str:
    path = Path(settings.recipe)
    code = path.read_bytes() if path.suffix == ".py" else b""
    asked = dataclasses.replace(settings, recipe="")  # the path of a recipe file may differ between machines
    return hashlib.sha256(repr((jaxvsr.__version__, recipe.name, code, asked, census)).encode()).hexdigest()


_Outcome = tuple[list[Question], dict[str, int]] | str


@dataclasses.dataclass(frozen=True)
class _Work:
    """Arguments of a worker process."""

    settings: QuestionSettings
    census: Census
    out: Path | None


def _outcomes(scan_dirs: Sequence[Path], work: _Work, workers: int | None) -> Iterator[_Outcome]:
    workers = workers or os.cpu_count() or 1
    worker = _Worker(work)  # made even if other processes do the work, so that a wrong recipe fails here
    if workers == 1 or not _worth_processes(scan_dirs):
        yield from map(worker, scan_dirs)
        return
    # Spawned, not forked: the parent may have threads of JAX and TensorStore.
    context = multiprocessing.get_context("spawn")
    # A worker knows the class of a recipe file's options only once it has loaded the file: it gets their values.
    recipe, options = load_recipe(work.settings.recipe), work.settings.options
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    changed = {name: value for name, value in values.items() if value is not getattr(recipe.options, name)}
    sent = dataclasses.replace(work, settings=dataclasses.replace(work.settings, options=None))
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(sent, changed)) as pool:
        try:
            yield from pool.map(_work, scan_dirs)
        finally:
            pool.shutdown(cancel_futures=True)


def _worth_processes(scan_dirs: Sequence[Path]) -> bool:
    files = (path(scan_dir) for scan_dir in scan_dirs for path in (mesh_path, instance_masks_path))
    return len(scan_dirs) > 1 and (
        len(scan_dirs) >= _SCANS_WORTH_PROCESSES
        or sum(file.stat().st_size for file in files if file.is_file()) > _BYTES_WORTH_PROCESSES
    )


class _Worker:
    """Reads a scan and generates the recipe's questions about it."""

    def __init__(self, work: _Work) -> None:
        settings = work.settings
        self._recipe = load_recipe(settings.recipe)
        with own_mistakes(settings.recipe, "its tasks"):
            self._tasks: tuple[Task, ...] = self._recipe.tasks(settings.options, work.census)
            names = [task.name for task in self._tasks]
        if len(set(names)) != len(names):
            raise InputError(f"{settings.recipe}: two of its tasks have the same name ({', '.join(names)})")
        self._settings = settings
        self._out = work.out
        self._uses_masks = self._recipe.uses_masks(settings.options)
        self._key = _settings_key(self._recipe, settings, work.census)

    def __call__(self, scan_dir: Path) -> _Outcome:
        if self._out is None:
            return self._ask(scan_dir)
        folder = parts_folder(self._out, self._recipe.name)
        key = part_key(self._key, scan_dir)
        if (kept := load_part(folder, scan_dir.name, key)) is not None:
            return kept
        outcome = self._ask(scan_dir)
        store_part(folder, scan_dir.name, key, outcome)
        return outcome

    def _ask(self, scan_dir: Path) -> _Outcome:
        try:
            with brought(self._files(scan_dir)) as here:
                scene = read_scene(here(scan_dir))
                if not scene.has_axis_alignment and self._recipe.uses_axes(self._settings.options):
                    return [], {LEFT_OUT_UNALIGNED: 1}
                flaws = Counter(scene.flaws)
                if self._uses_masks:
                    counts, missing = count_appearances(here(scan_dir), self._out and self._out / APPEARANCES_DIR)
                    scene = dataclasses.replace(scene, pixel_counts=counts)
                    flaws.update(missing)
        except InputError as error:
            if hits_all_files(error):
                raise
            return " ".join(str(error).split())
        with own_mistakes(self._settings.recipe, scan_dir.name):
            rows = ask_scene(self._recipe, self._tasks, scene, self._settings.seed)
            if self._settings.mirror:
                mirrored, without = mirror_questions(self._tasks, scene, self._settings.seed, rows)
                rows += mirrored
                flaws["questions_without_mirror_image"] += without
        return rows, {name: count for name, count in flaws.items() if count}

    def _files(self, scan_dir: Path) -> tuple[Path, ...]:
        """What is read of a scan; its `.sens` has the times of the masks' frames."""
        masks = instance_masks_path(scan_dir)
        with_masks = self._uses_masks and masks.is_file()
        return (*geometry_paths(scan_dir), *((masks, sens_path(scan_dir)) if with_masks else ()))


_worker: _Worker | None = None


def _start_worker(work: _Work, changed: dict[str, Any]) -> None:
    """`work` without its options, and the options' values that differ from the recipe's."""
    end_worker_with_parent()
    global _worker
    options = dataclasses.replace(load_recipe(work.settings.recipe).options, **changed)
    _worker = _Worker(dataclasses.replace(work, settings=dataclasses.replace(work.settings, options=options)))


def _work(scan_dir: Path) -> _Outcome:
    assert _worker is not None
    return _worker(scan_dir)
