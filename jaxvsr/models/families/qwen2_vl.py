"""Qwen2-VL: LayerNorm, a two-layer MLP with quick-GELU, and full attention inside of each temporal patch."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxvsr.errors import InputError
from jaxvsr.models.families.family import TOKEN_DEFAULTS, Family
from jaxvsr.models.huggingface.config_fields import ConfigFields
from jaxvsr.models.layers import Linear, ParamInit
from jaxvsr.models.model_config import ModelConfig, TextConfig, VisionConfig
from jaxvsr.models.vision import VisionTower


class QuickGeluMlp(nnx.Module):
    def __init__(self, config: VisionConfig, name: str, init: ParamInit, stack: tuple[int, ...]):
        width, inner = config.embed_dim, config.intermediate_size
        self.fc1 = Linear(f"{name}.fc1", width, inner, bias=True, init=init, stack=stack)
        self.fc2 = Linear(f"{name}.fc2", inner, width, bias=True, init=init, stack=stack)

    def __call__(self, x: Float[Array, "B L E"]) -> Float[Array, "B L E"]:
        h = self.fc1(x)
        return self.fc2(h * jax.nn.sigmoid(1.702 * h))


class Qwen2Tower(VisionTower):
    def make_mlp(self, name: str, init: ParamInit, stack: tuple[int, ...]) -> nnx.Module:
        return QuickGeluMlp(self.config, name, init, stack)


def published_text(
    hidden: int, inner: int, layers: int, heads: int, key_heads: int, vocab: int, positions: int, tied: bool = False
) -> TextConfig:
    """The language model of a published Qwen2-VL or Qwen2.5-VL."""
    return TextConfig(
        vocab, hidden, inner, layers, heads, key_heads, 1_000_000.0, (16, 24, 24), 1e-6, tied, positions
    )  # fmt: skip


def _published(text: TextConfig) -> ModelConfig:
    vision = VisionConfig(32, 1280, 16, 5120, text.hidden_size, "quick_gelu")
    return ModelConfig("qwen2_vl", text, vision, **TOKEN_DEFAULTS)


class Qwen2VL(Family):
    name = "qwen2_vl"
    title = "Qwen2-VL"
    architecture = "Qwen2VLForConditionalGeneration"
    processor_class = "Qwen2VLProcessor"
    tower = Qwen2Tower
    vision_defaults = Family.vision_defaults | {
        "embed_dim": 1280, "hidden_size": 3584, "hidden_act": "quick_gelu", "mlp_ratio": 4,
    }  # fmt: skip
    published: ClassVar[dict[str, ModelConfig]] = {
        "qwen2-vl-2b": _published(published_text(1536, 8960, 28, 12, 2, 151936, 32768, tied=True)),
        "qwen2-vl-7b": _published(published_text(3584, 18944, 28, 28, 4, 152064, 32768)),
        "qwen2-vl-72b": _published(published_text(8192, 29568, 80, 64, 8, 152064, 32768)),
    }

    def read_vision(self, fields: ConfigFields) -> VisionConfig:
        numbers, defaults = self.vision_numbers(fields), self.vision_defaults
        width = fields.integer("embed_dim", defaults["embed_dim"])
        ratio = fields.positive("mlp_ratio", defaults["mlp_ratio"])
        if not (width * ratio).is_integer():
            raise InputError(f"{fields.where}: mlp_ratio {ratio} times embed_dim {width} must be an integer")
        out = fields.integer("hidden_size", defaults["hidden_size"])
        self.check_heads(fields, width, numbers["num_heads"])
        return VisionConfig(
            **numbers,
            embed_dim=width,
            intermediate_size=int(width * ratio),
            out_hidden_size=out,
            hidden_act="quick_gelu",
        )

    def vision_json(self, vision: VisionConfig) -> dict[str, Any]:
        ratio = vision.intermediate_size // vision.embed_dim
        return {"embed_dim": vision.embed_dim, "hidden_size": vision.out_hidden_size, "mlp_ratio": ratio}

    def tiny_vision(self, width: int, heads: int, layers: int) -> VisionConfig:
        return VisionConfig(layers, width, heads, 4 * width, width, "quick_gelu")
