"""A benchmark's questions as batches of scene trees for a greedy model: the questions of a scene share its video.

scene a   q0 q1 q2 q3       two rows of one scene; the second is padded with its own last question, and the last
scene a   q4 q5 q5 q5       batch with its own last row, so that one program fits all
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from jaxvsr.devices.mesh import scene_rows
from jaxvsr.devices.processes import texts_of_all_processes
from jaxvsr.evaluation.answering.choose_questions import AskedQuestion
from jaxvsr.evaluation.answering.greedy import GreedyModel
from jaxvsr.evaluation.answering.scene_media import SceneMedia, SceneQuestions, group_by_scene
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.models.inputs.collate import EncodedScene, round_up
from jaxvsr.models.inputs.processor import ScenePrompt
from jaxvsr.prompts import Prompt

Item = TypeVar("Item")
Made = TypeVar("Made")
MOST_QUESTIONS = 32  # per row; more save little, since the video is then a small part of the row
READ_AHEAD = 2  # batches that are read and encoded while one is answered


def questions_per_row(counts: Sequence[int], scene_tokens: int, question_tokens: int) -> int:
    """The Q that needs the fewest tokens for scenes with `counts` questions, padding included.

    Each row computes its video again; a video token counts as two text tokens because of the vision tower.

    >>> questions_per_row([16, 17, 18], 100, 50), questions_per_row([1, 1, 1, 30], 100, 50)
    (18, 6)
    """

    def tokens(questions: int) -> int:
        rows = sum(-(-count // questions) for count in counts)
        return rows * (2 * scene_tokens + questions * question_tokens)

    return min(range(1, min(max(counts), MOST_QUESTIONS) + 1), key=lambda questions: (tokens(questions), -questions))


def answer_in_batches(
    model: GreedyModel,
    prompt: Prompt,
    asked: Sequence[AskedQuestion],
    media: SceneMedia,
    *,
    scenes: int,
    questions: int | None = None,
) -> Iterator[list[Prediction]]:
    """Answer each question once; yields the predictions of each batch, in every process those of all processes.

    Longer questions come first, so that the first program fits all batches.

    Args:
        scenes: rows per batch, rounded up to a multiple of the mesh's shards.
        questions: at most so many questions of a scene in one row; None: the number with the fewest tokens.
    """
    by_scene = group_by_scene(asked)
    if not by_scene:
        return
    if questions is None:
        longest = max(by_scene, key=_text_length)
        first = model.processor.encode(scene_prompt(prompt, longest, media))
        questions = questions_per_row(
            [len(row.questions) for row in by_scene],
            len(first.tokens),
            max(len(ids) for ids in first.questions) + prompt.max_answer_tokens,
        )
    width = min(questions, max(len(row.questions) for row in by_scene))
    rows = sorted(group_by_scene(asked, width), key=_text_length, reverse=True)
    batch_size = round_up(min(scenes, len(rows)), model.scene_shards)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    start, count = scene_rows(model.mesh, batch_size)

    def encode(batch: list[SceneQuestions]) -> tuple[list[SceneQuestions], list[SceneQuestions], list[EncodedScene]]:
        own = (batch + batch[-1:] * (batch_size - len(batch)))[start : start + count]
        encoded: dict[int, EncodedScene] = {}  # rows of padding are the same object
        for row in own:
            if id(row) not in encoded:
                encoded[id(row)] = _padded(model.processor.encode(scene_prompt(prompt, row, media)), width)
        return batch, own, [encoded[id(row)] for row in own]

    for batch, own, encoded in _read_ahead(encode, batches):
        completions = model.answer(encoded, batch_size)
        own_answers = {
            question.id: completion
            for row, answers in zip(own, completions, strict=True)
            for question, completion in zip(row.questions, answers, strict=False)
        }
        all_answers: dict[str, str] = {}
        for text in texts_of_all_processes(json.dumps(own_answers)):
            all_answers |= json.loads(text)
        yield [Prediction(question, all_answers[question.id]) for row in batch for question in row.questions]


def _text_length(row: SceneQuestions) -> int:
    return max(len(question.question) + sum(map(len, question.options or ())) for question in row.questions)


def scene_prompt(prompt: Prompt, row: SceneQuestions, media: SceneMedia) -> ScenePrompt:
    """What the model is shown and asked of a row."""
    return ScenePrompt(media.read(row), tuple(prompt.render(question) for question in row.questions), prompt.system)


def _padded(scene: EncodedScene, questions: int) -> EncodedScene:
    """The scene with its last question repeated up to that number of questions."""
    missing = questions - len(scene.questions)
    return dataclasses.replace(scene, questions=scene.questions + scene.questions[-1:] * missing)


def _read_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """`make` of each item, in order; a thread makes up to `READ_AHEAD` of them in advance."""
    pool = ThreadPoolExecutor(1)
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
