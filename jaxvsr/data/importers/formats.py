"""The forms of published question sets: a function per form, from a row to its questions and the names of their media.

vsi-bench   id, dataset, scene_name, question_type, question, options, ground_truth
vsi100k     question or problem; answer, solution or ground_truth; scene, scene_name, video or path; vsGRPO's templates
spacer      Spatial-R1: problem, question_type, solution, video. SpaceR: problem, options, problem_type, solution, path
video-r1    problem, options, problem_type, data_type, solution in <answer>, path, process (reasoning)
trl         prompt (text or messages) and solution, answer or completion; image, images or video
vqasynth    messages of several turns, images
q-spatial   question, answer_value, answer_unit, image or image_path
chat        conversations or messages (LLaVA, Qwen, ms-swift), with the answer in them or in solution; or a question and
            its answer under other usual names (problem, query, instruction; response, output); image(s), video(s)
jsonl       jaxvsr's fields (docs/formats.md), or others with --map
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from jaxvsr.data.importers.answer_kinds import RowError, decide, untagged
from jaxvsr.data.importers.question_types import question_type, type_of_question
from jaxvsr.data.importers.row_fields import (
    SourceRow,
    images_of,
    needed_field,
    option_list,
    question_text,
    slug,
    split_options,
    string_field,
    video_of,
)
from jaxvsr.data.importers.turns import Media, Picture, filled, pictures_of, question_and_answer_turns, text_of
from jaxvsr.data.importers.vsi_bench_download import is_pruned, question_of_row
from jaxvsr.errors import InputError

Format = Literal["vsi-bench", "vsi100k", "spacer", "video-r1", "trl", "vqasynth", "q-spatial", "chat", "jsonl"]
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
    *("image_path", "image_id", "videos", "images"),
)
_OPTIONAL_FIELDS = ("image", "videos", "mirror_of", "response")
# The usual names of a question and of its answer, in sets that have neither of ours.
_QUESTION_NAMES = ("question", "problem", "query", "instruction")
_TRUTH_NAMES = ("solution", "answer", "ground_truth")
_REPLY_NAMES = ("response", "output")
_MESSAGE_NAMES = ("conversations", "messages")
_KIND_OF_PROBLEM = {
    "multiple choice": "choice",
    "numerical": "number",
    "regression": "number",
    "ocr": "text",
    "free-form": "text",
}


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
        ("chat", "conversations" in fields or ("messages" in fields and not _is_vqasynth(row))),
        ("vqasynth", "messages" in fields),
        ("trl", "prompt" in fields),
        ("spacer", {"problem", "solution"} <= fields and _is_spacer(row)),
        ("video-r1", {"problem", "solution", "problem_type"} <= fields),
        ("jsonl", {"question", "answer", "answer_kind"} <= fields),
        ("vsi100k", bool(type_of_question(asked)) and bool(fields & {"answer", "solution", "ground_truth"})),
        ("jsonl", {"question", "answer"} <= fields),
        ("chat", bool(fields & set(_QUESTION_NAMES)) and bool(fields & {*_TRUTH_NAMES, *_REPLY_NAMES})),
    )
    for form, fits in rules:
        if fits:
            return form
    names = ", ".join(sorted(map(str, fields)))[:200]
    raise InputError(
        f"{where}: unknown form with fields {names}; name them with --map question=…,answer=…,video=… (OUTER.INNER is "
        "a field inside of another)"
    )


def _is_vqasynth(row: Mapping[str, Any]) -> bool:
    """Messages of parts about images, whose answers are in them."""
    if not isinstance(row["messages"], list) or {*_TRUTH_NAMES, "video", "videos"} & set(row):
        return False
    contents = [one.get("content") for one in row["messages"] if isinstance(one, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    kinds = {part["type"] for part in parts if isinstance(part.get("type"), str)}
    return "image" in kinds and "video" not in kinds


def _is_spacer(row: Mapping[str, Any]) -> bool:
    released = "problem_type" not in row and {"question_type", "video"} <= set(row)
    return released or row.get("data_source") == "SR_dataset"


def renamed(row: Mapping[str, Any], field_map: Mapping[str, str]) -> dict[str, Any]:
    """A row with jaxvsr's field names; `field_map`: ours → the set's, whose names reach into objects and lists
    (`reward_model.ground_truth`, `conversations.0.value`). A mapped field that the row lacks is left out.
    """
    found = {ours: _reached(row, theirs) for ours, theirs in field_map.items()}
    known = {ours: value for ours, value in found.items() if value is not None}
    rest = {name: value for name, value in row.items() if name not in field_map and name not in field_map.values()}
    return {**{name: rest[name] for name in (*_FIELDS, *_OPTIONAL_FIELDS) if name in rest}, **known}


def _reached(row: Any, name: str) -> Any:
    """A field of the row, or one inside of others; None if there is none."""
    if isinstance(row, dict) and name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    if isinstance(row, list) and outer.isdecimal() and int(outer) < len(row):
        return _reached(row[int(outer)], inner) if dot else row[int(outer)]
    return _reached(row[outer], inner) if dot and isinstance(row, dict) and outer in row else None


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
    values = [row.get(field) for field in _PLACE_FIELDS]
    return tuple(
        one for value in values for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)
    )


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
    question, options = split_options(question_text(needed_field(row, "question", "problem")), option_list(row))
    kind = question_type(string_field(row, "question_type"), question, "")
    if not kind:
        raise RowError(f"question {question[:60]!r} has none of vsGRPO's templates, and there is no question_type")
    answer = decide(untagged(needed_field(row, "answer", "solution", "ground_truth")), options)
    video = needed_field(row, "video", "video_path", "path", "scene", "scene_name")
    return [SourceRow(question, answer, kind, video=video, id=string_field(row, "id", "problem_id"))]


def _spacer(row: dict[str, Any], where: str) -> list[SourceRow]:
    """Spatial-R1's released file and SpaceR's SR_dataset; options may be part of the problem's text."""
    question, options = split_options(question_text(needed_field(row, "problem", "question")), option_list(row))
    answer = decide(untagged(needed_field(row, "solution", "answer")), options, _kind_of_problem(row))
    named = question_type(
        string_field(row, "question_type"), question, slug(string_field(row, "problem_type")) or "other"
    )
    video = needed_field(row, "path", "video")
    return [SourceRow(question, answer, named, video=video, id=string_field(row, "problem_id", "id"))]


