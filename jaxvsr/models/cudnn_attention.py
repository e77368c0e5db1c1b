"""Causal attention of a long scene in one kernel that never writes scores to memory: cuDNN's, on NVIDIA's cards.

As JAX ships it. Only a scene's own tokens take it: they see nothing but their scene. Questions and rollouts share one
softmax over several segments (`attention.py`). Equal to `causal_attention` up to rounding.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from jaxvsr.models.layers import LANES
from jaxvsr.models.sharding import axes_that_divide, has_several_devices, platform

Implementation = Literal["cudnn", "xla"]
TOLERANCE = 0.05  # of the largest number: an eighth of it would be another computation, a hundredth is rounding


def cudnn_attention(
    query: Float[Array, "S K V M D"], key: Float[Array, "S K V D"], value: Float[Array, "S K V D"]
) -> Float[Array, "S K V M D"]:
    """Every token of a scene attends to itself and those before it, with M query heads per key head.

    Padding on the right needs no mask: a real query never sees a later key. Elsewhere than on GPUs the same is computed
    by XLA, with all scores in memory.
    """
    scenes, key_heads, tokens, heads, dim = query.shape
    how: Implementation = "cudnn" if platform() == "gpu" else "xla"

    def attended(query: Array, key: Array, value: Array) -> Array:
        query = jnp.moveaxis(query, 1, 2)
        flat = query.reshape(*query.shape[:2], -1, dim)
        mixed = _attended(flat, jnp.moveaxis(key, 1, 2), jnp.moveaxis(value, 1, 2), how)
        return jnp.moveaxis(mixed.reshape(query.shape), 2, 1)

    if has_several_devices():  # to the compiler's partitioner a kernel is one operation
        split_scenes, split_keys = axes_that_divide(scenes, "scenes"), axes_that_divide(key_heads, "heads")
        queries = PartitionSpec(
            split_scenes, split_keys, None, None if split_keys else axes_that_divide(heads, "heads")
        )
        keys = PartitionSpec(split_scenes, split_keys)
        attended = jax.shard_map(attended, in_specs=(queries, keys, keys), out_specs=queries, check_vma=False)
    spare = [(0, 0), (0, 0), (0, -tokens % LANES), (0, 0)]
    padded = jnp.pad(query, [*spare, (0, 0)]), jnp.pad(key, spare), jnp.pad(value, spare)
    return attended(*padded)[:, :, :tokens]


def has_cudnn(dim: int) -> bool:
    """Whether a program is for cards on which this kernel can be relied on, with heads of `dim` numbers in bfloat16."""
    return platform() == "gpu" and _is_taken(dim, jax.default_backend() == "gpu")


@functools.cache
def _is_taken(dim: int, on_this_card: bool) -> bool:
    """Whether JAX has cuDNN and this takes such heads, by their own words; on a card that is here it is tried."""
    try:
        if on_this_card:
            with ThreadPoolExecutor(1) as apart:  # what this thread is tracing, and its mesh, are not that one's
                return apart.submit(_is_right, dim).result()
        head = jax.ShapeDtypeStruct((1, LANES, 1, dim), jnp.bfloat16)
        jax.eval_shape(functools.partial(_attended, how="cudnn"), head, head, head)
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    return True


def _is_right(dim: int, how: Implementation = "cudnn") -> bool:
    """Whether attention and its gradients are XLA's, up to what bfloat16 rounds."""
    draw = np.random.default_rng(0).normal
    query, key, value = (jnp.asarray(draw(size=(1, LANES, heads, dim)), jnp.bfloat16) for heads in (2, 1, 1))

    def loss(heads: tuple[Array, Array, Array], how: Implementation) -> tuple[Array, Array]:
        mixed = _attended(*heads, how).astype(jnp.float32)
        return jnp.sum(jnp.square(mixed)), mixed

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    pairs = zip(*(jax.tree.leaves(jax.device_get(run((query, key, value), one))) for one in (how, "xla")), strict=True)
    far = [np.abs(ours.astype(np.float32) - theirs).max() / np.abs(theirs).max() for ours, theirs in pairs]
    return bool(max(far) <= TOLERANCE)


def _attended(query: Array, key: Array, value: Array, how: Implementation) -> Array:
    """query [S, V, N, D], key and value [S, V, K, D]."""
    return jax.nn.dot_product_attention(query, key, value, is_causal=True, implementation=how)
