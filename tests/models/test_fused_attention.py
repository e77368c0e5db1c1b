"""Attention of a tree in one kernel, interpreted on CPU: equal to the portable path, forward and backward."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvsr.models import tree
from jaxvsr.models.fused_attention import BLOCKS, _kernel, _TreeMask, block_size, computed_blocks, tree_attention
from jaxvsr.models.layers import rematerialised
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tree import ForwardOptions, _TreeAttention
from jaxvsr.models.tree_sizes import TreeSizes
from tests.support.trees import random_parameters, random_tree, small_config
from tests.support.two_ways import check_both_ways, on_meshes


def _seen_by(sizes: TreeSizes) -> np.ndarray:
    """The drawing of `attention.py`, token by token."""
    paths: list[tuple[str, ...]] = [()] * sizes.scene
    for question in range(sizes.questions):
        paths += [(f"q{question}",)] * sizes.question
    for question in range(sizes.questions):
        for rollout in range(sizes.group):
            paths += [(f"q{question}", f"r{rollout}")] * sizes.fed
    seen = np.zeros((len(paths), len(paths)), bool)
    for row, path in enumerate(paths):
        for column in range(row + 1):
            seen[row, column] = paths[column] == path[: len(paths[column])]
    return seen


@pytest.mark.parametrize(
    "sizes", [TreeSizes(5, 3, 4, 2, 3), TreeSizes(1, 1, 1, 1, 1), TreeSizes(7, 2, 3), TreeSizes(4, 1, 2, 5, 4)]
)
def test_what_a_token_sees_is_the_drawing(sizes: TreeSizes) -> None:
    spare = np.arange(sizes.tokens + 3)
    visible = sizes.visible(spare, spare)
    np.testing.assert_array_equal(visible[: sizes.tokens, : sizes.tokens], _seen_by(sizes))
    assert not visible[: sizes.tokens, sizes.tokens :].any() and visible.diagonal().all()


def _heads(sizes: TreeSizes, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Two scenes, two key heads of three query heads."""
    rng = np.random.default_rng(1)
    shapes = (2, sizes.tokens, 2, 3, 16), (2, sizes.tokens, 2, 16), (2, sizes.tokens, 2, 16)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize("dtype, bound", [(jnp.float32, 2e-6), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize("answers", [True, False])
def test_the_kernel_equals_the_portable_path(dtype: jnp.dtype, bound: float, answers: bool) -> None:
    sizes = TreeSizes(200, 2, 20, 3, 15) if answers else TreeSizes(200, 2, 20)
    small = random_tree(2, 2, 3).prompt
    prompt = dataclasses.replace(
        small,
        scene_tokens=np.zeros((2, 200), np.int32),
        scene_length=np.array([200, 131], np.int32),
        scene_positions=np.zeros((2, 200, 3), np.int32),
        vision_index=np.full((2, 200), -1, np.int32),
        question_tokens=np.zeros((2, 2, 20), np.int32),
        question_length=np.array([[20, 11], [7, 20]], np.int32),
    )
    portable = _TreeAttention(prompt, sizes.group, sizes.fed, 3, ForwardOptions(fused=False), keep_cache=False)
    real = portable.real
    weights = np.random.default_rng(2).normal(size=(2, sizes.tokens, 2, 3, 16))
    weights *= np.asarray(real)[:, :, None, None, None]  # what padding attends to means nothing

    def both(heads: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        query, key, value = heads
        fused = tree_attention(query, key, value, real, sizes, block=128)  # blocks whole, partly seen and skipped
        return fused, portable(query, key, value)[0]

    heads = _heads(sizes, dtype)
    ours, theirs = jax.device_get(jax.jit(both)(heads))
    scale = np.abs(theirs.astype(np.float64) * weights).max()
    assert np.abs((ours.astype(np.float64) - theirs) * weights).max() <= bound * scale
    pulled = [jax.jit(jax.grad(lambda heads, i=i: jnp.sum(both(heads)[i] * weights)))(heads) for i in range(2)]
    for ours, theirs in zip(*jax.device_get(pulled), strict=True):
        assert np.abs(ours.astype(np.float64) - theirs).max() <= 2 * bound * np.abs(theirs.astype(np.float64)).max()


@pytest.mark.slow
@on_meshes
def test_log_probabilities_and_gradients_are_those_of_the_portable_path(family: str, mesh: str, key_heads: int) -> None:
    check_both_ways(family, mesh, key_heads)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_dots_keeps_what_the_kernel_takes(
    family: Literal["qwen2_vl", "qwen3_vl"], capsys: pytest.CaptureFixture[str]
) -> None:
    """Queries, keys and values as they are given to it, in place of the products that they came from."""
    config = small_config(family)
    text = config.text
    assert (text.hidden_size, text.num_attention_heads, text.num_key_value_heads, text.head_dim) == (32, 4, 2, 8)
    language = bind(model_definition(config), random_parameters(config, None, jnp.float32)).language_model
    layer, sizes = language.unstacked_layers()[0], TreeSizes(100, 2, 20)
    rotary = language.rotary(jnp.zeros((2, sizes.tokens, 3), jnp.int32), jnp.dtype("float32"))

    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, None]:
        return tree_attention(query, key, value, jnp.ones((2, sizes.tokens), bool), sizes), None

    one = rematerialised(lambda x: layer(x, rotary, attend)[0], "dots", in_scan=True)
    jax.ad_checkpoint.print_saved_residuals(lambda x: jnp.sum(one(x)), jnp.ones((2, sizes.tokens, 32)))
    lines = capsys.readouterr().out.splitlines()
    kept = [line.split()[0] for line in lines if "from a constant" not in line and "from the argument" not in line]
    expected = ["f32[2,2,2,256,8]"] + 2 * ["f32[2,2,256,8]"]  # of 140 tokens, padded to whole registers
    expected += ["f32[2,2,2,256,8]", "f32[2,2,2,256]"]  # what it gives, and the sums of its softmax
    expected += 2 * ["f32[2,140,1]"] + ["f32[2,140,32]"] + 2 * ["f32[2,140,64]"]  # norms' scales; o, gate and up
    if family == "qwen3_vl":  # its norms of queries and keys need those products too
        expected += ["f32[2,140,32]", "f32[2,140,16]", "f32[2,140,4,1]", "f32[2,140,2,1]"]
    assert sorted(kept) == sorted(expected), lines


@pytest.mark.parametrize(
    "sizes, block",
    [
        (TreeSizes(2048, 4, 48, 14, 15), 640),  # 15 blocks of 640 are 23.4 of 512, of which 28 would be computed
        (TreeSizes(968, 4, 48, 14, 15), 512),
        (TreeSizes(300, 2, 20), 384),  # one block
        (TreeSizes(550, 1, 20), 640),
    ],
)
def test_blocks_are_of_the_size_with_which_fewest_scores_are_computed(sizes: TreeSizes, block: int) -> None:
    assert block_size(sizes) == block
    visible = sizes.visible(np.arange(sizes.tokens), np.arange(sizes.tokens))
    for one in {*BLOCKS, block}:
        count = -(-sizes.tokens // one)
        spare = count * one - sizes.tokens
        parts = np.pad(visible, [(0, spare), (0, spare)]).reshape(count, one, count, one)
        assert computed_blocks(sizes, one) == parts.any((1, 3)).sum()
        kernel = _kernel(_TreeMask(sizes, count * one), one, True)
        assert computed_blocks(sizes, one) == np.count_nonzero(kernel.fwd_mask_info.block_mask)


def test_only_tpus_fuse_by_themselves_and_float64_never(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform, tokens, fused in [("cpu", 10_000, False), ("gpu", 10_000, False), ("tpu", 255, False)]:
        monkeypatch.setattr(tree, "platform", lambda platform=platform: platform)
        assert ForwardOptions().is_fused(tokens) is fused
    monkeypatch.setattr(tree, "platform", lambda: "tpu")
    assert ForwardOptions().is_fused(256) and not ForwardOptions(fused=False).is_fused(256)
    with jax.default_matmul_precision("highest"):  # "Bad lhs type" of Mosaic for bfloat16
        assert ForwardOptions("float32").is_fused(256) and not ForwardOptions("bfloat16").is_fused(256)
    with jax.default_matmul_precision("high"):
        assert not ForwardOptions("float32").is_fused(256)
    assert not ForwardOptions("float64").is_fused(256) and not ForwardOptions("float64", fused=True).is_fused(256)
