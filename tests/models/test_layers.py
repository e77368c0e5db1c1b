"""Pieces of a layer that are written by hand, backward or for TPUs: values and gradients are the plain formula's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxvsr.models import attention, layers
from jaxvsr.models.attention import KeyValueSegment, attend
from jaxvsr.models.layers import LANES, ParamInit, RMSNorm, at_least_float32, gated, rotate, rotate_by_product

DTYPES = ["bfloat16", "float32", "float64"]
EPS = {"bfloat16": 1e-2, "float32": 1e-6, "float64": 1e-14}


def _random(*shape: int, dtype: str, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def _same(ours: Callable[..., Any], theirs: Callable[..., Any], arguments: tuple[jax.Array, ...], bound: float) -> None:
    """Values and gradients of all arguments, under random weights, to a share of the largest."""

    def both(function: Callable[..., Any]) -> tuple[Any, ...]:
        value, pull = jax.vjp(function, *arguments)
        return value, *pull(_random(*value.shape, dtype=value.dtype.name, seed=9))

    for mine, plain in zip(*map(both, (jax.jit(ours), jax.jit(theirs))), strict=True):
        assert mine.dtype == plain.dtype
        wide = np.asarray(plain, np.float64)
        assert np.abs(np.asarray(mine, np.float64) - wide).max() <= bound * np.abs(wide).max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rotation_by_a_product_is_that_of_halves(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        x, angles = _random(2, 5, 3, 8, dtype=dtype), _random(2, 5, 4, dtype=str(jnp.promote_types(dtype, "float32")))
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        _same(lambda x: rotate_by_product(x, cos, sin), lambda x: rotate(x, cos, sin), (x,), EPS[dtype] / 2)
        # The first pair of a head, by an angle of a quarter: (1, 0) becomes (0, 1).
        turned = rotate_by_product(jnp.array([[1.0, 0, 0, 0]], dtype), jnp.zeros((2,)), jnp.ones((2,)))
        np.testing.assert_array_equal(turned, [[0, 0, 1, 0]])


def test_tpus_rotate_by_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    x, cos = jnp.ones((1, 2, 1, 8)), jnp.ones((1, 2, 4))
    for platform, products in [("tpu", 1), ("cpu", 0), ("gpu", 0)]:
        monkeypatch.setattr(layers, "platform", lambda platform=platform: platform)
        traced = jax.make_jaxpr(lambda x: rotate(x, cos, cos))(x)
        assert str(traced).count("dot_general") == products, platform


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_weights_by_a_product_are_sums(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with jax.enable_x64(dtype == "float64"):
        query, key, value = (_random(2, 3, n, 8, dtype=dtype, seed=n) for n in (5, 9, 10))
        value = value[:, :, :9]
        visible = jnp.arange(9) < 7

        def attended(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            return attend(query, [KeyValueSegment(key, value, visible)])

        def on_tpu(*heads: jax.Array) -> jax.Array:
            with monkeypatch.context() as patch:
                patch.setattr(attention, "platform", lambda: "tpu")
                return attended(*heads)

        assert str(jax.make_jaxpr(on_tpu)(query, key, value)).count("dot_general") == 3
        _same(on_tpu, attended, (query, key, value), EPS[dtype])
        residuals = jax.tree.leaves(jax.vjp(on_tpu, query, key, value)[1])
        assert all(leaf.shape[-1:] != (LANES,) for leaf in residuals)


def test_the_gradient_of_a_query_is_not_that_of_rounded_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys with a bias and values with a mean, as Qwen2 has them: an error that a row's keys share adds up."""
    query, key, value = (np.random.default_rng(n).normal(size=(n, 128)) for n in (64, 1023, 1024))
    key, value = (
        key + 5 * np.random.default_rng(5).normal(size=128),
        value[1:] + 2 * np.random.default_rng(6).normal(size=128),
    )
    weights = np.random.default_rng(7).normal(size=query.shape)

    def gradient(dtype: str) -> np.ndarray:
        heads = [jnp.asarray(jnp.asarray(part, "bfloat16"), dtype) for part in (query, key, value)]

        def loss(query: jax.Array) -> jax.Array:
            return jnp.sum(attend(query, [KeyValueSegment(heads[1], heads[2], jnp.ones((), bool))]) * weights)

        return np.asarray(jax.jit(jax.grad(loss))(heads[0]), np.float64)

    with jax.enable_x64(True):
        true = gradient("float64")
    plain = np.linalg.norm(gradient("bfloat16") - true)
    monkeypatch.setattr(attention, "platform", lambda: "tpu")
    assert np.linalg.norm(gradient("bfloat16") - true) < 1.2 * plain < 0.12 * np.linalg.norm(true)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gated_product_has_the_gradients_of_the_formula(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        gate, up = (_random(3, 7, dtype=dtype, seed=seed) for seed in (1, 2))
        _same(gated, lambda gate, up: jax.nn.silu(gate) * up, (gate, up), EPS[dtype])
        traced = jax.make_jaxpr(lambda gate, up: jax.vjp(gated, gate, up)[1](gate))(gate, up)
        assert "optimization_barrier" in str(traced)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_norm_has_the_gradients_of_the_formula_and_keeps_its_input_alone(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        x, weight = 3 * _random(2, 6, 32, dtype=dtype), 1 + _random(32, dtype=dtype, seed=3) / 4
        made = RMSNorm(32, eps=1e-6, init=ParamInit(jnp.dtype(dtype), None))
        definition, parameters = nnx.split(made)

        def ours(x: jax.Array, weight: jax.Array) -> jax.Array:
            return nnx.merge(definition, jax.tree.map(lambda _: weight, parameters))(x)

        def formula(x: jax.Array, weight: jax.Array) -> jax.Array:
            wide = at_least_float32(x)
            return (wide / jnp.sqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + 1e-6)).astype(x.dtype) * weight

        _same(ours, formula, (x, weight), 2 * EPS[dtype])
        kept = jax.tree.leaves(jax.vjp(ours, x, weight)[1])
        assert sum(leaf.nbytes for leaf in kept if leaf.size >= x.size) == x.nbytes
