"""Take the scenes with few questions out of a data folder's splits.

A study of Q, the questions per scene of a step, has to ask about the same scenes for every Q; `skip_short_scenes` would
leave out more of them the larger Q is.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from jaxvsr.data.data_folder import QUESTIONS_FILE
from jaxvsr.data.questions import read_questions
from jaxvsr.data.splits import SPLITS_FILE, read_splits, write_splits
from jaxvsr.errors import InputError


def keep_scenes_with_questions(folder: Path, least: int) -> dict[str, tuple[int, int]]:
    """Rewrite splits.json with only the scenes that have `least` questions, mirror images not counted.

    Returns:
        split → (scenes kept, scenes taken out).

    Raises:
        InputError: a split would be left without scenes; nothing is written.
    """
    questions = Counter(row.scene for row in read_questions(folder / QUESTIONS_FILE) if row.mirror_of is None)
    before = read_splits(folder)
    kept = {split: [scene for scene in scenes if questions[scene] >= least] for split, scenes in before.items()}
    for split, scenes in kept.items():
        if not scenes:
            raise InputError(f"{folder / SPLITS_FILE}: no {split} scene has {least} questions; ask for fewer")
    write_splits(folder, kept)
    return {split: (len(scenes), len(before[split]) - len(scenes)) for split, scenes in kept.items()}
