"""VSI-Bench as published (Hugging Face, `nyu-visionx/VSI-Bench`): annotations, and the videos in three zips.

    SRC/test_debiased.parquet, test_pruned.parquet    together the full benchmark; older: test*.parquet, test.jsonl
    SRC/pruned_ids.txt                                ids that iterative bias pruning removed
    SRC/scannet.zip, scannetpp.zip, arkitscenes.zip   <source>/<scene>.mp4; or the same unpacked

The debiased subset is what was not pruned. A row's field `pruned`, the list of ids and the names of the parquet files
each say what was pruned, and must agree.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from jaxvsr.data.data_folder import QUESTIONS_FILE
from jaxvsr.data.importers.source_rows import file_of, read_rows
from jaxvsr.data.questions import AnswerKind, Question
from jaxvsr.data.video.scan_frames import FrameSource
from jaxvsr.data.video.video_file import VideoFileSource
from jaxvsr.errors import InputError, one_line

SOURCES = ("scannet", "scannetpp", "arkitscenes")
PRUNED_IDS = "pruned_ids.txt"
# The benchmark's question types with their kinds of answers (lmms-eval, vsibench/utils.py).
KINDS: dict[str, AnswerKind] = {
    "object_counting": "number",
    "object_abs_distance": "number",
    "object_size_estimation": "number",
    "room_size_estimation": "number",
    "object_rel_distance": "choice",
    "object_rel_direction_easy": "choice",
    "object_rel_direction_medium": "choice",
    "object_rel_direction_hard": "choice",
    "route_planning": "choice",
    "obj_appearance_order": "choice",
}
_PRUNED_BY_FILE = {"test_debiased.parquet": False, "test_pruned.parquet": True}
_NAME = re.compile(r"\w[\w.-]*")  # of a source or a scene: part of a path
_MOST_VIDEO_BYTES = 2 << 30  # its largest video has some 100 MB
_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class VsiBench:
    """The benchmark's questions, sorted by id; `pruned` is None if nothing says what was pruned."""

    questions: tuple[Question, ...]
    pruned: frozenset[str] | None

    @property
    def debiased(self) -> tuple[str, ...] | None:
        """Ids of the debiased subset."""
        if self.pruned is None:
            return None
        return tuple(question.id for question in self.questions if question.id not in self.pruned)


def is_download(folder: Path) -> bool:
    """Whether a folder is the downloaded benchmark rather than a data folder."""
    return not (folder / QUESTIONS_FILE).exists() and bool(_annotations(folder))


def read_vsi_bench(folder: Path) -> VsiBench:
    """All questions of a download; a question in several files counts once.

    Raises:
        InputError: there are none, one is broken, or they contradict each other.
    """
    paths = _annotations(folder)
    if not paths:
        raise InputError(f"{folder}: no test*.parquet and no test.jsonl; expected VSI-Bench as downloaded")
    questions: dict[str, Question] = {}
    pruned_by: dict[str, dict[str, bool]] = {}  # by id: source → whether the question was pruned
    for path in paths:
        for where, row in read_rows(path):
            question = question_of_row(row, where)
            if questions.setdefault(question.id, question) != question:
                raise InputError(f"{where}: question {question.id!r} differs from that of another file")
            pruned_by.setdefault(question.id, {}).update(_pruned_by(row, where))
    verdicts = {name: _verdict(sources, f"{folder}: question {name!r}") for name, sources in pruned_by.items()}
    known = None not in verdicts.values()
    pruned = frozenset(name for name, verdict in verdicts.items() if verdict) if known else None
    return VsiBench(tuple(sorted(questions.values(), key=lambda one: _order(one.id))), pruned)


def is_pruned(row: dict[str, Any], where: str) -> bool | None:
    """Whether a row of the full benchmark is outside the debiased subset; None if nothing says so.

    Raises:
        InputError: the sources contradict each other.
    """
    return _verdict(_pruned_by(row, where), where)


def _pruned_by(row: dict[str, Any], where: str) -> dict[str, bool]:
    """Source → whether the row was pruned; sources are the file's name, the row's field, the list beside the file."""
    file = file_of(where)
    found = {file.name: _PRUNED_BY_FILE[file.name]} if file.name in _PRUNED_BY_FILE else {}
    if row.get("pruned") is not None:
        said = str(row["pruned"]).casefold().removesuffix(".0")
        if said not in ("true", "false", "1", "0"):
            raise InputError(f"{where}: field pruned is {said[:40]!r}; expected true or false")
        found[f"field pruned in {file.name}"] = said in ("true", "1")
    listed = file.with_name(PRUNED_IDS)
    if listed.is_file():
        found[PRUNED_IDS] = str(row.get("id")) in _listed_ids(listed, listed.stat().st_mtime_ns)
    return found


@functools.lru_cache(maxsize=8)
def _listed_ids(path: Path, _modified: int) -> frozenset[str]:
    return frozenset(path.read_text(encoding="utf-8", errors="replace").split())


def _verdict(pruned_by: dict[str, bool], where: str) -> bool | None:
    if len(set(pruned_by.values())) > 1:
        listed = ", ".join(f"{source}: {'pruned' if pruned else 'kept'}" for source, pruned in pruned_by.items())
        raise InputError(f"{where} is both pruned and kept ({listed}); download it again")
    return next(iter(pruned_by.values()), None)


