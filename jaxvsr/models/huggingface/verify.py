"""Whether this package and transformers compute the same, with the user's weights.

Both run in float32 on one synthetic video and question, with the same tokens, pixels and positions (ours; see
`positions.py` for why positions are passed). This needs torch, but not torchvision, and memory for one float32 copy of
the model at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Int32

from jaxvsr.errors import InputError
from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.huggingface.model_folder import ModelFolder, load_parameters
from jaxvsr.models.huggingface.peft_adapter import join
from jaxvsr.models.huggingface.stages import Stage, merged_weights
from jaxvsr.models.huggingface.transformers_class import transformers_class
from jaxvsr.models.inputs.processor import SceneProcessor, ScenePrompt, Video
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import ModelConfig, stack_of
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tree_batch import TreePrompt
from jaxvsr.models.vision import normalise_pixels

QUESTION = "How many chairs are in this room? Please answer the question using a single word or phrase."
FRAMES, MERGED_SIDE, SECONDS_PER_FRAME = 6, 4, 1.0  # a side in merged patches


@dataclasses.dataclass(frozen=True)
class ModelComparison:
    """The results of two implementations for the same prompt."""

    prompt_tokens: int
    logit_scale: float  # largest absolute logit of transformers
    logit_difference: float  # largest absolute difference, over all prompt tokens and the whole vocabulary
    ours: Int32[np.ndarray, "R"]  # greedy tokens
    theirs: Int32[np.ndarray, "R"]

    @property
    def relative_difference(self) -> float:
        return self.logit_difference / self.logit_scale

    @property
    def tokens_equal(self) -> int:
        """How many greedy tokens are equal before the first that is not."""
        unequal = np.flatnonzero(self.ours != self.theirs)
        return int(unequal[0]) if len(unequal) else len(self.ours)


@dataclasses.dataclass(frozen=True, eq=False)
class _Sequence:
    """The prompt as one sequence, as transformers takes it."""

    tokens: Int32[np.ndarray, "X"]
    positions: Int32[np.ndarray, "X 3"]
    vision_index: Int32[np.ndarray, "X"]
    prompt: TreePrompt


def compare(folder: ModelFolder, answer_tokens: int = 32) -> ModelComparison:
    """Logits of a prompt and the greedy tokens after it, by transformers and by this package."""
    if folder.style == "stacked":
        raise InputError(f"{folder.path}: transformers cannot read this folder; convert it with to-hf first")
    sequence = _sequence(_processor(folder))
    their_logits, theirs = _transformers(folder, sequence, answer_tokens)
    with jax.default_matmul_precision("highest"):  # accelerators otherwise multiply float32 with fewer bits
        our_logits, ours = _jax(folder, sequence, answer_tokens)
    return ModelComparison(
        prompt_tokens=len(sequence.tokens),
        logit_scale=float(np.abs(their_logits).max()),
        logit_difference=float(np.abs(our_logits - their_logits).max()),
        ours=ours,
        theirs=theirs,
    )


def merging_difference(folder: ModelFolder, stages: Sequence[Stage]) -> float:
    """How much rounding merged weights to the base's dtype changes the logits: the largest absolute difference.

    It compares the merged weights with the base plus one joined adapter, on the prompt of `compare`.
    """
    sequence = _sequence(_processor(folder))
    joined, weight = join(stages), merged_weights(folder, stages)
    base = load_parameters(folder, "float32")
    with jax.default_matmul_precision("highest"):
        unmerged = {**base, **joined.weights}
        adapter_logits = np.asarray(_forward(folder.config, unmerged, sequence, joined.lora)(sequence.tokens))
        for module in joined.modules:
            name = f"{module}.weight"
            layers = range(len(base[name])) if stack_of(name) else None
            merged = np.stack([weight(name, layer) for layer in layers]) if layers is not None else weight(name, None)
            base[name] = merged.astype(np.float32)
        merged_logits = np.asarray(_forward(folder.config, base, sequence)(sequence.tokens))
    return float(np.abs(merged_logits - adapter_logits).max())


def _processor(folder: ModelFolder) -> SceneProcessor:
    """One that leaves the video its size, also where the folder's limits are below it."""
    return SceneProcessor.from_folder(folder.path, max_pixels=(MERGED_SIDE * folder.config.vision.merged_patch) ** 2)


def _forward(
    config: ModelConfig, parameters: Mapping[str, np.ndarray], sequence: _Sequence, lora: LoraConfig | None = None
) -> Callable[[Int32[np.ndarray, "X"]], jax.Array]:
    """A function from tokens to logits [X, vocab] in float32, by the plain forward pass over the sequence's media."""
    definition, dtype = model_definition(config, lora), jnp.dtype("float32")
    weights = {name: jnp.asarray(leaf) for name, leaf in parameters.items()}
    vision = jax.tree.map(jnp.asarray, sequence.prompt.vision)
    positions, index = jnp.asarray(sequence.positions)[None], jnp.asarray(sequence.vision_index)[None]
    features = jax.jit(lambda weights: bind(definition, weights).visual(vision, dtype))(weights)

    @jax.jit
    def forward(weights: dict[str, jax.Array], tokens: jax.Array) -> jax.Array:
        model = bind(definition, weights)
        return model.logits(model(tokens[None], positions, vision_index=index, features=features, dtype=dtype))[0]

    return lambda tokens: forward(weights, jnp.asarray(tokens))


