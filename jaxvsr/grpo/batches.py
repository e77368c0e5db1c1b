"""From the scenes of a step to arrays: the loader's transform is a `BatchBuilder`, which makes a `HostBatch` of NumPy
arrays, in a worker if there are any. The axis `s` is this process's scenes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int32, UInt32

from jaxvsr.config.algorithm import Difficulty
from jaxvsr.config.train_config import ObjectiveName
from jaxvsr.data.loader import SceneBatch
from jaxvsr.data.questions import Question
from jaxvsr.devices.processes import largest_of_processes
from jaxvsr.errors import InputError
from jaxvsr.grpo.given_answers import rejected_answer, target_answer
from jaxvsr.models.inputs.collate import EncodedScene, TreeShape
from jaxvsr.models.inputs.processor import Image, SceneProcessor, ScenePrompt, Video
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt
from jaxvsr.prompts import Prompt, check_thinking


@dataclasses.dataclass(frozen=True)
class HostBatch:
    """This process's scenes of a step."""

    step: int  # steps before this one
    prompt: TreePrompt  # with pixels, or with stored vision features
    question_keys: UInt32[np.ndarray, "s Q"]
    questions: tuple[tuple[Question, ...], ...]  # by scene
    targets: RolloutTokens | None = None  # given answers (SFT, DPO)

    def columns(self, group: int) -> dict[str, list[Any]]:
        """The fields of the questions as rewards take them, each repeated for its G rollouts: s·Q·G values each."""
        rows = [question for scene in self.questions for question in scene for _ in range(group)]
        return {field.name: [getattr(row, field.name) for row in rows] for field in dataclasses.fields(Question)}


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedBatch:
    """This process's scenes before they are padded to the shape that all processes share."""

    step: int
    scenes: tuple[EncodedScene, ...]
    questions: tuple[tuple[Question, ...], ...]
    features: tuple[Float[np.ndarray, "_ _ W"], ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class BatchBuilder:
    """Scenes and questions to arrays, as the transform of the loader."""

    processor: SceneProcessor
    prompt: Prompt
    objective: ObjectiveName
    answer_tokens: int  # R of given answers
    rejected: Difficulty = "mixed"  # of DPO's wrong answers

    def encode(self, batch: SceneBatch) -> EncodedBatch:
        """Frames to patches, questions to tokens."""
        scenes = tuple(
            self.processor.encode(
                ScenePrompt(
                    tuple(map(Image, scene.frames)) if scene.images else (Video(scene.frames, scene.timestamps),),
                    tuple(self.prompt.render(question) for question in scene.questions),
                    self.prompt.system,
                )
            )
            for scene in batch.scenes
        )
        stored = tuple(scene.features for scene in batch.scenes if scene.features is not None)
        return EncodedBatch(batch.step, scenes, tuple(scene.questions for scene in batch.scenes), stored or None)

    def collate(self, batch: EncodedBatch, shape: TreeShape | None = None) -> HostBatch:
        """Padded arrays; `shape` None takes the smallest bucket."""
        keys = np.array([[question_key(question.id) for question in scene] for scene in batch.questions], np.uint32)
        shape = shape or self.processor.shape(batch.scenes)
        prompt = self.processor.collate(batch.scenes, shape)
        if batch.features is not None:
            merge = self.processor.config.vision.merge_unit
            prompt = prompt.with_features(padded_features(batch.features, batch.scenes, shape, merge))
        return HostBatch(batch.step, prompt, keys, batch.questions, self._targets(batch.questions))

    def __call__(self, batch: SceneBatch) -> HostBatch:
        return self.collate(self.encode(batch))

    def check_answers(self, questions: Iterable[Question]) -> None:
        """Refuse what could not be learned from, before the first step.

        Raises:
            InputError: a question without a known wrong answer (DPO), the longest answer, where it has too many
                tokens, or answers without a thought for a model that begins with one.
        """
        check_thinking(self.prompt, self.processor.chat.opens_thought)
        if self.objective == "grpo":
            return
        asked = {text: question for question in questions for text in self._answers(question)}
        bare = next((text for text in asked if "</think>" not in text), None)
        if bare is not None and self.processor.chat.opens_thought:
            needs = (
                "a `response` with </think>"
                if self.objective == "sft"
                else "a model that does not: it compares bare answers"
            )
            raise InputError(
                f"question {asked[bare].id!r}: this model's template begins every answer with <think>, so the given "
                f"answer {bare[:40]!r} would be a thought; objective={self.objective} needs {needs}"
            )
        lengths = {text: len(self.processor.chat.answer_tokens(text)) for text in asked}
        longest = max(lengths, key=lengths.__getitem__, default=None)
        if longest is not None and lengths[longest] > self.answer_tokens:
            raise InputError(
                f"question {asked[longest].id!r}: its answer has {lengths[longest]} tokens, with "
                f"sampling.answer_tokens={self.answer_tokens} allowed; take sampling.answer_tokens={lengths[longest]}"
            )

    def _answers(self, question: Question) -> list[str]:
        """What SFT learns; in DPO the answer and the rejected one, both bare: a response's reasoning on one side alone
        would tell them apart.
        """
        if self.objective == "dpo":
            return [question.answer, rejected_answer(question, self.rejected)]
        return [target_answer(question)]

    def _targets(self, questions: Sequence[Sequence[Question]]) -> RolloutTokens | None:
        if self.objective == "grpo":
            return None
        answers = [[self._answers(question) for question in scene] for scene in questions]
        return self.processor.encode_answers(answers, self.answer_tokens)


def padded_features(
    features: Sequence[Float[np.ndarray, "_ _ W"]], scenes: Sequence[EncodedScene], shape: TreeShape, merge: int
) -> Float[np.ndarray, "s U W"]:
    """Stored features where `vision_index` looks for them in a batch of this shape; `merge`: patches per token.

    Raises:
        InputError: they are not those of these scenes.
    """
    units, width = shape.patches // merge, features[0].shape[-1]
    padded = np.zeros((len(scenes), shape.rows, units, width), features[0].dtype)
    for s, (own, scene) in enumerate(zip(features, scenes, strict=True)):
        (layout,) = scene.layouts
        if own.shape[:2] != (scene.rows, len(layout.unit_slot)):
            raise InputError(f"stored features of shape {own.shape} do not fit a video of {scene.rows} rows")
        padded[s][: scene.rows, layout.unit_slot] = own
    return padded.reshape(len(scenes), -1, width)


class HostBatches:
    """The batches of this process; `close` ends the loader.

    Where there are several processes, `builder` pads the encoded batches that come from the loader to the largest shape
    of any process, so that all of them run the same program.
    """

    def __init__(self, loader: Any, builder: BatchBuilder | None = None):
        self._loader, self._builder = loader, builder

    def __iter__(self) -> HostBatches:
        return self

    def __next__(self) -> HostBatch:
        batch = next(self._loader)
        if self._builder is None:
            return batch
        own = dataclasses.astuple(self._builder.processor.shape(batch.scenes))
        return self._builder.collate(batch, TreeShape(*map(int, largest_of_processes(own))))

    def close(self) -> None:
        self._loader.close()


def question_key(question_id: str) -> int:
    """A number of 32 bits that is the question's own in every process and run; its rollouts' random numbers hang on it.

    >>> question_key("scene0000_00/3") == question_key("scene0000_00/3")
    True
    """
    return int.from_bytes(hashlib.blake2b(question_id.encode(), digest_size=4).digest(), "big")


@dataclasses.dataclass(frozen=True)
class TokenCount:
    """Tokens of a step's trees, of all processes."""

    real: int
    padded: int  # with padding

    @property
    def padding_share(self) -> float:
        return 1 - self.real / self.padded


def tokens_of_scenes(prompt: TreePrompt, length: Int32[np.ndarray, "s Q G"]) -> Int32[np.ndarray, " s"]:
    """Real tokens of each scene's tree."""
    a_scene = np.asarray(prompt.scene_length) + np.sum(prompt.question_length, axis=1) + np.sum(length, axis=(1, 2))
    return np.asarray(a_scene, np.int32)


def count_tokens(
    prompt: TreePrompt, length: Int32[np.ndarray, "s Q G"], answer_tokens: int, shares: int = 1
) -> TokenCount:
    """Tokens that the forward pass reads, scene and questions once; lengths and sizes of these scenes, which are one of
    `shares` parts of the step's, all alike."""
    padded = prompt.scene_tokens.size + prompt.question_tokens.size + length.size * answer_tokens
    return TokenCount(int(tokens_of_scenes(prompt, length).sum()) * shares, padded * shares)
