"""A data folder as a whole: what is in it, what is missing, and its card.

OUT/questions.jsonl     one question per line                   questions.py
OUT/frames/             uint8 frames in TensorStore             frames.py
OUT/splits.json         train and held-out scenes, by room      splits.py
OUT/card.md             where all of it comes from
OUT/README.md           the types of the questions, for `datasets`
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from jaxvsr.buckets.publishing import Sending, alone_in, published
from jaxvsr.data.frames import ALL_IMAGES, FRAMES_DIR, FrameStore
from jaxvsr.data.questions import Question, choices, meaning, read_questions, write_questions
from jaxvsr.data.scannet.scan_check import check_scans, looks_like_scans
from jaxvsr.data.splits import SPLITS_FILE, read_splits
from jaxvsr.data.video.frame_sampling import SIDE_OF_TOKEN
from jaxvsr.errors import InputError
from jaxvsr.files import read_text, write_text
from jaxvsr.locks import only_writer, remove_partials
from jaxvsr.pixel_budget import MERGED_PATCH, vision_tokens

QUESTIONS_FILE = "questions.jsonl"
CARD_FILE = "card.md"
TYPES_FILE = "README.md"
_CARD_LOCK = ".card.lock"


# Where, and with what before their names, data commands write files and folders before they rename them.
_BEGUN = ("", "frames/", "features/*/*/", "appearances/", "scans/", "images/", "questions.partial/*/")


@contextlib.contextmanager
def adding_to(folder: Path, *, shared: bool = False) -> Iterator[Sending | None]:
    """What a command that writes into a data folder does inside of: it is the only one, or one of several shards.

    What commands that died had begun to write is removed before. In a bucket, what was written is sent at the end; what
    the block is given sends it before.

    Raises:
        InputError: another command writes into the folder, or `check_can_be_added_to` refuses it.
    """
    with published(folder, shared=shared) as sending, only_writer(folder, shared=shared):
        if not shared:
            remove_partials(folder, _BEGUN)
        check_can_be_added_to(folder)
        yield sending


def check_can_be_added_to(folder: Path) -> None:
    """Refuse, before a command does its work, a `folder` that it could not write into.

    Raises:
        InputError: a file is in the way, or questions or splits in the folder are broken.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"{folder}: cannot be a folder, because {there} is a file")
    if (folder / QUESTIONS_FILE).exists():
        read_questions(folder / QUESTIONS_FILE)
    if (folder / SPLITS_FILE).exists():
        read_splits(folder)


def questions_in(folder: Path) -> list[Question]:
    """The questions of a data folder; none where there is no `questions.jsonl` yet."""
    path = folder / QUESTIONS_FILE
    return read_questions(path) if path.exists() else []


def merge_questions(folder: Path, recipe: str, rows: Sequence[Question]) -> list[Question]:
    """The folder's rows of other recipes, then the new rows, which replace those that the recipe wrote before."""
    return [row for row in questions_in(folder) if not row.id.startswith(f"{recipe}-")] + list(rows)


def write_all_questions(folder: Path, rows: Iterable[Question]) -> None:
    """Write a data folder's `questions.jsonl`, and beside it, unless there is a README.md, the types of its fields:
    `datasets` would guess them from the first rows, in which a field may be null that later is a list."""
    write_questions(folder / QUESTIONS_FILE, rows)
    if (folder / TYPES_FILE).exists():
        return
    lines = ["---", "configs:", "- config_name: default", f"  data_files: {QUESTIONS_FILE}"]
    lines += ["dataset_info:", "  features:"]
    for field in dataclasses.fields(Question):
        lines += [f"  - name: {field.name}", "    list: string" if "tuple" in str(field.type) else "    dtype: string"]
    text = f"Questions about scenes, as [{CARD_FILE}]({CARD_FILE}) says: `datasets.load_dataset(FOLDER)` reads them."
    write_text(folder / TYPES_FILE, "\n".join([*lines, "---", "", "# Questions", "", text, ""]))


def write_card_section(folder: Path, section: str, text: str | Callable[[], str]) -> None:
    """Write `text` under the heading `section` of `card.md`, replacing what was there; other sections stay.

    A function is called when no other task may write the card, so that the last one knows what all have done.
    """
    with alone_in(folder, _CARD_LOCK):
        _replace_section(folder / CARD_FILE, section, text if isinstance(text, str) else text())


def _replace_section(path: Path, section: str, text: str) -> None:
    folder = path.parent
    card = read_text(path) if path.exists() else f"# {folder.resolve().name}\n"
    block = f"## {section}\n\n{text.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(section)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    card, replaced = pattern.subn(lambda _: block + "\n", card)
    if not replaced:
        card = f"{card.rstrip()}\n\n{block}"
    write_text(path, card.rstrip() + "\n")


