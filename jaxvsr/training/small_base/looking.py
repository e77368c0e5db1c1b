"""The first lesson of the small base model: to say at each vision token of a room's video what it shows, and at each
name of a category behind the video what was seen of that category.

The targets of `seen_objects` are each said with one token, among those of its kind: first tokens of the categories'
words, digits, and letters that stand for numbers. What a name says is what the layers above need when a question has
that name.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Int32

from jaxvsr.data.rooms.seen_objects import CATEGORIES, KINDS_OF_TARGET, NOT_SAID, seen_objects
from jaxvsr.models.huggingface.model_folder import open_folder
from jaxvsr.models.huggingface.parameter_names import EMBEDDING
from jaxvsr.models.huggingface.write_model_folder import save_folder
from jaxvsr.models.inputs.collate import EncodedScene
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import QwenVL, parameter_shapes
from jaxvsr.models.tree import ForwardOptions, lay_out
from jaxvsr.models.tree_batch import TreePrompt
from jaxvsr.training.small_base.lesson import PROJECTION, Lesson, Weights, as_file, check_finite, with_layers
from jaxvsr.training.small_base.training_rooms import Rooms

NOTHING = "nothing"
LISTS = 3  # of all categories' names, each with a third of them
_NOTHING_WEIGHT = 0.1  # most squares show no object
_READ_AHEAD = 4  # steps
_REPORTED_STEPS = 25

Alphabets = Sequence[Int[np.ndarray, "_"]]


class Targets(NamedTuple):
    """What is to be said, in the order of KINDS_OF_TARGET, and where."""

    vision: Int[np.ndarray, "S U 6"]  # at the scene's vision tokens, in the order of the tower
    places: Int[np.ndarray, "S N"]  # of the names on the token axis of the tree
    names: Int[np.ndarray, "S N 6"]


class Looked(NamedTuple):
    """The tokens of a tree where they are read: before the first layer, before the last that looks, and after it."""

    embedded: Float[Array, "S X H"]
    of_vision: Float[Array, "S X H"]
    of_names: Float[Array, "S X H"]


def teach_to_look(model: Path, data: Path, out: Path, lesson: Lesson, on_progress: Callable[[str], object]) -> None:
    """Train tower and lower layers of a random model on a data folder of procedural rooms, and write it to `out`.

    The layers above have no gradient; weight decay makes them about a hundredth smaller.

    Raises:
        InputError: the folders are not what they should be, or the model has too few layers.
    """
    folder = open_folder(model)
    lesson.check(folder, out)
    # What is said here is said with the embedding; a head of its own learns to answer later.
    config = dataclasses.replace(folder.config, text=dataclasses.replace(folder.config.text, tie_word_embeddings=True))
    processor = SceneProcessor.from_folder(folder.path)
    alphabets = _alphabets(processor)
    weights = {name: jnp.asarray(folder.read(name)) for name in parameter_shapes(config)}
    weights |= _alike(processor, weights) | _looking_for_the_like(config, weights)
    optimizer = lesson.optimizer()

    @jax.jit
    def step(weights: Weights, state: Any, prompt: TreePrompt, targets: Targets) -> tuple[Weights, Any, Array]:
        def loss(weights: Weights) -> tuple[Array, Array]:
            looked = look(config, weights, lesson.layers, prompt)
            return looking_loss(with_layers(config, weights, 0, 1), looked, prompt, targets, alphabets)

        (_, right), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state, right

    rooms = _LookedAt(Rooms(data, processor, lesson.frames))
    state, start, recent = optimizer.init(weights), time.monotonic(), deque[Array](maxlen=_REPORTED_STEPS)
    for number, (prompt, targets) in enumerate(rooms.batches(lesson), start=1):
        weights, state, right = step(weights, state, prompt, targets)
        recent.append(right)
        if number % _REPORTED_STEPS == 0 or number == lesson.steps:
            check_finite(weights, number)
            (tower, *_), vision, names = 100 * np.mean(recent, axis=0)
            shares = zip(KINDS_OF_TARGET, vision, names, strict=True)
            said = ", ".join(f"{kind} {one:.0f}/{other:.0f}" for kind, one, other in shares)
            seconds = (time.monotonic() - start) / number
            on_progress(
                f"step {number}/{lesson.steps}  right in %: category {tower:.0f} by the tower; vision tokens/names: "
                f"{said}  {seconds:.2f} s/step"
            )
    untouched = {name: folder.read(name) for name in parameter_shapes(folder.config) if name not in weights}
    save_folder(out, folder, lambda name, layer: np.asarray(as_file(weights | untouched, name, layer)))


def look(config: ModelConfig, weights: Weights, layers: int, prompt: TreePrompt) -> Looked:
    """A tree in the layers that look."""
    looking, naming = with_layers(config, weights, 0, layers - 1), with_layers(config, weights, layers - 1, layers)
    tree = lay_out(looking, prompt, None, ForwardOptions())
    of_vision, _ = looking.language_model(tree.embedded, tree.rotary, tree.attend, deepstack=tree.deepstack)
    of_names, _ = naming.language_model(of_vision, tree.rotary, tree.attend)
    return Looked(tree.embedded, of_vision, of_names)


def looking_loss(
    model: QwenVL, looked: Looked, prompt: TreePrompt, targets: Targets, alphabets: Alphabets
) -> tuple[Float[Array, ""], Float[Array, "3 6"]]:
    """What is wrong in what is said, and the shares that are right.

    Read three times: of vision tokens as the tower gives them the category alone, so that they are like words from the
    first layer on; of vision tokens, and one layer later of names, all kinds of target. So what a name says can be had
    from the vision tokens of its category.

    Returns:
        The sum over kinds of target of the mean cross-entropy, each among the tokens of its alphabet; for each reading
        the share of targets that are the likeliest token, without those that show nothing.
    """
    index = prompt.vision_index
    vision = jnp.argsort(jnp.where(index < 0, index.size, index), axis=1)[:, : targets.vision.shape[1]]
    category = jnp.asarray(targets.vision).at[..., 1:].set(NOT_SAID)
    readings = (
        (looked.embedded, vision, category),
        (looked.of_vision, vision, jnp.asarray(targets.vision)),
        (looked.of_names, jnp.asarray(targets.places), jnp.asarray(targets.names)),
    )
    total, shares = jnp.zeros(()), list[Array]()
    for hidden, places, said in readings:
        logits = model.logits(jnp.take_along_axis(hidden, places[..., None], axis=1))
        wrong, right = _loss_and_shares(logits, said, alphabets)
        total, shares = total + wrong, [*shares, right]
    return total, jnp.stack(shares)


def _loss_and_shares(
    logits: Float[Array, "S N W"], targets: Int[Array, "S N 6"], alphabets: Alphabets
) -> tuple[Float[Array, ""], Float[Array, " 6"]]:
    total, shares = jnp.zeros(()), list[Array]()
    for kind, alphabet in enumerate(alphabets):
        among, target = logits[..., alphabet], targets[..., kind]
        shows_nothing = target == 0 if kind == 0 else jnp.zeros(target.shape, bool)
        weight = jnp.where(target == NOT_SAID, 0.0, jnp.where(shows_nothing, _NOTHING_WEIGHT, 1.0))
        wrong = optax.softmax_cross_entropy_with_integer_labels(among, jnp.maximum(target, 0))
        total += (wrong * weight).sum() / jnp.maximum(weight.sum(), 1)
        counted = (target != NOT_SAID) & ~shows_nothing
        shares.append(((among.argmax(-1) == target) & counted).sum() / jnp.maximum(counted.sum(), 1))
    return total, jnp.stack(shares)


def _alphabets(processor: SceneProcessor) -> Alphabets:
    """The tokens of each kind of target: a word's first, digits, and letters in order."""
    first = lambda text: processor.chat.tokenizer.encode(text, add_special_tokens=False)[0]  # noqa: E731
    words = [first(word) for word in (NOTHING, *CATEGORIES)]
    digits = [first(str(number)) for number in range(KINDS_OF_TARGET["how many"])]
    letters = iter([chr(code) for code in (*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1))])
    drawn = {"category": words, "how many": digits}
    for name, values in KINDS_OF_TARGET.items():
        if name not in drawn:
            drawn[name] = [first(next(letters)) for _ in range(values)]
    return [np.array(drawn[name]) for name in KINDS_OF_TARGET]


