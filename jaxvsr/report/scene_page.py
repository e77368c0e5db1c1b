"""The page of a scene: frames, plan, and every question with its answer drawn into the plan."""

from __future__ import annotations

from pathlib import Path

from jaxvsr.data.data_folder import QUESTIONS_FILE
from jaxvsr.data.frames import FRAMES_DIR, FrameStore
from jaxvsr.data.geometry.mirrored_scene import mirrored_scene
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.scannet.read_scan import is_procedural, list_scans, read_scene
from jaxvsr.errors import InputError
from jaxvsr.report.drawn_answers import RoomToDraw, draw_answer
from jaxvsr.report.pictures import jpegs
from jaxvsr.report.rendering import render

FRAMES_SHOWN = 16
STAYS_HERE = (
    "This page has frames of a real scan: by ScanNet's terms of use it stays on this machine. Reports of runs and "
    "trackers get none."
)


def scene_page(data: Path, name: str, scans: Path) -> str:
    """The page as HTML.

    Args:
        data: data folder with the questions and, where there are any, the frames.
        name: the scene's.
        scans: folder of scans in ScanNet's layout.

    Raises:
        InputError: no such scan, no question about it, or a file that cannot be read.
    """
    found = {scan.name: scan for scan in list_scans(scans)}
    if name not in found:
        raise InputError(f"{scans}: no scan {name!r}; it has {len(found)}, such as {', '.join(sorted(found)[:3])}")
    rows = [row for row in read_questions(data / QUESTIONS_FILE) if row.scene == name]
    if not rows:
        raise InputError(f"{data}: no question about {name}")
    room = RoomToDraw(read_scene(found[name]))
    mirror = RoomToDraw(mirrored_scene(room.scene)) if any(row.mirror_of for row in rows) else room
    by_category = sorted(room.plan.objects, key=lambda one: one.category)
    stored, frames = _frames(data, name)
    return render(
        "scene.html.jinja",
        name=name,
        asked=len(rows),
        data=data,
        scan=found[name],
        is_procedural=is_procedural(found[name]),
        stored=stored,
        frames=frames,
        stays_here=STAYS_HERE,
        plan=room.plan.svg(),
        objects={one.category: len(room.plan.instances(one.category)) for one in by_category},
        cards={
            task: [_card(mirror if row.mirror_of else room, row) for row in rows if row.question_type == task]
            for task in dict.fromkeys(row.question_type for row in rows)
        },
    )


def _frames(data: Path, name: str) -> tuple[int, list[bytes]]:
    """How many frames of a scene are stored, and those that the page shows."""
    if not (data / FRAMES_DIR).is_dir():
        return 0, []
    store = FrameStore(data)
    count = max(store.counts(name))
    return count, jpegs(store.read(name, count).pixels, FRAMES_SHOWN)


def _card(room: RoomToDraw, row: Question) -> tuple[Question, str, str]:
    """A question, the plan with its answer drawn in, and a note."""
    drawn = draw_answer(room, row)
    return row, room.plan.svg(drawn.highlight, drawn.marks), drawn.note
