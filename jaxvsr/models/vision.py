"""The vision towers of Qwen2-VL and Qwen2.5-VL, with the patch merger.

The tower reads rows of one temporal patch each (`VisionInput`): attention stays within a row, so a batch of rows needs
no packing. Qwen2.5-VL's rows are grouped by window, and every window is padded to the same number of patches: window
attention is then a reshape, and full attention the whole row.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, UInt8

from jaxvsr.models.attention import KeyValueSegment, attend
from jaxvsr.models.layers import (
    LayerNorm,
    Linear,
    ParamInit,
    RMSNorm,
    SwiGLU,
    inverse_frequencies,
    matmul_transposed,
    rotate,
)
from jaxvsr.models.model_config import VisionConfig
from jaxvsr.models.sharding import split
from jaxvsr.models.tree_batch import VisionInput

# OpenAI CLIP's, as in Hugging Face's Qwen2-VL processors.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
ROPE_THETA = 10_000.0
NORM_EPS = 1e-6


class PatchEmbed(nnx.Module):
    """A convolution whose stride is its kernel: one matrix product per patch. The weight keeps its five axes."""

    def __init__(self, config: VisionConfig, init: ParamInit):
        side = config.patch_size
        shape = (config.embed_dim, config.in_channels, config.temporal_patch_size, side, side)
        self.proj = nnx.Dict(weight=nnx.Param(init.normal(shape)))

    def __call__(self, patches: Float[Array, "*rows C"]) -> Float[Array, "*rows E"]:
        weight = self.proj["weight"][...]
        return matmul_transposed(patches, weight.reshape(weight.shape[0], -1))


# query, key and value [B, L, N, D] -> attended values [B, L, N, D]
AttendTo = Callable[[Array, Array, Array], Array]


def attend_in_rows(
    query: Float[Array, "B L N D"], key: Array, value: Array, valid: Bool[Array, "B L"]
) -> Float[Array, "B L N D"]:
    """Every patch of a row sees all valid patches of that row, and no other row."""
    query, key, value = (part.swapaxes(-2, -3) for part in (query, key, value))
    return attend(query, [KeyValueSegment(key, value, valid[:, None, None, :])]).swapaxes(-2, -3)


class VisionAttention(nnx.Module):
    def __init__(self, config: VisionConfig, name: str, init: ParamInit, stack: tuple[int, ...]):
        width = config.embed_dim
        self.qkv = Linear(f"{name}.qkv", width, 3 * width, bias=True, init=init, stack=stack)
        self.proj = Linear(f"{name}.proj", width, width, bias=True, init=init, stack=stack)
        self.num_heads = config.num_heads

    def __call__(
        self,
        x: Float[Array, "B L E"],
        cos: Float[Array, "B L half"],
        sin: Float[Array, "B L half"],
        attend_to: AttendTo,
    ) -> Float[Array, "B L E"]:
        heads = self.qkv(x).reshape(*x.shape[:-1], 3, self.num_heads, -1)
        query, key = rotate(heads[..., 0, :, :], cos, sin), rotate(heads[..., 1, :, :], cos, sin)
        return self.proj(attend_to(query, key, heads[..., 2, :, :]).reshape(x.shape))


class VisionMlp(nnx.Module):
    """Qwen2-VL's two-layer MLP with quick-GELU."""

    def __init__(self, config: VisionConfig, name: str, init: ParamInit, stack: tuple[int, ...]):
        width, inner = config.embed_dim, config.intermediate_size
        self.fc1 = Linear(f"{name}.fc1", width, inner, bias=True, init=init, stack=stack)
        self.fc2 = Linear(f"{name}.fc2", inner, width, bias=True, init=init, stack=stack)

    def __call__(self, x: Float[Array, "B L E"]) -> Float[Array, "B L E"]:
        h = self.fc1(x)
        return self.fc2(h * jax.nn.sigmoid(1.702 * h))


class VisionBlock(nnx.Module):
    def __init__(self, config: VisionConfig, name: str, init: ParamInit, stack: tuple[int, ...]):
        norm = RMSNorm if config.window_size else LayerNorm
        self.norm1 = norm(config.embed_dim, eps=NORM_EPS, init=init, stack=stack)
        self.norm2 = norm(config.embed_dim, eps=NORM_EPS, init=init, stack=stack)
        self.attn = VisionAttention(config, f"{name}.attn", init, stack)
        if config.window_size:
            width, inner = config.embed_dim, config.intermediate_size
            self.mlp: SwiGLU | VisionMlp = SwiGLU(f"{name}.mlp", width, inner, bias=True, init=init, stack=stack)
        else:
            self.mlp = VisionMlp(config, f"{name}.mlp", init, stack)

    def __call__(
        self,
        x: Float[Array, "B L E"],
        cos: Float[Array, "B L half"],
        sin: Float[Array, "B L half"],
        attend_to: AttendTo,
    ) -> Float[Array, "B L E"]:
        x = split(x + self.attn(split(self.norm1(x), "scenes"), cos, sin, attend_to), "scenes")
        return split(x + self.mlp(split(self.norm2(x), "scenes")), "scenes")


