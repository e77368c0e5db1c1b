"""The forms of published question sets: a function per form, from a row to its questions and the names of their media.

vsi-bench   id, dataset, scene_name, question_type, question, options, ground_truth
vsi100k     question or problem; answer, solution or ground_truth; scene, scene_name, video or path; vsGRPO's templates
spacer      Spatial-R1: problem, question_type, solution, video. SpaceR: problem, options, problem_type, solution, path
video-r1    problem, options, problem_type, data_type, solution in <answer>, path, process (reasoning)
trl         prompt (text or messages) and solution, answer or completion; image, images or video
vqasynth    messages of several turns, images
q-spatial   question, answer_value, answer_unit, image or image_path
jsonl       jaxvsr's fields (docs/formats.md), or others with --map
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from jaxvsr.data.importers.answer_kinds import Answer, RowError, decide, untagged
from jaxvsr.data.importers.question_types import question_type, type_of_question
from jaxvsr.data.importers.turns import Picture, pictures_of, question_and_answer_turns, text_of
from jaxvsr.data.importers.vsi_bench_download import is_pruned, question_of_row
from jaxvsr.errors import InputError

Format = Literal["vsi-bench", "vsi100k", "spacer", "video-r1", "trl", "vqasynth", "q-spatial", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
# Where the sets of these forms are published, with their terms.
TERMS: dict[str, str] = {
    "vsi-bench": "https://huggingface.co/datasets/nyu-visionx/VSI-Bench",
    "spacer": "https://huggingface.co/datasets/RUBBISHLIKE/SpaceR-151k",
    "video-r1": "https://huggingface.co/datasets/Video-R1/Video-R1-data",
    "vqasynth": "https://huggingface.co/datasets/remyxai/vqasynth_spacellava",
    "q-spatial": "https://huggingface.co/datasets/andrewliao11/Q-Spatial-Bench",
}
_FIELDS = ("id", "scene", "question_type", "question", "options", "answer", "answer_kind", "video", "images")
# Fields that can name the scene of a row.
_PLACE_FIELDS = (
    *("scene", "scene_name", "scene_id", "scan", "scan_id", "video", "video_path", "video_id", "path", "image"),
    *("image_path", "image_id"),
)
_OPTIONAL_FIELDS = ("image", "mirror_of", "response")
_KIND_OF_PROBLEM = {
    "multiple choice": "choice",
    "numerical": "number",
    "regression": "number",
    "ocr": "text",
    "free-form": "text",
}
_EMBEDDED_OPTIONS = re.compile(r"\s*\n\s*Options:\s*\n(.*)\Z", re.DOTALL)


@dataclasses.dataclass(frozen=True, eq=False)
class SourceRow:
    """One published question.

    `video` and `images` are names that have to be paired with files, or the images themselves. `pruned`: whether it is
    outside VSI-Bench's debiased subset, if the set says so. `names`: every name of a scene or file in the row.
    """

    question: str
    answer: Answer
    question_type: str
    video: str | None = None
    images: tuple[Picture, ...] = ()
    id: str | None = None
    scene: str | None = None
    mirror_of: str | None = None
    response: str | None = None
    pruned: bool | None = None
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def read_row(row: dict[str, Any], form: Format, where: str) -> list[SourceRow]:
    """The questions of one published row: one per turn.

    Raises:
        RowError: says why the row cannot be imported.
    """
    return _READERS[form](row, where)


def detect(row: Mapping[str, Any], where: str = "row") -> Format:
    """The form of a set, decided by the fields of its first row.

    Raises:
        InputError: no form fits; the message names the fields.
    """
    fields = set(row)
    asked = str(row.get("question") or row.get("problem") or "")
    rules: tuple[tuple[Format, bool], ...] = (
        ("vsi-bench", {"dataset", "scene_name", "question_type", "ground_truth"} <= fields),
        ("q-spatial", {"question", "answer_value", "answer_unit"} <= fields),
        ("vqasynth", "messages" in fields),
        ("trl", "prompt" in fields),
        ("spacer", {"problem", "solution"} <= fields and _is_spacer(row)),
        ("video-r1", {"problem", "solution", "problem_type"} <= fields),
        ("jsonl", {"question", "answer", "answer_kind"} <= fields),
        ("vsi100k", bool(type_of_question(asked)) and bool(fields & {"answer", "solution", "ground_truth"})),
        ("jsonl", {"question", "answer"} <= fields),
    )
    for form, fits in rules:
        if fits:
            return form
    names = ", ".join(sorted(map(str, fields)))[:200]
    raise InputError(f"{where}: unknown form with fields {names}; name them with --map question=…,answer=…,video=…")


def _is_spacer(row: Mapping[str, Any]) -> bool:
    released = "problem_type" not in row and {"question_type", "video"} <= set(row)
    return released or row.get("data_source") == "SR_dataset"


def renamed(row: Mapping[str, Any], field_map: Mapping[str, str]) -> dict[str, Any]:
    """A row with jaxvsr's field names; `field_map`: ours → the set's. A mapped field that the row lacks is left out."""
    known = {ours: row[theirs] for ours, theirs in field_map.items() if theirs in row}
    rest = {name: value for name, value in row.items() if name not in field_map and name not in field_map.values()}
    return {**{name: rest[name] for name in (*_FIELDS, *_OPTIONAL_FIELDS) if name in rest}, **known}


def parse_field_map(text: str) -> dict[str, str]:
    """`question=problem,answer=solution` as {"question": "problem", …}.

    Raises:
        InputError: a field that jaxvsr does not have, or one given twice.
    """
    fields = (*_FIELDS, *_OPTIONAL_FIELDS)
    found: dict[str, str] = {}
    for part in text.split(","):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not equals or not theirs or ours not in fields or ours in found:
            raise InputError(
                f"--map {part.strip()!r}: expected OURS=THEIRS, each once, OURS one of {', '.join(fields)}"
            )
        found[ours] = theirs
    return found


def place_names(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of scenes and files in all fields of a published row."""
    return tuple(name for field in _PLACE_FIELDS if isinstance(name := row.get(field), str))


