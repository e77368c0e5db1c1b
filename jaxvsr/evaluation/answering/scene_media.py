"""What a model sees of a scene: stored frames or images, or frames of a video in a downloaded benchmark's zips."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.importers.vsi_bench_download import BenchmarkVideos, is_download
from jaxvsr.data.loader import MID_GREY
from jaxvsr.data.questions import Question
from jaxvsr.data.video.frame_sampling import sample_indices
from jaxvsr.data.video.scan_frames import FrameSource
from jaxvsr.errors import InputError
from jaxvsr.models.inputs.processor import Image, Video

Media = tuple[Video | Image, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a tree: a scene of a data folder and questions about it; `mirrored`: about its mirror image."""

    folder: Path
    scene: str
    mirrored: bool
    questions: tuple[Question, ...]


@dataclasses.dataclass(frozen=True)
class Videos:
    """How scenes are shown to the model."""

    frames: int | None  # of a video; None where there are images alone
    blank: bool = False  # mid-grey frames of the same shape, the control

    def read(self, row: Row) -> Media:
        """The video of a row's scene, or its images.

        Raises:
            InputError: the scene is not there, or not with so many frames.
        """
        if is_download(row.folder):
            with BenchmarkVideos(row.folder).open(_video_name(row)) as source:
                video = read_video(source, self._count(row))
            return (Video(self._shown(video.frames, row), video.timestamps),)
        store = FrameStore(row.folder)
        if store.is_image_set(row.scene):
            return tuple(Image(self._shown(pixels, row)) for pixels in store.read(row.scene, 1).pixels)
        frames = store.read(row.scene, self._count(row))
        return (Video(self._shown(frames.pixels, row), frames.timestamps),)

    def check(self, asked: Iterable[tuple[Path, Question]]) -> None:
        """`InputError` where what a scene needs is not there; pixels are not read for it."""
        for row in rows_of(asked, 1 << 30):
            if is_download(row.folder):
                BenchmarkVideos(row.folder).check(_video_name(row))
            elif not (store := FrameStore(row.folder)).is_image_set(row.scene):
                store.positions(row.scene, self._count(row))

    def _count(self, row: Row) -> int:
        if self.frames is None:
            raise InputError(f"--frames is missing: {row.scene} in {row.folder} is a video")
        return self.frames

    def _shown(self, pixels: np.ndarray, row: Row) -> np.ndarray:
        if self.blank:
            return np.full_like(pixels, MID_GREY)
        return np.ascontiguousarray(pixels[..., ::-1, :]) if row.mirrored else pixels


def read_video(source: FrameSource, frames: int) -> Video:
    """Uniformly sampled frames of a video that lies in no data folder.

    Raises:
        InputError: it has fewer frames, or one cannot be read.
    """
    try:
        indices = [int(index) for index in sample_indices(len(source), frames)]
    except InputError as error:
        raise InputError(f"{source.name}: {error}") from None
    return Video(np.stack([source.frame(index) for index in indices]), source.timestamps(indices))


def rows_of(asked: Iterable[tuple[Path, Question]], most: int) -> list[Row]:
    """The questions by scene, at most `most` a row, those of one scene spread evenly over its rows."""
    scenes: dict[tuple[Path, str, bool], list[Question]] = defaultdict(list)
    for folder, question in asked:
        scenes[folder, question.scene, question.mirror_of is not None].append(question)
    rows = []
    for scene, questions in scenes.items():
        parts = -(-len(questions) // most)
        edges = [len(questions) * part // parts for part in range(parts + 1)]
        rows += [Row(*scene, tuple(questions[a:b])) for a, b in itertools.pairwise(edges)]
    return rows


def stored_frame_count(asked: Iterable[tuple[Path, Question]]) -> int | None:
    """The one frame count that all videos have stored; None where all scenes are images.

    Raises:
        InputError: there are several counts or none.
    """
    common: set[int] | None = None
    for folder, scene in _scenes(asked):
        if is_download(folder):
            raise InputError(f"--frames is missing: {folder} holds whole videos; VSI-Bench's harness takes 32 frames")
        store = FrameStore(folder)
        if not store.is_image_set(scene):
            counts = set(store.counts(scene))
            common = counts if common is None else common & counts
    if common is None:
        return None
    if len(common) != 1:
        found = ", ".join(map(str, sorted(common))) or "no count in all scenes"
        raise InputError(f"--frames is missing: stored are {found}")
    return common.pop()


def stored_pixels(asked: Iterable[tuple[Path, Question]]) -> int | None:
    """The largest pixel budget of a frame that these scenes were stored with; None where none are stored."""
    scenes = [(folder, scene) for folder, scene in _scenes(asked) if not is_download(folder)]
    return max((int(FrameStore(folder).attributes(scene)["max_pixels"]) for folder, scene in scenes), default=None)


def _scenes(asked: Iterable[tuple[Path, Question]]) -> list[tuple[Path, str]]:
    return sorted({(folder, question.scene) for folder, question in asked})


def _video_name(row: Row) -> str:
    name = row.questions[0].video if row.questions else None
    if name is None:
        raise InputError(f"{row.folder}: {row.scene} names no video")
    return name
