"""The shapes of the published checkpoints, to build a model of a known size without its folder."""

from __future__ import annotations

from jaxvsr.models.model_config import ModelConfig, TextConfig, VisionConfig

IMAGE, VIDEO, VISION_START, VISION_END = 151655, 151656, 151652, 151653
ROPE_THETA, MROPE_SECTION = 1_000_000.0, (16, 24, 24)
FULL_ATTENTION = (7, 15, 23, 31)


def _text(
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    key_heads: int,
    vocab_size: int,
    positions: int,
    tied: bool = False,
) -> TextConfig:
    return TextConfig(
        vocab_size, hidden, inner, layers, heads, key_heads, ROPE_THETA, MROPE_SECTION, 1e-6, tied, positions
    )


def _qwen2_vl(text: TextConfig) -> ModelConfig:
    vision = VisionConfig(32, 1280, 16, 5120, text.hidden_size, "quick_gelu")
    return ModelConfig("qwen2_vl", text, vision, IMAGE, VIDEO, VISION_START, VISION_END)


def _qwen2_5_vl(text: TextConfig, tower_inner: int) -> ModelConfig:
    vision = VisionConfig(
        32, 1280, 16, tower_inner, text.hidden_size, "silu",
        window_size=112, fullatt_block_indexes=FULL_ATTENTION, tokens_per_second=2,
    )  # fmt: skip
    return ModelConfig("qwen2_5_vl", text, vision, IMAGE, VIDEO, VISION_START, VISION_END)


PUBLISHED: dict[str, ModelConfig] = {
    "qwen2-vl-2b": _qwen2_vl(_text(1536, 8960, 28, 12, 2, 151936, 32768, tied=True)),
    "qwen2-vl-7b": _qwen2_vl(_text(3584, 18944, 28, 28, 4, 152064, 32768)),
    "qwen2-vl-72b": _qwen2_vl(_text(8192, 29568, 80, 64, 8, 152064, 32768)),
    "qwen2.5-vl-3b": _qwen2_5_vl(_text(2048, 11008, 36, 16, 2, 151936, 128000, tied=True), 3420),
    "qwen2.5-vl-7b": _qwen2_5_vl(_text(3584, 18944, 28, 28, 4, 152064, 128000), 3420),
    "qwen2.5-vl-32b": _qwen2_5_vl(_text(5120, 27648, 64, 40, 8, 152064, 128000), 3456),
    "qwen2.5-vl-72b": _qwen2_5_vl(_text(8192, 29568, 80, 64, 8, 152064, 128000), 3456),
}
