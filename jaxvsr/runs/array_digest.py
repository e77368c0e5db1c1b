"""A digest of an array's bits that is the same on every mesh: a sum needs no order, so each device adds up its part.

Two sums modulo 2³² over the array's 32-bit words x_i:

    Σ x_i        Σ x_i · w_i,   w_i odd, from the word's place i

One changed word changes both, whichever it is. It tells damage from what was written; it is no protection from forgery.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

_GOLDEN = 0x9E3779B1  # 2³² / golden ratio, odd: neighbouring places have weights far apart
_CHUNK = 2**22  # words that are weighted at once in host memory


def array_digest(array: Any) -> str:
    """16 hexadecimal digits, of an array in host memory or on any mesh."""
    if isinstance(array, np.ndarray) or (array.is_fully_addressable and jax.default_backend() == "cpu"):
        plain, weighted = _host_sums(np.asarray(array))
    else:
        plain, weighted = (int(value) for value in jax.device_get(_device_sums(array)))
    return f"{plain:08x}{weighted:08x}"


def tree_digests(tree: Any) -> dict[str, str]:
    """The digest of each leaf by its place in the tree."""
    return {jax.tree_util.keystr(path): array_digest(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def changed_leaf(tree: Any, digests: dict[str, str]) -> str | None:
    """The first leaf whose bits are not those of the digest; leaves without one are not looked at."""
    found = tree_digests(tree)
    return next((name for name in found if digests.get(name, found[name]) != found[name]), None)


def _host_sums(array: np.ndarray) -> tuple[int, int]:
    words = np.ascontiguousarray(array).reshape(-1).view(_word_dtype(array.dtype))
    plain = weighted = 0
    for start in range(0, words.size, _CHUNK):
        part = words[start : start + _CHUNK].astype(np.uint32)
        places = np.arange(start, start + part.size, dtype=np.uint64).astype(np.uint32)
        plain += int(part.sum(dtype=np.uint64))
        weighted += int((part * (places * np.uint32(_GOLDEN) | np.uint32(1))).sum(dtype=np.uint64))
    return plain % 2**32, weighted % 2**32


def _word_dtype(dtype: np.dtype) -> np.dtype:
    """Unsigned words of the array's bits: as wide as an item, and four bytes of what is wider."""
    return np.dtype(f"u{min(dtype.itemsize, 4)}")


@functools.partial(jax.jit)
def _device_sums(array: Array) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(array, jnp.dtype(_word_dtype(np.dtype(array.dtype)))).astype(jnp.uint32)
    place = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    weights = place * jnp.uint32(_GOLDEN) | jnp.uint32(1)
    return jnp.sum(words, dtype=jnp.uint32), jnp.sum(words * weights, dtype=jnp.uint32)
