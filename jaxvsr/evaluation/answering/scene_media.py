"""What a model sees of a scene: stored frames or images, or frames of a video in the zips of a downloaded benchmark."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxvsr.buckets.places import named
from jaxvsr.data.frames import FrameStore
from jaxvsr.data.importers.vsi_bench_download import BenchmarkVideos, is_download
from jaxvsr.data.loader import MID_GREY
from jaxvsr.data.questions import Question
from jaxvsr.data.video.frame_sampling import FrameRate, SamplingRule, frame_count, most_frames, sample_indices
from jaxvsr.data.video.scan_frames import FrameSource
from jaxvsr.errors import InputError
from jaxvsr.evaluation.answering.choose_questions import AskedQuestion
from jaxvsr.files import json_sha256
from jaxvsr.models.inputs.processor import Image, Video

Media = tuple[Video | Image, ...]


@dataclasses.dataclass(frozen=True)
class SceneQuestions:
    """A scene of a data folder and questions that are asked together; `mirrored`: about its mirror image."""

    folder: Path
    scene: str
    mirrored: bool
    questions: tuple[Question, ...]


@dataclasses.dataclass(frozen=True)
class SceneMedia:
    """Reads the video or the images of scenes, as the model sees them."""

    frames: int | None  # of a video; None if all scenes are images
    blank: bool = False  # mid-grey frames of the same shape, as a control
    rule: SamplingRule | None = None  # which frames; None: as stored, and linspace of videos that are not stored
    rate: FrameRate | None = None  # as many frames as the rule takes at this rate, in place of `frames`
    # Of videos as downloaded: the time between frames is the video's length over their number, as by Hugging Face's
    # processors, in place of the mean between the frames taken.
    seconds_of_length: bool = False

    def to_json(self) -> dict[str, Any]:
        """What answers depend on; rule and rate only where they were chosen."""
        chosen: dict[str, Any] = {
            "rule": self.rule,
            "rate": None if self.rate is None else dataclasses.asdict(self.rate),
        }
        chosen["seconds_of_length"] = self.seconds_of_length or None
        of_count = {"frames": self.frames, "blank": self.blank}
        return of_count | {name: value for name, value in chosen.items() if value is not None}

    def read(self, scene: SceneQuestions) -> Media:
        """The video of a scene, or its images.

        Raises:
            InputError: there is no such scene, or it is not stored with that many frames.
        """
        if is_download(scene.folder):
            with BenchmarkVideos(scene.folder).open(_video_name(scene)) as source:
                count = self._count(scene) if self.rate is None else None
                video = read_video(source, count, self.rule or "linspace", self.rate)
                timestamps = video.timestamps
                if self.seconds_of_length:
                    timestamps = np.arange(len(video.frames)) * (len(source) / source.fps / len(video.frames))
            return (Video(self._shown(video.frames, scene), timestamps),)
        store = FrameStore(scene.folder)
        if store.is_image_set(scene.scene):
            return tuple(Image(self._shown(pixels, scene)) for pixels in store.read(scene.scene, 1).pixels)
        frames = store.read(scene.scene, self._count(scene))
        return (Video(self._shown(frames.pixels, scene), frames.timestamps),)

    def check(self, asked: Iterable[AskedQuestion]) -> None:
        """Raise `InputError` if a scene cannot be read; reads no pixels."""
        for scene in group_by_scene(asked):
            if is_download(scene.folder):
                BenchmarkVideos(scene.folder).check(_video_name(scene))
            elif not (store := FrameStore(scene.folder)).is_image_set(scene.scene):
                stored = store.attributes(scene.scene)["rule"]
                if self.rate is not None:
                    raise InputError(f"--fps: the frames of {scene.scene} are stored in {scene.folder}; take --frames")
                if self.rule not in (None, stored):
                    raise InputError(
                        f"--rule {self.rule}: the frames of {scene.scene} in {scene.folder} are stored with {stored}; "
                        f"--rule {stored} takes them as they are"
                    )
                try:
                    store.positions(scene.scene, self._count(scene))
                except InputError as error:
                    raise InputError(f"{error}; or take a number that is stored, with evaluate.py --frames") from None

    def identities(self, asked: Iterable[AskedQuestion]) -> dict[str, str]:
        """By scene a hash that is another where the scene's frames, images or video are; decodes nothing."""
        return {
            named(os.path.abspath(scene.folder / scene.scene)): json_sha256({"media": self._identity(scene)})
            for scene in group_by_scene(asked)
        }

    def _identity(self, scene: SceneQuestions) -> list[Any]:
        if is_download(scene.folder):
            return BenchmarkVideos(scene.folder).identity(_video_name(scene))
        store = FrameStore(scene.folder)
        return store.identity(scene.scene, 1 if store.is_image_set(scene.scene) else self._count(scene))

    def _count(self, scene: SceneQuestions) -> int:
        if self.frames is None:
            raise InputError(f"--frames is missing: {scene.scene} in {scene.folder} is a video")
        return self.frames

    def _shown(self, pixels: np.ndarray, scene: SceneQuestions) -> np.ndarray:
        if self.blank:
            return np.full_like(pixels, MID_GREY)
        return np.ascontiguousarray(pixels[..., ::-1, :]) if scene.mirrored else pixels


