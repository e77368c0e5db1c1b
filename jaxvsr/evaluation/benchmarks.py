"""The benchmarks by name: from predictions to scores and tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.evaluation.metrics.open_ended import Judge, score_open_ended
from jaxvsr.evaluation.metrics.q_spatial import score_q_spatial, true_length_cm
from jaxvsr.evaluation.metrics.vsi_bench_scores import (
    SCORED_KINDS,
    TASKS,
    VsiBenchScores,
    score_intervals,
    score_vsi_bench,
)
from jaxvsr.evaluation.predictions import Prediction, with_missing
from jaxvsr.evaluation.tables.published_rows import OPEN_ENDED, Q_SPATIAL, VSI_BENCH, Rows
from jaxvsr.evaluation.tables.text_table import Cells, format_number, markdown_table, plain_table
from jaxvsr.prompts import Prompt
from jaxvsr.rewards.answers import final_answer
from jaxvsr.rewards.svqa_r1 import MODEL

BENCHMARKS = ("vsi-bench", "q-spatial", "open-ended")
SVQA_DECIMALS = 2  # as SVQA-R1 prints them; VSI-Bench's tables have one
SHORT = {"object_counting": "count", "object_abs_distance": "abs.dist", "object_size_estimation": "size"}
SHORT |= {"room_size_estimation": "room", "object_rel_distance": "rel.dist", "object_rel_direction": "rel.dir"}
SHORT |= {"route_planning": "route", "obj_appearance_order": "order"}


@dataclasses.dataclass(frozen=True)
class Result:
    """Scores of one set of predictions, the benchmark's own, and by name those of its other parsers."""

    scores: dict[str, Any]
    by_parser: dict[str, dict[str, Any]]
    details: dict[str, Any]
    tables: tuple[tuple[str, Cells], ...]  # (heading, cells)
    notes: tuple[str, ...]

    def with_note(self, note: str) -> Result:
        """The same with a further note."""
        notes = (*self.notes, note)
        return dataclasses.replace(self, notes=notes, details={**self.details, "notes": list(notes)})

    def to_text(self) -> str:
        """Tables and notes for a terminal."""
        parts = [f"{heading}\n\n{plain_table(cells)}" for heading, cells in self.tables]
        return "\n\n".join([*parts, *(f"note: {note}" for note in self.notes)])

    def to_markdown(self) -> str:
        """Tables and notes as Markdown."""
        parts = [f"## {heading}\n\n{markdown_table(cells)}" for heading, cells in self.tables]
        return "\n\n".join([*parts, *(f"- {note}" for note in self.notes)]) + "\n"


def score_predictions(
    benchmark: str,
    predictions: Sequence[Prediction],
    *,
    prompt: Prompt | None = None,
    questions: Iterable[Question] | None = None,
    judge: Judge | None = None,
    sentence_model: str | None = MODEL,
) -> Result:
    """Score predictions with one of `BENCHMARKS`.

    Args:
        prompt: says where the answer in a completion is. Without it the answer is the completion, in open-ended what
            `final_answer` finds. The robust parsers find it by themselves, behind a thinking model's thought and before
            the prompt's stop strings.
        questions: all that should have been answered.
        judge: only for open-ended.
        sentence_model: only for open-ended; None: its column is empty.
    """
    asked = None if questions is None else list(questions)
    if benchmark == "vsi-bench":
        return _vsi_bench(predictions, prompt, asked)
    if benchmark == "q-spatial":
        return _q_spatial(predictions, prompt, asked)
    return _open_ended(predictions, prompt, asked, judge, sentence_model)


def check_questions(benchmark: str, questions: Iterable[Question]) -> None:
    """Raise `InputError` if the benchmark cannot score these questions, before a model answers them."""
    asked = list(questions)
    if benchmark == "q-spatial":
        for question in asked:
            true_length_cm(question)
    elif benchmark == "vsi-bench" and not any(one.answer_kind in SCORED_KINDS for one in asked):
        kinds = ", ".join(sorted({question.answer_kind for question in asked}))
        raise InputError(
            f"--benchmark vsi-bench: scores numbers, choices and words, but all {len(asked):,} questions are of kind "
            f"{kinds}; --benchmark open-ended scores them"
        )


