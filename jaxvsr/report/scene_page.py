"""The page of a scene: frames, plan, and every question with its answer drawn in, to check a scene in a minute."""

from __future__ import annotations

from pathlib import Path

from jaxvsr.data.data_folder import QUESTIONS_FILE
from jaxvsr.data.frames import FRAMES_DIR, FrameStore
from jaxvsr.data.geometry.mirrored_scene import mirrored_scene
from jaxvsr.data.questions import Question, read_questions
from jaxvsr.data.recipes.generate_questions import is_procedural
from jaxvsr.data.scannet.read_scan import list_scans, read_scene
from jaxvsr.errors import InputError
from jaxvsr.report.drawn_answers import RoomToDraw, draw_answer
from jaxvsr.report.markup import frame_strip, html_page, image, text
from jaxvsr.report.pictures import jpegs

FRAMES_SHOWN = 16
STAYS_HERE = (
    "This page carries frames of a real scan: by ScanNet's terms of use it stays on this machine. Reports and trackers "
    "of runs carry none."
)


def scene_page(data: Path, name: str, scans: Path) -> str:
    """The page as HTML.

    Args:
        data: data folder with the questions and, where there are any, the frames.
        name: of the scene.
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
    categories = sorted({one.category for one in room.plan.objects})
    objects = ", ".join(f"{len(room.plan.instances(category))} {category}" for category in categories)
    sections = [
        f'<h1>{text(name)}</h1><p class="soft">{len(rows)} questions · {text(data)} · {text(found[name])}</p>',
        _frames(data, name, is_procedural(found[name])),
        f"<h2>The room from above</h2>{_picture(room.plan.svg(), name)}<p class=note>{text(objects)}</p>",
    ]
    for task in dict.fromkeys(row.question_type for row in rows):
        asked = [row for row in rows if row.question_type == task]
        cards = "".join(_card(mirror if row.mirror_of else room, row) for row in asked)
        sections.append(f'<h2>{text(task)} ({len(asked)})</h2><div class="cards">{cards}</div>')
    return html_page(name, sections)


def _frames(data: Path, name: str, procedural: bool) -> str:
    if not (data / FRAMES_DIR).is_dir():
        return '<p class="note">No frames are stored; build_data.py frames adds them.</p>'
    store = FrameStore(data)
    count = max(store.counts(name))
    strip = frame_strip(jpegs(store.read(name, count).pixels, FRAMES_SHOWN), name)
    note = "" if procedural else f'<p class="note">{STAYS_HERE}</p>'
    return f"<h2>{min(count, FRAMES_SHOWN)} of {count} frames</h2>{strip}{note}"


def _card(room: RoomToDraw, row: Question) -> str:
    drawn = draw_answer(room, row)
    options = "".join(f"<br>{text(option)}" for option in row.options or ())
    mirrored = f'<span class="tag">mirror image of {text(row.mirror_of)}</span>' if row.mirror_of else ""
    note = f'<p class="note">{text(drawn.note)}</p>' if drawn.note else ""
    return (
        f'<div class="sample"><p class="question">{text(row.question)}{options}</p>'
        f"<p>{mirrored}<span class=soft>answer:</span> <b>{text(row.answer)}</b> "
        f'<span class="soft">{text(row.id)}</span></p>'
        f"{_picture(room.plan.svg(drawn.highlight, drawn.marks), row.id)}{note}</div>"
    )


def _picture(svg: str, description: str) -> str:
    return image(svg.encode(), "svg+xml", f"plan: {description}", "plan")
