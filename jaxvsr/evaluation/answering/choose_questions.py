"""Which questions an evaluation asks: of data folders, or of VSI-Bench as downloaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvsr.buckets.places import named
from jaxvsr.data.data_folder import QUESTIONS_FILE
from jaxvsr.data.importers.vsi_bench_download import is_download, read_vsi_bench
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.splits import SPLITS, SPLITS_FILE, read_splits
from jaxvsr.data.subsets import DEBIASED, read_subset
from jaxvsr.errors import InputError

AskedQuestion = tuple[Path, Question]  # a question and the data folder with its scene


@dataclasses.dataclass(frozen=True)
class ChosenQuestions:
    """Questions with their data folders, and how they were chosen (`choose_questions`)."""

    asked: tuple[AskedQuestion, ...]
    folders: tuple[Path, ...]
    split: str | None = None
    subset: str | None = None
    limit: int | None = None

    @property
    def questions(self) -> list[Question]:
        """The questions without their folders."""
        return [question for _, question in self.asked]

    def to_text(self) -> str:
        """How many questions, and that they are the held-out ones if no split was given."""
        held_out = self.split is None and "heldout" in describe_split(self.folders, None)
        return f"{len(self.asked):,} questions" + (" of the held-out split (--split all asks all)" if held_out else "")

    def to_json(self) -> dict[str, Any]:
        """What scores.json says of the choice: folders, split (also the default one), subset and limit if given."""
        chosen = {"data": named(",".join(map(str, self.folders))), "split": describe_split(self.folders, self.split)}
        given = {"subset": self.subset, "limit": self.limit}
        return chosen | {name: value for name, value in given.items() if value is not None}


def choose_questions(
    folders: Sequence[Path], *, split: str | None = None, subset: str | None = None, limit: int | None = None
) -> ChosenQuestions:
    """The questions to ask.

    Args:
        split: a split, or "all"; None: the held-out one of a folder that has splits, else all.
        subset: a name in `subsets.json`, or `debiased` of a downloaded VSI-Bench.
        limit: only the first questions of all folders together.

    Raises:
        InputError: no such questions, one id in two folders, or a folder given twice.
    """
    for folder in folders:
        if list(folders).count(folder) > 1:
            raise InputError(f"--data: {folder} is listed twice; each question is asked once")
    asked = [(folder, question) for folder in folders for question in _of_folder(folder, split, subset)]
    folder_of: dict[str, Path] = {}
    for folder, question in asked:
        if folder_of.setdefault(question.id, folder) != folder:
            raise InputError(
                f"question id {question.id!r} is in {folder_of[question.id]} and in {folder}; evaluate one of them"
            )
    return ChosenQuestions(tuple(asked[:limit]), tuple(folders), split, subset, limit)


def describe_split(folders: Sequence[Path], split: str | None) -> str:
    """The split that is asked: `heldout`, `train`, `all`, or `heldout,all` of folders with and without splits."""
    taken = [split or _default_split(folder) for folder in folders]
    return ",".join(dict.fromkeys(taken))


def _default_split(folder: Path) -> str:
    return "heldout" if (folder / SPLITS_FILE).is_file() else "all"


def training_questions(folders: Sequence[Path], split: str = "train") -> list[Question]:
    """The questions that constant answers are fitted on: those of the split in every folder, each once.

    Mirror images are left out: only some questions have one, and where left and right change places they make all
    answers equally frequent, which they need not be in the held-out questions, which are never mirrored.
    """
    return [question for folder in folders for question in _of_folder(folder, split, None)]


def _of_folder(folder: Path, split: str | None, subset: str | None) -> list[Question]:
    wanted: frozenset[str] | None = None
    if is_download(folder):
        bench = read_vsi_bench(folder)
        questions = list(bench.questions)
        if split == "train":
            raise InputError(f"{folder}: VSI-Bench has no questions to train on")
        if subset is not None:
            wanted = None if subset != DEBIASED or bench.debiased is None else frozenset(bench.debiased)
            if wanted is None:
                reason = "nothing says which questions were pruned" if subset == DEBIASED else f"it only has {DEBIASED}"
                raise InputError(f"{folder}: no subset {subset!r}; {reason}")
    else:
        # A mirror image is a question about the mirrored scene, which an evaluation does not show.
        questions = [row for row in read_questions(folder / QUESTIONS_FILE) if row.mirror_of is None]
        wanted = None if subset is None else read_subset(folder, subset)
        split = split or _default_split(folder)
        if split != "all":
            scenes = set(read_splits(folder)[split])
            questions = [question for question in questions if question.scene in scenes]
    if wanted is not None:
        questions = [question for question in questions if question.id in wanted]
    if not questions:
        where = f"in split {split!r}" + (f" and subset {subset!r}" if subset else "")
        raise InputError(f"{folder}: no questions {where}; --split is one of {', '.join((*SPLITS, 'all'))}")
    return questions
