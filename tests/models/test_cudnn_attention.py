"""Attention of a long scene as it goes to cuDNN, computed by XLA here: equal to the portable path."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import util
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvsr.errors import InputError
from jaxvsr.models import cudnn_attention, tree
from jaxvsr.models.attention import causal_attention
from jaxvsr.models.tree import ForwardOptions
from tests.support.two_ways import check_both_ways, on_meshes


def test_it_equals_the_portable_path_forward_and_backward() -> None:
    """Two key heads of three query heads, and a number of tokens that fills no whole register."""
    rng = np.random.default_rng(1)
    shapes = (2, 2, 200, 3, 16), (2, 2, 200, 16), (2, 2, 200, 16)
    heads = tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    weights = rng.normal(size=shapes[0])
    kernel = jax.jit(cudnn_attention.cudnn_attention)
    portable = jax.jit(lambda query, key, value: causal_attention(query, key, value, 64))
    ours, theirs = kernel(*heads), portable(*heads)
    assert jnp.abs(ours - theirs).max() <= 2e-6 * jnp.abs(theirs).max()
    pulled = [jax.grad(lambda *x, f=f: jnp.sum(f(*x) * weights), argnums=(0, 1, 2))(*heads) for f in (kernel, portable)]
    for ours, theirs in zip(*pulled, strict=True):
        assert jnp.abs(ours - theirs).max() <= 2e-6 * jnp.abs(theirs).max()


_TAKEN = """
def takes(self, tokens, dim):
    noted.append(bool(self.fused))
    return self.fused

ForwardOptions.takes_cudnn, ForwardOptions.is_fused = takes, lambda self, tokens: False
"""


@pytest.mark.slow
@on_meshes
def test_log_probabilities_and_gradients_are_those_of_the_portable_path(family: str, mesh: str, key_heads: int) -> None:
    assert check_both_ways(family, mesh, key_heads, _TAKEN) == [False, True]


def test_long_scenes_in_bfloat16_on_cards_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn_attention, "has_cudnn", lambda dim: dim == 128)
    long, half = tree.CUDNN_FROM, ForwardOptions("bfloat16")
    assert not half.takes_cudnn(long, 128)  # this is a CPU
    monkeypatch.setattr(tree, "platform", lambda: "gpu")
    assert half.takes_cudnn(long, 128)
    assert not half.takes_cudnn(long - 1, 128) and not half.takes_cudnn(long, 300)
    assert not ForwardOptions("float32").takes_cudnn(long, 128)
    assert not ForwardOptions("bfloat16", fused=False).takes_cudnn(long, 128)
    assert not half.is_fused(10 * long) and not ForwardOptions("bfloat16", fused=True).is_fused(long)  # the TPUs'
    assert ForwardOptions("bfloat16", fused=True).takes_cudnn(1, 128)


def _as_on_a_card(monkeypatch: pytest.MonkeyPatch, capability: str = "9.0") -> None:
    cudnn_attention._is_taken.cache_clear()
    monkeypatch.setattr(cudnn_attention, "platform", lambda: "gpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(compute_capability=capability)])


_BY_XLA = functools.partial(cudnn_attention._attended, how="xla")


def _wrong_output(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return _BY_XLA(query, key, value).at[0, 5].mul(1.25)


@jax.custom_vjp
def _no_number_in_a_gradient(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return _BY_XLA(query, key, value)


def _pulled_back(kept: tuple[jax.Array, ...], pulled: jax.Array) -> tuple[jax.Array, ...]:
    *others, last = jax.vjp(_BY_XLA, *kept)[1](pulled)
    return *others, last.at[0, 5, 0, 0].set(jnp.nan)


_no_number_in_a_gradient.defvjp(lambda *heads: (_no_number_in_a_gradient(*heads), heads), _pulled_back)


@pytest.mark.parametrize(
    ("computed", "fault"),
    [
        (_BY_XLA, ""),
        (_wrong_output, "query's gradient"),
        (_no_number_in_a_gradient, "value's nan"),
    ],
)
def test_a_card_that_is_here_is_tried_once_also_while_a_program_is_traced(
    computed: Callable[..., jax.Array], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def here(query: jax.Array, key: jax.Array, value: jax.Array, how: str) -> jax.Array:
        if how == "xla":
            return _BY_XLA(query, key, value)
        tried.append(query.shape[1])
        return computed(query, key, value)

    _as_on_a_card(monkeypatch)
    monkeypatch.setattr(cudnn_attention, "_attended", here)
    found = []

    @jax.jit
    def program(x: jax.Array) -> jax.Array:
        found.extend([cudnn_attention.has_cudnn(16), cudnn_attention.has_cudnn(16)])
        return x + 1

    said = pytest.warns(UserWarning, match=f"not taken: {fault}") if fault else contextlib.nullcontext()
    with jax.set_mesh(jax.make_mesh((1,), ("data",))), said:
        program(jnp.ones(2))
    assert found == [not fault] * 2
    assert tried == [cudnn_attention.ALIGNED, cudnn_attention.TRIED]  # asked of JAX, and computed

    if fault:  # in one of several processes
        cudnn_attention._is_taken.cache_clear()
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        with pytest.raises(InputError, match=r"model\.fused_attention=off"):
            cudnn_attention.has_cudnn(16)


def test_a_card_on_which_cudnn_fails_does_not_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(query: jax.Array, key: jax.Array, value: jax.Array, how: str) -> jax.Array:
        if query.shape[1] == cudnn_attention.TRIED:
            raise jax.errors.JaxRuntimeError("CUDNN_STATUS_NOT_SUPPORTED")
        return query

    _as_on_a_card(monkeypatch)
    monkeypatch.setattr(cudnn_attention, "_attended", failing)
    with pytest.warns(UserWarning, match="CUDNN_STATUS_NOT_SUPPORTED"):
        assert not cudnn_attention.has_cudnn(16)


@pytest.mark.parametrize(("capability", "has"), [("9.0", True), ("12.0", True), ("8.0", True), ("7.5", False)])
def test_cards_before_ampere_have_none(capability: str, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_on_a_card(monkeypatch, capability)
    monkeypatch.setattr(cudnn_attention, "_attended", lambda query, *_, **__: query)
    monkeypatch.setattr(cudnn_attention, "_fault", lambda dim: "")
    assert cudnn_attention.has_cudnn(128) is has


@pytest.mark.parametrize("error", [RuntimeError("cuDNN is not detected."), NotImplementedError("head dim")])
def test_a_jax_without_cudnn_goes_without(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that for AMD's cards."""

    def none_there(*_: object, **__: object) -> None:
        raise error

    _as_on_a_card(monkeypatch, "gfx942")
    monkeypatch.setattr(jax.nn, "dot_product_attention", none_there)
    assert not cudnn_attention.has_cudnn(128)