def _sequence(processor: SceneProcessor) -> _Sequence:
    """A video of moving colours, so that no two frames are equal."""
    side = MERGED_SIDE * processor.config.vision.merged_patch
    rows, columns = np.mgrid[:side, :side] / side
    waves = [np.sin(6 * (rows * (c + 1) + columns * (3 - c)) + frame) for frame in range(FRAMES) for c in range(3)]
    frames = ((np.stack(waves).reshape(FRAMES, 3, side, side).transpose(0, 2, 3, 1) + 1) * 127).astype(np.uint8)
    video = Video(frames, np.arange(FRAMES) * SECONDS_PER_FRAME)
    prompt = processor.tree_prompt([ScenePrompt((video,), (QUESTION,))])
    scene, question = int(prompt.scene_length[0]), int(prompt.question_length[0, 0])
    text = prompt.question_start[0] + np.broadcast_to(np.arange(question)[:, None], (question, 3))
    return _Sequence(
        np.concatenate([prompt.scene_tokens[0, :scene], prompt.question_tokens[0, 0, :question]]),
        np.concatenate([prompt.scene_positions[0, :scene], text]).astype(np.int32),
        np.concatenate([prompt.vision_index[0, :scene], np.full(question, -1, np.int32)]),
        prompt,
    )


def _jax(
    folder: ModelFolder, sequence: _Sequence, answer_tokens: int
) -> tuple[Float[np.ndarray, "X vocab"], Int32[np.ndarray, "R"]]:
    """The plain forward pass, repeated for each token: slow, but no cache can hide a difference."""
    length = len(sequence.tokens)
    answer_positions = sequence.positions[-1].max() + 1 + np.arange(answer_tokens)
    longer = _Sequence(
        np.concatenate([sequence.tokens, np.zeros(answer_tokens, np.int32)]),
        np.concatenate([sequence.positions, np.repeat(answer_positions[:, None], 3, axis=1)]).astype(np.int32),
        np.concatenate([sequence.vision_index, np.full(answer_tokens, -1, np.int32)]),
        sequence.prompt,
    )
    forward = _forward(folder.config, load_parameters(folder, "float32"), longer)
    tokens = longer.tokens
    first = np.asarray(forward(tokens)[:length])
    for at in range(length, length + answer_tokens):
        tokens[at] = int(jnp.argmax(forward(tokens)[at - 1]))
    return first, tokens[length:]


def _transformers(
    folder: ModelFolder, sequence: _Sequence, answer_tokens: int
) -> tuple[Float[np.ndarray, "X vocab"], Int32[np.ndarray, "R"]]:
    architecture = transformers_class(family_of(folder.config).architecture)
    import torch

    model = architecture.from_pretrained(folder.path, dtype=torch.float32, local_files_only=True).eval()

    def tensor(array: Int[np.ndarray, "..."]) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array)).long()

    config, pixels_of_tree = folder.config.vision, sequence.prompt.pixels
    assert pixels_of_tree is not None
    units = np.asarray(pixels_of_tree.patches)[0].reshape(-1, config.merge_unit, config.patch_values)
    seen = units[sequence.vision_index[sequence.vision_index >= 0]].reshape(-1, config.patch_values)
    pixels = np.array(normalise_pixels(jnp.asarray(seen), config, jnp.dtype("float32")))
    side = MERGED_SIDE * config.spatial_merge_size
    inputs = {
        "input_ids": tensor(sequence.tokens[None]),
        "position_ids": tensor(sequence.positions.T[:, None]),
        "pixel_values_videos": torch.as_tensor(pixels),
        "video_grid_thw": torch.tensor([[FRAMES // config.temporal_patch_size, side, side]]),
    }
    answer: list[int] = []
    with torch.no_grad():
        output = model(**inputs, use_cache=True)
        cache = "cache" if "cache" in output else "past_key_values"  # its name before transformers 5.24
        prompt_logits = output.logits[0].numpy().copy()
        next_position = int(sequence.positions[-1].max()) + 1
        for step in range(answer_tokens):
            answer.append(int(output.logits[0, -1].argmax()))
            if step + 1 < answer_tokens:
                output = model(
                    input_ids=torch.tensor([[answer[-1]]]),
                    position_ids=torch.full((3, 1, 1), next_position + step),
                    use_cache=True,
                    **{cache: output[cache]},
                )
    return prompt_logits, np.array(answer, np.int32)
