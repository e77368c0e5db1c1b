"""What both lessons of the small base model share: settings, the optimizer, and a model with some of its layers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxvsr.errors import InputError, NotFiniteError
from jaxvsr.models.huggingface.model_folder import ModelFolder
from jaxvsr.models.huggingface.write_model_folder import check_new
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import QwenVL, bind, model_definition

LAYERS = "language_model.layers."
PROJECTION = LAYERS + "self_attn.{}_proj.weight"
WARMUP_STEPS = 50

Weights = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """How to teach: the first `layers` of the language model look, the others answer; a step has `scenes` rooms, and
    `frames` of each."""

    steps: int
    learning_rate: float
    scenes: int = 8
    frames: int = 16
    layers: int = 4
    seed: int = 0

    def check(self, folder: ModelFolder, out: Path) -> None:
        """Raises `InputError` where it cannot be taught: another family, odd frames, no layers to look or to answer, or
        `out` is there."""
        check_new(out)
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning rate {self.learning_rate}: must be above 0 and finite")
        if self.frames % 2:
            raise InputError(f"{self.frames} frames: must be even, a vision token stands for two")
        if folder.config.family != "qwen2_vl":
            raise InputError(f"{folder.path}: is a {folder.config.family}; the lessons are for qwen2_vl")
        depth = folder.config.text.num_hidden_layers
        if not 2 <= self.layers < depth:
            raise InputError(
                f"{self.layers} layers that look: {folder.path} has {depth}; at least 2 look, and some must be left"
            )

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW with a cosine."""
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, min(WARMUP_STEPS, self.steps // 2), self.steps
        )
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01))


def with_layers(config: ModelConfig, weights: Weights, first: int, stop: int) -> QwenVL:
    """The model with its layers from `first` to `stop` alone."""
    text = dataclasses.replace(config.text, num_hidden_layers=stop - first)
    some = {name: leaf[first:stop] if name.startswith(LAYERS) else leaf for name, leaf in weights.items()}
    return bind(model_definition(dataclasses.replace(config, text=text)), some)


def check_finite(weights: Weights, step: int) -> None:
    """Raises `NotFiniteError` where a weight is infinite or not a number."""
    for name, leaf in weights.items():
        if not np.isfinite(np.asarray(leaf)).all():
            raise NotFiniteError(f"step {step}: {name} is not finite; teach with a smaller --learning-rate")


def as_file(weights: Weights, name: str, layer: int | None) -> jax.Array | np.ndarray:
    """A weight as `save_folder` asks for it."""
    return weights[name] if layer is None else weights[name][layer]
