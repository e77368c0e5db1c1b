"""The first lesson of the small base model: to say at each vision token of a room's video what that token shows, and at
the name of each category, after the video, what was seen of it.

The first layers of the language model are trained, with the tower, on the targets of `seen_objects`, each said with one
token of its own alphabet: the categories' words, digits, and letters that stand for numbers. What is said there is what
the layers above can read when they answer a question.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float64, Int, Int32, UInt8

from jaxvsr.data.frames import FrameStore
from jaxvsr.data.rooms.seen_objects import CATEGORIES, KINDS_OF_TARGET, NOT_SAID, seen_objects
from jaxvsr.data.splits import read_splits
from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.model_folder import open_folder
from jaxvsr.models.huggingface.write_model_folder import save_folder
from jaxvsr.models.inputs.processor import SceneProcessor, ScenePrompt, Video
from jaxvsr.models.qwen_vl import QwenVL, bind, model_definition, parameter_shapes
from jaxvsr.models.tree_batch import TreePrompt

NOTHING = "nothing"
_NOTHING_WEIGHT = 0.1  # most squares show no object
_WARMUP_STEPS = 50
_READ_AHEAD = 4  # steps
_LONGEST_GAP = 3  # positions between two names
_REPORTED_STEPS = 25

Weights = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """How to teach: `layers` of the language model, with `scenes` rooms a step, `frames` of each video."""

    steps: int = 1200
    scenes: int = 8
    frames: int = 16
    layers: int = 4
    learning_rate: float = 1e-3
    seed: int = 0


def teach_to_look(model: Path, data: Path, out: Path, lesson: Lesson, on_progress: Callable[[str], object]) -> None:
    """Train the model of a folder on a data folder of procedural rooms with frames, and write it to `out`.

    Raises:
        InputError: the folders are not what they should be, or the model has too few layers.
    """
    folder = open_folder(model)
    depth = folder.config.text.num_hidden_layers
    if lesson.layers >= depth:
        raise InputError(f"{lesson.layers} layers that look: {model} has {depth}, and some must be left to answer")
    processor = SceneProcessor.from_folder(folder.path)
    looking = dataclasses.replace(
        folder.config, text=dataclasses.replace(folder.config.text, num_hidden_layers=lesson.layers)
    )
    whole = {name: np.asarray(folder.read(name)) for name in parameter_shapes(folder.config)}
    weights = {name: jnp.asarray(whole[name][: leaf.shape[0]]) for name, leaf in parameter_shapes(looking).items()}
    rate = optax.warmup_cosine_decay_schedule(
        0.0, lesson.learning_rate, min(_WARMUP_STEPS, lesson.steps // 2), lesson.steps
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01))
    definition, alphabets = model_definition(looking), _alphabets(processor)
    words = alphabets[0][1:]
    rng = np.random.default_rng([lesson.seed, 1])

    @jax.jit
    def step(
        weights: Weights, state: Any, prompt: TreePrompt, names: Array, gaps: Array, targets: Array
    ) -> tuple[Weights, Any, Array]:
        def loss(weights: Weights) -> tuple[Array, Array]:
            return looking_loss(bind(definition, weights), prompt, names, gaps, targets, alphabets)

        (_, right), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state, right

    rooms = _Rooms(data, lesson.frames, folder.config.vision.merged_patch)
    state, start, rights = optimizer.init(weights), time.monotonic(), list[Any]()
    for number, batch in enumerate(rooms.batches(lesson), start=1):
        prompt = processor.tree_prompt([ScenePrompt((Video(frames, times),), ("?",)) for frames, times, *_ in batch])
        if len(set(prompt.scene_length.tolist())) > 1:
            raise InputError(f"{data}: frames differ in size; store all with one --max-pixels")
        # In another order and further behind in each scene: a name is to be known by its word, not by its place.
        order = np.argsort(rng.random((len(batch), len(words))), axis=1)
        gaps = np.cumsum(rng.integers(1, _LONGEST_GAP + 1, order.shape), axis=1)
        targets = np.stack(
            [np.concatenate([seen, of_names[row]]) for (*_, seen, of_names), row in zip(batch, order, strict=True)]
        )
        weights, state, right = step(weights, state, prompt, words[order], gaps, targets)
        rights.append(right)
        if number % _REPORTED_STEPS == 0 or number == lesson.steps:
            recent = 100 * np.mean(rights[-_REPORTED_STEPS:], axis=0)
            said = ", ".join(f"{name} {share:.0f} %" for name, share in zip(KINDS_OF_TARGET, recent[0], strict=True))
            named = ", ".join(f"{share:.0f} %" for share in recent[1, 1:])
            seconds = (time.monotonic() - start) / number
            on_progress(f"step {number}/{lesson.steps}  right: {said}; of names {named}  {seconds:.2f} s/step")

    def taught(name: str, layer: int | None) -> np.ndarray:
        if layer is None:
            return np.asarray(weights[name])
        part = weights[name] if layer < len(weights[name]) else whole[name]
        return np.asarray(part[layer])

    save_folder(out, folder, taught)


def looking_loss(
    model: QwenVL,
    prompt: TreePrompt,
    names: Int[Array, "S N"],
    gaps: Int[Array, "S N"],
    targets: Int[Array, "S UN 5"],
    alphabets: Sequence[Int[np.ndarray, "_"]],
) -> tuple[Float[Array, ""], Float[Array, "2 5"]]:
    """The sum over kinds of target of the mean cross-entropy, at vision tokens and at names, each among the tokens of
    its alphabet; and for both the share of targets that are the likeliest token, without those that show nothing.

    Args:
        names: tokens that follow the scene.
        gaps: their positions, counted from the first behind the scene.
        targets: at the scene's vision tokens, in the order of the tower, then at `names`.
    """
    count = names.shape[1]
    behind = prompt.scene_length[:, None] + jnp.arange(count)  # all scenes are as long: the padding is behind
    spare = [(0, 0), (0, count)]
    put = jax.vmap(lambda row, place, new: row.at[place].set(new))
    tokens = put(jnp.pad(prompt.scene_tokens, spare), behind, names)
    place = jnp.broadcast_to((prompt.question_start[:, None] + gaps)[..., None], (*behind.shape, 3))
    positions = put(jnp.pad(prompt.scene_positions, [*spare, (0, 0)]), behind, place)
    index = put(jnp.pad(prompt.vision_index, spare, constant_values=-1), behind, jnp.full(behind.shape, -1))
    hidden = model(tokens, positions, vision_index=index, vision=prompt.pixels)
    vision = jnp.argsort(jnp.where(index < 0, index.size, index), axis=1)[:, : targets.shape[1] - count]
    read = jnp.concatenate([vision, behind], axis=1)
    logits = model.logits(jnp.take_along_axis(hidden, read[..., None], axis=1))
    seen = slice(0, vision.shape[1])
    losses, shares = zip(
        *(_loss_and_shares(logits[:, part], targets[:, part], alphabets) for part in (seen, slice(seen.stop, None))),
        strict=True,
    )
    return sum(losses), jnp.stack(shares)


def _loss_and_shares(
    logits: Float[Array, "S N W"], targets: Int[Array, "S N 5"], alphabets: Sequence[Int[np.ndarray, "_"]]
) -> tuple[Float[Array, ""], Float[Array, " 5"]]:
    total, shares = jnp.zeros(()), []
    for kind, alphabet in enumerate(alphabets):
        among, target = logits[..., alphabet], targets[..., kind]
        shows_nothing = target == 0 if kind == 0 else jnp.zeros(target.shape, bool)
        weight = jnp.where(target == NOT_SAID, 0.0, jnp.where(shows_nothing, _NOTHING_WEIGHT, 1.0))
        wrong = optax.softmax_cross_entropy_with_integer_labels(among, jnp.maximum(target, 0))
        total += (wrong * weight).sum() / jnp.maximum(weight.sum(), 1)
        counted = (target != NOT_SAID) & ~shows_nothing
        shares.append(((among.argmax(-1) == target) & counted).sum() / jnp.maximum(counted.sum(), 1))
    return total, jnp.stack(shares)


def _alphabets(processor: SceneProcessor) -> list[Int[np.ndarray, "_"]]:
    """The tokens of each kind of target: a word's first, digits, and letters in order."""
    first = lambda text: processor.chat.tokenizer.encode(text, add_special_tokens=False)[0]  # noqa: E731
    words = [first(f" {word}") for word in (NOTHING, *CATEGORIES)]
    digits = [first(str(number)) for number in range(KINDS_OF_TARGET["how many"])]
    letters = iter([first(chr(code)) for code in (*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1))])
    drawn = {name: [next(letters) for _ in range(KINDS_OF_TARGET[name])] for name in ("direction", "distance", "since")}
    return [np.array(kind) for kind in (words, digits, drawn["since"], drawn["direction"], drawn["distance"])]


