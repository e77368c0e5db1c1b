"""Qwen2.5-VL: RMSNorm, SwiGLU with biases, attention in windows but for some layers, and time in seconds.

Rows come grouped by window, every window padded to the same number of patches (`inputs/pixels.py`): attention in
windows is then a reshape, and full attention the whole row. Positions of time are in `inputs/positions.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

from jaxvsr.errors import InputError
from jaxvsr.models.families.family import TOKEN_DEFAULTS, Family
from jaxvsr.models.families.qwen2_vl import published_text
from jaxvsr.models.huggingface.config_fields import ConfigFields
from jaxvsr.models.layers import ParamInit, RMSNorm, SwiGLU
from jaxvsr.models.model_config import ModelConfig, TextConfig, VisionConfig
from jaxvsr.models.vision import AttendInRows, AttendTo, VisionTower
from jaxvsr.pixel_budget import MERGED_PATCH


@dataclasses.dataclass(frozen=True)
class Qwen25VisionConfig(VisionConfig):
    """The tower with its windows, and the time of positions."""

    gated_mlp: ClassVar[bool] = True

    window_size: int = 112
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    tokens_per_second: int = 2


class WindowedTower(VisionTower):
    config: Qwen25VisionConfig
    norm = RMSNorm

    def make_mlp(self, name: str, init: ParamInit, stack: tuple[int, ...]) -> nnx.Module:
        width, inner = self.config.embed_dim, self.config.intermediate_size
        return SwiGLU(name, width, inner, bias=True, init=init, stack=stack)

    def attend_to(self, layer: Int[Array, ""], valid: Bool[Array, "B L"], in_rows: AttendInRows) -> AttendTo:
        full, window = super().attend_to(layer, valid, in_rows), self.config.window_patches
        is_full = jnp.isin(layer, jnp.array(self.config.fullatt_block_indexes, jnp.int32))

        def windowed(*parts: Array) -> Array:
            qkv, cos, sin = (part.reshape(-1, window, part.shape[-1]) for part in parts)
            mixed = in_rows(qkv, cos, sin, valid.reshape(-1, window), self.config.num_heads)
            return mixed.reshape(*valid.shape, -1)

        # The branch holds only the attention: weights inside it would be kept a second time for the backward pass.
        return lambda *parts: jax.lax.cond(is_full, full, windowed, *parts)


def _published(text: TextConfig, tower_inner: int) -> ModelConfig:
    vision = Qwen25VisionConfig(32, 1280, 16, tower_inner, text.hidden_size, "silu")
    return ModelConfig("qwen2_5_vl", text, vision, **TOKEN_DEFAULTS)


class Qwen25VL(Family):
    name = "qwen2_5_vl"
    title = "Qwen2.5-VL"
    architecture = "Qwen2_5_VLForConditionalGeneration"
    processor_class = "Qwen2_5_VLProcessor"
    tower = WindowedTower
    vision_defaults = Family.vision_defaults | {
        "hidden_size": 3584,
        "hidden_act": "silu",
        "intermediate_size": 3420,
        "out_hidden_size": 3584,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 4,
    }
    published: ClassVar[dict[str, ModelConfig]] = {
        "qwen2.5-vl-3b": _published(published_text(2048, 11008, 36, 16, 2, 151936, 128000, tied=True), 3420),
        "qwen2.5-vl-7b": _published(published_text(3584, 18944, 28, 28, 4, 152064, 128000), 3420),
        "qwen2.5-vl-32b": _published(published_text(5120, 27648, 64, 40, 8, 152064, 128000), 3456),
        "qwen2.5-vl-72b": _published(published_text(8192, 29568, 80, 64, 8, 152064, 128000), 3456),
    }

    def read_vision(self, fields: ConfigFields) -> VisionConfig:
        numbers, defaults = self.vision_numbers(fields), self.vision_defaults
        width = fields.integer("hidden_size", defaults["hidden_size"])
        inner = fields.integer("intermediate_size", defaults["intermediate_size"])
        out = fields.integer("out_hidden_size", defaults["out_hidden_size"])
        window = fields.integer("window_size", defaults["window_size"])
        unit = numbers["patch_size"] * numbers["spatial_merge_size"]
        if window % unit:
            raise InputError(
                f"{fields.where}: window_size {window} must be a multiple of {unit} pixels, one merged patch"
            )
        indexes = fields.integers("fullatt_block_indexes", defaults["fullatt_block_indexes"])
        rate = fields.integer("tokens_per_second", defaults["tokens_per_second"])
        self.check_heads(fields, width, numbers["num_heads"])
        return Qwen25VisionConfig(
            **numbers, embed_dim=width, intermediate_size=inner, out_hidden_size=out, hidden_act="silu",
            window_size=window, fullatt_block_indexes=indexes, tokens_per_second=rate,
        )  # fmt: skip

    def vision_json(self, vision: VisionConfig) -> dict[str, Any]:
        assert isinstance(vision, Qwen25VisionConfig)
        return {
            "hidden_size": vision.embed_dim,
            "out_hidden_size": vision.out_hidden_size,
            "intermediate_size": vision.intermediate_size,
            "window_size": vision.window_size,
            "fullatt_block_indexes": list(vision.fullatt_block_indexes),
            "tokens_per_second": vision.tokens_per_second,
        }

    def tiny_vision(self, width: int, heads: int, layers: int) -> VisionConfig:
        """Windows of 56 pixels, and full attention in the last layer."""
        return Qwen25VisionConfig(
            layers, width, heads, 3 * width, width, "silu",
            window_size=2 * MERGED_PATCH, fullatt_block_indexes=(layers - 1,),
        )  # fmt: skip
