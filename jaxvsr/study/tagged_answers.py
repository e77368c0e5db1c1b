"""A data folder whose answers are written in a thinking mode's tags: what a model learns that mode's form from.

    python -m jaxvsr.study.tagged_answers runs/study/rough runs/study/rough-think --tag think

vsGRPO's models can write <think> and <answer> when they are asked to; the small model that comes with jaxvsr has never
seen them, and GRPO reinforces nothing that is never sampled. Each row gets a `response` around the answer that it has;
the thought names the objects of the question, in its order. It is a form, and no reasoning.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.command_line import ArgumentParser, run
from jaxvsr.data.data_folder import QUESTIONS_FILE
from jaxvsr.data.questions import Question, read_questions, write_questions
from jaxvsr.errors import InputError
from jaxvsr.models.tiny.tiny_text import CATEGORIES

TAGS = ("think", "observe")
NO_OBJECT = "room"
# Longer names first: a coffee table is not a table.
_NAMED = re.compile("|".join(rf"\b{name}\b" for name in sorted(CATEGORIES, key=len, reverse=True)))


def tagged_response(question: Question, tag: str) -> str:
    """The response in `tag`'s form; the spaces are those of which the tiny model's tokenizer knows the tags.

    >>> asked = "What is the distance between the sofa and the coffee table (in meters)?"
    >>> tagged_response(Question("q", "s", "object_abs_distance", asked, None, "2.3", "number"), "think")
    '<think> sofa coffee table </think> <answer> 2.3 </answer>'
    """
    named = " ".join(dict.fromkeys(_NAMED.findall(question.question))) or NO_OBJECT
    return f"<{tag}> {named} </{tag}> <answer> {question.answer} </answer>"


def write_tagged(source: Path, out: Path, tag: str) -> int:
    """Copy a data folder with its frames and without its scans; returns the number of its questions."""
    if not (source / "frames").is_dir():
        raise InputError(f"{source}: no frames in it; `build_data.py frames` stores them")
    rows = read_questions(source / QUESTIONS_FILE)
    tagged = [dataclasses.replace(row, response=tagged_response(row, tag)) for row in rows]
    if out.exists():  # whole, since it is renamed at the end
        if (out / QUESTIONS_FILE).is_file() and read_questions(out / QUESTIONS_FILE) == tagged:
            return len(tagged)
        raise InputError(f"{out}: is there already, with other answers; give another folder, or delete it")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns("scans", "*.partial", "features", "appearances"))
    write_questions(partial / QUESTIONS_FILE, tagged)
    os.replace(partial, out)
    return len(tagged)


def _command(argv: Sequence[str] | None) -> int:
    parser = ArgumentParser(
        prog="jaxvsr.study.tagged_answers", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="DATA", help="data folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="data folder to write")
    parser.add_argument("--tag", choices=TAGS, required=True, help="of the thought")
    arguments = parser.parse_args(argv)
    print(f"{write_tagged(arguments.source, arguments.out, arguments.tag):,} answers in tags in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run(_command))
