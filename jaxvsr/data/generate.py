"""Questions about many scans: which scans take part, the work spread over processes, and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from jaxvsr.data.benchmark_scenes import excluded_by
from jaxvsr.data.categories import category_of
from jaxvsr.data.questions import Question
from jaxvsr.data.recipe import Census, ask_scene, load_recipe
from jaxvsr.data.scannet import aggregation_path, info_path, read_scene
from jaxvsr.data.tasks import Task
from jaxvsr.errors import InputError

# Starting worker processes takes about as long as this many small scans.
_SCANS_WORTH_PROCESSES = 24


@dataclasses.dataclass(frozen=True)
class QuestionSettings:
    """What to ask: a recipe's name or file, its options, the seed."""

    recipe: str
    options: Any
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class QuestionReport:
    """Questions in the order of the scans; broken scans with the reason; flaws worked around, counted over scans."""

    questions: tuple[Question, ...]
    broken: dict[str, str]
    flaws: dict[str, int]


def is_procedural(scan_dir: Path) -> bool:
    """Whether `<scene>.txt` says that the scan is a procedural room: those have names like ScanNet's."""
    try:
        text = info_path(scan_dir).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    pairs = (line.partition("=") for line in text.splitlines())
    return any(key.strip() == "generator" and value.strip().startswith("jaxvsr rooms") for key, _, value in pairs)


def without_benchmarks(scan_dirs: Sequence[Path], included: Collection[str]) -> tuple[list[Path], dict[str, int]]:
    """The scans that may train, and how many each benchmark keeps out."""
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
    """In how many scans each category is annotated; scans that cannot be read are left to `generate_questions`."""
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
    workers: int | None = None,
    on_done: Callable[[str], object] = lambda scene: None,
) -> QuestionReport:
    """Ask a recipe's questions of all scans; the same rows for every number of workers.

    Broken scans are listed, not raised: whether they may be missing is for the caller to say.
    """
    recipe = load_recipe(settings.recipe)
    census = take_census(scan_dirs) if recipe.uses_census(settings.options) else Census()
    questions: list[Question] = []
    broken: dict[str, str] = {}
    flaws: Counter[str] = Counter()
    for scan_dir, outcome in zip(scan_dirs, _outcomes(scan_dirs, settings, census, workers), strict=True):
        if isinstance(outcome, str):
            broken[scan_dir.name] = outcome
        else:
            questions += outcome[0]
            flaws.update(outcome[1])
        on_done(scan_dir.name)
    return QuestionReport(tuple(questions), broken, dict(sorted(flaws.items())))


_Outcome = tuple[list[Question], dict[str, int]] | str


def _outcomes(
    scan_dirs: Sequence[Path], settings: QuestionSettings, census: Census, workers: int | None
) -> Iterator[_Outcome]:
    workers = workers or os.cpu_count() or 1
    if workers == 1 or len(scan_dirs) < _SCANS_WORTH_PROCESSES:
        worker = _Worker(settings, census)
        yield from map(worker, scan_dirs)
        return
    # Spawned, not forked: the parent may hold threads of JAX and TensorStore.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(settings, census)) as pool:
        try:
            yield from pool.map(_work, scan_dirs, chunksize=4)
        finally:
            pool.shutdown(cancel_futures=True)


class _Worker:
    """Reads one scan after another and asks the recipe's questions."""

    def __init__(self, settings: QuestionSettings, census: Census) -> None:
        self._recipe = load_recipe(settings.recipe)
        self._tasks: tuple[Task, ...] = self._recipe.tasks(settings.options, census)
        self._seed = settings.seed

    def __call__(self, scan_dir: Path) -> _Outcome:
        try:
            scene = read_scene(scan_dir)
        except InputError as error:
            return " ".join(str(error).split())
        return ask_scene(self._recipe, self._tasks, scene, self._seed), scene.flaws


_worker: _Worker | None = None


def _start_worker(settings: QuestionSettings, census: Census) -> None:
    global _worker
    _worker = _Worker(settings, census)


def _work(scan_dir: Path) -> _Outcome:
    assert _worker is not None
    return _worker(scan_dir)
