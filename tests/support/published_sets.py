"""Question sets as their authors publish them: rows of every form, and small parquet files with pictures."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

RNG = np.random.default_rng(0)


def picture_bytes(kind: str = "JPEG", height: int = 60, width: int = 90) -> bytes:
    buffer = BytesIO()
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def chat(role: str, text: str, *more: dict) -> dict:
    return {"role": role, "content": [*more, {"type": "text", "text": text, "index": None}]}


IMAGE_PART = {"type": "image", "index": 0, "text": None}


# Form: (row as published, what our row says beside id and scene).
PUBLISHED: dict[str, tuple[dict, dict]] = {
    "vsi-bench": (
        {
            "id": 7, "dataset": "scannet", "scene_name": "scene0568_02", "question_type": "object_rel_distance",
            "question": "Which?", "options": ["A. sofa", "B. bed"], "ground_truth": "B", "pruned": False,
        },
        {"answer": "B", "answer_kind": "choice", "options": ("A. sofa", "B. bed"), "video": "scannet/scene0568_02.mp4"},
    ),
    "vsi100k": (
        {"problem": "How many trash can(s)in the room?", "solution": "<answer>3</answer>", "path": "/data/kitchen.avi"},
        {"question_type": "object_counting", "answer": "3", "answer_kind": "number", "video": "other/kitchen.mp4"},
    ),
    "spacer": (
        {
            "problem_id": 4, "data_type": "video", "question_type": "rel_distance", "solution": "C",
            "problem": "Question:\nWhich of the following objects is the closest to the bed?\nOptions:\nA. tv\n"
            "B. sofa\nC. fan",
            "video": "nas/scene0000_00.mp4",
        },
        {
            "question": "Which of the following objects is the closest to the bed?", "answer": "C",
            "question_type": "object_rel_distance", "options": ("A. tv", "B. sofa", "C. fan"),
        },
    ),
    "video-r1": (
        {
            "problem_id": 9, "problem": "What is heaviest?", "options": ["A. tv", "B. sofa"], "data_type": "image",
            "problem_type": "multiple choice", "process": "<think>Hm.</think>", "solution": "<answer>B</answer>",
            "path": "./pictures/a.png", "data_source": "CLEVR",
        },
        {
            "answer": "B", "images": ("pictures/a.png",), "question_type": "multiple_choice",
            "response": "<think>Hm.</think>\n<answer>B</answer>",
        },
    ),
    "trl": (
        {
            "prompt": [chat("system", "Think."), chat("user", "Left or right?", {"type": "video", "video": "kitchen"})],
            "completion": [chat("assistant", "<think>I see.</think><answer>left</answer>")],
        },
        {"answer": "left", "answer_kind": "word", "response": "<think>I see.</think><answer>left</answer>"},
    ),
    "q-spatial": (
        {
            "question": "How wide is the desk?", "answer_value": 1.2000000476837158, "answer_unit": "meter",
            "image_path": "scene0011_00/000100.jpg",
        },
        {
            "answer": "1.2 meter", "answer_kind": "text", "scene": "pictures--scene0011_00--000100",
            "images": ("pictures/scene0011_00/000100.jpg",),
        },
    ),
    "chat": (
        {
            "messages": [{"role": "user", "content": "<video>\nHow many beds are there?"}], "videos": ["kitchen.mp4"],
            "solution": "<answer>2</answer>",
        },
        {"question": "How many beds are there?", "answer": "2", "answer_kind": "number", "video": "other/kitchen.mp4"},
    ),
    "jsonl": (
        {"id": "a", "scene": "walk", "question": "Where is it?", "answer": "behind the sofa", "answer_kind": "text"},
        {"id": "import_set-a", "video": "frames/walk", "answer": "behind the sofa", "question_type": "other"},
    ),
}  # fmt: skip


def write_vqasynth(path: Path, count: int = 12) -> None:
    """A parquet file of rows as vqasynth_spacellava has them, a picture and a conversation each."""

    random, rows = np.random.default_rng(0), []
    for number in range(count):
        buffer = BytesIO()
        Image.fromarray(random.integers(0, 256, (56, 56, 3), np.uint8)).save(buffer, "PNG")
        part = {"index": None, "text": f"Is cup {number} to the left of the plate?", "type": "text"}
        said = {"index": None, "text": f"Yes, cup {number} is on the left side of the plate.", "type": "text"}
        asked = {"role": "user", "content": [{"index": 0, "text": None, "type": "image"}, part]}
        messages = [asked, {"role": "assistant", "content": [said]}]
        rows.append({"messages": messages, "images": [{"bytes": buffer.getvalue(), "path": None}]})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(path, rows)


def random_picture(number: int, height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8))


def write_q_spatial(path: Path) -> None:
    """Three questions in Q-Spatial's published form, their pictures, of three sizes, in the parquet file."""
    rows = []
    for number, size in enumerate([(56, 56), (40, 90), (100, 60)]):
        buffer = BytesIO()
        random_picture(number, *size).save(buffer, "PNG")
        row = {"question": f"How far is cup {number} from the sink?", "answer_value": 1.5, "answer_unit": "meter"}
        row |= {"question_type": "distance", "image_path": f"images/{number}.png"}
        rows.append({**row, "image": {"bytes": buffer.getvalue(), "path": None}})
    write_parquet(path, rows)


def write_parquet(path: Path, rows: list[dict]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
