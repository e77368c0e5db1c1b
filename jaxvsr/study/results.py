"""The results of a study: a table of scores, differences between arms with what the papers say, and a figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxvsr.errors import InputError
from jaxvsr.evaluation.metrics.uncertainty import Difference, paired_difference
from jaxvsr.evaluation.metrics.vsi_bench_scores import TASKS, score_vsi_bench, task_of
from jaxvsr.evaluation.provenance import read_answers
from jaxvsr.evaluation.tables.text_table import markdown_table
from jaxvsr.files import read_json_object, write_text
from jaxvsr.report.build import read_run
from jaxvsr.report.curves import Panel, draw_panels
from jaxvsr.report.summary import Run, Spread, summarise, to_csv, to_markdown
from jaxvsr.runs.run_folder import RunFolder
from jaxvsr.study.commands import arm_folder
from jaxvsr.study.definition import Claim, Study

SURE = 2.0  # standard errors from which a difference counts
OVERALL = "overall"
CURVE = "eval/overall"  # what the figure shows
COSTS = ("reward/mean", "kl", "completion_length", "hacking/repeated_tags", "hacking/outside_tags", "seconds/step")


@dataclasses.dataclass(frozen=True)
class ArmResult:
    """One arm and seed: its scores in per cent, and the score of each question by id."""

    arm: str
    seed: int | None  # None: a model that was not trained
    scores: Mapping[str, float]
    by_question: Mapping[str, float]
    run: Run | None
    notes: tuple[str, ...] = ()  # what one must know to read the scores
    types: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the questions, by id

    def among(self, types: Sequence[str]) -> ArmResult:
        """With the questions of these types alone; of all where none are named."""
        if not types:
            return self
        some = {key: value for key, value in self.by_question.items() if self.types[key] in types}
        return dataclasses.replace(self, by_question=some)


def read_results(study: Study, out: Path, seeds: Sequence[int]) -> list[ArmResult]:
    """All arms and seeds that are scored so far, in the order of the study."""
    results = []
    for arm in study.arms:
        for seed in seeds if arm.is_trained else seeds[:1]:
            folder = arm_folder(out, arm, seed)
            path = folder / "scores" / "scores.json"
            if not path.is_file():
                continue
            run = read_run(folder / "run") if RunFolder(folder / "run").metrics.is_file() else None
            by_question, types, notes = _questions(path)
            seed_of_run = seed if arm.is_trained else None
            results.append(ArmResult(arm.name, seed_of_run, _scores(path), by_question, run, notes, types))
    return results


def _scores(path: Path) -> dict[str, float]:
    row = read_json_object(path)
    return {name: float(row[name]) for name in (OVERALL, *TASKS) if isinstance(row.get(name), (int, float))}


def _questions(path: Path) -> tuple[dict[str, float], dict[str, str], tuple[str, ...]]:
    """Each question's score in per cent, and its type, by id; and the notes on the scores."""
    answers = read_answers(path.parent / "predictions.jsonl")
    scores = score_vsi_bench(answers)
    asked = [one.question for one in answers]
    by_question = {one.id: 100 * float(value) for one, value in zip(asked, scores.per_question, strict=True)}
    return by_question, {one.id: task_of(one.question_type) for one in asked}, scores.notes


def write_results(study: Study, out: Path, seeds: Sequence[int]) -> tuple[Path, ...]:
    """Write study.md and study.csv of what is scored so far, and study.png and study.pdf if it includes a training.

    Returns what was written; nothing is where nothing is scored.
    """
    results = read_results(study, out, seeds)
    if not results:
        return ()
    trained = [one for one in results if one.run is not None]
    written = {"study.md": _page(study, seeds, results, trained), "study.csv": to_csv(_scores_of_arms(study, results))}
    for name, text in written.items():
        write_text(out / name, text)
    figures = [f"study.{ending}" for ending in ("png", "pdf")] if trained else []
    for name in figures:
        draw_panels(_panels(study, trained), out / name)
    return tuple(out / name for name in (*written, *figures))


