"""Greedy answers of a model, through the scene tree with G = 1: the questions of a scene share its video.

scene a   q0 q1 q2 q3       two rows of the tree; the second is padded with its own last question, the last batch
scene a   q4 q5 q5 q5       with its own last row, so that one program serves all
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvsr.data.questions import Question
from jaxvsr.devices.choose_devices import choose_devices, describe_devices
from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.devices.mesh import make_mesh, scene_rows
from jaxvsr.devices.mesh_shape import DeviceKind, MeshShape, check_mesh, parse_mesh
from jaxvsr.devices.processes import SceneAxis, largest_of_processes, own_rows, texts_of_all_processes
from jaxvsr.errors import InputError
from jaxvsr.evaluation.answering.scene_media import Row, Videos, rows_of
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.grpo.sampler import SamplingOptions, rollout_keys, sample
from jaxvsr.models.huggingface.parameter_names import expected_shapes
from jaxvsr.models.inputs.collate import EncodedScene, TreeShape, round_up
from jaxvsr.models.inputs.processor import SceneProcessor, ScenePrompt
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.sharding import gathered_over_fsdp, parameter_shardings
from jaxvsr.models.tree import ForwardOptions
from jaxvsr.models.tree_batch import Rollouts, TreePrompt
from jaxvsr.prompts import Prompt
from jaxvsr.runs.model_source import Model

Item = TypeVar("Item")
Made = TypeVar("Made")
MOST_QUESTIONS = 32  # of a row: more save little, since the video is then a small part of it
HASHED_VALUES = 1024  # at each end of a tensor
READ_AHEAD = 2  # batches that are read and encoded while one is answered


class GreedyModel:
    """A model on a mesh that answers greedily; each bucket of shapes compiles one program.

    Args:
        answer_tokens: tokens an answer may have, its end-of-sequence token included.
        max_pixels: budget of a frame; None takes frames as they are stored (`SceneProcessor.from_folder`).
    """

    def __init__(self, model: Model, mesh: Mesh, *, answer_tokens: int, max_pixels: int | None = None):
        check_mesh(
            MeshShape(**dict(mesh.shape)),
            scenes=mesh.shape["data"] * mesh.shape["fsdp"],
            attention_heads=model.config.text.num_attention_heads,
        )
        self.mesh = mesh
        self.processor = SceneProcessor.from_folder(model.folder.path, max_pixels=max_pixels)
        chat = self.processor.chat
        self._sampling = SamplingOptions(
            group=1,
            answer_tokens=answer_tokens,
            eos_ids=chat.eos_token_ids,
            pad_id=chat.generation.pad_token_id,
            suppressed_ids=chat.suppressed_token_ids,
            greedy=True,
            repetition_penalty=chat.generation.repetition_penalty,
        )
        self._forward = ForwardOptions(dtype=compute_dtype(mesh))
        self._definition = model_definition(model.config)
        shapes = {
            name: jax.ShapeDtypeStruct(shape, model.folder.dtype(name))
            for name, shape in expected_shapes(model.config).items()
        }
        self._shardings = parameter_shardings(shapes, mesh, model.config)
        self._parameters = model.parameters(self._shardings)
        self._shape: TreeShape | None = None
        self.program = CompiledFunction("answers", self._program)

    @property
    def scene_shards(self) -> int:
        """Scenes of a batch are a multiple of this."""
        return int(self.mesh.shape["data"] * self.mesh.shape["fsdp"])

    @property
    def repetition_penalty(self) -> float:
        """The folder's own (`generation_config.json`), as Hugging Face's `generate` applies it; 1: none."""
        return self._sampling.repetition_penalty

    def load(self, model: Model) -> None:
        """Answer with other weights of the same model from here on: another checkpoint of its run."""
        if model.config != self.processor.config:
            raise InputError(f"model {model.name}: is not of the shape of the model that is loaded")
        self._parameters = {}  # frees the device's memory before the next ones come
        self._parameters = model.parameters(self._shardings)

    def answer(self, scenes: Sequence[EncodedScene], batch_size: int | None = None) -> list[list[str]]:
        """The completions of this process's scenes with Q questions each, [S][Q].

        `batch_size` is the number of scenes of all processes, a multiple of `scene_shards`; None: there is one process.
        """
        own = dataclasses.astuple(self.processor.shape(scenes))
        needed = TreeShape(*map(int, largest_of_processes(own)))
        self._shape = needed if self._shape is None else _larger(self._shape, needed)  # shapes only grow
        axis = SceneAxis(self.mesh, batch_size or len(scenes))
        prompt = axis.place(self.processor.collate(scenes, self._shape))
        rollouts = self.program(self._parameters, prompt)
        texts = self.processor.decode(Rollouts(own_rows(rollouts.tokens), own_rows(rollouts.length)))
        return [[answer for (answer,) in scene] for scene in texts]

    def _program(self, parameters: dict[str, jax.Array], prompt: TreePrompt) -> Rollouts:
        model = bind(self._definition, gathered_over_fsdp(parameters, self.mesh, self.processor.config))
        no_seed = jnp.zeros((), jnp.uint32)  # the sampler takes keys, and draws nothing with them when it is greedy
        keys = rollout_keys(no_seed, jnp.zeros((), jnp.int32), jnp.zeros(prompt.question_length.shape, jnp.uint32), 1)
        temperature = jnp.ones((), jnp.float32)
        return sample(model, prompt, keys, temperature, self._sampling, self._forward).rollouts


def open_mesh(kind: DeviceKind, spec: str | None, processes: int = 1) -> tuple[Mesh, str]:
    """The mesh that `--device` and `--mesh` (None: all devices) mean, and the line that describes it."""
    wanted = parse_mesh(spec) if spec else None
    devices = choose_devices(kind, wanted, processes=processes)
    shape = wanted or MeshShape(fsdp=len(devices))
    return make_mesh(shape, devices), describe_devices(devices, shape)


def compute_dtype(mesh: Mesh) -> str:
    """What a model computes in: float32 on CPU, bfloat16 on accelerators."""
    return "float32" if mesh.devices.flat[0].platform == "cpu" else "bfloat16"


def questions_a_row(counts: Sequence[int], scene_tokens: int, question_tokens: int) -> int:
    """Q with the fewest tokens to compute for scenes of `counts` questions, padding included.

    Every row pays for its video, twice as much a token as for text because of the vision tower.

    >>> questions_a_row([16, 17, 18], 100, 50), questions_a_row([1, 1, 1, 30], 100, 50)
    (18, 6)
    """

    def tokens(questions: int) -> int:
        rows = sum(-(-count // questions) for count in counts)
        return rows * (2 * scene_tokens + questions * question_tokens)

    return min(range(1, min(max(counts), MOST_QUESTIONS) + 1), key=lambda questions: (tokens(questions), -questions))


def generate(
    model: GreedyModel,
    prompt: Prompt,
    asked: Sequence[tuple[Path, Question]],
    videos: Videos,
    *,
    scenes: int,
    questions: int | None = None,
) -> Iterator[list[Prediction]]:
    """Answer every question once, `scenes` rows at a time, and at most `questions` of a scene together (None: the
    number that computes the fewest tokens); yields the predictions of each batch, in every process those of all.

    Longer questions come first: the first program then fits the rest.
    """
    by_scene = rows_of(asked, len(asked) or 1)
    if not by_scene:
        return
    if questions is None:
        longest = max(by_scene, key=_text_length)
        first = model.processor.encode(_scene_prompt(prompt, longest, videos))
        questions = questions_a_row(
            [len(row.questions) for row in by_scene],
            len(first.tokens),
            max(len(ids) for ids in first.questions) + prompt.max_answer_tokens,
        )
    width = min(questions, max(len(row.questions) for row in by_scene))
    rows = sorted(rows_of(asked, width), key=_text_length, reverse=True)
    batch_size = round_up(min(scenes, len(rows)), model.scene_shards)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    start, count = scene_rows(model.mesh, batch_size)

    def encode(batch: list[Row]) -> tuple[list[Row], list[Row], list[EncodedScene]]:
        own = (batch + batch[-1:] * (batch_size - len(batch)))[start : start + count]
        encoded: dict[int, EncodedScene] = {}  # rows of padding are the same object
        for row in own:
            if id(row) not in encoded:
                encoded[id(row)] = _widened(model.processor.encode(_scene_prompt(prompt, row, videos)), width)
        return batch, own, [encoded[id(row)] for row in own]

    for batch, own, encoded in _ahead(encode, batches):
        completions = model.answer(encoded, batch_size)
        said = {
            question.id: completion
            for row, answers in zip(own, completions, strict=True)
            for question, completion in zip(row.questions, answers, strict=False)
        }
        everyones: dict[str, str] = {}
        for text in texts_of_all_processes(json.dumps(said)):
            everyones |= json.loads(text)
        yield [Prediction(question, everyones[question.id]) for row in batch for question in row.questions]


def _larger(one: TreeShape, other: TreeShape) -> TreeShape:
    return TreeShape(*map(max, zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)))


def _text_length(row: Row) -> int:
    return max(len(question.question) + sum(map(len, question.options or ())) for question in row.questions)


def _scene_prompt(prompt: Prompt, row: Row, videos: Videos) -> ScenePrompt:
    return ScenePrompt(videos.read(row), tuple(prompt.render(question) for question in row.questions), prompt.system)


def _widened(scene: EncodedScene, questions: int) -> EncodedScene:
    """The scene with its last question repeated until it has so many."""
    missing = questions - len(scene.questions)
    return dataclasses.replace(scene, questions=scene.questions + scene.questions[-1:] * missing)


def _ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """`make` of each item in order, up to `READ_AHEAD` of them early, in a thread."""
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


def weights_hash(model: Model) -> str:
    """Tells models apart: the base folder's content hash, and with stages merged into it theirs too.

    Of a stage, as of the base, every tensor's name, shape, and the first and last of its values.
    """
    if not model.stages:
        return model.content_hash
    digest = hashlib.sha256(model.content_hash.encode())
    for stage in model.stages:
        digest.update(repr(stage.lora).encode())
        for name in sorted(stage.weights):
            values = np.asarray(stage.weights[name]).reshape(-1)
            digest.update(f"{name} {values.dtype} {values.size}".encode())
            digest.update(values[:HASHED_VALUES].tobytes() + values[-HASHED_VALUES:].tobytes())
    return digest.hexdigest()
