"""The vision tower: what the towers of all families share.

The tower reads rows of one temporal patch each (`VisionInput`): attention stays within a row, so a batch of rows
needs no packing. A family says what its blocks, its merger and its positions are (`families/`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxvsr.models.attention import attend_in_rows
from jaxvsr.models.layer_product import matmul_transposed
from jaxvsr.models.layers import (
    LayerNorm,
    Linear,
    ParamInit,
    RMSNorm,
    inverse_frequencies,
    rematerialised,
)
from jaxvsr.models.model_config import VisionConfig
from jaxvsr.models.sharding import gathered, split, split_rows
from jaxvsr.models.tree_batch import VisionInput

ROPE_THETA = 10_000.0
NORM_EPS = 1e-6


class PatchEmbed(nnx.Module):
    """A convolution whose stride is its kernel: one matrix product per patch. The weight keeps its five axes."""

    def __init__(self, config: VisionConfig, init: ParamInit, *, bias: bool):
        side = config.patch_size
        shape = (config.embed_dim, config.in_channels, config.temporal_patch_size, side, side)
        self.proj = nnx.Dict(weight=nnx.Param(init.normal(shape)))
        if bias:
            self.proj["bias"] = nnx.Param(init.full((config.embed_dim,), 0.0))

    def __call__(self, patches: Float[Array, "*rows C"]) -> Float[Array, "*rows E"]:
        weight = gathered(self.proj["weight"][...].astype(patches.dtype), "visual.patch_embed.proj.weight")
        embedded = matmul_transposed(patches, weight.reshape(weight.shape[0], -1))
        return embedded + self.proj["bias"][...].astype(embedded.dtype) if "bias" in self.proj else embedded


AttendInRows = Callable[[Array, Array, Array, Array, int], Array]  # `attend_in_rows`, or what equals it
AttendTo = Callable[[Array, Array, Array], Array]  # of one layer: qkv, cos and sin of `attend_in_rows` -> [B, L, E]


class VisionAttention(nnx.Module):
    def __init__(self, config: VisionConfig, name: str, init: ParamInit, stack: tuple[int, ...]):
        width = config.embed_dim
        self.qkv = Linear(f"{name}.qkv", width, 3 * width, bias=True, init=init, stack=stack)
        self.proj = Linear(f"{name}.proj", width, width, bias=True, init=init, stack=stack)

    def __call__(
        self,
        x: Float[Array, "B L E"],
        cos: Float[Array, "B L half"],
        sin: Float[Array, "B L half"],
        attend_to: AttendTo,
    ) -> Float[Array, "B L E"]:
        return self.proj(attend_to(self.qkv(x), cos, sin))


MakeMlp = Callable[[str, ParamInit, tuple[int, ...]], nnx.Module]  # name, init, stack -> the module


class VisionBlock(nnx.Module):
    def __init__(
        self,
        config: VisionConfig,
        name: str,
        init: ParamInit,
        stack: tuple[int, ...],
        norm: type[LayerNorm] | type[RMSNorm],
        mlp: MakeMlp,
    ):
        self.norm1 = norm(config.embed_dim, eps=NORM_EPS, init=init, stack=stack)
        self.norm2 = norm(config.embed_dim, eps=NORM_EPS, init=init, stack=stack)
        self.attn = VisionAttention(config, f"{name}.attn", init, stack)
        self.mlp: Any = mlp(f"{name}.mlp", init, stack)

    def __call__(
        self,
        x: Float[Array, "B L E"],
        cos: Float[Array, "B L half"],
        sin: Float[Array, "B L half"],
        attend_to: AttendTo,
    ) -> Float[Array, "B L E"]:
        x = split_rows(x + self.attn(split_rows(self.norm1(x)), cos, sin, attend_to))
        return split_rows(x + self.mlp(split_rows(self.norm2(x))))


class PatchMerger(nnx.Module):
    """Every `merge_unit` consecutive patches become one token of the language model's width (Qwen2-VL, Qwen2.5-VL)."""

    def __init__(self, config: VisionConfig, name: str, init: ParamInit, norm: type[LayerNorm] | type[RMSNorm]):
        inner = config.embed_dim * config.merge_unit
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
    mean, std = (jnp.repeat(jnp.array(values, wide), per_channel) for values in (config.pixel_mean, config.pixel_std))
    return ((patches.astype(wide) / 255 - mean) / std).astype(dtype)


