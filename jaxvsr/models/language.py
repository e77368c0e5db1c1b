"""The language model: Qwen2's or Qwen3's, with M-RoPE.

Layers are scanned over stacked weights, or unrolled if there are few.

A layer does not know which tokens see each other: it calls the given `attend(query, key, value)`, and returns what that
keeps (keys and values for a cache, or nothing).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxvsr.models.layers import (
    Linear,
    ParamInit,
    RMSNorm,
    SwiGLU,
    mrope,
    mrope_axes,
    rematerialised,
    rotate,
    unstacked,
)
from jaxvsr.models.model_config import Remat, TextConfig
from jaxvsr.models.sharding import split

# query [B, X, K, M, D], key and value [B, X, K, D] -> attended values [B, X, K, M, D] and what to keep of this layer
Attend = Callable[[Array, Array, Array], tuple[Array, Any]]

Read = Callable[[Array], Array]  # [B, X, …] -> [B, Y, …]: the tokens whose hidden states are read after the last layer

# Up to this depth layers are unrolled: XLA then writes no stacked residuals, and the last layer computes only what is
# read. Deeper models are scanned, so that compile time does not grow with depth.
UNROLLED_LAYERS = 8


def every_token(x: Array) -> Array:
    return x


class Attention(nnx.Module):
    """Grouped-query attention: K key heads with M query heads each (N = K·M)."""

    def __init__(self, config: TextConfig, name: str, init: ParamInit, stack: tuple[int, ...]):
        width, dim, bias = config.hidden_size, config.head_dim, config.attention_bias
        heads, key_heads = config.num_attention_heads, config.num_key_value_heads
        self.groups = (key_heads, heads // key_heads)
        made: dict[str, Any] = {"init": init, "stack": stack}
        self.q_proj = Linear(f"{name}.q_proj", width, heads * dim, bias=bias, heads=heads, **made)
        self.k_proj = Linear(f"{name}.k_proj", width, key_heads * dim, bias=bias, heads=key_heads, **made)
        self.v_proj = Linear(f"{name}.v_proj", width, key_heads * dim, bias=bias, heads=key_heads, **made)
        self.o_proj = Linear(f"{name}.o_proj", heads * dim, width, bias=False, heads=heads, **made)
        norm = config.query_key_norm
        self.q_norm = RMSNorm(dim, eps=config.rms_norm_eps, init=init, stack=stack) if norm else None
        self.k_norm = RMSNorm(dim, eps=config.rms_norm_eps, init=init, stack=stack) if norm else None

    def __call__(
        self, x: Float[Array, "B X H"], rotary: tuple[Array, Array], attend: Attend, read: Read = every_token
    ) -> tuple[Float[Array, "B Y H"], Any]:
        key_heads, group = self.groups
        readers = read(x)
        query = self.q_proj(readers).reshape(*readers.shape[:-1], key_heads * group, -1)
        key = self.k_proj(x).reshape(*x.shape[:-1], key_heads, -1)
        query, key = split(query, "scenes", None, "heads"), split(key, "scenes", None, "heads")
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rotate(query, *(read(part) for part in rotary)), rotate(key, *rotary)
        value = split(self.v_proj(x).reshape(*x.shape[:-1], key_heads, -1), "scenes", None, "heads")
        mixed, kept = attend(query.reshape(*readers.shape[:-1], key_heads, group, -1), key, value)
        return self.o_proj(mixed.reshape(*readers.shape[:-1], -1)), kept


class DecoderLayer(nnx.Module):
    def __init__(self, config: TextConfig, name: str, init: ParamInit, stack: tuple[int, ...]):
        width, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(width, eps=eps, init=init, stack=stack)
        self.self_attn = Attention(config, f"{name}.self_attn", init, stack)
        self.post_attention_layernorm = RMSNorm(width, eps=eps, init=init, stack=stack)
        self.mlp = SwiGLU(f"{name}.mlp", width, config.intermediate_size, bias=False, init=init, stack=stack)

    def __call__(
        self, x: Float[Array, "B X H"], rotary: tuple[Array, Array], attend: Attend, read: Read = every_token
    ) -> tuple[Float[Array, "B Y H"], Any]:
        """With `read`, only the tokens that it picks have outputs; the others give keys and values only."""
        mixed, kept = self.self_attn(split(self.input_layernorm(x), "scenes"), rotary, attend, read)
        x = split(read(x) + mixed, "scenes")
        return split(x + self.mlp(split(self.post_attention_layernorm(x), "scenes")), "scenes"), kept


@dataclasses.dataclass(frozen=True)
class DeepStack:
    """What the vision tower adds to the hidden states of vision tokens after the first layers, one level per layer.

    `index` [S, V] says which vision token stands at each of the first V tokens, as `TreePrompt.vision_index` does.
    """

    levels: Float[Array, "levels S U H"]
    index: Int[Array, "S V"]

    def added(self, x: Float[Array, "S X H"], layer: int | Int[Array, ""]) -> Float[Array, "S X H"]:
        """The output `x` of a layer with its level added; unchanged after the last level. `layer` may be traced."""
        count, size = len(self.levels), self.index.shape[1]
        level = jax.lax.dynamic_index_in_dim(self.levels, jnp.minimum(layer, count - 1), keepdims=False)
        seen = jnp.take_along_axis(level.astype(x.dtype), jnp.maximum(self.index, 0)[..., None], axis=1)
        here = (self.index >= 0)[..., None] & (layer < count)
        return split(x.at[:, :size].add(jnp.where(here, seen, jnp.zeros((), x.dtype))), "scenes")


class LanguageModel(nnx.Module):
    def __init__(self, config: TextConfig, init: ParamInit):
        self.config = config
        self.embed_tokens = nnx.Dict(weight=nnx.Param(init.normal((config.vocab_size, config.hidden_size))))
        self.layers = DecoderLayer(config, "language_model.layers", init, (config.num_hidden_layers,))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, init=init)

    def embed(
        self, tokens: Int[Array, "*batch"], dtype: jnp.dtype, table: Float[Array, "vocab H"] | None = None
    ) -> Float[Array, "*batch H"]:
        """Embeddings of tokens; `table` is the same weight where it is not split over fsdp."""
        if table is not None:
            return split(jnp.take(table, split(tokens, "scenes"), axis=0, mode="clip").astype(dtype), "scenes")
        tokens = split(tokens, "scenes over data")
        x = jnp.take(self.embed_tokens["weight"][...], tokens, axis=0, mode="clip").astype(dtype)
        # A step between, as the table lies. Without it XLA may go from there to whole scenes by way of all scenes'
        # states on every device, as it does for eight CPU devices on three axes.
        x = split(x, "scenes over data", *[None] * (x.ndim - 2), "table width")
        return split(x, "scenes")

    def rotary(self, positions: Int[Array, "*batch 3"], dtype: jnp.dtype) -> tuple[Array, Array]:
        """Cosine and sine for `positions`, from float32 angles (float64 where `dtype` is)."""
        config, wide = self.config, jnp.promote_types(dtype, jnp.float32)
        axes = mrope_axes(config.mrope_section, config.mrope_interleaved)
        return mrope(positions, config.head_dim, config.rope_theta, axes, wide)

    def __call__(
        self,
        x: Float[Array, "B X H"],
        rotary: tuple[Array, Array],
        attend: Attend,
        remat: Remat = "none",
        last: tuple[Attend, Read] | None = None,
        unroll: bool | None = None,
        deepstack: DeepStack | None = None,
    ) -> tuple[Array, Any]:
        """All layers, without the final norm. Returns the hidden states and what `attend` kept, stacked over layers.

        Args:
            last: (attend, read) of the last layer, if only the tokens [B, Y] that `read` picks are used after it.
            unroll: layer by layer instead of a scan; None: if there are at most `UNROLLED_LAYERS`.
            deepstack: levels that are added after the first layers. The tokens that `read` picks must be text.
        """
        last_attend, read = last or (attend, every_token)
        depth = self.config.num_hidden_layers
        if unroll is None:
            unroll = depth <= UNROLLED_LAYERS
        if not unroll:
            definition, weights = nnx.split(self.layers)

            def scanned(x: Array, inputs: tuple[Any, Array]) -> tuple[Array, Any]:
                weights, number = inputs
                x, kept = nnx.merge(definition, weights)(x, rotary, attend)
                return x if deepstack is None else deepstack.added(x, number), kept

            one = rematerialised(scanned, remat, in_scan=True)
            x, kept = jax.lax.scan(one, x, (weights, jnp.arange(depth)))
            return read(x), kept
        kept = []
        for index, layer in enumerate(self.unstacked_layers()):
            how = (last_attend, read) if index == depth - 1 else (attend, every_token)
            one = rematerialised(lambda x, layer=layer, how=how: layer(x, rotary, *how), remat)
            x, kept_here = one(x)
            if deepstack is not None and index < len(deepstack.levels) and how[1] is every_token:
                x = deepstack.added(x, index)
            kept.append(kept_here)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *kept)

    def unstacked_layers(self) -> list[DecoderLayer]:
        """The layers one by one."""
        return unstacked(self.layers, self.config.num_hidden_layers)
