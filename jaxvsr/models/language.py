"""The language model: Qwen2 with M-RoPE. Layers are scanned over stacked weights.

A layer does not know how tokens see each other: it is given a function `attend(query, key, value)` and returns whatever
that function keeps (keys and values for a cache, or nothing).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxvsr.models.config import TextConfig
from jaxvsr.models.layers import Build, Linear, RMSNorm, SwiGLU, mrope, rotate

Remat = Literal["none", "full", "dots"]

# query [B, X, K, M, D], key and value [B, X, K, D] -> mixed values [B, X, K, M, D] and what to keep of this layer
Attend = Callable[[Array, Array, Array], tuple[Array, Any]]


class Attention(nnx.Module):
    """Grouped-query attention: K key heads, M query heads to each of them (N = K·M)."""

    def __init__(self, config: TextConfig, name: str, build: Build, stack: tuple[int, ...]):
        width, dim = config.hidden_size, config.head_dim
        self.groups = (config.num_key_value_heads, config.num_attention_heads // config.num_key_value_heads)
        queries, keys = config.num_attention_heads * dim, config.num_key_value_heads * dim
        self.q_proj = Linear(f"{name}.q_proj", width, queries, bias=True, build=build, stack=stack)
        self.k_proj = Linear(f"{name}.k_proj", width, keys, bias=True, build=build, stack=stack)
        self.v_proj = Linear(f"{name}.v_proj", width, keys, bias=True, build=build, stack=stack)
        self.o_proj = Linear(f"{name}.o_proj", queries, width, bias=False, build=build, stack=stack)

    def __call__(self, x: Float[Array, "B X H"], rotary: tuple[Array, Array], attend: Attend) -> tuple[Array, Any]:
        key_heads, group = self.groups
        query = rotate(self.q_proj(x).reshape(*x.shape[:-1], key_heads * group, -1), *rotary)
        key = rotate(self.k_proj(x).reshape(*x.shape[:-1], key_heads, -1), *rotary)
        value = self.v_proj(x).reshape(*x.shape[:-1], key_heads, -1)
        mixed, kept = attend(query.reshape(*x.shape[:-1], key_heads, group, -1), key, value)
        return self.o_proj(mixed.reshape(*x.shape[:-1], -1)), kept


class DecoderLayer(nnx.Module):
    def __init__(self, config: TextConfig, name: str, build: Build, stack: tuple[int, ...]):
        width, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(width, eps=eps, build=build, stack=stack)
        self.self_attn = Attention(config, f"{name}.self_attn", build, stack)
        self.post_attention_layernorm = RMSNorm(width, eps=eps, build=build, stack=stack)
        self.mlp = SwiGLU(f"{name}.mlp", width, config.intermediate_size, bias=False, build=build, stack=stack)

    def __call__(self, x: Float[Array, "B X H"], rotary: tuple[Array, Array], attend: Attend) -> tuple[Array, Any]:
        mixed, kept = self.self_attn(self.input_layernorm(x), rotary, attend)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), kept


class LanguageModel(nnx.Module):
    def __init__(self, config: TextConfig, build: Build):
        self.config = config
        self.embed_tokens = nnx.Dict(weight=nnx.Param(build.normal((config.vocab_size, config.hidden_size))))
        self.layers = DecoderLayer(config, "language_model.layers", build, (config.num_hidden_layers,))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, build=build)

    def embed(self, tokens: Int[Array, "*batch"], dtype: jnp.dtype) -> Float[Array, "*batch H"]:
        return jnp.take(self.embed_tokens["weight"][...], tokens, axis=0, mode="clip").astype(dtype)

    def rotary(self, positions: Int[Array, "*batch 3"], dtype: jnp.dtype) -> tuple[Array, Array]:
        """Cosine and sine for `positions`, from float32 angles (float64 where `dtype` is)."""
        config, wide = self.config, jnp.promote_types(dtype, jnp.float32)
        return mrope(positions, config.head_dim, config.rope_theta, config.mrope_section, wide)

    def __call__(
        self, x: Float[Array, "B X H"], rotary: tuple[Array, Array], attend: Attend, remat: Remat = "none"
    ) -> tuple[Array, Any]:
        """All layers, without the final norm. Returns the hidden states and what `attend` kept, stacked over layers."""
        definition, weights = nnx.split(self.layers)

        def layer(x: Array, weights: Any) -> tuple[Array, Any]:
            return nnx.merge(definition, weights)(x, rotary, attend)

        if remat == "full":
            layer = jax.checkpoint(layer)
        elif remat == "dots":
            layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
        return jax.lax.scan(layer, x, weights)

    def unstacked_layers(self) -> list[DecoderLayer]:
        """The layers one by one. Sliced once, outside a decode loop: inside it every step would copy them."""
        definition, weights = nnx.split(self.layers)
        return [
            nnx.merge(definition, jax.tree.map(lambda leaf, index=index: leaf[index], weights))
            for index in range(self.config.num_hidden_layers)
        ]
