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
from jaxvsr.data.scannet.read_scan import Scene
from jaxvsr.errors import InputError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MIRRORED = {"left": "right", "right": "left"}
_SIDES = re.compile(r"\b(left|right)\b")


@dataclasses.dataclass(frozen=True)
class Draft:
    """A question that could be asked of a scene; `fields` fill the template.

    Of a multiple-choice question `options` are the things to choose from, the answer among them, without letters. Their
    order means nothing, except that a mirrored scene must give mirrored options in the same order: letters are dealt
    later, so that each is right equally often.
    """

    fields: dict[str, str]
    answer: str
    options: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Selection:
    """How many of a task's drafts are asked of one scene; None sets no bound.

    With `balance`, drafts are taken in turn from the different answers (2, 0, 1, 0, 1, 0 … rather than 1, 1, 1, 1, 2).
    """

    per_scene: int | None = None
    per_answer: int | None = None
    balance: bool = True


@dataclasses.dataclass(frozen=True)
class Task:
    """One kind of question.

    Args:
        name: VSI-Bench's `question_type`.
        answer_kind: what rewards and metrics go by.
        template: the question, with the names of `Draft.fields` in braces; `{options}` stands for the options of a
            multiple-choice question, in the order of their letters.
        drafts: all that could be asked of a scene; may draw from the generator.
        selection: which of them are.
        swaps_sides: whether left and right change places in the answers (and options) where the scene is mirrored.
            What a mirror leaves alone, such as counts and distances, keeps its answer.
    """

    name: str
    answer_kind: AnswerKind
    template: str
    drafts: Callable[[Scene, np.random.Generator], Iterable[Draft]]
    selection: Selection = Selection()
    swaps_sides: bool = False

    def __post_init__(self) -> None:
        if not self.name or not self.template:
            raise InputError(f"task {self.name!r}: name and template must not be empty")
        if self.answer_kind not in get_args(AnswerKind):
            kinds = ", ".join(get_args(AnswerKind))
            raise InputError(f"task {self.name!r}: answer_kind {self.answer_kind!r} is not one of {kinds}")

    def generate(self, scene: Scene, rng: np.random.Generator) -> list[Question]:
        """The questions about one scene: none asked twice, and none whose drafts disagree about the answer."""
        by_text: dict[str, Draft] = {}
        contradicted: set[str] = set()
        for draft in self.drafts(scene, rng):
            self._check(draft)
            text = self._text(draft, sorted(draft.options or ()))
            if text in by_text and by_text[text].answer != draft.answer:
                contradicted.add(text)
            by_text.setdefault(text, draft)
        drafts = [draft for text, draft in by_text.items() if text not in contradicted]
        chosen = [drafts[i] for i in select([draft.answer for draft in drafts], self.selection, rng)]
        rows = []
        for draft, options in zip(chosen, deal_options(chosen, rng), strict=True):
            text = self._text(draft, options or ())
            letter_of = dict(zip(options, LETTERS[: len(options)], strict=True)) if options else {}
            rows.append(
                Question(
                    id=question_id(scene.name, self.name, text),
                    scene=scene.name,
                    question_type=self.name,
                    question=text,
                    options=options and tuple(f"{letter}. {option}" for option, letter in letter_of.items()),
                    answer=letter_of[draft.answer] if options else draft.answer,
                    answer_kind=self.answer_kind,
                )
            )
        return rows

    def _check(self, draft: Draft) -> None:
        """Refuse what could be written, but not read again or answered."""
        answer, options = draft.answer, draft.options
        if not isinstance(answer, str) or not answer or any("\ud800" <= sign <= "\udfff" for sign in answer):
            raise InputError(f"task {self.name!r}: an answer must be a text of at least one letter, found {answer!r}")
        if self.answer_kind == "number" and not is_number(answer):
            raise InputError(f"task {self.name!r}: its answers are numbers, but {answer[:60]!r} is none")
        if (options is None) == (self.answer_kind == "choice"):
            raise InputError(f"task {self.name!r}: options go with answers of the kind 'choice', found {options!r:.60}")
        if options is not None and not (
            answer in options and len(set(options)) == len(options) and 2 <= len(options) <= len(LETTERS)
        ):
            raise InputError(
                f"task {self.name!r}: expected 2 to {len(LETTERS)} different options, {answer[:40]!r} among them, "
                f"found {options!r:.80}"
            )

    def _text(self, draft: Draft, options: Sequence[str]) -> str:
        return self.template.format(**draft.fields, options=", ".join(options))

    def mirror(self, row: Question) -> Question:
        """The question about the mirrored scene that `row` becomes: exact, because the task knows what it asks."""
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
    """The same for the same question of the same scene, whenever and wherever it is generated."""
    return hashlib.sha256("\0".join((scene, task, question)).encode()).hexdigest()[:16]


def task_rng(seed: int, scene: str, task: str) -> np.random.Generator:
    """Random numbers that belong to (seed, scene, task): not to the order of scans, nor to the tasks before."""
    digest = hashlib.sha256("\0".join((scene, task)).encode()).digest()
    return np.random.default_rng((seed, int.from_bytes(digest[:16], "big")))


def select(answers: Sequence[str], selection: Selection, rng: np.random.Generator) -> list[int]:
    """Indices of the drafts to ask, ascending."""
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


def deal_options(drafts: Sequence[Draft], rng: np.random.Generator) -> list[tuple[str, ...] | None]:
    """The options of every draft in the order in which they get letters; None where it has none.

    Of the drafts with k options each of the k letters is right equally often, up to one; the wrong options are
    shuffled. `rng` is left alone where no draft has options.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for number, draft in enumerate(drafts):
        if draft.options:
            by_size[len(draft.options)].append(number)
    dealt: list[tuple[str, ...] | None] = [None] * len(drafts)
    for size, numbers in by_size.items():
        places = rng.permutation(np.resize(rng.permutation(size), len(numbers)))
        for number, place in zip(numbers, places.tolist(), strict=True):
            draft = drafts[number]
            wrong = [option for option in draft.options or () if option != draft.answer]
            order = [wrong[i] for i in rng.permutation(len(wrong))]
            dealt[number] = (*order[:place], draft.answer, *order[place:])
    return dealt
