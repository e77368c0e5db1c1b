"""A model's answers to all questions of an evaluation, in a folder that a killed one goes on in.

With several processes all of them answer, and the first alone reads and writes the folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxvsr.data.questions import Question
from jaxvsr.devices.processes import texts_of_all_processes
from jaxvsr.evaluation.answering.greedy import GreedyModel, generate, weights_hash
from jaxvsr.evaluation.answering.resumable_predictions import PredictionsLog
from jaxvsr.evaluation.answering.scene_media import Videos
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.models.huggingface.hf_config import read_generation_config
from jaxvsr.progress import progress
from jaxvsr.prompts import Prompt
from jaxvsr.runs.model_source import Model

SCENES = 8  # of a batch
LINE_SECONDS = 30.0  # between lines about progress where there is no terminal


@dataclasses.dataclass(frozen=True)
class AnswerSettings:
    """How questions are put to a model; `scenes` and `questions` (rows of a batch, questions of a row) change speed
    and memory alone."""

    prompt: Prompt
    videos: Videos
    max_pixels: int | None = None
    scenes: int | None = None
    questions: int | None = None

    def of_answers(self, model: Model, data: Sequence[Path], mesh: Mesh) -> dict[str, Any]:
        """All that answers depend on: predictions made with others are not gone on with."""
        return {
            "weights": weights_hash(model),
            "data": [os.path.abspath(folder) for folder in data],
            **dataclasses.asdict(self.videos),
            "max_pixels": self.max_pixels,
            "prompt": dataclasses.asdict(self.prompt),
            "repetition_penalty": read_generation_config(model.folder.path).repetition_penalty,
            "platform": mesh.devices.flat[0].platform,
        }


def _in_words(prompt: Prompt) -> str:
    """What a prompt carries besides its words."""
    cut = "".join(f", cut at {text!r}" for text in prompt.stop)
    budget = f"at most {prompt.max_answer_tokens} tokens"
    return f"prompt {prompt.name}, answers read by {prompt.extraction}; greedy, {budget}{cut}"


class Answering:
    """Answers the same questions with one model after another; models of one shape share the compiled program."""

    def __init__(
        self,
        asked: Sequence[tuple[Path, Question]],
        settings: AnswerSettings,
        mesh: Mesh,
        data: Sequence[Path],
        say: Callable[[str], None],
    ):
        self._asked, self._settings, self._mesh, self._data, self._say = list(asked), settings, mesh, data, say
        self._model: GreedyModel | None = None

    def predictions(self, chosen: Model, out: Path) -> list[Prediction]:
        """Answer what OUT/predictions.jsonl does not hold yet. In processes but the first: nothing."""
        start = time.monotonic()
        questions = [question for _, question in self._asked]
        log: PredictionsLog | None = None
        open_ids = ""
        if jax.process_index() == 0:
            log = PredictionsLog(out, self._settings.of_answers(chosen, self._data, self._mesh))
            open_ids = json.dumps([question.id for question in log.open_questions(questions)])
        todo = set(json.loads(texts_of_all_processes(open_ids)[0]))
        if log is not None and log.different:
            self._say(f"{out}: predictions of other settings ({log.different}) are replaced")
        elif len(todo) < len(questions):
            done = len(questions) - len(todo)
            self._say(f"{out}: going on, {done:,} of {len(questions):,} questions are answered")
        if todo:
            model = self._loaded(chosen)
            penalty = model.repetition_penalty
            source = "" if penalty == 1 else " of the model's generation_config.json"
            self._say(f"{_in_words(self._settings.prompt)}, repetition penalty {penalty:g}{source}")
            rest = [(folder, question) for folder, question in self._asked if question.id in todo]
            compiling = model.program.seconds
            self._answer(model, rest, log)
            seconds = time.monotonic() - start
            compiling = model.program.seconds - compiling
            videos = len({(folder, question.scene) for folder, question in rest})
            took = f"{seconds:.1f} s, {compiling:.1f} s of them compiling"
            self._say(f"{len(rest):,} answers about {videos:,} videos in {took}\n")
        return [] if log is None else log.finish(questions)

    def _loaded(self, chosen: Model) -> GreedyModel:
        if self._model is not None:
            self._model.load(chosen)
            return self._model
        settings = self._settings
        self._model = GreedyModel(
            chosen, self._mesh, answer_tokens=settings.prompt.max_answer_tokens, max_pixels=settings.max_pixels
        )
        self._model.program.on_compile = lambda name, bucket: self._say(f"compiling {name}, bucket {bucket}")
        return self._model

    def _answer(self, model: GreedyModel, rest: Sequence[tuple[Path, Question]], log: PredictionsLog | None) -> None:
        settings = self._settings
        batches = generate(
            model,
            settings.prompt,
            rest,
            settings.videos,
            scenes=settings.scenes or SCENES,
            questions=settings.questions,
        )
        if log is None:
            for _ in batches:
                pass
            return
        last = time.monotonic()
        with log, progress("answers", len(rest)) as advance:
            for batch in batches:
                log.append(batch)
                for one in batch:
                    advance(one)
                if time.monotonic() - last > LINE_SECONDS and not sys.stderr.isatty():
                    last = time.monotonic()
                    self._say(f"{len(log.answered):,} of {len(self._asked):,} questions")
