"""The second lesson of the small base model: the layers above those that look learn to answer.

What the layers that look make of a room and of questions about it does not change any more: it is computed once, and a
step trains the layers above, with a head of their own.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float16

from jaxvsr.data.questions import Question, read_questions
from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.model_folder import open_folder
from jaxvsr.models.huggingface.parameter_names import EMBEDDING, HEAD
from jaxvsr.models.huggingface.write_model_folder import save_folder
from jaxvsr.models.inputs.collate import EncodedScene
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tree import ForwardOptions, lay_out, rollout_logprobs, split_read
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt, VisionFeatures
from jaxvsr.prompts import PROMPTS
from jaxvsr.training.small_base.lesson import LAYERS, PROJECTION, Lesson, Weights, as_file, check_finite, with_layers
from jaxvsr.training.small_base.training_rooms import Rooms

PROMPT = "question"
_NORM = "language_model.norm.weight"
_REPORTED_STEPS = 50
_READERS = 4


class Kept(NamedTuple):
    """A batch of rooms after the layers that look."""

    hidden: Float16[np.ndarray, "S X H"]
    prompt: TreePrompt  # without its pixels
    answers: RolloutTokens


def teach_to_answer(
    model: Path, data: Path, out: Path, lesson: Lesson, questions: int, on_progress: Callable[[str], object]
) -> None:
    """Train the upper layers of a model that looks on `questions` about each room of a data folder, and write it to
    `out`. Rooms with fewer questions are left out, which is said.

    Raises:
        InputError: the folders are not what they should be, or the model has no head of its own.
    """
    folder = open_folder(model)
    lesson.check(folder, out)
    config, options = folder.config, ForwardOptions()
    if config.text.tie_word_embeddings:
        raise InputError(f"{model}: its head is its embedding; make it with `convert.py tiny --untied`")
    processor = SceneProcessor.from_folder(folder.path)
    weights = {name: jnp.asarray(folder.read(name)) for name in parameter_shapes(config)}
    weights |= {HEAD: weights[EMBEDDING], **_copying(config, weights, lesson.layers)}
    kept, types = _look_once(config, weights, Rooms(data, processor, lesson.frames), lesson, questions, on_progress)
    optimizer, depth = lesson.optimizer(), config.text.num_hidden_layers
    upper = {name: leaf[lesson.layers :] for name, leaf in weights.items() if name.startswith(LAYERS)}
    upper |= {name: weights[name] for name in (_NORM, HEAD)}

    @jax.jit
    def step(upper: Weights, state: Any, weights: Weights, batch: Kept) -> tuple[Weights, Any, Array]:
        def loss(upper: Weights) -> tuple[Array, Array]:
            answering = with_layers(config, _whole(weights, upper, lesson.layers), lesson.layers, depth)
            tree = lay_out(answering, batch.prompt, batch.answers, options)  # for attention and positions alone
            hidden = jnp.asarray(batch.hidden, tree.embedded.dtype)
            read, _ = answering.language_model(hidden, tree.rotary, tree.attend, last=tree.last)
            at_questions, at_answers = split_read(read, batch.prompt, batch.answers)
            assert at_answers is not None
            tokens, length = batch.answers.tokens, batch.answers.length
            logprobs, _ = rollout_logprobs(answering, at_questions, at_answers, tokens, 1.0, options)
            answer = jnp.where(jnp.arange(tokens.shape[-1]) < length[..., None], logprobs, 0).sum(-1)
            return -answer.sum() / length.sum(), answer[..., 0]

        (_, logprob), gradients = jax.value_and_grad(loss, has_aux=True)(upper)
        updates, state = optimizer.update(gradients, state, upper)
        return optax.apply_updates(upper, updates), state, logprob

    rng, state, start = np.random.default_rng(lesson.seed), optimizer.init(upper), time.monotonic()
    epochs = -(-lesson.steps * lesson.scenes // len(types))
    order = np.concatenate([rng.permutation(len(types)) for _ in range(epochs)])
    likelihood: dict[str, list[float]] = defaultdict(list)
    for number in range(1, lesson.steps + 1):
        rows = order[(number - 1) * lesson.scenes : number * lesson.scenes]
        upper, state, logprob = step(upper, state, weights, jax.tree.map(lambda leaf, rows=rows: leaf[rows], kept))
        for row, values in zip(rows, np.exp(np.asarray(logprob)), strict=True):
            for name, value in zip(types[row], values, strict=True):
                likelihood[name].append(float(value))
        if number % _REPORTED_STEPS == 0 or number == lesson.steps:
            check_finite(upper, number)
            likely = ", ".join(f"{name} {100 * np.mean(values):.0f}" for name, values in sorted(likelihood.items()))
            likelihood.clear()
            seconds = (time.monotonic() - start) / number
            on_progress(f"step {number}/{lesson.steps}  the right answer in % likely: {likely}  {seconds:.2f} s/step")
    taught = _whole(weights, upper, lesson.layers)
    save_folder(out, folder, lambda name, layer: np.asarray(as_file(taught, name, layer)))


def _whole(weights: Weights, upper: Weights, layers: int) -> Weights:
    """All weights: the first `layers` of `weights`, and what was taught instead of the rest."""
    lower = {name: leaf[:layers] for name, leaf in weights.items() if name.startswith(LAYERS)}
    return {**weights, **upper, **{name: jnp.concatenate([leaf, upper[name]]) for name, leaf in lower.items()}}


def _copying(config: ModelConfig, weights: Weights, first: int) -> Weights:
    """Output projections that, from layer `first` on, give back what the values took: what is attended to is said."""
    out, value = weights[PROJECTION.format("o")], weights[PROJECTION.format("v")][first:]
    heads = value.reshape(len(value), config.text.num_key_value_heads, 1, config.text.head_dim, -1)
    group = config.text.num_attention_heads // config.text.num_key_value_heads
    back = jnp.repeat(heads, group, axis=2).reshape(len(value), -1, value.shape[-1]) / group
    return {PROJECTION.format("o"): out.at[first:].set(jnp.swapaxes(back, 1, 2))}


def _look_once(
    config: ModelConfig,
    weights: Weights,
    rooms: Rooms,
    lesson: Lesson,
    questions: int,
    on_progress: Callable[[str], object],
) -> tuple[Kept, list[list[str]]]:
    """All rooms after the layers that look, and the types of their questions."""

    @jax.jit
    def look(weights: Weights, prompt: TreePrompt, answers: RolloutTokens) -> Array:
        looking = with_layers(config, weights, 0, lesson.layers)
        tree = lay_out(looking, prompt, answers, ForwardOptions())
        hidden, _ = looking.language_model(tree.embedded, tree.rotary, tree.attend, deepstack=tree.deepstack)
        return hidden.astype(jnp.float16)

    start, parts, types = time.monotonic(), list[Kept](), list[list[str]]()
    for scenes, asked in _encoded(rooms, lesson, questions):
        prompt = rooms.collate(scenes)
        answers = rooms.processor.encode_answers([[[question.answer] for question in chosen] for chosen in asked])
        hidden = np.asarray(look(weights, prompt, answers))
        no_pixels = VisionFeatures(np.zeros((len(scenes), 1, 1), np.float32))
        parts.append(Kept(hidden, dataclasses.replace(prompt, vision=no_pixels), answers))
        types += [[question.question_type for question in chosen] for chosen in asked]
    if len({(part.hidden.shape[1:], part.answers.tokens.shape) for part in parts}) > 1:
        raise InputError(f"{rooms.data}: questions differ too much in length; their arrays have different shapes")
    left_out = len(rooms.names) - len(types)
    on_progress(
        f"looked at {len(types)} rooms with {questions} questions each in {time.monotonic() - start:.0f} s; "
        f"{left_out} rooms left out, with fewer or beyond the last {lesson.scenes}"
    )
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), types


def _encoded(rooms: Rooms, lesson: Lesson, count: int) -> Iterator[tuple[list[EncodedScene], list[Sequence[Question]]]]:
    """`lesson.scenes` rooms at a time, with the questions about each."""
    rng, prompt = np.random.default_rng(lesson.seed), PROMPTS[PROMPT]
    by_scene: dict[str, list[Question]] = defaultdict(list)
    for question in read_questions(rooms.data / "questions.jsonl"):
        by_scene[question.scene].append(question)
    names = [name for name in rooms.names if len(by_scene[name]) >= count]
    if len(names) < lesson.scenes:
        raise InputError(f"{rooms.data}: {len(names)} rooms have {count} questions; a step needs {lesson.scenes}")
    chosen = {name: _some_of_each_type(by_scene[name], count, rng) for name in names}

    def encode(name: str) -> EncodedScene:
        return rooms.encode(rooms.frames(name), [prompt.render(question) for question in chosen[name]])

    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(names) - lesson.scenes + 1, lesson.scenes):
            some = names[start : start + lesson.scenes]
            yield list(pool.map(encode, some)), [chosen[name] for name in some]


def _some_of_each_type(questions: Sequence[Question], count: int, rng: np.random.Generator) -> list[Question]:
    """Random questions, one of each type in turn as long as there are some."""
    turns, ranked = Counter[str](), list[tuple[int, int, Question]]()
    for number in rng.permutation(len(questions)):
        question = questions[number]
        ranked.append((turns[question.question_type], len(ranked), question))
        turns[question.question_type] += 1
    return [question for *_, question in sorted(ranked, key=lambda one: one[:2])[:count]]
