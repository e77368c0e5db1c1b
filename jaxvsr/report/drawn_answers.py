"""The answer to a question, drawn into the plan of its room: what was measured, and where one stands and looks.

A question does not say how its answer was measured, so distances are measured by every definition of the recipes, and a
note says which of them match the answer.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64

from jaxvsr.data.geometry import directions, distances
from jaxvsr.data.geometry.object_distance import object_center
from jaxvsr.data.geometry.room_area import room_area
from jaxvsr.data.questions import Question
from jaxvsr.data.scannet.read_scan import ScannedScene, SceneObject
from jaxvsr.report.floor_plan import Mark, Plan

_LETTER = re.compile(r"^\s*([A-Z])\s*[.)]\s*")
_ROOM_RADIUS_M = 0.2  # VSI-Bench's and VSI-100k's circumradius


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnAnswer:
    """What to draw for a question, and a note under the drawing."""

    highlight: frozenset[str]
    marks: tuple[Mark, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class RoomToDraw:
    """A scene with its plan; a mirror image is another scene."""

    scene: ScannedScene

    @functools.cached_property
    def plan(self) -> Plan:
        return Plan(self.scene)

    @functools.cached_property
    def floor_m2(self) -> float:
        return room_area(self.scene, "labelled", radius_m=_ROOM_RADIUS_M, fill_holes=True, hidden=True)

    def mentioned(self, text: str) -> list[str]:
        """Categories of the room's objects in the order in which the text first names them; longer names win."""
        found: dict[str, int] = {}
        rest = text.lower()
        for category in sorted({one.category for one in self.plan.objects}, key=len, reverse=True):
            pattern = re.compile(rf"(?<![a-z]){re.escape(category)}(?:s|es|\(s\))?(?![a-z])")
            match = pattern.search(rest)
            if match:
                found[category] = match.start()
                rest = pattern.sub(lambda m: "\0" * len(m[0]), rest)  # "coffee table" is no "table"
        return sorted(found, key=found.__getitem__)


def draw_answer(room: RoomToDraw, row: Question) -> DrawnAnswer:
    """The drawing of one question; for an unknown question type, the objects that it names are outlined."""
    named = room.mentioned(row.question)
    answer = _answer_text(row)
    for prefix, draw in _DRAWINGS.items():
        if row.question_type.startswith(prefix):
            drawn = draw(room, row, named, answer)
            if drawn is not None:
                return drawn
    return DrawnAnswer(frozenset({*named, *room.mentioned(answer)}))


def _answer_text(row: Question) -> str:
    """The answer, or the option whose letter it is."""
    for option in row.options or ():
        match = _LETTER.match(option)
        if match and match[1] == row.answer.strip().rstrip("."):
            return option[match.end() :]
    return row.answer


def _count(room: RoomToDraw, row: Question, named: Sequence[str], answer: str) -> DrawnAnswer | None:
    if len(named) > 1:
        return None
    found = room.plan.instances(named[0]) if named else []
    marks = [Mark(_middle(one), label=str(number)) for number, one in enumerate(found, start=1)]
    return DrawnAnswer(frozenset(named), tuple(marks), f"{len(found)} in the annotation")


def _size(room: RoomToDraw, row: Question, named: Sequence[str], answer: str) -> DrawnAnswer | None:
    if not named:
        return None
    marks, notes = [], []
    for one in room.plan.instances(named[0]):
        box = one.obb
        longest = int(np.argmax(box.extent))
        half = box.axes[longest] * box.extent[longest] / 2
        level = np.hypot(half[0], half[1]) > abs(half[2])
        if level:
            marks.append(Mark((box.center - half)[:2], (box.center + half)[:2], f"{answer} cm"))
        else:
            marks.append(Mark(_middle(one), label=f"{answer} cm high"))
        notes.append(f"oriented box {_sides(box.extent)} cm, axis-aligned {_sides(one.aabb.extent)} cm")
    return DrawnAnswer(frozenset(named[:1]), tuple(marks), "; ".join(notes))


def _sides(extent: Float64[np.ndarray, " 3"]) -> str:
    """Centimetres, longest first."""
    return " × ".join(f"{100 * side:.0f}" for side in sorted(extent, reverse=True))


def _room(room: RoomToDraw, row: Question, named: Sequence[str], answer: str) -> DrawnAnswer:
    return DrawnAnswer(frozenset(), (), f"alpha shape of the labelled floor: {room.floor_m2:.1f} m²")


