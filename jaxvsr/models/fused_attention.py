"""Attention in one kernel that never writes scores to memory: JAX's splash attention, on TPUs.

What a token of a tree sees depends on the sizes of the tree alone, so the kernel's mask is known when a program is
compiled, and blocks of it in which nobody sees anybody are skipped. Padding, which differs from scene to scene, is a
segment of its own. Equal to `attend` up to rounding: the same softmax, summed block after block.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask_info
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask import Mask, MultiHeadMask
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from jaxvsr.models.layers import LANES
from jaxvsr.models.model_config import KEPT
from jaxvsr.models.sharding import axes_that_divide, has_several_devices, platform
from jaxvsr.models.tree_sizes import TreeSizes

# Query and key tokens of a block. Smaller ones take more cycles for as many scores, larger ones skip fewer scores that
# nobody needs. Between the two scores alone decide: by the kernel's schedule (`measure/target_costs.py`) those of 640
# take 16 % less to 15 % more each, by chip and kernel.
BLOCKS = (512, 640)


def tree_attention(
    query: Float[Array, "S X K M D"],
    key: Float[Array, "S X K D"],
    value: Float[Array, "S X K D"],
    real: Bool[Array, "S X"],
    sizes: TreeSizes,
    block: int | None = None,
) -> Float[Array, "S X K M D"]:
    """Each token of the tree attends to those before it in its own segment and in its ancestors'.

    Args:
        real: False for padding, which no other token sees.
        block: tokens of a block; None: of `BLOCKS` that with which fewest scores are computed.

    To the compiler's partitioner a kernel is one operation, so it is split by hand as activations are: by scenes, and
    by key heads or, where those do not divide, by the query heads of each. Elsewhere than on TPUs it is interpreted:
    slow, and right.
    """
    tokens, heads, dim = query.shape[1], query.shape[3], query.shape[4]
    size = block or block_size(sizes)
    spare = -tokens % size
    query = query * jnp.asarray(dim**-0.5, query.dtype)
    query, key, value = (
        jnp.pad(jnp.moveaxis(part, 1, -2), [(0, 0)] * (part.ndim - 2) + [(0, spare), (0, 0)])
        for part in (query, key, value)
    )
    query, key, value = (checkpoint_name(part, KEPT) for part in (query, key, value))
    segment = jnp.pad(jnp.where(real, 0, 1), [(0, 0), (0, spare)], constant_values=1)
    kernel = _kernel(_TreeMask(sizes, tokens + spare), size, platform() != "tpu")

    def attended(query: Array, key: Array, value: Array, segment: Array) -> Array:
        def one_scene(query: Array, key: Array, value: Array, segment: Array) -> Array:
            segments = splash_attention_kernel.SegmentIds(segment, segment)
            return jax.vmap(lambda *parts: kernel(*parts, segments))(query, key, value)

        return jax.vmap(one_scene)(query, key, value, segment)

    if has_several_devices():
        scenes, key_heads = axes_that_divide(len(query), "scenes"), axes_that_divide(query.shape[1], "heads")
        queries = PartitionSpec(scenes, key_heads, None if key_heads else axes_that_divide(heads, "heads"))
        keys = PartitionSpec(scenes, key_heads)
        attended = jax.shard_map(
            attended, in_specs=(queries, keys, keys, PartitionSpec(scenes)), out_specs=queries, check_vma=False
        )
    return jnp.moveaxis(attended(query, key, value, segment)[..., :tokens, :], -2, 1)


@functools.lru_cache(maxsize=64)
def block_size(sizes: TreeSizes) -> int:
    """Tokens of a block for a tree: of few tokens one block of whole registers."""
    whole = -(-sizes.tokens // LANES) * LANES
    return min((min(block, whole) for block in BLOCKS), key=lambda block: computed_blocks(sizes, block) * block**2)


@functools.lru_cache(maxsize=64)
def computed_blocks(sizes: TreeSizes, block: int) -> int:
    """Blocks of query and key tokens, of all (tokens / block)², that the kernel computes for one head."""
    count = -(-sizes.tokens // block)
    mask, parts = _TreeMask(sizes, count * block), [slice(n * block, (n + 1) * block) for n in range(count)]
    return sum(bool(mask[rows, keys].any()) for n, rows in enumerate(parts) for keys in parts[: n + 1])


class _TreeMask(Mask):
    """`TreeSizes.visible` as the kernel's library asks for it: a block at a time."""

    def __init__(self, sizes: TreeSizes, tokens: int):
        self.sizes, self.tokens = sizes, tokens

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tokens, self.tokens

    def __getitem__(self, block: tuple[slice, slice]) -> np.ndarray:
        query, key = (range(self.tokens)[part] for part in block)
        # Most blocks of a long scene are plain, and there are thousands.
        if key[0] > query[-1] or (key[-1] <= query[0] and key[-1] < self.sizes.scene and query[-1] < self.sizes.tokens):
            return np.broadcast_to(key[0] <= query[-1], (len(query), len(key)))
        return self.sizes.visible(np.array(query), np.array(key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TreeMask) and (self.sizes, self.tokens) == (other.sizes, other.tokens)

    def __hash__(self) -> int:
        return hash((self.sizes, self.tokens))


@functools.lru_cache(maxsize=16)
def _kernel(mask: _TreeMask, block: int, interpret: bool) -> Any:
    """The kernel for the query heads of one key head of a scene, all of which have this mask, and which blocks it
    computes: constants of a program. The library's own `make_splash_mqa` would put them on a device, and there may be
    none.
    """
    masks = MultiHeadMask([mask])
    rows, _ = splash_attention_mask_info.process_mask(masks, (block, block))
    columns, _ = splash_attention_mask_info.process_mask_dkv(masks, (block, block))
    blocks = splash_attention_kernel.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
    )
    return splash_attention_kernel.SplashAttentionKernel(
        rows,
        rows,
        columns,
        block_sizes=blocks,
        is_mqa=True,
        save_residuals=False,
        mask_value=splash_attention_kernel.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=KEPT,
        mask_function=None,
        interpret=interpret,
    )
