"""What a study found: one table of scores, differences between arms beside what the papers say, and one figure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxvsr.errors import InputError
from jaxvsr.evaluation import provenance
from jaxvsr.evaluation.predictions import read_predictions
from jaxvsr.evaluation.statistics import Difference, paired_difference
from jaxvsr.evaluation.tables import markdown
from jaxvsr.evaluation.vsi_bench import TASKS, score
from jaxvsr.grpo.run_folder import RunFolder, write_text
from jaxvsr.report.build import read_run
from jaxvsr.report.curves import Panel, draw_panels
from jaxvsr.report.summary import Run, Spread, summarise, to_csv, to_markdown
from jaxvsr.study.commands import arm_folder
from jaxvsr.study.definition import Claim, Study

SURE = 2.0  # standard errors from which on a difference is called one
OVERALL = "overall"
COURSE = "eval/overall"  # what the figure shows over the steps
COSTS = ("reward/mean", "kl", "completion_length", "seconds/step")


@dataclasses.dataclass(frozen=True)
class ArmResult:
    """One arm and seed: its scores in per cent, and the score of each question by id."""

    arm: str
    seed: int | None  # None: a model that was not trained
    scores: Mapping[str, float]
    by_question: Mapping[str, float]
    run: Run | None


def read_results(study: Study, out: Path, seeds: Sequence[int]) -> list[ArmResult]:
    """Everything that is scored so far, in the order of the study."""
    results = []
    for arm in study.arms:
        for seed in seeds if arm.is_trained else seeds[:1]:
            folder = arm_folder(out, arm, seed)
            path = folder / "scores" / "scores.json"
            if not path.is_file():
                continue
            run = read_run(folder / "run") if RunFolder(folder / "run").metrics.is_file() else None
            results.append(ArmResult(arm.name, seed if arm.is_trained else None, _scores(path), _questions(path), run))
    return results


def _scores(path: Path) -> dict[str, float]:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    return {name: float(row[name]) for name in (OVERALL, *TASKS) if isinstance(row.get(name), (int, float))}


def _questions(path: Path) -> dict[str, float]:
    """Per cent of each question, answers taken out as the evaluation did."""
    predictions = read_predictions(path.parent / "predictions.jsonl")
    rule = provenance.answer_rule(provenance.beside(path.parent / "predictions.jsonl")) or str
    values = score(predictions, answer_of=rule).per_question
    return {one.question.id: 100 * float(value) for one, value in zip(predictions, values, strict=True)}


def write_results(study: Study, out: Path, seeds: Sequence[int]) -> tuple[Path, ...]:
    """Write study.md and study.csv of what is scored so far, and once a training is among it study.png and study.pdf;
    returns what was written.
    """
    results = read_results(study, out, seeds)
    if not results:
        return ()
    trained = [one for one in results if one.run is not None]
    written = {"study.md": _page(study, results, trained), "study.csv": to_csv(_scores_of_arms(study, results))}
    for name, text in written.items():
        write_text(out / name, text)
    figures = [f"study.{ending}" for ending in ("png", "pdf")] if trained else []
    for name in figures:
        draw_panels(_panels(study, trained), out / name)
    return tuple(out / name for name in (*written, *figures))


def _page(study: Study, results: Sequence[ArmResult], trained: Sequence[ArmResult]) -> str:
    """study.md: scores, comparisons, trainings."""
    seeds = sorted({one.seed for one in trained if one.seed is not None})
    asked = len(results[0].by_question)
    parts = [
        f"# Study {study.name}",
        f"{asked:,} held-out questions, answered greedily, in the benchmark's metric, per cent. Seeds of the "
        f"trainings: {', '.join(map(str, seeds)) or 'none yet'}; with several, mean ± standard deviation over them.",
        to_markdown(_scores_of_arms(study, results)),
    ]
    missing = [arm.label for arm in study.arms if arm.name not in {one.arm for one in results}]
    if missing:
        parts.append(f"Not scored yet: {', '.join(missing)}.")
    if study.comparisons:
        parts.append(
            "Differences below are over all questions (not the mean over tasks), paired question by question after "
            "averaging over seeds; their standard errors are over questions and hold no spread between trainings."
        )
    for comparison in study.comparisons:
        parts.append(f"## {comparison.title}")
        if comparison.paper:
            parts.append(f"The papers: {comparison.paper}")
        rows = [_difference_row(study, results, claim) for claim in comparison.differences]
        parts.append(markdown([["difference", "points", "standard errors", "reading"], *rows]))
    if trained:
        note = "Means over the last tenth of the steps. Rewards are each arm's own; different ones are not comparable."
        parts += ["## The trainings", note, to_markdown(_costs_of_arms(study, trained))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _scores_of_arms(study: Study, results: Sequence[ArmResult]) -> dict[str, dict[str, Spread]]:
    names = list(dict.fromkeys(name for one in results for name in one.scores))
    names = [OVERALL, *(task for task in TASKS if task in names)]
    runs = {
        label: [Run(label, {}, [{"step": 0.0, **one.scores}]) for one in members]
        for label, members in _by_label(study, results).items()
    }
    return summarise(runs, names)


def _costs_of_arms(study: Study, trained: Sequence[ArmResult]) -> dict[str, dict[str, Spread]]:
    runs = _runs_by_label(study, trained)
    logged = {name for members in runs.values() for run in members for row in run.metrics for name in row}
    return summarise(runs, [name for name in COSTS if name in logged])


def _panels(study: Study, trained: Sequence[ArmResult]) -> list[Panel]:
    """One a comparison that has a trained arm; without any, one of all arms."""
    runs = _runs_by_label(study, trained)
    panels = []
    for comparison in study.comparisons:
        labels = [study.arm(name).label for name in comparison.arms]
        groups = {label: runs[label] for label in labels if label in runs}
        panels += [Panel(comparison.title, COURSE, groups)] if groups else []
    return panels or [Panel(OVERALL, COURSE, runs)]


def _by_label(study: Study, results: Sequence[ArmResult]) -> dict[str, list[ArmResult]]:
    groups: dict[str, list[ArmResult]] = {}
    for one in results:
        groups.setdefault(study.arm(one.arm).label, []).append(one)
    return groups


def _runs_by_label(study: Study, trained: Sequence[ArmResult]) -> dict[str, list[Run]]:
    groups = _by_label(study, trained)
    return {label: [one.run for one in members if one.run is not None] for label, members in groups.items()}


def _difference_row(study: Study, results: Sequence[ArmResult], claim: Claim) -> list[str]:
    """One line of a comparison: the difference, and whether it is what the paper says."""
    names = [study.arm(name).label for name in (claim.higher, claim.lower)]
    found = difference(results, claim.higher, claim.lower)
    if found is None:
        return [" − ".join(names), "–", "–", "not scored yet"]
    points = f"{found.mean:+.1f} ± {found.standard_error:.1f}"
    return [" − ".join(names), points, f"{found.in_standard_errors:+.1f}", reading(found, claim)]


def difference(results: Sequence[ArmResult], higher: str, lower: str) -> Difference | None:
    """`higher` less `lower` in points, each question's score averaged over the seeds that both arms have (a model
    that was not trained has them all); None where there is no such seed.

    Raises:
        InputError: the arms answered different questions.
    """
    sides = [{one.seed: one for one in results if one.arm == name} for name in (higher, lower)]
    seeds = [seed for seed in sides[0] if seed in sides[1]] if not any(None in side for side in sides) else None
    means = []
    for name, side in zip((higher, lower), sides, strict=True):
        chosen = [one for seed, one in side.items() if seeds is None or seed in seeds]
        if not chosen:
            return None
        ids = sorted(chosen[0].by_question)
        for one in results:
            if one.arm in (higher, lower) and sorted(one.by_question) != ids:
                raise InputError(f"study: {one.arm} and {name} answered different questions; take another --out")
        means.append(np.mean([[one.by_question[key] for key in ids] for one in chosen], axis=0))
    return paired_difference(means[0], means[1])


def reading(found: Difference, claim: Claim) -> str:
    """A difference in words."""
    if not abs(found.in_standard_errors) >= SURE:
        return "no difference to be seen" + (", where the paper has one" if claim.is_claimed else "")
    if claim.is_claimed:
        return "as the paper" if found.mean > 0 else "the other way round than the paper"
    return "higher" if found.mean > 0 else "lower"
