"""Scenes in memory: frames and questions as Python objects, in place of a data folder."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.loader import SceneBatch, SceneSample
from jaxvsr.data.questions import AnswerKind, Question, is_number
from jaxvsr.data.scene_order import order_without_repeats
from jaxvsr.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """One video, or a few images, and the questions about it.

    Args:
        video: frames [F, H, W, 3], uint8; a list of images [H, W, 3], uint8; or the path of a video file, of a scan's
            `.sens`, or of a folder of images.
        questions: texts.
        answers: the right answers, as texts; None where nobody needs them.
        options: the choices of each question, or None for those without.
        frames: how many frames of a path are taken, evenly spread.
        fps: frames per second of given frames; Qwen2.5-VL's positions depend on it.
        name: what random numbers of the scene's rollouts belong to, and what it is called in samples.
        question_types: VSI-Bench's name of each task, for scores by task.
    """

    video: UInt8[np.ndarray, "F H W 3"] | Sequence[UInt8[np.ndarray, "H W 3"]] | str | Path
    questions: Sequence[str]
    answers: Sequence[str] | None = None
    options: Sequence[Sequence[str] | None] | None = None
    frames: int = 8
    fps: float = 1.0
    name: str | None = None
    question_types: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.questions, str) or not self.questions:
            raise InputError(f"questions {self.questions!r}: must be a list of at least one text")
        for field in ("answers", "options", "question_types"):
            values = getattr(self, field)
            if values is not None and (isinstance(values, str) or len(values) != len(self.questions)):
                raise InputError(f"{field}: must have one entry per question, of which there are {len(self.questions)}")

    def sample(self, name: str) -> SceneSample:
        """Frames and question rows; `name` where the scene has none of its own."""
        frames, timestamps, images = self._frames()
        return SceneSample(self.name or name, frames, timestamps, self.rows(self.name or name), images=images)

    def _frames(self) -> tuple[UInt8[np.ndarray, "F H W 3"], np.ndarray, bool]:
        if isinstance(self.video, (str, Path)):
            from jaxvsr.data.video.video_sources import open_video
            from jaxvsr.evaluation.answering.scene_media import read_video

            source = open_video(Path(self.video))
            video = read_video(source, min(self.frames, len(source)))
            return video.frames, np.asarray(video.timestamps, np.float64), False
        images = not isinstance(self.video, np.ndarray)
        frames = np.stack(list(self.video)) if images else np.asarray(self.video)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
            raise InputError(f"video of shape {frames.shape} and {frames.dtype}: must be frames [F, H, W, 3] of uint8")
        return frames, np.arange(len(frames)) / self.fps, images

    def rows(self, name: str) -> tuple[Question, ...]:
        """The question rows; `name` is the scene's in them."""
        rows = []
        for index, text in enumerate(self.questions):
            options = tuple(self.options[index] or ()) if self.options is not None else ()
            answer = "" if self.answers is None else str(self.answers[index])
            kind = self.question_types[index] if self.question_types is not None else "question"
            rows.append(
                Question(f"{name}/{index}", name, kind, text, options or None, answer, _answer_kind(answer, options))
            )
        return tuple(rows)


def _answer_kind(answer: str, options: tuple[str, ...]) -> AnswerKind:
    if options:
        return "choice"
    if is_number(answer):
        return "number"
    return "word" if len(answer.split()) == 1 else "text"


