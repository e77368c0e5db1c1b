"""Read a published question set: parse its rows, pair them with media, leave out what must not be trained on."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from jaxvsr.data.importers.answer_kinds import RowError
from jaxvsr.data.importers.formats import Format, detect, place_names, read_row, renamed
from jaxvsr.data.importers.pairing import Found, Pairing, Place
from jaxvsr.data.importers.row_fields import SourceRow
from jaxvsr.data.importers.source_rows import read_rows, source_files
from jaxvsr.data.questions import Question, choices, meaning
from jaxvsr.data.video.media_index import MediaIndex
from jaxvsr.errors import InputError


@dataclasses.dataclass(frozen=True)
class ImportSettings:
    """What to import. `field_map`: our field → the set's; `include`: benchmarks whose rows are taken, as held out."""

    source: Path
    videos: Path | None
    format: Format | None = None  # None: by the fields of the first row
    field_map: Mapping[str, str] = dataclasses.field(default_factory=dict)
    include: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.field_map and self.format not in (None, "jsonl"):
            raise InputError(f"--map: the format {self.format} has fixed fields; --map belongs to jsonl")

    @property
    def name(self) -> str:
        """Prefix of the ids: the source's name in letters, digits and underscores."""
        stem = self.source.resolve().stem if self.source.is_file() else self.source.resolve().name
        return "import_" + (re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_") or "set")


# Why a row was left out, in the order of the checks.
KINDS = REFUSED, UNPAIRED, BENCHMARK, CONTRADICTION, DUPLICATE = (
    *("refused", "unpaired"),
    *("benchmark", "contradiction", "duplicate"),
)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A row that was not imported: one of the five kinds, its place, and the reason."""

    kind: str
    where: str
    reason: str


@dataclasses.dataclass(frozen=True)
class ImportReport:
    """The questions, the benchmarks of their scenes, the rows left out, and counted notes.

    `debiased`: ids of VSI-Bench's debiased subset, if every row says whether it was pruned.
    """

    format: Format
    source_rows: int
    questions: tuple[Question, ...]
    benchmark_scenes: dict[str, str]
    left_out: tuple[LeftOut, ...]
    notes: dict[str, int]
    debiased: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """How many rows were left out, by kind."""
        found = Counter(one.kind for one in self.left_out)
        return {kind: found[kind] for kind in KINDS}

    @property
    def paired(self) -> int:
        """How many questions were paired with their video or images, also those left out for other reasons."""
        counts = self.counts()
        return len(self.questions) + counts[BENCHMARK] + counts[CONTRADICTION] + counts[DUPLICATE]


@dataclasses.dataclass(frozen=True, eq=False)
class _Paired:
    where: str
    number: int  # of the question among all of the set, whether or not the others are imported
    row: SourceRow
    place: Place


def import_questions(settings: ImportSettings, out: Path) -> tuple[ImportReport, Pairing]:
    """Read and check a whole set. The pairing may have written images: call its `keep` or `discard`.

    Raises:
        InputError: the files cannot be read, or no row could be imported.
    """
    source_files(settings.source)
    form = settings.format or ("jsonl" if settings.field_map else None)
    index = None if settings.videos is None else MediaIndex(settings.videos, images=True)
    pairing = Pairing(out, settings.name, index)
    left_out: list[LeftOut] = []
    notes: Counter[str] = Counter()
    found: list[tuple[str, int, SourceRow, Found]] = []
    paired: list[_Paired] = []
    total = asked = 0
    try:
        for where, raw in read_rows(settings.source):
            total += 1
            form = form or detect(raw, where)
            try:
                rows = read_row(renamed(raw, settings.field_map) if form == "jsonl" else raw, form, where)
                rows = [dataclasses.replace(row, names=place_names(raw)) for row in rows]
            except RowError as error:
                left_out.append(LeftOut(REFUSED, where, str(error)))
                asked += 1
                continue
            for turn, row in enumerate(rows, start=1):
                reached = pairing.find(row)
                name = where if len(rows) == 1 else f"{where} turn {turn}"
                number, asked = asked, asked + 1
                notes.update(row.notes)
                if isinstance(reached, str):
                    left_out.append(LeftOut(UNPAIRED, name, reached))
                else:
                    found.append((name, number, row, reached))
        if form is None:
            raise InputError(f"{settings.source}: no rows in it")
        for name, number, row, reached in found:
            place = pairing.place(row, reached)
            if isinstance(place, str):
                left_out.append(LeftOut(UNPAIRED, name, place))
            elif place.benchmark and place.benchmark not in settings.include and form != "vsi-bench":
                left_out.append(LeftOut(BENCHMARK, name, f"{place.scene} is a scene of {place.benchmark}"))
            else:
                paired.append(_Paired(name, number, row, place))
        consistent = _without_duplicates(_without_contradictions(paired, left_out), left_out)
        questions = _questions(consistent, settings.name, left_out)
        if not questions:
            commonest = Counter(one.kind for one in left_out).most_common(1)[0][0]
            first = next(one for one in left_out if one.kind == commonest)
            raise InputError(f"none of {total} rows could be imported; {commonest}, {first.where}: {first.reason}")
    except BaseException:
        pairing.discard()
        raise
    benchmarks = {one.place.scene: one.place.benchmark for one in consistent if one.place.benchmark}
    scenes = {question.scene for question in questions}
    return (
        ImportReport(
            form,
            total,
            tuple(questions),
            {scene: owner for scene, owner in benchmarks.items() if scene in scenes},
            tuple(left_out),
            dict(notes),
            _debiased(consistent, questions, settings.name),
        ),
        pairing,
    )


def _debiased(paired: list[_Paired], questions: list[Question], name: str) -> tuple[str, ...]:
    """The ids of rows that were not pruned; empty unless every row says whether it was."""
    pruned = {f"{name}-{one.row.id}": one.row.pruned for one in reversed(paired)}  # the first row of an id counts
    if any(pruned.get(question.id) is None for question in questions):
        return ()
    return tuple(question.id for question in questions if not pruned[question.id])


def _asked(one: _Paired) -> tuple[object, ...]:
    """What makes two rows the same question: scene or its mirror image, text, options."""
    words = " ".join(one.row.question.casefold().split())
    return one.place.scene, one.row.mirror_of is not None, words, one.row.answer.options


def _meaning(one: _Paired) -> float | str:
    return meaning(one.row.answer.text, one.row.answer.kind, one.row.answer.options)


def _without_contradictions(paired: list[_Paired], left_out: list[LeftOut]) -> list[_Paired]:
    """Leave out all rows with different answers to the same question, because nothing says which one is right. Options
    in another order are the same question."""
    answers: dict[tuple[object, ...], set[float | str]] = defaultdict(set)

    def question(one: _Paired) -> tuple[object, ...]:
        return *_asked(one)[:-1], choices(one.row.answer.options)

    for one in paired:
        if one.row.answer.kind != "text":  # two descriptions of one thing do not contradict each other
            answers[question(one)].add(_meaning(one))
    kept = []
    for one in paired:
        different = answers.get(question(one), set())
        if len(different) > 1:
            found = ", ".join(sorted(map(_shown, different))[:4])
            left_out.append(LeftOut(CONTRADICTION, one.where, f"{one.row.question[:80]!r} is answered {found}"))
        else:
            kept.append(one)
    return kept


def _shown(answer: float | str) -> str:
    return f"{answer:g}" if isinstance(answer, float) else answer


def _without_duplicates(paired: list[_Paired], left_out: list[LeftOut]) -> list[_Paired]:
    first: dict[tuple[object, ...], str] = {}
    kept = []
    for one in paired:
        key = (*_asked(one), _meaning(one), one.row.response)
        if key in first:
            left_out.append(LeftOut(DUPLICATE, one.where, f"the same as {first[key]}"))
        else:
            first[key] = one.where
            kept.append(one)
    return kept


def _unnamed(number: int, given: Collection[str | None]) -> str:
    """An id for a row without one; another row of the set may have this number as its id."""
    return str(number) if str(number) not in given else f"row-{number}"


def _questions(paired: list[_Paired], name: str, left_out: list[LeftOut]) -> list[Question]:
    """Questions with ids: the set's, or the row's number, which does not depend on what rows are left out."""
    by_id: dict[str, Question] = {}
    places: dict[str, str] = {}
    given = {one.row.id for one in paired}
    for one in paired:
        row, place = one.row, one.place
        own = f"{name}-{row.id or _unnamed(one.number, given)}"
        if own in by_id:
            left_out.append(LeftOut(REFUSED, one.where, f"its id {row.id!r} is already that of {places[own]}"))
            continue
        places[own] = one.where
        by_id[own] = Question(
            id=own,
            scene=place.scene,
            question_type=row.question_type,
            question=row.question,
            options=row.answer.options,
            answer=row.answer.text,
            answer_kind=row.answer.kind,
            video=place.video,
            images=place.images,
            mirror_of=None if row.mirror_of is None else f"{name}-{row.mirror_of}",
            response=row.response,
        )
    questions = []
    for question in by_id.values():
        if question.mirror_of is not None and question.mirror_of not in by_id:
            reason = f"mirror_of {question.mirror_of.removeprefix(f'{name}-')!r} names no row that was imported"
            left_out.append(LeftOut(REFUSED, places[question.id], reason))
        else:
            questions.append(question)
    return questions
