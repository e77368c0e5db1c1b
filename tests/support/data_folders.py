"""Small data folders: random pictures as frames, questions and splits."""

from pathlib import Path

from jaxvsr.data.questions import Question, write_questions
from jaxvsr.data.splits import write_splits
from jaxvsr.data.video.frame_sampling import SamplingRule
from jaxvsr.data.video.frame_writer import FrameSettings, write_frames
from tests.support.scans import write_sens_scan

SCENES, QUESTIONS = 7, 5


def write_data_folder(
    root: Path,
    scenes: int = SCENES,
    questions: int = QUESTIONS,
    seed: int = 0,
    side: int = 56,
    rule: SamplingRule = "linspace",
) -> Path:
    """`root/data`: two frames of `side` × `side` pixels per scene; the last scene is held out."""
    names = [f"scene{i:04d}_00" for i in range(scenes)]
    scans = [
        write_sens_scan(root, name, frames=6, height=side, width=side, seed=seed + i) for i, name in enumerate(names)
    ]
    out = root / "data"
    write_frames(scans, out, FrameSettings((2,), side * side + 100, rule))
    rows = [
        Question(
            f"{name}-{k}", name, "object_counting" if k % 2 else "room_size_estimation", f"{k}?", None, "1", "number"
        )
        for name in names
        for k in range(questions)
    ]
    write_questions(out / "questions.jsonl", rows)
    write_splits(out, {"train": names[:-1], "heldout": names[-1:]})
    return out
