"""AdamW with warm-up, schedule and clipping: the numbers of torch.optim.AdamW under Hugging Face's schedules."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxvsr.config.algorithm import OptimizerConfig

CLIP_EPSILON = 1e-6  # torch.nn.utils.clip_grad_norm_ adds it to the norm

# Biases and norms keep their size; `ln_q` is the patch merger's norm.
_NOT_DECAYED = re.compile(r"(^|\.)(bias|[a-z_]*norm\d*|ln_q)(\.|$)")


def learning_rate_schedule(
    config: OptimizerConfig, total_steps: int
) -> Callable[[int | Int[Array, ""]], Float[Array, ""]]:
    """The learning rate of step 0, 1, …, `total_steps` - 1, for the optimizer and for the log alike."""

    def learning_rate(step: int | Int[Array, ""]) -> Float[Array, ""]:
        step = jnp.asarray(step, jnp.float32)
        after = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
        progress = jnp.clip(after, 0.0, 1.0)
        decay = {
            "constant": jnp.ones_like(progress),
            "linear": 1 - progress,
            "cosine": 0.5 * (1 + jnp.cos(jnp.pi * progress)),
        }[config.schedule]
        return config.learning_rate * jnp.where(step < config.warmup_steps, step / max(1, config.warmup_steps), decay)

    return learning_rate


def updates_taken(optimizer: Any) -> int:
    """Updates that an optimizer's state has seen: where its schedule and its bias correction are."""
    return int(next(count for _, count in optax.tree.get_all_with_path(optimizer, "count")))


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Clipping, then AdamW. Updates are to be added to the parameters (`optax.apply_updates`)."""
    adamw = optax.adamw(
        learning_rate_schedule(config, total_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
    return adamw if config.clip_norm is None else optax.chain(clip_by_global_norm(config.clip_norm), adamw)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """torch's `clip_grad_norm_`: gradients times max_norm / (norm + 1e-6) where that is below 1."""

    def update(gradients: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(gradients) + CLIP_EPSILON))
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def decayed(params: Any) -> Any:
    """Which leaves weight decay acts on, by the names on their path: all but biases and norms.

    Hugging Face's Trainer goes by class and name and so also decays Qwen2.5-VL's vision norms; we do not.
    """

    def acts_on(path: tuple[Any, ...], _: Any) -> bool:
        return _NOT_DECAYED.search(jax.tree_util.keystr(path, simple=True, separator=".")) is None

    return jax.tree_util.tree_map_with_path(acts_on, params)
