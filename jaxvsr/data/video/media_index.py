"""The videos and images in a folder, and which of them a name in a question set means.

A published row says `nyu/scene0024_02.mp4` or just `scene0024_02`; the user's folder may have
`videos/scene0024_02.mp4`, `scans/scene0024_02/` or an image `scene0024_02/000100.jpg`. Paths are compared from their
end, without suffix: the medium with the most parts in common is taken, and among equals the one with the row's suffix.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from jaxvsr.data.video.picture_files import IMAGE_SUFFIXES
from jaxvsr.data.video.video_sources import VIDEO_SUFFIXES, color_folder
from jaxvsr.errors import InputError

MediumKind = Literal["video", "scan", "folder", "image"]
# What a name without a suffix means if several kinds of media have it, in this order.
_PREFERENCE: tuple[MediumKind, ...] = ("video", "scan", "folder", "image")
_SUFFIXES = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, ".sens")


@dataclasses.dataclass(frozen=True)
class Medium:
    """A video file, a scan (its folder or `.sens`), a folder of images, or one image; `path` is below the root."""

    kind: MediumKind
    path: PurePosixPath

    @property
    def key(self) -> tuple[str, ...]:
        """The parts of its name, in lower case, without the suffix."""
        return name_parts(self.path.as_posix())


def name_parts(text: str) -> tuple[str, ...]:
    """The parts of a path to compare: lower case, `\\` as `/`, no suffix of a medium, no `.` and `..`."""
    path = PurePosixPath(text.strip().replace("\\", "/").lower())
    if path.suffix in _SUFFIXES:
        path = path.with_suffix("")
    return tuple(part for part in path.parts if part not in ("/", ".", ".."))


def shared_parts(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two names have in common, from their end."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


class MediaIndex:
    """All media below a folder. Links are followed; each folder is entered only once.

    Single images are listed only with `images`, because the colour frames of all of ScanNet are 2.5 million.
    """

    def __init__(self, root: Path, *, images: bool = False) -> None:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; expected one with videos, scans, image folders or images")
        self.root = root
        self.media = tuple(_walk(root, images))
        self._by_name: dict[str, list[Medium]] = defaultdict(list)
        for medium in self.media:
            if medium.key:
                self._by_name[medium.key[-1]].append(medium)

    def videos(self) -> tuple[Medium, ...]:
        """All media except single images."""
        return tuple(medium for medium in self.media if medium.kind != "image")

    def find(self, name: str, kinds: Sequence[MediumKind]) -> Medium | str:
        """The medium of one of `kinds` that a row's `name` means, or a line that says why there is none."""
        wanted = name_parts(name)
        found = [medium for medium in self._by_name.get(wanted[-1], ()) if medium.kind in kinds] if wanted else []
        if not found:
            return f"nothing named {name[:120]!r} in {self.root}"
        suffix = PurePosixPath(name.lower()).suffix

        def rank(medium: Medium) -> tuple[int, bool, int]:
            shared = shared_parts(medium.key, wanted)
            return shared, medium.path.suffix.lower() == suffix, -_PREFERENCE.index(medium.kind)

        best = max(map(rank, found))
        equals = [medium for medium in found if rank(medium) == best]
        if len(equals) > 1:
            both = " or ".join(medium.path.as_posix()[:80] for medium in equals[:2])
            return f"{name[:120]!r} could be {both} in {self.root}"
        return equals[0]


def _walk(root: Path, images: bool) -> Iterator[Medium]:
    entered: set[str] = set()

    def enter(folder: Path, below: PurePosixPath, in_scan: bool) -> Iterator[Medium]:
        if (real := os.path.realpath(folder)) in entered:
            return
        entered.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
        if below.parts and not in_scan:
            names = {entry.name for entry in entries}
            in_scan = f"{folder.name}.sens" in names or color_folder(folder) is not None
            if in_scan:
                yield Medium("scan", below)
            if in_scan and not images:
                return
        pictures = 0
        for entry in entries:
            if entry.name.startswith("."):
                continue
            suffix = PurePosixPath(entry.name).suffix.lower()
            if entry.is_dir():
                yield from enter(folder / entry.name, below / entry.name, in_scan)
            elif suffix in VIDEO_SUFFIXES and not in_scan:
                yield Medium("video", below / entry.name)
            elif suffix == ".sens" and not in_scan:
                yield Medium("scan", below / entry.name)
            elif suffix in IMAGE_SUFFIXES:
                pictures += 1
                if images:
                    yield Medium("image", below / entry.name)
        if pictures and below.parts and not in_scan:
            yield Medium("folder", below)

    yield from enter(root, PurePosixPath(), False)