def _string(row: Mapping[str, Any], *names: str) -> str | None:
    """The first of these fields that the row has, as text; numbers as Python writes them."""
    for name in names:
        value = row.get(name)
        if value is None or isinstance(value, bool | list | dict | bytes):
            if value is not None:
                raise RowError(f"field {name!r} must be text or a number, found {type(value).__name__}")
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise RowError(f"field {name!r} is {value}")
        text = f"{value:.15g}" if isinstance(value, float) else str(value)
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise RowError(f"field {name!r} is not valid text (half a surrogate pair)")
        return text.strip()
    return None


def _needed(row: Mapping[str, Any], *names: str) -> str:
    text = _string(row, *names)
    if not text:
        raise RowError(f"field {' or '.join(map(repr, names))} is missing or empty")
    return text


def _option_list(row: Mapping[str, Any]) -> tuple[str, ...]:
    options = row.get("options")
    if options is None:
        return ()
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
        raise RowError(f"field 'options' must be a list of strings, found {str(options)[:60]!r}")
    return tuple(options)


def _vsi_bench(row: dict[str, Any], where: str) -> list[SourceRow]:
    try:
        question, pruned = question_of_row(row, where), is_pruned(row, where)
    except InputError as error:
        raise RowError(str(error).removeprefix(f"{where}: ")) from None
    except TypeError as error:  # a list instead of a string
        raise RowError(f"a field has a wrong type ({error})") from None
    answer = decide(question.answer, question.options, question.answer_kind)
    return [
        SourceRow(
            question.question,
            answer,
            question.question_type,
            video=question.video,
            id=question.id.removeprefix("vsi-bench-"),
            scene=question.scene,
            pruned=pruned,
        )
    ]


def _vsi100k(row: dict[str, Any], where: str) -> list[SourceRow]:
    question, options = _split_options(_without_heading(_needed(row, "question", "problem")), _option_list(row))
    kind = question_type(_string(row, "question_type"), question, "")
    if not kind:
        raise RowError(f"question {question[:60]!r} has none of vsGRPO's templates, and there is no question_type")
    answer = decide(untagged(_needed(row, "answer", "solution", "ground_truth")), options)
    video = _needed(row, "video", "video_path", "path", "scene", "scene_name")
    return [SourceRow(question, answer, kind, video=video, id=_string(row, "id", "problem_id"))]


def _spacer(row: dict[str, Any], where: str) -> list[SourceRow]:
    """Spatial-R1's released file and SpaceR's SR_dataset; options may be part of the problem's text."""
    question, options = _split_options(_without_heading(_needed(row, "problem", "question")), _option_list(row))
    answer = decide(untagged(_needed(row, "solution", "answer")), options, _kind_of_problem(row))
    named = question_type(_string(row, "question_type"), question, _slug(_string(row, "problem_type")) or "other")
    video = _needed(row, "path", "video")
    return [SourceRow(question, answer, named, video=video, id=_string(row, "problem_id", "id"))]


def _video_r1(row: dict[str, Any], where: str) -> list[SourceRow]:
    question, options = _split_options(_without_heading(_needed(row, "problem")), _option_list(row))
    kind = _kind_of_problem(row)
    answer = decide(untagged(_needed(row, "solution")), options, kind)
    named = question_type(_string(row, "question_type"), question, _slug(_string(row, "problem_type")) or "other")
    media, process = _needed(row, "path", "video", "image"), _string(row, "process")
    response = f"{process}\n{_needed(row, 'solution')}" if process else None
    fields: dict[str, Any] = {"id": _string(row, "problem_id", "id"), "response": response}
    if (_string(row, "data_type") or "video") == "image":
        return [SourceRow(question, answer, named, images=(Picture(media),), **fields)]
    return [SourceRow(question, answer, named, video=media, **fields)]


