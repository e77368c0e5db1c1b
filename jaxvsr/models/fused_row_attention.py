"""Attention of the vision tower in one kernel, on TPUs: rotation, scores, softmax and sum of one row in fast memory.

It takes the output of `qkv` as it lies and gives what `proj` takes. Heads of 80 numbers lie across a TPU's registers of
128 lanes; cutting them out one by one moves all of them several times, which takes longer than the products. Here the
neighbours in a register are multiplied with zeros instead. Equal to `attend_in_rows` up to rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas
from jax.experimental.pallas import tpu
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from jaxvsr.models.attention import MASKED, attend_in_rows
from jaxvsr.models.layers import LANES
from jaxvsr.models.sharding import axes_that_divide, has_several_devices, platform

MOST_SCORES = 2**17  # of a head that are computed at once
ROWS = 32  # of a register, for values of one byte; fewer for wider ones


def fits(length: int, heads: int, dim: int, dtype: jnp.dtype) -> bool:
    """Whether there is a kernel for rows of so many patches: whole rows have to be in a core's fast memory, of which a
    v4 has 16 MiB and later chips 64 or more, and the half of it is what XLA keeps between operations."""
    together = _together(heads, dim)
    if together is None:
        return False
    return platform() != "tpu" or 2 * _memory(length, together, dim, dtype) <= tpu.get_tpu_info().vmem_capacity_bytes


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def row_attention(
    qkv: Float[Array, "B L E3"],
    cos: Float[Array, "B L half"],
    sin: Float[Array, "B L half"],
    valid: Bool[Array, "B L"],
    heads: int,
) -> Float[Array, "B L E"]:
    """Every patch of a row sees all valid patches of that row, and no other row; `qkv` has E queries, keys and values.

    The backward pass is `attend_in_rows`'s, computed again. On a mesh rows are split as the tower's are; every device
    computes all of those that do not divide. Elsewhere than on TPUs the kernel is interpreted: slow, and right.
    """

    def kernel(qkv: Array, cos: Array, sin: Array, valid: Array) -> Array:
        return _call(qkv, cos, sin, valid, heads)

    if not has_several_devices():
        return kernel(qkv, cos, sin, valid)
    rows = PartitionSpec(axes_that_divide(len(qkv), "rows") or axes_that_divide(len(qkv), "scenes"))
    return jax.shard_map(kernel, in_specs=(rows,) * 4, out_specs=rows, check_vma=False)(qkv, cos, sin, valid)


def _forward(qkv: Array, cos: Array, sin: Array, valid: Array, heads: int) -> tuple[Array, Any]:
    return row_attention(qkv, cos, sin, valid, heads), (qkv, cos, sin, valid)


def _backward(heads: int, kept: tuple[Array, Array, Array, Array], mixed: Array) -> tuple[Any, ...]:
    """Of `qkv` alone: positions are not trained."""
    qkv, cos, sin, valid = kept
    (gradient,) = jax.vjp(lambda qkv: attend_in_rows(qkv, cos, sin, valid, heads), qkv)[1](mixed)
    return gradient, jnp.zeros_like(cos), jnp.zeros_like(sin), np.zeros(valid.shape, jax.dtypes.float0)


row_attention.defvjp(_forward, _backward)


def _together(heads: int, dim: int) -> int | None:
    """The fewest heads that fill whole registers; None: not even all of them do."""
    return next((n for n in range(1, heads + 1) if heads % n == 0 and n * dim % LANES == 0), None)


def _queries(length: int) -> int:
    """Patches of a row whose scores are computed at once: all of a short row, else whole registers of them."""
    return min(length, 256, max(MOST_SCORES // length // ROWS * ROWS, ROWS))


def _memory(length: int, heads: int, dim: int, dtype: jnp.dtype) -> int:
    """Bytes of fast memory for some heads of a row: queries, keys, values, output and angles twice, since the next ones
    are fetched meanwhile; what `_kernel` has room for; and scores of all heads, since the compiler begins with one
    before it has ended another. A row of fewer than two parts has no loop: the scores of its part and of the rest are
    there at once."""
    queries, padded = _queries(length), -(-length // LANES) * LANES
    if length < 2 * queries:
        queries = padded
    width, item, wide = heads * dim, dtype.itemsize, jnp.promote_types(dtype, jnp.float32).itemsize
    blocks = 2 * (4 * width * item + 2 * LANES * wide)
    return padded * (blocks + 2 * width * (item + wide) + 2 * heads * queries * wide)


def _call(qkv: Array, cos: Array, sin: Array, valid: Array, heads: int) -> Array:
    rows, length, width = qkv.shape
    dim = width // 3 // heads
    together = _together(heads, dim)
    assert together is not None
    parts, block = heads // together, together * dim

    def heads_of(first: int) -> pallas.BlockSpec:
        return pallas.BlockSpec((1, length, block), lambda row, part: (row, 0, first + part))

    def whole(*shape: int) -> pallas.BlockSpec:
        return pallas.BlockSpec((1, *shape), lambda row, part: (row, 0, 0))

    return pallas.pallas_call(
        functools.partial(_kernel, dim=dim),
        grid=(rows, parts),
        in_specs=[
            *(heads_of(which * parts) for which in range(3)),
            whole(length, dim // 2),
            whole(length, dim // 2),
            whole(1, length),
        ],
        out_specs=heads_of(0),
        out_shape=jax.ShapeDtypeStruct((rows, length, width // 3), qkv.dtype),
        scratch_shapes=[
            *[tpu.VMEM((length, block), qkv.dtype)] * 2,
            *[tpu.VMEM((length, block), cos.dtype)] * 2,
        ],
        compiler_params=tpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=_memory(length, together, dim, qkv.dtype)
        ),
        interpret=platform() != "tpu",
        name="row_attention",
    )(qkv, qkv, qkv, cos, sin, valid.astype(jnp.int32)[:, None])


def _kernel(
    query_ref: Any, key_ref: Any, value_ref: Any, cos_ref: Any, sin_ref: Any, valid_ref: Any, mixed_ref: Any,
    query: Any, key: Any, cos: Any, sin: Any, *, dim: int,
) -> None:  # fmt: skip
    """Some heads of one row: blocks [1, L, heads·dim]. `query`, `key`, `cos` and `sin` are room [L, heads·dim] in fast
    memory, for what is rotated and for the angles of all these heads, which stay for the row's other heads."""
    length, width = query.shape
    heads, half = width // dim, dim // 2
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, width), 1)
    low, visible = lane % dim < half, valid_ref[0] != 0
    scale, wide = jnp.asarray(dim**-0.5, query.dtype), jnp.promote_types(query.dtype, jnp.float32)

    @pallas.when(pallas.program_id(1) == 0)
    def _() -> None:
        cos[...] = jnp.concatenate([cos_ref[0]] * (2 * heads), axis=1)
        sin[...] = jnp.concatenate([-sin_ref[0], sin_ref[0]] * heads, axis=1)

    def rotated(ref: Any, rows: Any) -> Array:
        """`layers.rotate` of all heads: of a pair (i, i + dim / 2) each takes the other from dim / 2 lanes beside."""
        x = ref[0, rows, :].astype(cos.dtype)
        other = jnp.where(low, tpu.roll(x, width - half, 1), tpu.roll(x, half, 1))
        return (x * cos[rows, :] + other * sin[rows, :]).astype(query.dtype)

    def rotate(rows: Any) -> None:
        query[rows, :] = rotated(query_ref, rows) * scale
        key[rows, :] = rotated(key_ref, rows)

    def attend(rows: Any) -> None:
        """Head after head; what the heads that share a register of lanes give is put together in it."""
        shared = jnp.zeros((), wide)  # of the first head all lanes count
        for head in range(heads):
            first, end = head * dim, (head + 1) * dim
            lanes = slice(first // LANES * LANES, -(-end // LANES) * LANES)
            own = (lane[:, lanes] >= first) & (lane[:, lanes] < end)
            scores = jax.lax.dot_general(
                jnp.where(own, query[rows, lanes], 0),
                key[:, lanes],
                (((1,), (1,)), ((), ())),
                preferred_element_type=wide,
            )
            scores = jnp.where(visible, scores, MASKED)
            weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
            values = value_ref[0, :, lanes]
            mixed = jnp.dot(weights.astype(values.dtype), values, preferred_element_type=wide)
            mixed = mixed / jnp.sum(weights, axis=1, keepdims=True)
            for start in range(lanes.start, lanes.stop, LANES):
                here = slice(start - lanes.start, start - lanes.start + LANES)
                shared = mixed[:, here] if first <= start else jnp.where(own[:, here], mixed[:, here], shared)
                if end >= start + LANES:
                    mixed_ref[0, rows, start : start + LANES] = shared.astype(mixed_ref.dtype)

    _some_at_a_time(length, rotate)
    _some_at_a_time(length, attend)


def _some_at_a_time(length: int, run: Callable[[Any], None]) -> None:
    """`run` for some patches after the others, in a loop where that is often, and for the rest."""
    size = _queries(length)
    often = length // size

    def one(at: Any, _: None) -> None:
        run(pallas.ds(pallas.multiple_of(at * size, size), size))

    if often == 1:
        run(pallas.ds(0, size))
    else:
        jax.lax.fori_loop(0, often, one, None)
    if length % size:
        run(pallas.ds(often * size, length % size))