_COMPILED = """
import re, sys
from jaxvsr.devices.targets import parse_target, prepare_compiler
target = parse_target(sys.argv[1])
prepare_compiler(target)
import dataclasses
from jaxvsr.measure.compiled_costs import abstract_bench
from jaxvsr.measure.step_bench import Workload
from jaxvsr.measure.target_costs import target_mesh
from jaxvsr.models.tree import ForwardOptions
from tests.support.trees import small_config

config = small_config("qwen2_vl")
config = dataclasses.replace(config, text=dataclasses.replace(config.text, num_hidden_layers=2))
work = Workload(scenes=4, questions=2, rollouts=2, frames=4, max_pixels=224 * 224, answer_tokens=6)
options = ForwardOptions("bfloat16", "full", unroll=False, fused=True)
_, programs = abstract_bench(config, work, options, target_mesh(target, sys.argv[2]))
for name, (function, arguments) in programs.items():
    print(name, len(re.findall(r'custom_call_target="__cudnn', function.executable(*arguments).as_text())))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    util.find_spec("jax_cuda12_plugin") is None, reason="NVIDIA's compiler is not installed: jaxvsr[compile-cuda]"
)
@pytest.mark.parametrize(("target", "mesh"), [("h100:1", "1"), ("h100:4", "fsdp=2,tensor=2")])
def test_the_cards_compiler_takes_it(target: str, mesh: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COMPILED, target, mesh],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    calls = {name: int(count) for name, count in (line.split() for line in done.stdout.splitlines())}
    assert calls == {"sample": 1, "reference": 1, "update": 3}  # forward; again for the backward pass, and that