class PatchMerger(nnx.Module):
    """Every `merge_unit` consecutive patches become one token of the language model's width."""

    def __init__(self, config: VisionConfig, name: str, init: ParamInit):
        inner = config.embed_dim * config.merge_unit
        norm = RMSNorm if config.window_size else LayerNorm
        self.ln_q = norm(config.embed_dim, eps=NORM_EPS, init=init)
        self.mlp = nnx.Dict(
            {
                "0": Linear(f"{name}.mlp.0", inner, inner, bias=True, init=init),
                "2": Linear(f"{name}.mlp.2", inner, config.out_hidden_size, bias=True, init=init),
            }
        )

    def __call__(self, x: Float[Array, "B L E"]) -> Float[Array, "B U H"]:
        units = self.ln_q(x).reshape(x.shape[0], -1, self.mlp["0"].weight.shape[-1])
        return self.mlp["2"](jax.nn.gelu(self.mlp["0"](units), approximate=False))


def normalise_pixels(
    patches: UInt8[Array, "*rows C"], config: VisionConfig, dtype: jnp.dtype
) -> Float[Array, "*rows C"]:
    """uint8 pixels to the values that Hugging Face's processors compute: `(x / 255 - mean) / std` per channel."""
    per_channel = config.patch_values // config.in_channels
    wide = jnp.promote_types(dtype, jnp.float32)
    mean, std = (jnp.repeat(jnp.array(values, wide), per_channel) for values in (PIXEL_MEAN, PIXEL_STD))
    return ((patches.astype(wide) / 255 - mean) / std).astype(dtype)


class VisionTower(nnx.Module):
    """Pixels of S scenes in, tokens of the language model's width out."""

    def __init__(self, config: VisionConfig, init: ParamInit):
        self.config = config
        self.patch_embed = PatchEmbed(config, init)
        self.blocks = VisionBlock(config, "visual.blocks", init, (config.depth,))
        self.merger = PatchMerger(config, "visual.merger", init)

    def __call__(
        self, vision: VisionInput, dtype: jnp.dtype, remat: bool = False, unroll: bool = False
    ) -> Float[Array, "S U H"]:
        config = self.config
        scenes, frames, length, _ = vision.patches.shape
        rows = scenes * frames
        x = self.patch_embed(normalise_pixels(vision.patches.reshape(rows, length, -1), config, dtype))
        x = split(x, "scenes")  # rows run over scenes first
        cos, sin = _axial_rotary(vision.coordinates.reshape(rows, length, 2), config, dtype)
        valid = vision.valid.reshape(rows, length)
        window = (config.window_size // config.patch_size) ** 2
        definition, weights = nnx.split(self.blocks)

        def full(query: Array, key: Array, value: Array) -> Array:
            return attend_in_rows(query, key, value, valid)

        def windowed(query: Array, key: Array, value: Array) -> Array:
            pieces = (part.reshape(-1, window, *part.shape[2:]) for part in (query, key, value, valid))
            return attend_in_rows(*pieces).reshape(query.shape)

        def layer(x: Array, inputs: tuple) -> tuple[Array, None]:
            weights, is_full = inputs
            block = nnx.merge(definition, weights)
            if not config.window_size:
                return block(x, cos, sin, full), None
            # The branch holds only the attention: weights inside it would be kept a second time for the backward pass.
            return block(x, cos, sin, lambda *heads: jax.lax.cond(is_full, full, windowed, *heads)), None

        is_full = jnp.array([index in config.fullatt_block_indexes for index in range(config.depth)])
        one = jax.checkpoint(layer) if remat else layer
        x, _ = jax.lax.scan(one, x, (weights, is_full), unroll=config.depth if unroll else 1)
        return split(self.merger(x).reshape(scenes, -1, config.out_hidden_size), "scenes")


def _axial_rotary(coordinates: Array, config: VisionConfig, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Cosine and sine [B, L, head_dim / 2]: the first half of the frequencies by row, the second by column."""
    wide = jnp.promote_types(dtype, jnp.float32)
    frequencies = inverse_frequencies(config.head_dim // 2, ROPE_THETA, wide)
    angles = coordinates[..., None].astype(wide) * frequencies
    angles = angles.reshape(*coordinates.shape[:-1], -1)
    return jnp.cos(angles), jnp.sin(angles)
