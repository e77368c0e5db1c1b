"""Models by the name of their shape, without a folder: two small ones, and the published."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.published_shapes import PUBLISHED
from jaxvsr.models.model_config import ModelConfig, TextConfig, VisionConfig

TINY = ModelConfig(  # 2.8M parameters: width 128, four layers in tower and language model
    "qwen2_vl",
    TextConfig(4096, 128, 512, 4, 4, 2, 1e6, (4, 6, 6), 1e-6, True),
    VisionConfig(4, 128, 4, 512, 128, "quick_gelu"),
    image_token_id=12,
    video_token_id=13,
    vision_start_token_id=9,
    vision_end_token_id=10,
    dtype="float32",
)
QUARTER = dataclasses.replace(  # 0.27 billion: width 1024, 20 layers; for machines without an accelerator
    TINY,
    text=TextConfig(32768, 1024, 2816, 20, 16, 2, 1e6, (8, 12, 12), 1e-6, True),
    vision=VisionConfig(4, 512, 8, 2048, 1024, "quick_gelu"),
)
SHAPES = {"tiny": TINY, "quarter-b": QUARTER, **PUBLISHED}


def shape_named(name: str) -> ModelConfig:
    """The model config of a `--shape`."""
    if name not in SHAPES:
        raise InputError(f"--shape {name!r}: must be one of {', '.join(SHAPES)}")
    return SHAPES[name]


def shape_of_model(path: str) -> str | None:
    """The name of the shape that a hub id has, where there is no folder of that name: `Qwen/Qwen2-VL-7B-Instruct` is
    qwen2-vl-7b. None: it has none."""
    name = path.rpartition("/")[2].lower().removesuffix("-instruct")
    return name if name in PUBLISHED and not Path(path).exists() else None
