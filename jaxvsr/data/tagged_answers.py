"""A data folder whose answers are in the form of a thinking mode, from which a model learns that form.

vsGRPO's models can write <think> and <answer> when they are asked to; the small model that comes with jaxvsr has never
seen them, and GRPO reinforces nothing that is never sampled. Each row gets a `response` with its answer in tags, after
a thought that names the objects of the question in its order: a form without any reasoning.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from jaxvsr.data.data_folder import QUESTIONS_FILE, write_all_questions
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.errors import InputError
from jaxvsr.locks import LOCK_FILE, only_maker

TAGS = ("think", "observe")
NO_OBJECT = "room"


def tagged_response(question: Question, tag: str, categories: Collection[str]) -> str:
    """The answer in `tag`'s form, after the `categories` that the question names.

    The spaces are those with which the tiny model's tokenizer has one token per tag.

    >>> asked = "What is the distance between the sofa and the coffee table (in meters)?"
    >>> question = Question("q", "s", "object_abs_distance", asked, None, "2.3", "number")
    >>> tagged_response(question, "think", ["table", "coffee table", "sofa"])
    '<think> sofa coffee table </think> <answer> 2.3 </answer>'
    """
    # Longer names first: a coffee table is not a table.
    pattern = "|".join(rf"\b{name}\b" for name in sorted(categories, key=len, reverse=True))
    named = " ".join(dict.fromkeys(re.findall(pattern, question.question))) or NO_OBJECT
    return f"<{tag}> {named} </{tag}> <answer> {question.answer} </answer>"


def write_tagged(source: Path, out: Path, tag: str, categories: Collection[str]) -> int:
    """Copy a data folder with its frames, without its scans and features; returns the number of its questions.

    Raises:
        InputError: no frames in `source`, or `out` exists with other questions.
    """
    if not (source / "frames").is_dir():
        raise InputError(f"{source}: no frames in it; `build_data.py frames` stores them")
    rows = read_questions(source / QUESTIONS_FILE)
    tagged = [dataclasses.replace(row, response=tagged_response(row, tag, categories)) for row in rows]
    if out.exists():  # it is complete, because it is renamed last
        if (out / QUESTIONS_FILE).is_file() and read_questions(out / QUESTIONS_FILE) == tagged:
            return len(tagged)
        raise InputError(f"{out}: exists already, with other answers; name another folder, or delete it")
    not_copied = shutil.ignore_patterns("scans", "*.partial", LOCK_FILE, "features", "appearances")
    with only_maker(out) as partial:
        shutil.copytree(source, partial, ignore=not_copied, dirs_exist_ok=True)
        write_all_questions(partial, tagged)
    return len(tagged)
