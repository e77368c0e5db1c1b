"""The model of every family: vision tower, language model, head, and the plain forward pass.

The plain pass treats sequences as independent rows; it is what the scene tree (`tree.py`) must equal.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, Shaped

from jaxvsr.models.attention import causal_attention
from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.language import DeepStack, LanguageModel
from jaxvsr.models.layers import LANES, ParamInit
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import ModelConfig, Remat
from jaxvsr.models.sharding import gathered, parts_of, platform, split
from jaxvsr.models.tree_batch import VisionInput

FLOAT32 = jnp.dtype("float32")


class QwenVL(nnx.Module):
    """The whole model. Parameter names are Hugging Face's without the leading `model.`, layers on a leading axis."""

    def __init__(
        self, config: ModelConfig, *, lora: LoraConfig | None = None, seed: int = 0, dtype: jnp.dtype | None = None
    ):
        init = ParamInit(jnp.dtype(dtype or config.dtype), lora, seed)
        self.config = config
        self.visual = family_of(config).tower(config.vision, init)
        self.language_model = LanguageModel(config.text, init)
        if not config.text.tie_word_embeddings:
            self.lm_head = nnx.Dict(weight=nnx.Param(init.normal((config.text.vocab_size, config.text.hidden_size))))

    def head(self, dtype: jnp.dtype) -> Float[Array, "vocab H"]:
        """The head's weight, whole over fsdp. Make it before a loop: in there it would be gathered in every round."""
        holder = self.language_model.embed_tokens if self.config.text.tie_word_embeddings else self.lm_head
        return split(gathered(holder["weight"][...].astype(dtype), "lm_head.weight"), "vocabulary", None)

    def logits(
        self, hidden: Float[Array, "*batch H"], head: Float[Array, "vocab H"] | None = None
    ) -> Float[Array, "*batch vocab"]:
        """Final norm and head, which may be given; the product accumulates in float32 or wider."""
        hidden = split(self.language_model.norm(hidden), "scenes")
        wide = jnp.promote_types(hidden.dtype, jnp.float32)
        weight = self.head(hidden.dtype) if head is None else head
        logits = jnp.einsum("...h,wh->...w", hidden, weight, preferred_element_type=wide)
        return split(logits, "scenes", *[None] * (logits.ndim - 2), "vocabulary")

    def logits_in_blocks(
        self, hidden: Float[Array, "rows H"], head: Float[Array, "vocab H"]
    ) -> Float[Array, "rows blocks width"]:
        """The same in blocks of neighbouring tokens, with -inf behind the vocabulary's end; `head` is this model's.

        A block has 128 tokens, or fewer so that devices among which the vocabulary is split have whole blocks. A TPU
        keeps the last two axes of an array in tiles of 8 × 128: cut up after the product, logits would be moved twice,
        which takes longer than the product. Elsewhere cutting up costs nothing, and a product of matrices is faster.
        """
        parts = parts_of(len(head), "vocabulary")
        width = LANES if parts == 1 else math.gcd(LANES, len(head) // parts)
        if platform() == "tpu" and len(head) % width == 0:
            hidden = split(self.language_model.norm(hidden), "scenes")
            wide = jnp.promote_types(hidden.dtype, jnp.float32)
            blocks = split(head.reshape(-1, width, head.shape[-1]), "vocabulary", None, None)
            logits = jnp.einsum("rh,bwh->rbw", hidden, blocks, preferred_element_type=wide)
        else:
            logits = in_blocks(self.logits(hidden, head), width, -jnp.inf)
        return split(logits, "scenes", "vocabulary")

    def embed(
        self,
        tokens: Int[Array, "S V"],
        vision_index: Int[Array, "S V"],
        features: Float[Array, "S U W"] | None,
        dtype: jnp.dtype,
    ) -> Float[Array, "S V H"]:
        """Token embeddings, with merged vision tokens where `vision_index` is not negative."""
        text = self.language_model.embed(tokens, dtype)
        if features is None:
            return text
        merged = features[..., : text.shape[-1]].astype(dtype)
        seen = jnp.take_along_axis(merged, jnp.maximum(vision_index, 0)[..., None], axis=1)
        return split(jnp.where((vision_index >= 0)[..., None], seen, text), "scenes")

    def deepstack(self, features: Float[Array, "S U W"] | None, vision_index: Int[Array, "S V"]) -> DeepStack | None:
        """What the tower's features add behind the first layers; None in families without DeepStack, and for text."""
        count = len(self.config.vision.deepstack_indexes)
        if features is None or not count:
            return None
        levels = features.reshape(*features.shape[:2], 1 + count, -1)[:, :, 1:]
        return DeepStack(jnp.moveaxis(levels, 2, 0), vision_index)

    def __call__(
        self,
        tokens: Int[Array, "B X"],
        positions: Int[Array, "B X 3"],
        *,
        vision_index: Int[Array, "B X"] | None = None,
        vision: VisionInput | None = None,
        features: Float[Array, "B U W"] | None = None,
        dtype: jnp.dtype = FLOAT32,
        remat: Remat = "none",
        attention_chunk: int = 256,
    ) -> Float[Array, "B X H"]:
        """Hidden states of right-padded sequences, before the final norm. Padding does not change real tokens."""
        if vision is not None:
            features = self.visual(vision, dtype, remat != "none")
        if vision_index is None:
            vision_index = jnp.full(tokens.shape, -1)
        x = self.embed(tokens, vision_index, features, dtype)

        def attend(query: Array, key: Array, value: Array) -> tuple[Array, None]:
            query, key, value = (jnp.moveaxis(part, 2, 1) for part in (query, key, value))
            return jnp.moveaxis(causal_attention(query, key, value, attention_chunk), 1, 2), None

        rotary, deepstack = self.language_model.rotary(positions, dtype), self.deepstack(features, vision_index)
        x, _ = self.language_model(x, rotary, attend, remat, deepstack=deepstack)
        return x


def in_blocks(values: Shaped[Array, "rows size"], width: int, filling: Any) -> Shaped[Array, "rows blocks width"]:
    """Rows cut into blocks, the last one filled up."""
    spare = -values.shape[1] % width
    if spare:
        values = jnp.pad(values, [(0, 0), (0, spare)], constant_values=filling)
    return values.reshape(len(values), -1, width)


# A model without its arrays: its static half, and the shapes of its state.
Definition = tuple[nnx.GraphDef, nnx.State]


@functools.cache
def parameter_shapes(
    config: ModelConfig, lora: LoraConfig | None = None, dtype: jnp.dtype | None = None
) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Name, shape and dtype of every parameter, in the order of the forward pass. Uses no memory and no device."""
    names: list[str] = []

    def leaves() -> list[Array]:
        parameters = flat_parameters(QwenVL(config, lora=lora, dtype=dtype))
        names.extend(parameters)
        return list(parameters.values())

    shapes = jax.eval_shape(leaves)  # a list, because it would sort the names of a dictionary
    return MappingProxyType(dict(zip(names, shapes, strict=True)))


def flat_parameters(model: QwenVL) -> dict[str, Array]:
    """`{"language_model.layers.self_attn.q_proj.weight": array [L, out, in], …}`, in the order of the forward pass."""
    return {name: leaf[...] for name, leaf in _parameters(model, "")}


def _parameters(node: nnx.Module | nnx.Dict, prefix: str) -> Iterator[tuple[str, nnx.Param]]:
    """The parameters of a module by name, in the order in which its constructor made them."""
    for name, value in node.items() if isinstance(node, nnx.Dict) else vars(node).items():
        if isinstance(value, nnx.Param):
            yield prefix + name, value
        elif isinstance(value, nnx.Module | nnx.Dict):
            yield from _parameters(value, f"{prefix}{name}.")


def model_definition(config: ModelConfig, lora: LoraConfig | None = None) -> Definition:
    """The model without its arrays; `bind` adds them."""
    return nnx.split(nnx.eval_shape(lambda: QwenVL(config, lora=lora)))


def bind(definition: Definition, parameters: dict[str, Array]) -> QwenVL:
    """The model with these arrays. Names that the definition does not have are ignored: a model defined without LoRA,
    bound to the parameters of one with LoRA, is the base model."""
    graph, abstract = definition
    wanted = flatten_dict(nnx.to_pure_dict(abstract), sep=".")
    chosen = unflatten_dict({name: parameters[name] for name, leaf in wanted.items() if leaf is not None}, sep=".")
    state = jax.tree.map(lambda leaf: leaf, abstract)
    nnx.replace_by_pure_dict(state, chosen)
    return nnx.merge(graph, state)
