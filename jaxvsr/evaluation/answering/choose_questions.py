"""Which questions an evaluation asks: of data folders, or of VSI-Bench as it was downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxvsr.data.data_folder import QUESTIONS_FILE
from jaxvsr.data.importers.vsi_bench_download import is_download, read_vsi_bench
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.splits import SPLITS, SPLITS_FILE, read_splits
from jaxvsr.data.subsets import DEBIASED, read_subset
from jaxvsr.errors import InputError


def asked_questions(
    folders: Sequence[Path], *, split: str | None = None, subset: str | None = None, limit: int | None = None
) -> list[tuple[Path, Question]]:
    """The questions, each with its folder; `limit` counts all folders together.

    `split` None: the held-out one where a folder has splits, else all. `subset`: a name in `subsets.json`, or
    `debiased` of a downloaded VSI-Bench.

    Raises:
        InputError: no such questions, one id in two folders, or a folder given twice.
    """
    for folder in folders:
        if list(folders).count(folder) > 1:
            raise InputError(f"--data: {folder} stands there twice; each question is asked once")
    asked = [(folder, question) for folder in folders for question in _of_folder(folder, split, subset)]
    folder_of: dict[str, Path] = {}
    for folder, question in asked:
        if folder_of.setdefault(question.id, folder) != folder:
            raise InputError(
                f"question id {question.id!r} is in {folder_of[question.id]} and in {folder}; evaluate one"
            )
    return asked[:limit]


def split_in_words(folders: Sequence[Path], split: str | None) -> str:
    """The split that `asked_questions` asks: `heldout`, `train`, `all`; of folders of both kinds `heldout,all`."""
    taken = [split or _usual_split(folder) for folder in folders]
    return ",".join(dict.fromkeys(taken))


def _usual_split(folder: Path) -> str:
    return "heldout" if (folder / SPLITS_FILE).is_file() else "all"


def training_questions(folders: Sequence[Path], split: str = "train") -> list[Question]:
    """The questions that constant answers are fitted on: of that split of every folder, each once.

    Mirror images are left out. They double the questions that have one and leave the others, and where left and right
    change places they make every answer equally frequent, which the held-out questions, never mirrored, need not be.
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
                have = "nothing says which questions were pruned" if subset == DEBIASED else f"it has {DEBIASED} alone"
                raise InputError(f"{folder}: no subset {subset!r}; {have}")
    else:
        # A mirror image is a question about the mirrored scene, which an evaluation does not show.
        questions = [row for row in read_questions(folder / QUESTIONS_FILE) if row.mirror_of is None]
        wanted = None if subset is None else read_subset(folder, subset)
        split = split or _usual_split(folder)
        if split != "all":
            scenes = set(read_splits(folder)[split])
            questions = [question for question in questions if question.scene in scenes]
    if wanted is not None:
        questions = [question for question in questions if question.id in wanted]
    if not questions:
        where = f"in split {split!r}" + (f" and subset {subset!r}" if subset else "")
        raise InputError(f"{folder}: no questions {where}; --split is one of {', '.join((*SPLITS, 'all'))}")
    return questions
