"""The shapes of the published checkpoints, for building a model of a known size without its folder."""

from __future__ import annotations

from jaxvsr.models.config import ModelConfig, TextConfig, VisionConfig

_TOKENS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
_THETA, _SECTIONS = 1_000_000.0, (16, 24, 24)

# name: (hidden, intermediate, layers, heads, key heads, vocabulary, tied, positions)
_QWEN2_VL = {
    "qwen2-vl-2b": (1536, 8960, 28, 12, 2, 151936, True, 32768),
    "qwen2-vl-7b": (3584, 18944, 28, 28, 4, 152064, False, 32768),
    "qwen2-vl-72b": (8192, 29568, 80, 64, 8, 152064, False, 32768),
}
# … and the width of the vision tower's MLP
_QWEN2_5_VL = {
    "qwen2.5-vl-3b": (2048, 11008, 36, 16, 2, 151936, True, 128000, 3420),
    "qwen2.5-vl-7b": (3584, 18944, 28, 28, 4, 152064, False, 128000, 3420),
    "qwen2.5-vl-32b": (5120, 27648, 64, 40, 8, 152064, False, 128000, 3456),
    "qwen2.5-vl-72b": (8192, 29568, 80, 64, 8, 152064, False, 128000, 3456),
}


def _text(
    hidden: int, inner: int, layers: int, heads: int, key_heads: int, words: int, tied: bool, positions: int
) -> TextConfig:
    return TextConfig(words, hidden, inner, layers, heads, key_heads, _THETA, _SECTIONS, 1e-6, tied, positions)


def _qwen2_vl(*shape: int) -> ModelConfig:
    vision = VisionConfig(32, 1280, 16, 5120, shape[0], "quick_gelu")
    return ModelConfig(family="qwen2_vl", text=_text(*shape), vision=vision, **_TOKENS)


def _qwen2_5_vl(*shape: int) -> ModelConfig:
    *text, inner = shape
    windows = {"window_size": 112, "fullatt_block_indexes": (7, 15, 23, 31), "tokens_per_second": 2}
    vision = VisionConfig(32, 1280, 16, inner, shape[0], "silu", **windows)
    return ModelConfig(family="qwen2_5_vl", text=_text(*text), vision=vision, **_TOKENS)


PUBLISHED: dict[str, ModelConfig] = {
    **{name: _qwen2_vl(*shape) for name, shape in _QWEN2_VL.items()},
    **{name: _qwen2_5_vl(*shape) for name, shape in _QWEN2_5_VL.items()},
}
