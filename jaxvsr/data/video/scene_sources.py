"""The file that each scene's frames are read from: as the question rows say, or else everything in a folder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from jaxvsr.buckets.scans_in_buckets import brought, has_size, is_listed
from jaxvsr.data.questions import Question
from jaxvsr.data.scannet.read_scan import list_scans
from jaxvsr.data.scene_names import made_plain
from jaxvsr.data.video.media_index import MediaIndex
from jaxvsr.data.video.scan_frames import FrameSource
from jaxvsr.data.video.video_sources import files_of_video, is_there, open_images, open_video
from jaxvsr.errors import InputError


@dataclasses.dataclass(frozen=True)
class SceneSource:
    """A scene and the files that it is read from: one video or scan, or a set of `images`."""

    scene: str
    paths: tuple[Path, ...]
    images: bool = False

    def is_there(self) -> bool:
        """Whether all of its files exist."""
        return all(is_there(path) for path in self.paths)

    @contextlib.contextmanager
    def opened(self) -> Iterator[FrameSource]:
        """Its frames, inside the block; `InputError` if they cannot be read."""
        with brought(file for path in self.paths for file in files_of_video(path)) as here:
            paths = tuple(map(here, self.paths))
            yield (
                open_images(" ".join(path.name for path in paths)[:200], paths) if self.images else open_video(paths[0])
            )

    def is_still(self, name: str, size: int) -> bool:
        """Whether it is in a bucket and one file with this name and size, in bytes: nothing is brought to see that."""
        files = list(files_of_video(self.paths[0])) if is_listed(self.paths[0]) and not self.images else []
        return bool(files) and files[0].name == name and has_size(files[0], size)


@dataclasses.dataclass(frozen=True)
class SceneSources:
    """The sources, sorted by scene, and the scenes with questions that have none in the folder."""

    sources: tuple[SceneSource, ...]
    elsewhere: tuple[str, ...] = ()

    def lines(self, root: Path) -> list[str]:
        """What to print about the scenes that have nothing in `root`."""
        if not self.elsewhere:
            return []
        first = ", ".join(self.elsewhere[:3])
        return [f"{len(self.elsewhere)} scenes with questions have nothing in {root}: {first}"]


def scene_sources(root: Path, folder: Path, questions: Sequence[Question] = ()) -> SceneSources:
    """The sources below `root` for a data folder with these questions.

    Rows with `video` or `images` (imported ones) have paths below `root`, or below the data folder for images that were
    part of the question set. Without any such row, everything in `root` is a source: its scans, or if there are none,
    its videos and image folders, by name. With both kinds of rows, only the scenes with questions are taken from
    `root`.

    Raises:
        InputError: `root` is empty, two of its videos have the same name, or a row's path leads out of it.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected one with scans, videos or image folders")
    named = _named(root, folder, questions)
    if not named:
        return SceneSources(_listed(root))
    sources = [source for source in named.values() if all(path.exists() for path in source.paths)]
    others = {row.scene for row in questions} - set(named)
    if others:
        sources += [source for source in _listed(root) if source.scene in others]
    found = {source.scene for source in sources}
    if not found:
        first = next(iter(named.values()))
        raise InputError(f"{root}: nothing in it that the questions are about, the first is {first.paths[0]}")
    elsewhere = sorted({row.scene for row in questions} - found)
    return SceneSources(tuple(sorted(sources, key=lambda source: source.scene)), tuple(elsewhere))


def _named(root: Path, folder: Path, questions: Sequence[Question]) -> Mapping[str, SceneSource]:
    named: dict[str, SceneSource] = {}
    for row in questions:
        if row.video is None and not row.images:
            continue
        names = row.images or (row.video or "",)
        for name in names:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
                raise InputError(f"question {row.id!r}: {name[:120]!r} leads out of the folder of videos; refused")
        part_of_the_set = [bool(row.images) and (folder / name).exists() for name in names]
        paths = tuple((folder if own else root) / name for own, name in zip(part_of_the_set, names, strict=True))
        source = SceneSource(row.scene, paths, bool(row.images))
        if named.setdefault(row.scene, source) != source:
            other = named[row.scene].paths[0]
            raise InputError(f"question {row.id!r}: scene {row.scene!r} comes from {paths[0]} and also from {other}")
    return named


def _listed(root: Path) -> tuple[SceneSource, ...]:
    try:
        return tuple(SceneSource(scan.name, (scan,)) for scan in list_scans(root))
    except InputError as nothing:
        media = MediaIndex(root).videos()
        if not media:
            raise nothing from None
    by_scene: dict[str, SceneSource] = {}
    for medium in media:
        scene = made_plain(medium.path.name if medium.kind == "folder" else medium.path.stem)
        source = SceneSource(scene, (root / medium.path,))
        if scene in by_scene:
            both = " and ".join(str(one.paths[0].relative_to(root)) for one in (by_scene[scene], source))
            raise InputError(f"{root}: two videos are named {scene!r}: {both}; give them different names")
        by_scene[scene] = source
    return tuple(by_scene[scene] for scene in sorted(by_scene))
