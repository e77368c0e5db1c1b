"""Causal attention of a long scene in one kernel that never writes scores to memory: cuDNN's, on NVIDIA's cards.

As JAX ships it. Only a scene's own tokens take it: they see nothing but their scene. Questions and rollouts share one
softmax over several segments (`attention.py`). Equal to `causal_attention` up to rounding.
"""

from __future__ import annotations

import functools
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from jaxvsr.errors import InputError, one_line
from jaxvsr.models.sharding import axes_that_divide, has_several_devices, platform

Implementation = Literal["cudnn", "xla"]
ALIGNED = 128  # tokens: cuDNN's blocks are of 64 or 128, and no part of one is left over
TRIED = 1024  # tokens
TOLERANCE = 0.05  # of the largest number; rounding alone is a hundredth
OLDER = ("5", "6", "7")  # compute capabilities before Ampere, which cuDNN's attention begins with


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
    spare = [(0, 0), (0, 0), (0, -tokens % ALIGNED), (0, 0)]
    padded = jnp.pad(query, [*spare, (0, 0)]), jnp.pad(key, spare), jnp.pad(value, spare)
    return attended(*padded)[:, :, :tokens]


def has_cudnn(dim: int) -> bool:
    """Whether a program is for cards on which this kernel can be relied on, with heads of `dim` numbers in bfloat16.

    A card that is here is tried, once. Where it fails, a warning says so, and XLA's way is taken.

    Raises:
        InputError: it fails on the card of one of several processes, which may not compute in two ways.
    """
    return platform() == "gpu" and _is_taken(dim, jax.default_backend() == "gpu")


@functools.cache
def _is_taken(dim: int, on_this_card: bool) -> bool:
    head = jax.ShapeDtypeStruct((1, ALIGNED, 1, dim), jnp.bfloat16)
    try:
        jax.eval_shape(functools.partial(_attended, how="cudnn"), head, head, head)
    except (RuntimeError, NotImplementedError, ValueError):  # no cuDNN, as for AMD's cards; or not of such heads
        return False
    if not on_this_card:
        return True
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    if capability.split(".")[0] in OLDER:
        return False
    try:
        with ThreadPoolExecutor(1) as apart:  # what this thread is tracing, and its mesh, are not that one's
            fault = apart.submit(_fault, dim).result()
    except RuntimeError as error:
        fault = one_line(error, 200)
    if fault and jax.process_count() > 1:
        raise InputError(f"cuDNN's attention fails on this card ({fault}): --set model.fused_attention=off")
    if fault:
        warnings.warn(f"cuDNN's attention fails on this card and is not taken: {fault}", stacklevel=2)
    return not fault


def _fault(dim: int) -> str:
    """How attention of `TRIED` tokens and its gradients differ from XLA's by more than bfloat16 rounds; "": they do
    not."""
    draw = np.random.default_rng(0).normal
    query, key, value = (jnp.asarray(draw(size=(1, TRIED, heads, dim)), jnp.bfloat16) for heads in (4, 2, 2))

    def loss(heads: tuple[Array, Array, Array], how: Implementation) -> tuple[Array, Array]:
        mixed = _attended(*heads, how).astype(jnp.float32)
        return jnp.sum(jnp.square(mixed)), mixed

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    ours, theirs = (jax.tree.leaves(jax.device_get(run((query, key, value), how))) for how in ("cudnn", "xla"))
    for name, here, there in zip(("query's gradient", "key's", "value's", "output"), ours, theirs, strict=True):
        far = np.abs(here.astype(np.float32) - there).max() / np.abs(there).max()
        if not far <= TOLERANCE:  # also where it is no number
            return f"{name} {far:.2g} of its largest number from XLA's"
    return ""


def _attended(query: Array, key: Array, value: Array, how: Implementation) -> Array:
    """query [S, V, N, D], key and value [S, V, K, D]."""
    return jax.nn.dot_product_attention(query, key, value, is_causal=True, implementation=how)
