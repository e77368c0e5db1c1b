"""Take the scenes with few questions out of a data folder's splits.

    python -m jaxvsr.study.scenes_with_questions runs/study/data --questions 16

A study of Q, the questions of a scene in a step, has to ask about the same scenes whatever Q is; `skip_short_scenes`
would leave out more of them the larger Q is.
"""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.command_line import ArgumentParser, positive_int, run
from jaxvsr.data.data_folder import QUESTIONS_FILE
from jaxvsr.data.questions import read_questions
from jaxvsr.data.splits import SPLITS_FILE, read_splits, write_splits
from jaxvsr.errors import InputError


def keep_scenes_with_questions(folder: Path, least: int) -> dict[str, tuple[int, int]]:
    """Write splits.json again with the scenes that have `least` questions, mirror images not counted.

    Returns:
        split: (scenes kept, scenes taken out).
    """
    asked = Counter(row.scene for row in read_questions(folder / QUESTIONS_FILE) if row.mirror_of is None)
    before = read_splits(folder)
    kept = {split: [scene for scene in scenes if asked[scene] >= least] for split, scenes in before.items()}
    for split, scenes in kept.items():
        if not scenes:
            raise InputError(f"{folder / SPLITS_FILE}: no {split} scene has {least} questions; ask for fewer")
    write_splits(folder, kept)
    return {split: (len(scenes), len(before[split]) - len(scenes)) for split, scenes in kept.items()}


def _command(argv: Sequence[str] | None) -> int:
    parser = ArgumentParser(
        prog="jaxvsr.study.scenes_with_questions", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DATA", help="data folder; its splits.json is written again")
    parser.add_argument(
        "--questions", type=positive_int, required=True, metavar="N", help="fewest questions of a scene"
    )
    arguments = parser.parse_args(argv)
    for split, (kept, out) in keep_scenes_with_questions(arguments.folder, arguments.questions).items():
        print(f"{split}: {kept} scenes with {arguments.questions} questions or more, {out} with fewer taken out")
    return 0


if __name__ == "__main__":
    sys.exit(run(_command))
