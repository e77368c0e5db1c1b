"""Attention, portable to every backend: one softmax over one or more segments of keys.

A token of a scene tree sees its own segment causally and all tokens of its ancestors' segments, never a sibling:

                     scene      question 1   question 2   rollout 1.1  rollout 1.2
    scene            causal
    question 1       all        causal
    question 2       all                     causal
    rollout 1.1      all        all                       causal
    rollout 1.2      all        all                                    causal

Keys and values of an ancestor are never copied: the queries of all its descendants are the rows of one matrix product
with them. One softmax runs over all segments: they share its maximum and its normaliser.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvsr.models.layers import LANES, rotate
from jaxvsr.models.sharding import platform

MASKED = -1e30  # finite, so that a padded row that sees no key stays finite


@dataclasses.dataclass(frozen=True)
class KeyValueSegment:
    """Keys and values of one kind of segment (scene, question, rollout), and which of them a query row may see.

    `key` and `value` are [*batch, keys, D]; `visible` broadcasts to [*batch, rows, keys]. The batch axes are a prefix
    of the queries' axes: the remaining query axes are rows.
    """

    key: Float[Array, "*batch keys D"]
    value: Float[Array, "*batch keys D"]
    visible: Bool[Array, "..."]


def attend(query: Float[Array, "*axes D"], segments: Sequence[KeyValueSegment]) -> Float[Array, "*axes D"]:
    """Softmax attention of `query` over all segments at once; scores and softmax in float32 or wider."""
    dim, wide = query.shape[-1], jnp.promote_types(query.dtype, jnp.float32)
    query = query * jnp.asarray(dim**-0.5, query.dtype)
    scores = []
    for segment in segments:
        batch = segment.key.shape[:-2]
        rows = query.reshape(*batch, -1, dim)
        score = jnp.einsum("...rd,...kd->...rk", rows, segment.key, preferred_element_type=wide)
        scores.append(jnp.where(segment.visible, score, MASKED))
    lead = query.shape[:-1]
    top = jnp.max(jnp.stack([jnp.max(score, axis=-1).reshape(lead) for score in scores]), axis=0)
    top = jax.lax.stop_gradient(top)
    total, normaliser = jnp.zeros((), wide), jnp.zeros((), wide)
    for segment, score in zip(segments, scores, strict=True):
        weight = jnp.exp(score - top.reshape(*score.shape[:-1], 1))
        normaliser = normaliser + _sums(weight, segment.value.dtype, score.shape[-1]).reshape(lead)
        mixed = jnp.einsum(
            "...rk,...kd->...rd", weight.astype(segment.value.dtype), segment.value, preferred_element_type=wide
        )
        total = total + mixed.reshape(*lead, dim)
    return (total / normaliser[..., None]).astype(query.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _sums(weight: Float[Array, "*rows keys"], dtype: jnp.dtype, keys: int) -> Float[Array, "*rows"]:
    """Of each row. On TPUs by a product with ones, of weights as they are multiplied with values: by their compiler's
    count summing over lanes takes nine times the cycles. Its gradient is that of a sum, in float32: of the product's,
    rounded, the error is the same for all keys of a row, which adds up in the gradient of the query."""
    if platform() != "tpu":
        return jnp.sum(weight, axis=-1)
    ones = jnp.ones((keys, LANES), dtype)
    return jnp.matmul(weight.astype(dtype), ones, preferred_element_type=weight.dtype)[..., 0]


def _sums_forward(weight: Array, dtype: jnp.dtype, keys: int) -> tuple[Array, None]:
    return _sums(weight, dtype, keys), None  # called, not written out: `dots` would keep the product


def _sums_backward(dtype: jnp.dtype, keys: int, kept: None, pulled: Array) -> tuple[Array]:
    return (jnp.broadcast_to(pulled[..., None], (*pulled.shape, keys)),)


_sums.defvjp(_sums_forward, _sums_backward)


def causal_attention(
    query: Float[Array, "*batch Tq M D"],
    key: Float[Array, "*batch Tq D"],
    value: Float[Array, "*batch Tq D"],
    chunk: int,
    keep: int = 1024,
) -> Float[Array, "*batch Tq M D"]:
    """Causal attention within one right-padded segment, with M query heads per key head, in equal chunks of queries.

    A chunk sees only the keys up to its end, so most of the upper triangle of the scores is never computed. In a
    segment longer than `keep` the chunks are rematerialised in the backward pass, so that its scores are never all in
    memory. Right padding needs no mask: a real query never sees a later key.
    """
    length, group = query.shape[-3], query.shape[-2]
    size = -(-length // -(-length // chunk))

    def one_chunk(q: Array, k: Array, v: Array, start: int) -> Array:
        rows = start + jnp.arange(q.shape[-3])
        visible = jnp.repeat(rows, group)[:, None] >= jnp.arange(k.shape[-2])
        return attend(q, [KeyValueSegment(k, v, visible)])

    part = one_chunk if length <= keep else jax.checkpoint(one_chunk, static_argnums=3)
    outputs = []
    for start in range(0, length, size):
        end = min(start + size, length)
        outputs.append(part(query[..., start:end, :, :], key[..., :end, :], value[..., :end, :], start))
    return jnp.concatenate(outputs, axis=-3)


def attend_in_rows(
    qkv: Float[Array, "B L E3"],
    cos: Float[Array, "B L half"],
    sin: Float[Array, "B L half"],
    valid: Bool[Array, "B L"],
    heads: int,
) -> Float[Array, "B L E"]:
    """Every patch of a row sees all valid patches of that row, and no other row. `qkv` has E queries, then keys, then
    values, each head after head."""
    parts = qkv.reshape(*qkv.shape[:-1], 3, heads, -1)
    query, key = rotate(parts[..., 0, :, :], cos, sin), rotate(parts[..., 1, :, :], cos, sin)
    query, key, value = (part.swapaxes(-2, -3) for part in (query, key, parts[..., 2, :, :]))
    mixed = attend(query, [KeyValueSegment(key, value, valid[:, None, None, :])]).swapaxes(-2, -3)
    return mixed.reshape(*qkv.shape[:-1], -1)