_Targets = tuple[Int32[np.ndarray, "U 5"], Int32[np.ndarray, "N 5"]]
_Scene = tuple[
    UInt8[np.ndarray, "F h w 3"], Float64[np.ndarray, " F"], Int32[np.ndarray, "U 5"], Int32[np.ndarray, "N 5"]
]


class _Rooms:
    """The rooms of a data folder's training split: frames, their seconds, and the targets."""

    def __init__(self, data: Path, frames: int, square: int):
        self._data, self._frames, self._square = data, frames, square
        self._store = FrameStore(data)
        self._names: Sequence[str] = sorted(read_splits(data)["train"])
        self._targets: dict[str, _Targets] = {}

    def batches(self, lesson: Lesson) -> Iterator[list[_Scene]]:
        """The rooms of every step: all in a new order each epoch."""
        rng = np.random.default_rng(lesson.seed)
        needed = lesson.steps * lesson.scenes
        order = [name for _ in range(-(-needed // len(self._names))) for name in rng.permutation(self._names)]
        with ThreadPoolExecutor(_READ_AHEAD) as pool:
            waiting: list[list[Future[_Scene]]] = []
            for start in range(0, needed, lesson.scenes):
                waiting.append([pool.submit(self._scene, name) for name in order[start : start + lesson.scenes]])
                if len(waiting) > _READ_AHEAD:
                    yield [scene.result() for scene in waiting.pop(0)]
            for rest in waiting:
                yield [scene.result() for scene in rest]

    def _scene(self, name: str) -> _Scene:
        frames = self._store.read(name, self._frames)
        if name not in self._targets:
            rows, columns = (side // self._square for side in frames.pixels.shape[1:3])
            self._targets[name] = seen_objects(self._data / "scans" / name, frames.indices, rows, columns)
        return frames.pixels, frames.timestamps, *self._targets[name]