def _vsi_bench(
    predictions: Sequence[Prediction], prompt: Prompt | None, questions: Sequence[Question] | None
) -> Result:
    rows = with_missing(predictions, questions)
    official = score_vsi_bench(rows, parser="official", answer_of=prompt.answer if prompt else str)
    completion_of = prompt.readable if prompt else str
    lmms_eval = score_vsi_bench(rows, parser="lmms-eval", answer_of=completion_of)
    robust = score_vsi_bench(rows, parser="robust", answer_of=completion_of)
    spread = {one.parser: score_intervals(rows, one) for one in (official, lmms_eval, robust)}

    def line(name: str, n: int, of: Callable[[VsiBenchScores], float | None]) -> list[str]:
        interval = " – ".join(map(format_number, spread["official"].get(name, (None, None))))
        return [
            name,
            str(n),
            format_number(of(official)),
            interval,
            *(format_number(of(o)) for o in (lmms_eval, robust)),
        ]

    header = ["question type", "n", "score", "95 % interval", "lmms-eval's parser", "robust parser"]
    types = [line(name, n, lambda one, name=name: one.by_type[name]) for name, n in official.counts.items()]  # type: ignore[misc]
    total = line("overall", sum(official.counts.values()), lambda one: one.overall)
    scored = {
        "these predictions": {"overall": official.overall, **official.tasks},
        "these predictions, lmms-eval's parser": {"overall": lmms_eval.overall, **lmms_eval.tasks},
        "these predictions, robust parser": {"overall": robust.overall, **robust.tasks},
    }
    beside = _beside({"overall": "overall", **{task: SHORT[task] for task in TASKS}}, scored, VSI_BENCH)
    details = {
        "by_type": {
            name: {
                "n": n,
                **{one.parser: one.by_type[name] for one in (official, lmms_eval, robust)},
                **{f"{one.parser}_interval": spread[one.parser][name] for one in (official, lmms_eval, robust)},
            }
            for name, n in official.counts.items()
        },
        "overall_interval": {parser: found.get("overall") for parser, found in spread.items()},
        "notes": list(official.notes),
    }
    tables = (("VSI-Bench, official metric, per cent", [header, *types, total]), ("Beside published rows", beside))
    by_parser: dict[str, dict[str, Any]] = {one.parser: one.to_json() for one in (lmms_eval, robust)}
    return Result(official.to_json(), by_parser, details, tables, official.notes)


def _beside(
    columns: Mapping[str, str], scored: Mapping[str, Mapping[str, Any]], published: Rows, decimals: int = 1
) -> Cells:
    """The scored rows, then the published ones; `columns` has the heading of each column by its name."""
    rows = [*scored.items(), *((f"{row} ({source})", values) for (source, row), values in published.items())]
    cells = ([name, *(format_number(values.get(one), decimals) for one in columns)] for name, values in rows)
    return [["", *columns.values()], *cells]


def _q_spatial(
    predictions: Sequence[Prediction], prompt: Prompt | None, questions: Sequence[Question] | None
) -> Result:
    answer_of, completion_of = (prompt.answer, prompt.readable) if prompt else (str, str)
    official = score_q_spatial(predictions, parser="official", answer_of=answer_of, questions=questions)
    robust = score_q_spatial(predictions, parser="robust", answer_of=completion_of, questions=questions)
    short = {"success_rate": "success", "samples_completed": "completed", "smape": "sMAPE"}
    short |= {"in_range_50_100": "50–100", "in_range_100_150": "100–150", "in_range_150_200": "150–200"}
    table = [["", "n", *short.values()]]
    for one in (official, robust):
        numbers = [format_number(one.to_json()[name], SVQA_DECIMALS) for name in short]
        table.append([f"{one.parser} parser", str(one.questions), *numbers])
    scored = {"these predictions": official.to_json(), "these predictions, robust parser": robust.to_json()}
    details = {"notes": list(official.notes)}
    beside = _beside(short, scored, Q_SPATIAL, SVQA_DECIMALS)
    tables = (("Q-Spatial, per cent", table), ("Beside published rows (Q-Spatial++)", beside))
    return Result(official.to_json(), {"robust": robust.to_json()}, details, tables, official.notes)


def _open_ended(
    predictions: Sequence[Prediction],
    prompt: Prompt | None,
    questions: Sequence[Question] | None,
    judge: Judge | None,
    model: str | None,
) -> Result:
    rule = prompt.answer if prompt else final_answer
    scores = score_open_ended(predictions, answer_of=rule, judge=judge, model=model, questions=questions)
    kinds = {"box_miou": "box", "box_accuracy_75": "box", "yes_no": "yes_no", "yes_no_judge": "yes_no"}
    kinds |= {"distance": "distance"}
    table = [["column", "n", "score"]]
    for name, value in scores.columns.items():
        table.append([name, str(scores.counts[kinds.get(name, "questions")]), format_number(value, SVQA_DECIMALS)])
    details = {"counts": scores.counts, "notes": list(scores.notes)}
    heading = "Open-ended spatial VQA, per cent (reasoning_words: a mean count)"
    short = {"judge": "judge", "bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "sentence_bert": "sBERT", "box_miou": "box mIoU"}
    short |= {"box_accuracy_75": "acc. 0.75", "yes_no_judge": "yes/no", "distance": "distance"}
    beside = _beside(short, {"these predictions": scores.columns}, OPEN_ENDED, SVQA_DECIMALS)
    tables = ((heading, table), ("Beside published rows (judge and yes/no by GPT-4o)", beside))
    return Result({**scores.to_json(), "sentence_model": model}, {}, details, tables, scores.notes)