class VisionTower(nnx.Module):
    """Pixels of S scenes in, tokens of the language model's width out. A family's tower overrides what differs."""

    norm: ClassVar[type[LayerNorm] | type[RMSNorm]] = LayerNorm
    patch_bias: ClassVar[bool] = False

    def __init__(self, config: VisionConfig, init: ParamInit):
        self.config = config
        self.patch_embed = PatchEmbed(config, init, bias=self.patch_bias)
        self.make_positions(init)
        self.blocks = VisionBlock(config, "visual.blocks", init, (config.depth,), self.norm, self.make_mlp)
        self.make_mergers(init)

    def make_mlp(self, name: str, init: ParamInit, stack: tuple[int, ...]) -> nnx.Module:
        raise NotImplementedError

    def make_positions(self, init: ParamInit) -> None:
        """Parameters of learned positions, where the family has any."""

    def make_mergers(self, init: ParamInit) -> None:
        self.merger: Any = PatchMerger(self.config, "visual.merger", init, self.norm)

    def positions(self, coordinates: Int[Array, "B L 2"]) -> Float[Array, "B L E"] | None:
        """What is added to the embedded patches."""
        return None

    def attend_to(self, layer: Int[Array, ""], valid: Bool[Array, "B L"], in_rows: AttendInRows) -> AttendTo:
        """How the patches of a row see each other in a layer of this (traced) number: all see all."""
        return lambda qkv, cos, sin: in_rows(qkv, cos, sin, valid, self.config.num_heads)

    def _in_rows(self, length: int, dtype: jnp.dtype, fused: bool) -> AttendInRows:
        """How attention in rows of so many patches is computed."""
        if fused:
            from jaxvsr.models.fused_row_attention import fits, row_attention  # it loads the compiler of kernels

            if fits(length, self.config.num_heads, self.config.head_dim, dtype):
                return row_attention
        return attend_in_rows

    def merged(self, x: Float[Array, "B L E"], levels: Array | None) -> Float[Array, "B U W"]:
        """Tokens from the output of the last layer, and from the outputs [n, B, L, E] of `deepstack_indexes`."""
        return self.merger(x)

    def __call__(
        self, vision: VisionInput, dtype: jnp.dtype, remat: bool = False, unroll: bool = False, fused: bool = False
    ) -> Float[Array, "S U W"]:
        """`fused`: attention in one kernel, for rows for which there is one."""
        config = self.config
        scenes, frames, length, _ = vision.patches.shape
        rows = scenes * frames
        valid = vision.valid.reshape(rows, length)
        coordinates = jnp.where(valid[..., None], vision.coordinates.reshape(rows, length, 2), 0)
        x = self.patch_embed(normalise_pixels(vision.patches.reshape(rows, length, -1), config, dtype))
        if (added := self.positions(coordinates)) is not None:
            x = x + added.astype(dtype)
        x = split_rows(x)
        cos, sin = _axial_rotary(coordinates, config, dtype)
        definition, weights = nnx.split(self.blocks)
        in_rows = self._in_rows(length, dtype, fused)
        taken_from = jnp.array(config.deepstack_indexes, jnp.int32)[:, None, None, None]

        def block(x: Array, inputs: tuple[Any, Array]) -> Array:
            weights, number = inputs
            return nnx.merge(definition, weights)(x, cos, sin, self.attend_to(number, valid, in_rows))

        run = rematerialised(block, "full" if remat else "none", in_scan=not unroll)

        def layer(carried: tuple[Array, Array | None], inputs: tuple[Any, Array]) -> tuple[Any, None]:
            x, levels = run(carried[0], inputs), carried[1]
            # Outside of what is recomputed: the backward pass then keeps a layer's input and no level.
            return (x, None if levels is None else jnp.where(taken_from == inputs[1], x, levels)), None

        levels = jnp.zeros((len(config.deepstack_indexes), *x.shape), dtype) if config.deepstack_indexes else None
        inputs = (weights, jnp.arange(config.depth))
        (x, levels), _ = jax.lax.scan(layer, (x, levels), inputs, unroll=config.depth if unroll else 1)
        return split(self.merged(x, levels).reshape(scenes, -1, config.feature_width), "scenes")


def _axial_rotary(coordinates: Array, config: VisionConfig, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Cosine and sine [B, L, head_dim / 2]: the first half of the frequencies by row, the second by column."""
    wide = jnp.promote_types(dtype, jnp.float32)
    frequencies = inverse_frequencies(config.head_dim // 2, ROPE_THETA, wide)
    angles = coordinates[..., None].astype(wide) * frequencies
    angles = angles.reshape(*coordinates.shape[:-1], -1)
    return jnp.cos(angles), jnp.sin(angles)
