"""The page of a scene: frames, plan, and every question with its answer drawn into the plan."""

from __future__ import annotations

from pathlib import Path

from jaxvsr.buckets.scans_in_buckets import brought
from jaxvsr.data.data_folder import QUESTIONS_FILE
from jaxvsr.data.frames import FRAMES_DIR, FrameStore
from jaxvsr.data.geometry.mirrored_scene import mirrored_scene
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.scannet.read_scan import geometry_paths, is_procedural, list_scans, read_scene
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
        InputError: neither a scan nor frames of that name, no question about it, or a file that cannot be read.
    """
    questions = read_questions(data / QUESTIONS_FILE)
    rows = [row for row in questions if row.scene == name]
    if not rows:
        some = ", ".join(sorted({row.scene for row in questions})[:3])
        raise InputError(f"{data}: no question about {name!r}; there are some about scenes such as {some}")
    scan = _scan(scans, name, is_needed=scans != data)
    stored, frames = _frames(data, name)
    if scan is None and not frames:
        raise InputError(f"{data}: neither a scan nor frames of {name}; build_data.py frames stores frames of videos")
    room = None
    if scan is not None:
        with brought(geometry_paths(scan)) as here:
            room = RoomToDraw(read_scene(here(scan)))
    mirror = RoomToDraw(mirrored_scene(room.scene)) if room and any(row.mirror_of for row in rows) else room
    by_category = sorted(room.plan.objects, key=lambda one: one.category) if room else []
    return render(
        "scene.html.jinja",
        name=name,
        asked=len(rows),
        data=data,
        scan=scan,
        is_procedural=scan is not None and is_procedural(scan),
        stored=stored,
        frames=frames,
        stays_here=STAYS_HERE,
        plan=room.plan.svg() if room else None,
        objects={one.category: len(room.plan.instances(one.category)) for one in by_category} if room else {},
        cards={
            task: [_card(mirror if row.mirror_of else room, row) for row in rows if row.question_type == task]
            for task in dict.fromkeys(row.question_type for row in rows)
        },
    )


def _scan(scans: Path, name: str, *, is_needed: bool) -> Path | None:
    """The scan of that name; None where there is none: a video has no plan."""
    try:
        found = {scan.name: scan for scan in list_scans(scans)}
    except InputError:
        if is_needed:
            raise
        return None
    if is_needed and name not in found:
        raise InputError(f"{scans}: no scan {name!r}; it has {len(found)}, such as {', '.join(sorted(found)[:3])}")
    return found.get(name)


def _frames(data: Path, name: str) -> tuple[int, list[bytes]]:
    """How many frames or images of a scene are stored, and those that the page shows."""
    if not (data / FRAMES_DIR).is_dir():
        return 0, []
    store = FrameStore(data)
    if name not in store.scenes():
        return 0, []
    if store.is_image_set(name):
        images = store.read(name, 1).pixels
        return len(images), jpegs(images, FRAMES_SHOWN)
    count = max(store.counts(name))
    return count, jpegs(store.read(name, count).pixels, FRAMES_SHOWN)


def _card(room: RoomToDraw | None, row: Question) -> tuple[Question, str | None, str]:
    """A question, the plan with its answer drawn in where there is one, and a note."""
    if room is None:
        return row, None, ""
    drawn = draw_answer(room, row)
    return row, room.plan.svg(drawn.highlight, drawn.marks), drawn.note