def _video_r1(row: dict[str, Any], where: str) -> list[SourceRow]:
    question, options = split_options(question_text(needed_field(row, "problem")), option_list(row))
    kind = _kind_of_problem(row)
    answer = decide(untagged(needed_field(row, "solution")), options, kind)
    named = question_type(
        string_field(row, "question_type"), question, slug(string_field(row, "problem_type")) or "other"
    )
    media, process = needed_field(row, "path", "video", "image"), string_field(row, "process")
    response = f"{process}\n{needed_field(row, 'solution')}" if process else None
    fields: dict[str, Any] = {"id": string_field(row, "problem_id", "id"), "response": response}
    if (string_field(row, "data_type") or "video") == "image":
        return [SourceRow(question, answer, named, images=(Picture(media),), **fields)]
    return [SourceRow(question, answer, named, video=media, **fields)]


def _trl(row: dict[str, Any], where: str) -> list[SourceRow]:
    if "chosen" in row:
        raise RowError("chosen and rejected answers: preference sets are not imported; name the right one as solution")
    question, inside, notes = text_of(row.get("prompt"))
    truth = string_field(row, *_TRUTH_NAMES)
    if not truth and isinstance(row.get("reward_model"), dict):  # verl's form
        truth = string_field(row["reward_model"], "ground_truth")
    response = None
    if row.get("completion") is not None:
        response, _, _ = text_of(row["completion"])
        truth = truth or response
    if not truth:
        raise RowError("field 'solution', 'answer' or 'completion' is missing or empty")
    question, options = split_options(question, option_list(row))
    answer = decide(untagged(truth), options, string_field(row, "answer_kind"))
    named = question_type(string_field(row, "question_type"), question, "other")
    video = inside.video or video_of(row)
    images = inside.images or images_of(row)
    response = response if response and response != answer.text else None
    return [SourceRow(question, answer, named, video, images, string_field(row, "id"), response=response, notes=notes)]


def _vqasynth(row: dict[str, Any], where: str) -> list[SourceRow]:
    """Each turn is a question about the same images (SVQA-R1: multi-turn to single-turn)."""
    turns, inside, notes = question_and_answer_turns(row.get("messages"))
    images = inside.images or images_of(row)
    video = inside.video or video_of(row)
    rows = []
    for number, (question, answer) in enumerate(turns):
        own = string_field(row, "id")
        name = None if own is None else own if len(turns) == 1 else f"{own}-{number}"
        named = question_type(string_field(row, "question_type"), question, "open_ended")
        decided = decide(answer, None, "text")
        rows.append(SourceRow(question, decided, named, video, images, name, notes=notes if not number else ()))
    return rows