def question_of_row(row: dict[str, Any], where: str) -> Question:
    """One of the benchmark's rows as a question; `video` is the file's path in its zip.

    Raises:
        InputError: an unknown question type, a missing field, or something that is not a name of a scene.
    """
    question_type = row.get("question_type")
    if question_type not in KINDS:
        raise InputError(f"{where}: question_type {question_type!r} is not one of VSI-Bench's ({', '.join(KINDS)})")
    for name in ("dataset", "scene_name"):
        if not _NAME.fullmatch(str(row.get(name))):
            raise InputError(f"{where}: {name} must be a name, found {row.get(name)!r}")
    if row.get("id") is None or row.get("ground_truth") is None:
        raise InputError(f"{where}: {'id' if row.get('id') is None else 'ground_truth'} is missing")
    options = row.get("options")
    if options is not None and not isinstance(options, list | tuple):  # list() would split a string into letters
        raise InputError(f"{where}: options must be a list or null, found {str(options)[:60]!r}")
    fields = {
        "id": _question_id(row["id"]),
        "scene": str(row["scene_name"]),
        "question_type": question_type,
        "question": row.get("question"),
        "options": list(options) if options else None,
        "answer": str(row["ground_truth"]),
        "answer_kind": KINDS[question_type],
        "video": f"{row['dataset']}/{row['scene_name']}.mp4",
    }
    return Question.from_json(fields, where)


@dataclasses.dataclass(frozen=True)
class BenchmarkVideos:
    """The videos of a download, in their zips or unpacked beside them. Videos in zips are unpacked only while open."""

    folder: Path

    def check(self, video: str) -> None:
        """`InputError` if `<source>/<scene>.mp4` is neither in a zip nor unpacked."""
        if not self._unpacked(video).is_file():
            self._entry(video)

    def identity(self, video: str) -> list[int]:
        """Size and CRC-32 of a video: as its zip says, which costs nothing; an unpacked one is read whole."""
        unpacked = self._unpacked(video)
        if not unpacked.is_file():
            entry = self._entry(video)
            return [entry.file_size, entry.CRC]
        size = checksum = 0
        with unpacked.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
        return [size, checksum]

    @contextlib.contextmanager
    def open(self, video: str) -> Iterator[FrameSource]:
        """The frames of one video; a video in a zip is unpacked to a temporary folder meanwhile.

        Raises:
            InputError: the video is missing or broken.
        """
        unpacked = self._unpacked(video)
        if unpacked.is_file():
            yield VideoFileSource(unpacked)
            return
        entry = self._entry(video)
        archive = self.folder / f"{PurePosixPath(video).parts[0]}.zip"
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / PurePosixPath(video).name
            _copy_out(archive, entry.filename, path)
            yield VideoFileSource(path)

    def _unpacked(self, video: str) -> Path:
        parts = PurePosixPath(video).parts
        if len(parts) != 2 or not all(map(_NAME.fullmatch, parts)):
            raise InputError(f"video {video!r}: expected <source>/<scene>.mp4")
        return self.folder / video

    def _entry(self, video: str) -> zipfile.ZipInfo:
        parts = PurePosixPath(video).parts
        archive = self.folder / f"{parts[0]}.zip"
        entries = _entries(archive, archive.stat().st_mtime_ns if archive.is_file() else 0)
        if parts[1] not in entries:
            raise InputError(f"{archive}: has no {parts[1]}; it has {len(entries)} videos")
        return entries[parts[1]]


@functools.lru_cache(maxsize=64)
def _entries(archive: Path, _modified: int) -> dict[str, zipfile.ZipInfo]:
    """File name → entry, of the videos in a zip."""
    if not archive.is_file():
        raise InputError(f"{archive}: no such file; expected one of VSI-Bench's downloads, such as {SOURCES[0]}.zip")
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
    except Exception as error:  # broken archives raise many kinds
        raise InputError(f"{archive}: not a readable zip ({one_line(error)})") from None
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        path = PurePosixPath(info.filename)
        if path.suffix.lower() != ".mp4" or path.parts[0] == "__MACOSX":
            continue
        if ".." in path.parts or path.is_absolute() or "\\" in info.filename:
            raise InputError(f"{archive}: entry {info.filename[:80]!r} points outside the archive; refused")
        if info.file_size > _MOST_VIDEO_BYTES:
            raise InputError(f"{archive}: entry {info.filename[:80]!r} says it has {info.file_size:,} bytes; refused")
        if path.name in entries:
            raise InputError(f"{archive}: {path.name} is in it twice")
        entries[path.name] = info
    return entries


def _copy_out(archive: Path, entry: str, path: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(entry) as source, path.open("wb") as target:
            copied = 0
            while chunk := source.read(_CHUNK_BYTES):
                copied += len(chunk)
                if copied > _MOST_VIDEO_BYTES:
                    raise InputError(f"{archive}: {entry} has more bytes than it says; refused")
                target.write(chunk)
    except InputError:
        raise
    except Exception as error:  # zlib, zipfile (a wrong CRC, a password) and the disk raise many kinds
        raise InputError(f"{archive}: {entry} cannot be read ({one_line(error)})") from None


def _annotations(folder: Path) -> list[Path]:
    """The files with the benchmark's questions, without other parquet files (`bbox_….parquet`)."""
    jsonl = folder / "test.jsonl"
    return [*sorted(folder.glob("test*.parquet")), *([jsonl] if jsonl.is_file() else [])]


def _question_id(number: Any) -> str:
    return f"vsi-bench-{number}"


def _order(question_id: str) -> tuple[bool, int, str]:
    """Sorting key: by number; ids without a number come last."""
    number = question_id.rpartition("-")[2]
    counts = number.isdecimal() and len(number) < 19
    return (not counts, int(number) if counts else 0, question_id)