def _distance(room: RoomToDraw, row: Question, named: Sequence[str], answer: str) -> DrawnAnswer | None:
    if len(named) != 2:
        return None
    measured = _measured(room, *named)
    agreeing = [name for name, metres in measured.items() if _same(metres, answer)]
    ends = _nearest_points(room, *named)
    if "centres" in agreeing:
        ends = _centres(room, *named)
    lengths = ", ".join(f"{name} {metres:.2f} m" for name, metres in measured.items())
    verdict = f"{answer} m matches {', '.join(agreeing)}" if agreeing else f"none matches {answer} m"
    return DrawnAnswer(frozenset(named), (Mark(*ends, f"{answer} m"),), f"{lengths}: {verdict}")


def _nearest(room: RoomToDraw, row: Question, named: Sequence[str], answer: str) -> DrawnAnswer | None:
    if len(named) < 2:
        return None
    # "Which of these objects (a, b, c, d) is the closest to the target?": the target comes last.
    target, choices = named[-1], named[:-1]
    marks, notes = [], []
    for choice in choices:
        measured = _measured(room, choice, target)
        ends = _centres(room, choice, target)
        marks.append(Mark(*ends, f"{measured['centres']:.2f} m", faint=choice != answer))
        notes.append(f"{choice} {measured['centres']:.2f} m, nearest points {measured['nearest points']:.2f} m")
    return DrawnAnswer(frozenset({target, answer}), tuple(marks), "between centres " + "; ".join(notes))


def _direction(room: RoomToDraw, row: Question, named: Sequence[str], answer: str) -> DrawnAnswer | None:
    if len(named) < 3 or any(len(room.plan.instances(name)) != 1 for name in named[:3]):
        return None
    stand, face, query = (object_center(room.plan.instances(name)[0]) for name in named[:3])
    turn = float(directions.turn_degrees(stand, face, query))
    turned = f"{turn:.0f}° to the left" if turn <= 180 else f"{360 - turn:.0f}° to the right"
    marks = (
        Mark(stand[:2], face[:2], "facing", arrow=True),
        Mark(stand[:2], query[:2], answer, dashed=True),
    )
    return DrawnAnswer(frozenset(named[:3]), marks, f"the {named[2]} is {turned} of the line of sight")


def _order(room: RoomToDraw, row: Question, named: Sequence[str], answer: str) -> DrawnAnswer | None:
    marks = []
    for number, name in enumerate(room.mentioned(answer), start=1):
        marks += [Mark(_middle(one), label=str(number)) for one in room.plan.instances(name)]
    return DrawnAnswer(frozenset(room.mentioned(answer)), tuple(marks), "numbers: order of first appearance")


_DRAWINGS: dict[str, Callable[[RoomToDraw, Question, Sequence[str], str], DrawnAnswer | None]] = {
    "object_counting": _count,
    "object_size_estimation": _size,
    "room_size_estimation": _room,
    "object_abs_distance": _distance,
    "object_rel_distance": _nearest,
    "object_rel_direction": _direction,
    "obj_appearance_order": _order,
}


def _middle(one: SceneObject) -> Float64[np.ndarray, " 2"]:
    return one.obb.center[:2]


def _pairs(room: RoomToDraw, first: str, second: str) -> list[tuple[SceneObject, SceneObject]]:
    return [(a, b) for a in room.plan.instances(first) for b in room.plan.instances(second)]


def _measured(room: RoomToDraw, first: str, second: str) -> dict[str, float]:
    """Metres by each definition, the smallest over all pairs of instances."""
    pairs = _pairs(room, first, second)
    definitions: dict[str, Callable[[SceneObject, SceneObject], float]] = {
        "centres": lambda a, b: distances.center_distance(object_center(a), object_center(b)),
        "nearest points": lambda a, b: distances.point_cloud_distance(a.points, b.points),
        "axis-aligned boxes": lambda a, b: distances.aabb_gap(a.aabb, b.aabb),
        "oriented boxes": lambda a, b: distances.obb_gap(a.obb, b.obb),
    }
    return {name: min(measure(a, b) for a, b in pairs) for name, measure in definitions.items()}


def _centres(room: RoomToDraw, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    ends = [(object_center(a), object_center(b)) for a, b in _pairs(room, first, second)]
    a, b = min(ends, key=lambda pair: distances.center_distance(*pair))
    return a[:2], b[:2]


def _nearest_points(room: RoomToDraw, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    from scipy.spatial import cKDTree

    closest = []
    for a, b in _pairs(room, first, second):
        metres, index = cKDTree(b.points).query(a.points)
        i = int(metres.argmin())
        closest.append((float(metres[i]), a.points[i, :2], b.points[index[i], :2]))
    _, *ends = min(closest, key=lambda one: one[0])
    return ends[0], ends[1]


def _same(metres: float, answer: str) -> bool:
    """Whether a length equals the answer, rounded to the answer's decimals."""
    try:
        value = float(answer)
    except ValueError:
        return False
    decimals = len(answer.partition(".")[2])
    return abs(round(metres, decimals) - value) < 1e-9
