"""Mirror images of imported rows: text rewritten by rules, and refused if the rules cannot decide."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from jaxvsr.buckets.scans_in_buckets import brought
from jaxvsr.data.data_folder import QUESTIONS_FILE, write_card_section
from jaxvsr.data.importers.mirror_text import MirrorReport, mirror_rows
from jaxvsr.data.questions import Question, read_questions, write_questions

_ORIENTATION = 0x0112  # EXIF's tag


def add_mirrored_rows(out: Path, name: str, imported: Sequence[Question], videos: Path | None) -> MirrorReport:
    """Add the mirror images of an import's rows to the folder `out`; rows that have one already keep it.

    Boxes in pixels need the width of the image, which is looked for in `videos` and `out`.
    """
    folders = [out] if videos is None else [videos, out]
    mirrored = {row.mirror_of for row in imported}
    report = mirror_rows(
        [row for row in imported if row.id not in mirrored], lambda row: _image_width(folders, row.images)
    )
    path = out / QUESTIONS_FILE
    write_questions(path, [*read_questions(path), *report.rows])
    write_card_section(out, f"Mirror images: {name}", f"- {report.line()}")
    return report


def _image_width(folders: Sequence[Path], images: Sequence[str] | None) -> float | None:
    """The width in pixels of a row's only image; None if it has none or several, or it cannot be opened."""
    if images is None or len(images) != 1:
        return None
    for path in (folder / images[0] for folder in folders):
        # Decoders raise many kinds of errors on broken data; boxes in pixels are then refused. Only the header is read.
        with brought([path]) as here, contextlib.suppress(Exception), Image.open(here(path)) as image:
            sideways = image.getexif().get(_ORIENTATION, 1) >= 5  # frames are stored upright
            return float(image.height if sideways else image.width)
    return None