def read_video(
    source: FrameSource, frames: int | None, rule: SamplingRule = "linspace", rate: FrameRate | None = None
) -> Video:
    """Uniformly sampled frames of a video that is not in a data folder: a count, or what the rule takes at a rate.

    lmms-eval's rule takes fewer of a video that has fewer at 2 per second.

    Raises:
        InputError: it has fewer frames, or one cannot be read.
    """
    try:
        if rate is not None:
            frames = frame_count(len(source), source.fps, rate, rule)
        assert frames is not None
        if rule == "lmms-eval":
            frames = min(frames, most_frames(len(source), source.fps, rule))
        indices = [int(index) for index in sample_indices(len(source), frames, rule, source.fps)]
    except InputError as error:
        raise InputError(f"{source.name}: {error}") from None
    return Video(np.stack(list(source.frames(indices))), source.timestamps(indices))


def group_by_scene(asked: Iterable[AskedQuestion], most: int | None = None) -> list[SceneQuestions]:
    """The questions by scene. With `most`, a scene with more questions is split into parts of nearly equal size."""
    scenes: dict[tuple[Path, str, bool], list[Question]] = defaultdict(list)
    for folder, question in asked:
        scenes[folder, question.scene, question.mirror_of is not None].append(question)
    groups = []
    for scene, questions in scenes.items():
        parts = -(-len(questions) // (most or len(questions)))
        edges = [len(questions) * part // parts for part in range(parts + 1)]
        groups += [SceneQuestions(*scene, tuple(questions[a:b])) for a, b in itertools.pairwise(edges)]
    return groups


def stored_frame_count(asked: Iterable[AskedQuestion], flag: str = "--frames") -> int | None:
    """The frame count that all videos are stored with; None if all scenes are images. `flag` is what is missing else.

    Raises:
        InputError: there is not exactly one such count.
    """
    common: set[int] | None = None
    for folder, scene in _scenes(asked):
        if is_download(folder):
            raise InputError(f"{flag} is missing: {folder} has whole videos; VSI-Bench's harness takes 32 frames")
        store = FrameStore(folder)
        if not store.is_image_set(scene):
            counts = set(store.counts(scene))
            common = counts if common is None else common & counts
    if common is None:
        return None
    if len(common) != 1:
        found = f"stored counts are {', '.join(map(str, sorted(common)))}" if common else "no count is in all scenes"
        raise InputError(f"{flag} is missing: {found}")
    return common.pop()


def has_videos(asked: Iterable[AskedQuestion]) -> bool:
    """Whether any scene is a video: one is read in a number of frames, a set of images whole."""
    return any(is_download(folder) or not FrameStore(folder).is_image_set(scene) for folder, scene in _scenes(asked))


def stored_pixels(asked: Iterable[AskedQuestion]) -> int | None:
    """The largest pixel budget per frame that these scenes were stored with; None if none is stored."""
    scenes = [(folder, scene) for folder, scene in _scenes(asked) if not is_download(folder)]
    return max((int(FrameStore(folder).attributes(scene)["max_pixels"]) for folder, scene in scenes), default=None)


def _scenes(asked: Iterable[AskedQuestion]) -> list[tuple[Path, str]]:
    return sorted({(folder, question.scene) for folder, question in asked})


def _video_name(scene: SceneQuestions) -> str:
    name = scene.questions[0].video if scene.questions else None
    if name is None:
        raise InputError(f"{scene.folder}: the questions about {scene.scene} name no video")
    return name