def _q_spatial(row: dict[str, Any], where: str) -> list[SourceRow]:
    question, value, unit = (
        needed_field(row, "question"),
        needed_field(row, "answer_value"),
        needed_field(row, "answer_unit"),
    )
    length = decide(f"{float(decide(value, None, 'number').text):.6g} {unit}", None, "text")
    images = pictures_of(row.get("image")) or pictures_of(row.get("image_path"))
    path = string_field(row, "image_path")
    if images and path and images[0].data is not None:
        images = (dataclasses.replace(images[0], name=path),)
    if not images:
        raise RowError("field 'image' or 'image_path' is missing or empty")
    named = question_type(string_field(row, "question_type"), question, "distance")
    return [SourceRow(question, length, named, images=images, id=string_field(row, "id", "question_id"))]


def _chat(row: dict[str, Any], where: str) -> list[SourceRow]:
    """Each turn is a question; the answer is the row's own field, for its only question, or what was replied."""
    truth, said = string_field(row, *_TRUTH_NAMES), next((row[one] for one in _MESSAGE_NAMES if row.get(one)), None)
    if said is not None:
        turns, inside, notes = question_and_answer_turns(said)
    else:
        asked = "\n".join(filter(None, (needed_field(row, *_QUESTION_NAMES), string_field(row, "input"))))
        turns, inside, notes = [(asked, string_field(row, *_REPLY_NAMES) or "")], Media(), ()
        if row.get("history"):
            raise RowError("field 'history': earlier turns stand apart; expected them in messages")
    if truth and len(turns) > 1:
        raise RowError(f"{len(turns)} questions in turn, but one {' or '.join(_TRUTH_NAMES)}")
    images, own, rows = inside.images or images_of(row), string_field(row, "id", "problem_id", "question_id"), []
    scene = string_field(row, "scene")
    video = inside.video or video_of(row) or (None if images else scene)
    for number, (asked, reply) in enumerate(turns):
        if not (truth or reply):
            raise RowError(f"no answer: neither a reply nor a field {' or '.join(map(repr, _TRUTH_NAMES))}")
        question, options = split_options(question_text(asked), option_list(row))
        answer = decide(untagged(filled(truth or reply)), options, string_field(row, "answer_kind"))
        response = reply if reply and reply not in (answer.text, truth) else None
        named = question_type(string_field(row, "question_type"), question, "other")
        name = None if own is None else own if len(turns) == 1 else f"{own}-{number}"
        rows.append(SourceRow(question, answer, named, video, images, name, scene, response=response, notes=notes))
        notes = ()
    return rows


def _jsonl(row: dict[str, Any], where: str) -> list[SourceRow]:
    if isinstance(row.get("question"), list):  # --map question=FIELD may name messages
        return _chat({**row, "messages": row["question"]}, where)
    question, options = split_options(question_text(needed_field(row, "question")), option_list(row))
    answer = decide(untagged(needed_field(row, "answer")), options, string_field(row, "answer_kind"))
    named = question_type(string_field(row, "question_type"), question, "other")
    images, scene = images_of(row), string_field(row, "scene")
    video = video_of(row) or (None if images else scene)
    return [
        SourceRow(
            question,
            answer,
            named,
            video=video,
            images=images,
            id=string_field(row, "id"),
            scene=scene,
            mirror_of=string_field(row, "mirror_of"),
            response=string_field(row, "response"),
        )
    ]


def _kind_of_problem(row: Mapping[str, Any]) -> str | None:
    named = string_field(row, "problem_type")
    if not named:
        return None
    if named.casefold() not in _KIND_OF_PROBLEM:
        raise RowError(f"problem_type {named[:40]!r} is not one of {', '.join(_KIND_OF_PROBLEM)}")
    return _KIND_OF_PROBLEM[named.casefold()]


_READERS: dict[Format, Callable[[dict[str, Any], str], list[SourceRow]]] = {
    "vsi-bench": _vsi_bench,
    "vsi100k": _vsi100k,
    "spacer": _spacer,
    "video-r1": _video_r1,
    "trl": _trl,
    "vqasynth": _vqasynth,
    "q-spatial": _q_spatial,
    "chat": _chat,
    "jsonl": _jsonl,
}
