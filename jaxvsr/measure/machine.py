"""What this machine can do: the denominator of each "% of peak"."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp


def matmul_peak(dtype: str, size: int | None = None, times: int = 10) -> float:
    """FLOP/s of a square matrix product on this machine, the best of `times` runs, on random data."""
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    left = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    return 2 * size**3 / _best_seconds(jax.jit(lambda a: a @ a), left, times)


def memory_bandwidth(size: int = 2**28, times: int = 10) -> float:
    """Bytes per second that this machine reads from memory: a sum of `size` bytes of float32, the best of `times`."""
    values = jnp.ones(size // 4, jnp.float32)
    return size / _best_seconds(jax.jit(jnp.sum), values, times)


def _best_seconds(function: jax.stages.Wrapped, argument: jax.Array, times: int) -> float:
    jax.block_until_ready(function(argument))
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(function(argument))
        seconds.append(time.perf_counter() - start)
    return min(seconds)
