"""Answers all questions of an evaluation with a model, into a folder in which a killed evaluation is resumed.

With several processes all of them answer, and only the first reads and writes the folder.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxvsr.buckets.places import named
from jaxvsr.devices.processes import texts_of_all_processes
from jaxvsr.evaluation.answering.choose_questions import AskedQuestion, ChosenQuestions
from jaxvsr.evaluation.answering.greedy import GreedyModel
from jaxvsr.evaluation.answering.resumable_predictions import ResumablePredictions
from jaxvsr.evaluation.answering.scene_batches import answer_in_batches, scene_prompt
from jaxvsr.evaluation.answering.scene_media import SceneMedia, group_by_scene, stored_pixels
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.models.huggingface.hf_config import read_generation_config
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.inputs.prompt_text import prompt_lines
from jaxvsr.models.model_config import VideoPrompt
from jaxvsr.progress import progress
from jaxvsr.prompts import Prompt, check_thinking
from jaxvsr.runs.model_source import Model, stage_digest

SCENES = 8  # per batch
LINE_SECONDS = 30.0  # between progress lines if there is no terminal


@dataclasses.dataclass(frozen=True)
class AnswerSettings:
    """How questions are put to a model. `scenes` per batch and `questions` per row only change speed and memory."""

    prompt: Prompt
    media: SceneMedia
    max_pixels: int | None = None
    scenes: int | None = None
    questions: int | None = None
    video_prompt: VideoPrompt | None = None  # None: as the run was trained with
    min_pixels: int | None = None  # None: the model folder's

    def media_fields(self, asked: Sequence[AskedQuestion]) -> dict[str, Any]:
        """What scores.json says of the frames: their number, whether they are blank, and the pixel budget of one (None:
        the limits of the model folder).
        """
        budgets = [budget for budget in (self.max_pixels, stored_pixels(asked)) if budget is not None]
        least = {} if self.min_pixels is None else {"min_pixels": self.min_pixels}
        return {**self.media.to_json(), "max_pixels": min(budgets, default=None), **least}

    def to_json(self, model: Model, data: Sequence[Path], mesh: Mesh) -> dict[str, Any]:
        """Everything that the answers depend on besides questions and media; predictions made with other values are not
        resumed.
        """
        prompt = self.video_prompt or model.video_prompt
        return {
            "weights": weights_hash(model),
            "data": [named(os.path.abspath(folder)) for folder in data],
            **self.media.to_json(),
            "max_pixels": self.max_pixels,
            **({} if self.min_pixels is None else {"min_pixels": self.min_pixels}),
            "prompt": dataclasses.asdict(self.prompt),
            "repetition_penalty": read_generation_config(model.folder.path).repetition_penalty,
            "platform": mesh.devices.flat[0].platform,
            **({} if model.dtype_setting == "auto" else {"dtype": model.dtype_setting}),
            **({} if prompt == "blocks" else {"video_prompt": prompt}),
        }


def weights_hash(model: Model) -> str:
    """Identifies a model's weights: the content hash of the base folder, and all bits of the stages that are merged
    into it.
    """
    if not model.stages:
        return model.content_hash
    digest = hashlib.sha256(model.content_hash.encode())
    for stage in model.stages:
        digest.update(f"{stage.lora!r} {stage_digest(stage.weights)}".encode())
    return digest.hexdigest()


def first_prompt(model: Model, settings: AnswerSettings, asked: Sequence[AskedQuestion]) -> list[str]:
    """The tokens that the first question and its scene become (`prompt_lines`)."""
    processor = SceneProcessor.from_folder(
        model.folder.path,
        max_pixels=settings.max_pixels,
        video_prompt=settings.video_prompt or model.video_prompt,
        min_pixels=settings.min_pixels,
    )
    scene = scene_prompt(settings.prompt, group_by_scene(asked[:1])[0], settings.media)
    return prompt_lines(processor.chat, processor.encode(scene))


class Answerer:
    """Answers the same questions with one model after another; models of one shape share the compiled program.

    Args:
        open_mesh: called when the first model is there to answer: devices are taken as late as that.
        say: prints a line about progress.
    """

    def __init__(
        self,
        chosen: ChosenQuestions,
        settings: AnswerSettings,
        open_mesh: Callable[[], Mesh],
        say: Callable[[str], None] = print,
    ):
        self.settings = settings
        self._chosen, self._open_mesh, self._say = chosen, open_mesh, say
        self._greedy: GreedyModel | None = None

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return self._open_mesh()

    @functools.cached_property
    def _media(self) -> dict[str, str]:
        return self.settings.media.identities(self._chosen.asked)

    def predictions(self, model: Model, out: Path) -> list[Prediction] | None:
        """Answer the questions that OUT/predictions.jsonl has no answer to; None in all processes but the first."""
        mesh, start = self._mesh, time.monotonic()
        questions = self._chosen.questions
        log: ResumablePredictions | None = None
        open_ids = ""
        if jax.process_index() == 0:
            log = ResumablePredictions(out, self.settings.to_json(model, self._chosen.folders, mesh), self._media)
            open_ids = json.dumps([question.id for question in log.unanswered(questions)])
        todo = set(json.loads(texts_of_all_processes(open_ids)[0]))
        if log is not None and log.changed_setting:
            self._say(f"{out}: replacing predictions made with other settings ({log.changed_setting})")
        elif len(todo) < len(questions):
            done = len(questions) - len(todo)
            self._say(f"{out}: resuming, {done:,} of {len(questions):,} questions are answered")
        if todo:
            greedy = self._loaded(model)
            self._say(_describe_decoding(self.settings.prompt, greedy.repetition_penalty))
            rest = [(folder, question) for folder, question in self._chosen.asked if question.id in todo]
            compiling = greedy.program.seconds
            self._answer(greedy, rest, log)
            seconds = time.monotonic() - start
            compiling = greedy.program.seconds - compiling
            videos = len({(folder, question.scene) for folder, question in rest})
            took = f"{seconds:.1f} s, {compiling:.1f} s of them compiling"
            self._say(f"{len(rest):,} answers about {videos:,} videos in {took}\n")
        return None if log is None else log.finish(questions)

    def _loaded(self, model: Model) -> GreedyModel:
        if self._greedy is not None:
            self._greedy.load(model)
            return self._greedy
        settings = self.settings
        self._greedy = GreedyModel(
            model,
            self._mesh,
            answer_tokens=settings.prompt.max_answer_tokens,
            max_pixels=settings.max_pixels,
            video_prompt=settings.video_prompt,
            min_pixels=settings.min_pixels,
        )
        check_thinking(settings.prompt, self._greedy.processor.chat.opens_thought)
        self._greedy.program.on_compile = lambda name, bucket: self._say(f"compiling {name}, bucket {bucket}")
        return self._greedy

    def _answer(self, greedy: GreedyModel, rest: Sequence[AskedQuestion], log: ResumablePredictions | None) -> None:
        settings = self.settings
        batches = answer_in_batches(
            greedy,
            settings.prompt,
            rest,
            settings.media,
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
                    self._say(f"{len(log.answered):,} of {len(self._chosen.asked):,} questions")


def _describe_decoding(prompt: Prompt, penalty: float) -> str:
    stop = "".join(f", cut at {text!r}" for text in prompt.stop)
    source = "" if penalty == 1 else " of the model's generation_config.json"
    return (
        f"prompt {prompt.name}, extraction {prompt.extraction}; greedy, at most {prompt.max_answer_tokens} tokens "
        f"per answer{stop}, repetition penalty {penalty:g}{source}"
    )