def _page(study: Study, wanted: Sequence[int], results: Sequence[ArmResult], trained: Sequence[ArmResult]) -> str:
    """study.md: scores, comparisons, trainings; `wanted` are the seeds of the whole study."""
    seeds = sorted({one.seed for one in trained if one.seed is not None})
    several = len(seeds) > 1
    parts = [
        f"# Study {study.name}",
        f"Scores on {len(results[0].by_question):,} held-out questions (greedy answers, the benchmark's metric), per "
        f"cent. Training seeds: {', '.join(map(str, seeds)) or 'none yet'}"
        f"{'; mean ± standard deviation over seeds' if several else ''}.",
        to_markdown(_scores_of_arms(study, results)),
    ]
    notes = {note: [one for one in results if note in one.notes] for each in results for note in each.notes}
    lines = [
        f"- {'' if len(members) == len(results) else ', '.join(_by_label(study, members)) + ': '}{note}"
        for note, members in notes.items()
    ]
    if lines:
        parts.append("\n".join(["Notes on the scores:", "", *lines]))
    missing = _missing(study, wanted, results)
    if missing:
        parts.append(f"Not scored yet: {', '.join(missing)}.")
    if study.comparisons:
        parts.append(
            "Differences are means over all questions (not over tasks), paired by question after averaging over seeds. "
            "Standard errors are over questions; the spread between trainings is part of them only where there are "
            "several seeds."
        )
    for comparison in study.comparisons:
        parts.append(f"## {comparison.title}")
        if comparison.paper:
            parts.append(f"The papers: {comparison.paper}")
        if comparison.question_types:
            parts.append(f"Over the questions of {', '.join(comparison.question_types)} alone.")
        source = "paper" if comparison.paper else "claim"
        compared = [one.among(comparison.question_types) for one in results]
        if not all(one.by_question for one in compared):
            types = ", ".join(comparison.question_types)
            raise InputError(f"study {study.name}, comparison {comparison.title}: no question is of {types}")
        rows = [_difference_row(study, compared, claim, source, by_seed=several) for claim in comparison.differences]
        header = ["difference", "points", *(["by seed"] if several else []), "standard errors", "reading"]
        parts.append(markdown_table([header, *rows]))
    if trained:
        note = "Means over the last tenth of the steps. Mean rewards compare only between arms with the same rewards."
        parts += ["## Training", note, to_markdown(_costs_of_arms(study, trained))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _missing(study: Study, seeds: Sequence[int], results: Sequence[ArmResult]) -> list[str]:
    """Arms that are not scored yet, with their seeds where only some of them are missing."""
    scored = {(one.arm, one.seed) for one in results}
    missing = []
    for arm in study.arms:
        wanted: Sequence[int | None] = seeds if arm.is_trained else [None]
        left = [seed for seed in wanted if (arm.name, seed) not in scored]
        if left:
            some = f" (seed{'s' if len(left) > 1 else ''} {', '.join(map(str, left))})"
            missing.append(arm.label + (some if len(left) < len(wanted) else ""))
    return missing


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
    """One panel per comparison that has a trained arm; where there is none, one of all arms. None of a comparison over
    some types of question alone: the curves are over all that a run trains."""
    runs = _runs_by_label(study, trained)
    panels = []
    for comparison in study.comparisons:
        if comparison.question_types:
            continue
        labels = [study.arm(name).label for name in comparison.arms]
        groups = {label: runs[label] for label in labels if label in runs}
        panels += [Panel(curve_metric(groups), groups, comparison.title)] if groups else []
    return panels or [Panel(curve_metric(runs), runs)]


def curve_metric(groups: Mapping[str, Sequence[Run]]) -> str:
    """The metric in which the curves of these groups compare.

    Training asks held-out questions in batches like its own, Q per scene: runs with different Q are asked different
    questions, so their scores do not compare, only their rewards. Where no run was asked any (`intervals.evaluate: 0`)
    there are no scores.
    """
    runs = [run for members in groups.values() for run in members]
    questions = {run.fields.get("data.questions") for run in runs}
    are_asked = any(CURVE in row for run in runs for row in run.metrics)
    return CURVE if are_asked and len(questions) < 2 else "reward/mean"


def _by_label(study: Study, results: Sequence[ArmResult]) -> dict[str, list[ArmResult]]:
    groups: dict[str, list[ArmResult]] = {}
    for one in results:
        groups.setdefault(study.arm(one.arm).label, []).append(one)
    return groups


def _runs_by_label(study: Study, trained: Sequence[ArmResult]) -> dict[str, list[Run]]:
    groups = _by_label(study, trained)
    return {label: [one.run for one in members if one.run is not None] for label, members in groups.items()}


def _difference_row(
    study: Study, results: Sequence[ArmResult], claim: Claim, source: str, *, by_seed: bool
) -> list[str]:
    """One line of a comparison: the difference, `by_seed` also that of each seed, and whether what is claimed holds."""
    names = [study.arm(name).label for name in (claim.higher, claim.lower)]
    found = difference(results, claim.higher, claim.lower)
    if found is None:
        return [" − ".join(names), "–", *(["–"] if by_seed else []), "–", "not scored yet"]
    points = f"{found.mean:+.1f} ± {found.standard_error:.1f}"
    each = [f"{value:+.1f}" for value in differences_by_seed(results, claim.higher, claim.lower).values()]
    seeds = [", ".join(each) or "–"] if by_seed else []
    return [" − ".join(names), points, *seeds, f"{found.in_standard_errors:+.1f}", reading(found, claim, source)]


def difference(results: Sequence[ArmResult], higher: str, lower: str) -> Difference | None:
    """`higher` minus `lower` in points, each question's score averaged over the seeds that both arms have (a model that
    is not trained has all); None where there is no such seed.

    The standard error is over questions. With several seeds the spread between trainings is added, as independent: the
    standard error of the mean of the seeds' differences. Without it, a difference that one seed has and another has not
    would count as sure.

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
    found = paired_difference(means[0], means[1])
    each = list(differences_by_seed(results, higher, lower).values())
    if len(each) < 2:
        return found
    between = float(np.std(each, ddof=1) / np.sqrt(len(each)))
    return dataclasses.replace(found, standard_error=float(np.hypot(found.standard_error, between)))


def differences_by_seed(results: Sequence[ArmResult], higher: str, lower: str) -> dict[int, float]:
    """`higher` minus `lower` in points over all questions, by seed; an untrained model is the same in each."""
    sides = [{one.seed: one for one in results if one.arm == name} for name in (higher, lower)]
    seeds = [seed for seed in dict.fromkeys(seed for side in sides for seed in side) if seed is not None]
    found = {}
    for seed in seeds:
        high, low = (side.get(seed, side.get(None)) for side in sides)
        if high is not None and low is not None:
            gaps = [value - low.by_question[key] for key, value in high.by_question.items()]
            found[seed] = float(np.nanmean(gaps))
    return found


def reading(found: Difference, claim: Claim, source: str = "paper") -> str:
    """A difference in words; `source` is what claims it."""
    if not abs(found.in_standard_errors) >= SURE:
        return "no clear difference" + (f", unlike the {source}" if claim.is_claimed else "")
    if claim.is_claimed:
        return f"as in the {source}" if found.mean > 0 else f"opposite to the {source}"
    return "higher" if found.mean > 0 else "lower"