def write_frames_section(folder: Path) -> None:
    """Write the card's section about the frames that are stored now."""
    write_card_section(folder, "Frames", lambda: bullets(frame_facts(folder)))


def bullets(facts: Mapping[str, object]) -> str:
    """Facts for the card, each as `- name: value`."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def card_sources(folder: Path) -> list[str]:
    """The sources and terms that the sections of `card.md` name, each once; empty without a card."""
    path = folder / CARD_FILE
    card = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = re.findall(r"^- (?:source|terms|licence)s?: *(\S.*?) *$", card, re.MULTILINE | re.IGNORECASE)
    return list(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True)
class TaskSummary:
    """Questions of one type: how many, about how many scenes, and how their answers are distributed."""

    question_type: str
    questions: int
    scenes: int
    answers: tuple[tuple[str, int], ...]  # with their counts, most common first
    numeric_range: tuple[float, float, float] | None  # minimum, median, maximum


def summarize(rows: Iterable[Question]) -> list[TaskSummary]:
    """A summary per question type, sorted by name."""
    by_type: dict[str, list[Question]] = defaultdict(list)
    for row in rows:
        by_type[row.question_type].append(row)
    summaries = []
    for name, asked in sorted(by_type.items()):
        counts = Counter(row.answer for row in asked)
        values = sorted(float(row.answer) for row in asked if row.answer_kind == "number")
        spread = (values[0], values[len(values) // 2], values[-1]) if values else None
        answers = tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
        summaries.append(TaskSummary(name, len(asked), len({row.scene for row in asked}), answers, spread))
    return summaries


def summary_table(rows: Iterable[Question], paper_counts: Mapping[str, int] | None = None) -> str:
    """The summary as a Markdown table: counts, the paper's counts if known, and the distribution of answers."""
    paper_counts = paper_counts or {}
    header = ["question_type", "questions", "a scene", *(["paper"] if paper_counts else []), "answers"]
    lines = []
    for task in summarize(rows):
        cells = [task.question_type, f"{task.questions:,}", f"{task.questions / task.scenes:.1f}"]
        if paper_counts:
            paper = paper_counts.get(task.question_type)
            cells.append("–" if paper is None else f"{paper:,}")
        lines.append([*cells, _answers(task)])
    widths = [max(len(row[i]) for row in [header, *lines]) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    table = [header, rule, *lines]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in table)


def _answers(task: TaskSummary) -> str:
    """`0 31 %, 1 28 %, 2 20 %, …`; a range if there are many different numbers."""
    common = [f"{answer} {100 * count / task.questions:.0f} %" for answer, count in task.answers[:5]]
    if task.numeric_range and len(task.answers) > 12:
        low, median, high = task.numeric_range
        return f"{low:g} to {high:g}, median {median:g}; commonest {common[0]}"
    return ", ".join(common) + (", …" if len(task.answers) > 5 else "")


def repeated_line(rows: Iterable[Question]) -> str | None:
    """A line about questions that several recipes ask of the same scene; None if there are none.

    Within a recipe nothing is asked twice, but recipes share templates and measure differently.
    """
    answers_of: dict[tuple[object, ...], list[float | str]] = defaultdict(list)
    for row in rows:
        if row.answer_kind == "text":  # two descriptions of one thing do not contradict each other
            continue
        words = " ".join(row.question.casefold().split())
        answers_of[row.scene, row.mirror_of is None, words, choices(row.options)].append(
            meaning(row.answer, row.answer_kind, row.options)
        )
    repeated = [answers for answers in answers_of.values() if len(answers) > 1]
    if not repeated:
        return None
    different = sum(len(set(answers)) > 1 for answers in repeated)
    return (
        f"{len(repeated):,} questions are there more than once, {different:,} of them with different answers: their "
        "recipes or sets measure differently; train on one of them, or keep them in separate folders"
    )


@dataclasses.dataclass(frozen=True)
class FolderCheck:
    """What is in a folder, as lines to print; and what is missing, as lines that say how to add it."""

    lines: tuple[str, ...]
    missing: tuple[str, ...]


def is_data_folder(folder: Path) -> bool:
    """Whether any part of a data folder is there."""
    return any((folder / part).exists() for part in (QUESTIONS_FILE, FRAMES_DIR, SPLITS_FILE))