def read_scenes(
    folder: str | Path,
    *,
    split: str = "train",
    frames: int | None = None,
    question_types: str | Collection[str] | None = None,
    limit: int | None = None,
) -> Iterator[Scene]:
    """The scenes of a data folder, one after another, with their questions and stored frames.

    Args:
        split: `train`, `heldout` or `all`.
        frames: which of the stored numbers of frames; None: the one that there is.
        question_types: ask only these, of the scenes that have one; None asks all.
        limit: the most scenes.

    Raises:
        InputError: there are no such questions, or no such frames.
    """
    from jaxvsr.evaluation.answering.choose_questions import choose_questions
    from jaxvsr.evaluation.answering.scene_media import stored_frame_count

    chosen = choose_questions([Path(folder)], split=split)
    asked = chosen.questions
    if question_types is not None:
        wanted = {question_types} if isinstance(question_types, str) else set(question_types)
        known = {question.question_type for question in asked}
        if not wanted <= known:
            missing = ", ".join(sorted(wanted - known))
            raise InputError(f"{folder}: no questions {missing} in split {split}; it has {', '.join(sorted(known))}")
        asked = [question for question in asked if question.question_type in wanted]
    store = FrameStore(Path(folder))
    frames = frames or stored_frame_count(chosen.asked, "frames") or 1
    by_scene = itertools.groupby(asked, key=lambda question: question.scene)
    for name, questions in itertools.islice(by_scene, limit):
        rows = list(questions)
        stored = store.read(name, frames)
        times = stored.timestamps
        fps = (len(times) - 1) / float(times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 1.0
        yield Scene(
            stored.pixels,
            [row.question for row in rows],
            [row.answer for row in rows],
            [row.options for row in rows],
            fps=fps,
            name=name,
            question_types=[row.question_type for row in rows],
        )


def scene_batches(
    scenes: Iterable[Scene], *, size: int, questions: int, seed: int
) -> Callable[[int], Iterator[SceneBatch]]:
    """Batches of `size` scenes with `questions` questions each, from a step on.

    A list is gone through again and again, each time in another order (by seed), and each scene asks its next questions
    at each visit. Other iterables are read once, from the first step on, and end the run; their first batch is kept,
    for it is asked for again after the last step.

    Raises:
        InputError: there are too few scenes or questions.
    """
    if not isinstance(scenes, Sequence):
        return _once(_in_turn(iter(scenes), size, questions))
    if len(scenes) < size:
        raise InputError(f"{len(scenes)} scenes, but a step of {size} takes {size} of them")
    for index, scene in enumerate(scenes):
        _check_count(scene, index, questions)

    def batches(first: int) -> Iterator[SceneBatch]:
        for step in itertools.count(first):
            chosen = order_without_repeats((seed,), step * size, size, len(scenes), size)
            samples = []
            for place, index in enumerate(chosen.tolist()):
                visit = (step * size + place) // len(scenes)
                samples.append(_asking(scenes[index].sample(f"scene-{index}"), visit * questions, questions))
            yield SceneBatch(step, tuple(samples))

    return batches


def _once(batches: Iterator[SceneBatch]) -> Callable[[int], Iterator[SceneBatch]]:
    kept: list[SceneBatch] = []

    def from_step(first: int) -> Iterator[SceneBatch]:
        if first:
            raise InputError("scenes: an iterator cannot go on in the middle of a run; give a list")
        kept.extend(itertools.islice(batches, 1 - len(kept)))
        yield from itertools.chain(kept, batches)

    return from_step


def _in_turn(scenes: Iterator[Scene], size: int, questions: int) -> Iterator[SceneBatch]:
    for step in itertools.count():
        samples = []
        for index, scene in enumerate(itertools.islice(scenes, size), step * size):
            _check_count(scene, index, questions)
            samples.append(_asking(scene.sample(f"scene-{index}"), 0, questions))
        if len(samples) < size:
            return
        yield SceneBatch(step, tuple(samples))


def _check_count(scene: Scene, index: int, questions: int) -> None:
    if len(scene.questions) < questions:
        name = scene.name or f"number {index + 1}"
        raise InputError(
            f"scene {name} has {len(scene.questions)} questions, but data.questions={questions} are asked of each"
        )


def _asking(sample: SceneSample, first: int, count: int) -> SceneSample:
    """The sample with `count` of its questions, from number `first` on, around the end."""
    rows = sample.questions
    return dataclasses.replace(sample, questions=tuple(rows[(first + k) % len(rows)] for k in range(count)))
