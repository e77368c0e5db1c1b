"""VSI-Bench's name of a row's task, from the text of the question or from the set's name of the task."""

from __future__ import annotations

import re

# Patterns in the templates of VSI-Bench, vsGRPO (Fig. 2) and Spatial-R1's released file.
_TEMPLATES = (
    ("object_counting", r"^how many .+\bin (this|the) room"),
    ("room_size_estimation", r"size of (this|the) room"),
    ("object_size_estimation", r"length of the longest dimension"),
    ("object_abs_distance", r"distance between .+ and .+ \(in meters\)"),
    ("object_rel_distance", r"which of (these|the following) objects.* closest to"),
    ("obj_appearance_order", r"first-time appearance order"),
    ("route_planning", r"^you are a robot beginning (at|by|from)"),
    ("object_rel_direction_hard", r"standing by .+ facing .+ front-left"),
    ("object_rel_direction_medium", r"standing by .+ facing .+ to my left, right, or back"),
    ("object_rel_direction_easy", r"standing by .+ facing .+ to the left or the right"),
)
_PATTERNS = tuple((name, re.compile(pattern, re.IGNORECASE | re.DOTALL)) for name, pattern in _TEMPLATES)
_OWN_NAMES = {
    "abs_distance": "object_abs_distance",
    "rel_distance": "object_rel_distance",
    "rel_direction": "object_rel_direction_easy",  # Spatial-R1 asks left or right only
    "counting": "object_counting",
    "size": "object_size_estimation",
    "object_size": "object_size_estimation",
    "room": "room_size_estimation",
    "room_size": "room_size_estimation",
    "appearance_order": "obj_appearance_order",
    "route_plan": "route_planning",
}
# SR's rows say so of left or right, which is VSI-Bench's easy level; the benchmark has no type of this name.
_DIRECTIONS_OF_ANY_LEVEL = ("rel_direction", "object_rel_direction")


def type_of_question(question: str) -> str | None:
    """The task of a question with a known template, or None."""
    return next((name for name, pattern in _PATTERNS if pattern.search(question)), None)


def question_type(given: str | None, question: str, otherwise: str) -> str:
    """VSI-Bench's name of a row's task: from the set's name, from the question's text, or `otherwise`."""
    name = re.sub(r"\W+", "_", (given or "").strip().casefold()).strip("_")
    if name in _DIRECTIONS_OF_ANY_LEVEL:
        by_text = type_of_question(question) or ""
        return by_text if by_text.startswith("object_rel_direction_") else _OWN_NAMES.get(name, name)
    if name:
        return _OWN_NAMES.get(name, name)
    return type_of_question(question) or otherwise
