"""A task is one object: what it asks, how the answer follows from a scene, and what a mirror does to it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

import numpy as np

from jaxvsr.data.questions import AnswerKind, Question, is_number
from jaxvsr.data.scannet.read_scan import ScannedScene
from jaxvsr.errors import InputError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MIRRORED = {"left": "right", "right": "left"}
_SIDES = re.compile(r"\b(left|right)\b")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A question that could be asked of a scene; `fields` fill the template.

    `options` are the choices of a multiple-choice question, without letters, the answer among them. Their order means
    nothing, except that a mirrored scene must give mirrored options in the same order: `order_options` gives them their
    letters later, so that each letter is right equally often.
    """

    fields: dict[str, str]
    answer: str
    options: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Selection:
    """How many of a task's candidates are asked per scene; None sets no bound.

    With `balance` they are taken from the different answers in turn (2, 0, 1, 0, 1, 0 … rather than 1, 1, 1, 1, 2).
    """

    per_scene: int | None = None
    per_answer: int | None = None
    balance: bool = True


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of question.

    Args:
        name: VSI-Bench's `question_type`.
        answer_kind: decides which rewards and metrics apply.
        template: the question, with the names of `Candidate.fields` in braces; `{options}` stands for the options of a
            multiple-choice question, in the order of their letters.
        candidates: all questions that could be asked of a scene; may draw from the generator.
        selection: which of them are asked.
        swaps_sides: whether left and right change places in answers and options when the scene is mirrored. Counts,
            distances and the like keep their answers.
    """

    name: str
    answer_kind: AnswerKind
    template: str
    candidates: Callable[[ScannedScene, np.random.Generator], Iterable[Candidate]]
    selection: Selection = Selection()
    swaps_sides: bool = False

    def __post_init__(self) -> None:
        if not self.name or not self.template:
            raise InputError(f"task {self.name!r}: name and template must not be empty")
        if self.answer_kind not in get_args(AnswerKind):
            kinds = ", ".join(get_args(AnswerKind))
            raise InputError(f"task {self.name!r}: answer_kind {self.answer_kind!r} is not one of {kinds}")

    def generate(self, scene: ScannedScene, rng: np.random.Generator) -> list[Question]:
        """The questions about one scene: each once, without those whose candidates disagree about the answer."""
        by_text: dict[str, Candidate] = {}
        contradicted: set[str] = set()
        for candidate in self.candidates(scene, rng):
            self._check(candidate)
            text = self._text(candidate, sorted(candidate.options or ()))
            if text in by_text and by_text[text].answer != candidate.answer:
                contradicted.add(text)
            by_text.setdefault(text, candidate)
        candidates = [candidate for text, candidate in by_text.items() if text not in contradicted]
        chosen = [candidates[i] for i in select([candidate.answer for candidate in candidates], self.selection, rng)]
        rows = []
        for candidate, options in zip(chosen, order_options(chosen, rng), strict=True):
            text = self._text(candidate, options or ())
            letter_of = dict(zip(options, LETTERS[: len(options)], strict=True)) if options else {}
            rows.append(
                Question(
                    id=question_id(scene.name, self.name, text),
                    scene=scene.name,
                    question_type=self.name,
                    question=text,
                    options=options and tuple(f"{letter}. {option}" for option, letter in letter_of.items()),
                    answer=letter_of[candidate.answer] if options else candidate.answer,
                    answer_kind=self.answer_kind,
                )
            )
        return rows

    def _check(self, candidate: Candidate) -> None:
        """Refuse a candidate that could be written, but not be read again or answered."""
        answer, options = candidate.answer, candidate.options
        if not isinstance(answer, str) or not answer or any("\ud800" <= sign <= "\udfff" for sign in answer):
            raise InputError(f"task {self.name!r}: an answer must be a non-empty string, found {answer!r}")
        if self.answer_kind == "number" and not is_number(answer):
            raise InputError(f"task {self.name!r}: answer_kind is 'number', but {answer[:60]!r} is not a number")
        if (options is None) == (self.answer_kind == "choice"):
            raise InputError(
                f"task {self.name!r}: options belong to answer_kind 'choice' and to no other, found {options!r:.60}"
            )
        if options is not None and not (
            answer in options and len(set(options)) == len(options) and 2 <= len(options) <= len(LETTERS)
        ):
            raise InputError(
                f"task {self.name!r}: expected 2 to {len(LETTERS)} different options that include {answer[:40]!r}, "
                f"found {options!r:.80}"
            )

    def _text(self, candidate: Candidate, options: Sequence[str]) -> str:
        return self.template.format(**candidate.fields, options=", ".join(options))

    def mirror(self, row: Question) -> Question:
        """What `row` becomes when the scene is mirrored; exact, because the task knows what it asks."""
        swap = swap_sides if self.swaps_sides else str
        return dataclasses.replace(
            row,
            id=f"{row.id}-mirror",
            answer=swap(row.answer),
            options=None if row.options is None else tuple(swap(option) for option in row.options),
            mirror_of=row.id,
        )


def swap_sides(text: str) -> str:
    """`left` and `right` change places: front-left becomes front-right."""
    return _SIDES.sub(lambda word: _MIRRORED[word[0]], text)


def question_id(scene: str, task: str, question: str) -> str:
    """An id that depends on nothing but scene, task and question."""
    return hashlib.sha256("\0".join((scene, task, question)).encode()).hexdigest()[:16]


def task_rng(seed: int, scene: str, task: str) -> np.random.Generator:
    """Random numbers that depend on (seed, scene, task), not on the order of scans or of tasks."""
    digest = hashlib.sha256("\0".join((scene, task)).encode()).digest()
    return np.random.default_rng((seed, int.from_bytes(digest[:16], "big")))


def select(answers: Sequence[str], selection: Selection, rng: np.random.Generator) -> list[int]:
    """Indices of the candidates to ask, ascending."""
    order = rng.permutation(len(answers)).tolist()
    by_answer: dict[str, list[int]] = defaultdict(list)
    for index in order:
        by_answer[answers[index]].append(index)
    groups = [group[: selection.per_answer] for group in by_answer.values()]
    if selection.balance:
        longest = max(map(len, groups), default=0)
        order = [group[turn] for turn in range(longest) for group in groups if turn < len(group)]
    else:
        kept = {index for group in groups for index in group}
        order = [index for index in order if index in kept]
    return sorted(order[: selection.per_scene])


def order_options(candidates: Sequence[Candidate], rng: np.random.Generator) -> list[tuple[str, ...] | None]:
    """The options of each candidate in the order of their letters; None for a candidate without options.

    Among the candidates with k options each of the k letters is right equally often, give or take one; the wrong
    options are shuffled. Nothing is drawn from `rng` when no candidate has options.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for number, candidate in enumerate(candidates):
        if candidate.options:
            by_size[len(candidate.options)].append(number)
    ordered: list[tuple[str, ...] | None] = [None] * len(candidates)
    for size, numbers in by_size.items():
        places = rng.permutation(np.resize(rng.permutation(size), len(numbers)))
        for number, place in zip(numbers, places.tolist(), strict=True):
            candidate = candidates[number]
            wrong = [option for option in candidate.options or () if option != candidate.answer]
            others = [wrong[i] for i in rng.permutation(len(wrong))]
            ordered[number] = (*others[:place], candidate.answer, *others[place:])
    return ordered