def _trl(row: dict[str, Any], where: str) -> list[SourceRow]:
    if "chosen" in row:
        raise RowError("chosen and rejected answers: preference sets are not imported; name the right one as solution")
    question, inside, notes = text_of(row.get("prompt"))
    truth = _string(row, "solution", "answer", "ground_truth")
    response = None
    if row.get("completion") is not None:
        response, _, _ = text_of(row["completion"])
        truth = truth or response
    if not truth:
        raise RowError("field 'solution', 'answer' or 'completion' is missing or empty")
    question, options = _split_options(question, _option_list(row))
    answer = decide(untagged(truth), options, _string(row, "answer_kind"))
    named = question_type(_string(row, "question_type"), question, "other")
    video = inside.video or _string(row, "video", "video_path")
    images = inside.images or pictures_of(row.get("images", row.get("image")))
    response = response if response and response != answer.text else None
    return [SourceRow(question, answer, named, video, images, _string(row, "id"), response=response, notes=notes)]


def _vqasynth(row: dict[str, Any], where: str) -> list[SourceRow]:
    """Each turn is a question about the same images (SVQA-R1: multi-turn to single-turn)."""
    turns, inside, notes = question_and_answer_turns(row.get("messages"))
    images = inside.images or pictures_of(row.get("images", row.get("image")))
    video = inside.video or _string(row, "video")
    rows = []
    for number, (question, answer) in enumerate(turns):
        own = _string(row, "id")
        name = None if own is None else own if len(turns) == 1 else f"{own}-{number}"
        named = question_type(_string(row, "question_type"), question, "open_ended")
        decided = decide(answer, None, "text")
        rows.append(SourceRow(question, decided, named, video, images, name, notes=notes if not number else ()))
    return rows


def _q_spatial(row: dict[str, Any], where: str) -> list[SourceRow]:
    question, value, unit = _needed(row, "question"), _needed(row, "answer_value"), _needed(row, "answer_unit")
    length = decide(f"{float(decide(value, None, 'number').text):.6g} {unit}", None, "text")
    images = pictures_of(row.get("image")) or pictures_of(row.get("image_path"))
    path = _string(row, "image_path")
    if images and path and images[0].data is not None:
        images = (dataclasses.replace(images[0], name=path),)
    if not images:
        raise RowError("field 'image' or 'image_path' is missing or empty")
    named = question_type(_string(row, "question_type"), question, "distance")
    return [SourceRow(question, length, named, images=images, id=_string(row, "id", "question_id"))]


def _jsonl(row: dict[str, Any], where: str) -> list[SourceRow]:
    question, options = _split_options(_without_heading(_needed(row, "question")), _option_list(row))
    answer = decide(untagged(_needed(row, "answer")), options, _string(row, "answer_kind"))
    named = question_type(_string(row, "question_type"), question, "other")
    images, scene = pictures_of(row.get("images", row.get("image"))), _string(row, "scene")
    video = _string(row, "video") or (None if images else scene)
    return [
        SourceRow(
            question,
            answer,
            named,
            video=video,
            images=images,
            id=_string(row, "id"),
            scene=scene,
            mirror_of=_string(row, "mirror_of"),
            response=_string(row, "response"),
        )
    ]


def _kind_of_problem(row: Mapping[str, Any]) -> str | None:
    named = _string(row, "problem_type")
    if not named:
        return None
    if named.casefold() not in _KIND_OF_PROBLEM:
        raise RowError(f"problem_type {named[:40]!r} is not one of {', '.join(_KIND_OF_PROBLEM)}")
    return _KIND_OF_PROBLEM[named.casefold()]


def _without_heading(question: str) -> str:
    return re.sub(r"\A\s*Question:\s*", "", question)


def _split_options(question: str, options: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Take options out of the question's text, if the row has no field for them."""
    match = _EMBEDDED_OPTIONS.search(question)
    if options or not match:
        return question, options
    lines = tuple(line.strip() for line in match[1].splitlines() if line.strip())
    return question[: match.start()].strip(), lines


def _slug(text: str | None) -> str:
    return re.sub(r"\W+", "_", (text or "").casefold()).strip("_")


_READERS: dict[Format, Callable[[dict[str, Any], str], list[SourceRow]]] = {
    "vsi-bench": _vsi_bench,
    "vsi100k": _vsi100k,
    "spacer": _spacer,
    "video-r1": _video_r1,
    "trl": _trl,
    "vqasynth": _vqasynth,
    "q-spatial": _q_spatial,
    "jsonl": _jsonl,
}