def check_folder(folder: Path, *, read_pixels: bool = True, label_map: Path | None = None) -> FolderCheck:
    """Check scans, scenes, questions, splits and frames; with `read_pixels` also the checksum of every frame.

    Raises:
        InputError: the folder does not exist or has none of the parts.
    """
    parts = (QUESTIONS_FILE, FRAMES_DIR, SPLITS_FILE)
    lines: list[str] = []
    missing: list[str] = []
    has_parts = is_data_folder(folder)
    if (folder / "scans").is_dir() or (folder.is_dir() and not has_parts and looks_like_scans(folder)):
        lines, missing = check_scans(folder, label_map)
        if not has_parts:
            return FolderCheck(tuple(lines), tuple(missing))
    if not has_parts:
        raise InputError(f"{folder}: not a data folder; expected {', '.join(parts)}")
    missing += [f"{part}: `build_data.py {_WRITERS[part]}` writes it" for part in parts if not (folder / part).exists()]
    asked: set[str] = set()
    if (folder / QUESTIONS_FILE).exists():
        rows = read_questions(folder / QUESTIONS_FILE)
        asked = {row.scene for row in rows}
        lines += [f"{len(rows):,} questions about {len(asked):,} scenes", "", summary_table(rows), ""]
        lines += [line] if (line := repeated_line(rows)) else []
    if (folder / SPLITS_FILE).exists():
        splits = read_splits(folder)
        lines.append("splits: " + ", ".join(f"{len(scenes):,} {split}" for split, scenes in splits.items()))
        _note(missing, asked - {scene for scenes in splits.values() for scene in scenes}, "in no split")
    if (folder / FRAMES_DIR).exists():
        lines += _check_frames(folder, asked, missing, read_pixels)
    return FolderCheck(tuple(lines), tuple(missing))


_WRITERS = {QUESTIONS_FILE: "questions", FRAMES_DIR: "frames", SPLITS_FILE: "questions"}


def frame_facts(folder: Path) -> dict[str, object]:
    """Facts about the frames for the card, read from what is stored, so that they hold for all shards together."""
    store = FrameStore(folder)
    counts: Counter[int] = Counter()
    facts: dict[str, Counter[object]] = {name: Counter() for name in ("rule", "max_pixels", "resize")}
    flaws: Counter[str] = Counter()
    scenes = store.scenes()
    for scene in scenes:
        attributes = store.attributes(scene)
        counts.update(store.counts(scene))
        flaws.update(attributes.get("flaws", {}))
        for name, seen in facts.items():
            seen[attributes[name]] += 1
    return {
        "scenes": len(scenes),
        "counts": ", ".join(f"{count} ({number:,} scenes)" for count, number in sorted(counts.items())),
        **{name: ", ".join(str(value) for value in sorted(seen, key=str)) for name, seen in facts.items()},
        "flaws worked around": ", ".join(f"{name} {number:,}" for name, number in sorted(flaws.items())) or "none",
    }


def _check_frames(folder: Path, asked: set[str], missing: list[str], read_pixels: bool) -> list[str]:
    store = FrameStore(folder)
    scenes = store.scenes()
    sizes: Counter[tuple[int, int, int]] = Counter()  # height, width, side of a token
    tokens: dict[int, list[int]] = defaultdict(list)  # of each video, by frame count
    with_count: dict[int, set[str]] = defaultdict(set)
    sampled: set[str] = set()
    for scene in scenes:
        try:
            if read_pixels:
                store.check(scene)
            attributes = store.attributes(scene)
            height, width = attributes["height_width"]
            side = SIDE_OF_TOKEN.get(attributes["rule"], MERGED_PATCH)
            sizes[height, width, side] += 1
            if attributes["rule"] != ALL_IMAGES:
                sampled.add(scene)
            for count in store.counts(scene):
                tokens[count].append(vision_tokens(count, height, width, side))
                with_count[count].add(scene)
        except InputError as error:
            missing.append(str(error))
    lines = [f"frames: {len(scenes):,} scenes"]
    for count, of_videos in sorted(tokens.items()):
        least, most = min(of_videos), max(of_videos)
        span = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        lines.append(f"  {count} frames: {len(of_videos):,} scenes, {span} tokens per video")
        if with_count[count] & sampled:
            _note(missing, (sampled & asked) - with_count[count], f"without the {count} frames that others have")
    for (height, width, side), number in sorted(sizes.items()):
        pair = vision_tokens(2, height, width, side)
        each = f"{pair:,} tokens of {side}×{side} pixels per two frames, {pair / 2:g} per frame"
        lines.append(f"  {height}×{width} pixels, {each}: {number:,} scenes")
    _note(missing, asked - set(scenes), "with questions and no frames")
    return lines


def _note(missing: list[str], scenes: set[str], what: str) -> None:
    if scenes:
        missing.append(f"{len(scenes):,} scenes {what}: {some_of(scenes)}")


def some_of(scenes: Collection[str]) -> str:
    """The first three names, for a line about all of them."""
    return ", ".join(sorted(scenes)[:3]) + (", …" if len(scenes) > 3 else "")