def _alike(processor: SceneProcessor, weights: Weights) -> Weights:
    """An embedding in which words behind a space begin as the same word without it, as they would be after
    pretraining."""
    texts = {processor.chat.tokenizer.decode([token]): token for token in range(len(processor.chat.tokenizer))}
    same = {token: texts[text[1:]] for text, token in texts.items() if text[:1] == " " and text[1:] in texts}
    embedding = weights[EMBEDDING]
    return {EMBEDDING: embedding.at[np.array(list(same))].set(embedding[np.array(list(same.values()))])}


def _looking_for_the_like(config: ModelConfig, weights: Weights) -> Weights:
    """Query projections of which the first of each key head is that key head: a token begins by attending to tokens
    that are like it, so that a name finds its things."""
    query, key = weights[PROJECTION.format("q")], weights[PROJECTION.format("k")]
    grouped = query.reshape(len(key), config.text.num_key_value_heads, -1, config.text.head_dim, key.shape[-1])
    same = key.reshape(*grouped.shape[:2], *grouped.shape[3:])
    return {PROJECTION.format("q"): grouped.at[:, :, 0].set(same).reshape(query.shape)}


class _LookedAt:
    """Rooms with lists of names behind their videos, and the targets of both."""

    def __init__(self, rooms: Rooms):
        self._rooms = rooms
        encode = lambda text: tuple(rooms.processor.chat.tokenizer.encode(text, add_special_tokens=False))  # noqa: E731
        names = [(encode(before + name), of) for of, name in enumerate(CATEGORIES) for before in ("", " ")]
        self._names = sorted(names, key=lambda one: -len(one[0]))  # a coffee table before a table
        self._targets: dict[str, tuple[Int32[np.ndarray, "U 6"], Int32[np.ndarray, "C 6"]]] = {}

    def batches(self, lesson: Lesson) -> Iterator[tuple[TreePrompt, Targets]]:
        """The arrays of every step: all rooms in a new order each epoch."""
        rng, count, rooms = np.random.default_rng(lesson.seed), lesson.scenes, self._rooms.names
        needed = lesson.steps * count
        order = [name for _ in range(-(-needed // len(rooms))) for name in rng.permutation(rooms)]
        with ThreadPoolExecutor(_READ_AHEAD) as pool:
            waiting: deque[list[Future[tuple[EncodedScene, Any]]]] = deque()
            for start in range(0, needed, count):
                waiting.append(
                    [pool.submit(self._room, name, rng.spawn(1)[0]) for name in order[start : start + count]]
                )
                if len(waiting) > _READ_AHEAD:
                    yield self._collated([room.result() for room in waiting.popleft()])
            for rest in waiting:
                yield self._collated([room.result() for room in rest])

    def _room(
        self, name: str, rng: np.random.Generator
    ) -> tuple[EncodedScene, tuple[Int32[np.ndarray, "U 6"], Int32[np.ndarray, "C 6"]]]:
        frames = self._rooms.frames(name)
        if name not in self._targets:
            unit = self._rooms.processor.config.vision.merged_patch
            rows, columns = (side // unit for side in frames.pixels.shape[1:3])
            self._targets[name] = seen_objects(self._rooms.data / "scans" / name, frames.indices, rows, columns)
        # In another order in each room: a name is to be known by its word, not by its place.
        lists = np.array_split(rng.permutation(CATEGORIES), LISTS)
        return self._rooms.encode(frames, [", ".join(part) for part in lists]), self._targets[name]

    def _collated(self, rooms: Sequence[tuple[EncodedScene, Any]]) -> tuple[TreePrompt, Targets]:
        prompt = self._rooms.collate([scene for scene, _ in rooms])
        scene_size, list_size = prompt.scene_tokens.shape[1], prompt.question_tokens.shape[2]
        places, names = [], []
        for scene, (_, categories) in rooms:
            found = [
                (scene_size + row * list_size + place, categories[category])
                for row, tokens in enumerate(scene.questions)
                for place, category in self.named(tokens.tolist())
            ]
            places.append([place for place, _ in found])
            names.append([said for _, said in found])
        return prompt, Targets(np.stack([vision for _, (vision, _) in rooms]), np.array(places), np.array(names))

    def named(self, tokens: list[int]) -> list[tuple[int, int]]:
        """Where categories are named, by the first token of each name, and which."""
        found, place = list[tuple[int, int]](), 0
        while place < len(tokens):
            for name, category in self._names:
                if tuple(tokens[place : place + len(name)]) == name:
                    found.append((place, category))
                    place += len(name)
                    break
            else:
                place += 1
        return found
