"""Linear, norm and rotary pieces that the vision tower and the language model share.

Weights have the names and the axes ([out, in]) of Hugging Face's files, so a checkpoint is loaded without transposing.
A module built with `stack=(depth,)` holds the weights of all layers on a leading axis; the layers are scanned over it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from jaxvsr.models.layer_product import layer_product
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import KEPT, Remat
from jaxvsr.models.sharding import is_split, platform

INITIAL_STD = 0.02  # Qwen2's initializer_range
LANES = 128  # a TPU's registers are 8 × 128


class LoraParam(nnx.Param):
    """A trainable adapter matrix: float32, whatever the base's dtype is."""


class Linear(nnx.Module):
    """`x @ weight.T + bias`, with an optional low-rank adapter."""

    def __init__(
        self,
        name: str,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        init: ParamInit,
        stack: tuple[int, ...] = (),
        heads: int = 0,
    ):
        """`heads`: whose outputs (of `o_proj`: inputs) stay whole on a device; 0: of none."""
        self.name, self.heads = name, heads
        self.weight = nnx.Param(init.normal((*stack, out_features, in_features)))
        self.bias = nnx.Param(init.full((*stack, out_features), 0.0)) if bias else None
        self.scaling = 0.0
        adapted = (False,) if init.lora is None else init.lora.adapted_layers(name, *stack[:1])
        if init.lora is not None and any(adapted):
            self.scaling = init.lora.scaling
            shape_a, shape_b = (*stack, init.lora.rank, in_features), (*stack, out_features, init.lora.rank)
            bound = in_features**-0.5  # PEFT: kaiming_uniform(a=sqrt(5)), which is uniform in ±1/sqrt(in)
            lora_a = init.uniform(shape_a, bound)
            if not all(adapted):  # where A and B are both 0, so are their gradients: such a layer stays as it is
                lora_a = lora_a * jnp.array(adapted, jnp.float32)[:, None, None]
            self.lora_A = LoraParam(lora_a)
            self.lora_B = LoraParam(jnp.zeros(shape_b, jnp.float32))

    def __call__(self, x: Float[Array, "*batch fan_in"]) -> Float[Array, "*batch fan_out"]:
        y = self._product(x, self.weight[...], "weight")
        if self.scaling:
            low = self._product(x, self.lora_A[...], "lora_A") * self.scaling  # scaling the narrow side is cheaper
            y = y + self._product(low, self.lora_B[...], "lora_B")
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype)
        return y

    def _product(self, x: Array, weight: Array, kind: str) -> Array:
        return layer_product(x, weight, f"{self.name}.{kind}", self.heads)


class ParamInit:
    """How parameters are made: the dtype of the base weights, the adapter, and the random numbers."""

    def __init__(self, dtype: jnp.dtype, lora: LoraConfig | None, seed: int = 0):
        self.dtype, self.lora, self._key, self._drawn = dtype, lora, jax.random.key(seed), 0

    def _next_key(self) -> jax.Array:
        self._drawn += 1
        return jax.random.fold_in(self._key, self._drawn)

    def normal(self, shape: tuple[int, ...], std: float = INITIAL_STD) -> Float[Array, "..."]:
        return (jax.random.normal(self._next_key(), shape, jnp.float32) * std).astype(self.dtype)

    def uniform(self, shape: tuple[int, ...], bound: float) -> Float[Array, "..."]:
        """For adapters: always float32, and from other random keys than the base, which does not depend on them."""
        key = jax.random.fold_in(jax.random.fold_in(self._key, 2**31 - 1), self._drawn)
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    def full(self, shape: tuple[int, ...], value: float) -> Float[Array, "..."]:
        return jnp.full(shape, value, self.dtype)


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """bfloat16 and float16 become float32; float64 stays float64."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class RMSNorm(nnx.Module):
    """Root mean square norm in float32 or wider."""

    def __init__(self, width: int, *, eps: float, init: ParamInit, stack: tuple[int, ...] = ()):
        self.weight = nnx.Param(init.full((*stack, width), 1.0))
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return root_mean_square_norm(x, self.weight[...], self.eps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def root_mean_square_norm(
    x: Float[Array, "*batch width"], weight: Float[Array, " width"], eps: float
) -> Float[Array, "*batch width"]:
    """Keeps `x` as it came and one number for each vector for the backward pass. JAX by itself would keep the result in
    float32."""
    return _norm_forward(x, weight, eps)[0]


def _norm_forward(x: Array, weight: Array, eps: float) -> tuple[Array, tuple[Array, Array, Array]]:
    wide = at_least_float32(x)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return (wide * scale).astype(x.dtype) * weight.astype(x.dtype), (x, checkpoint_name(scale, KEPT), weight)


def _norm_backward(eps: float, kept: tuple[Array, Array, Array], pulled: Array) -> tuple[Array, Array]:
    x, scale, weight = kept
    unit = at_least_float32(x) * scale
    of_weight = jnp.sum(at_least_float32(pulled) * unit.astype(x.dtype), axis=tuple(range(x.ndim - 1)))
    pulled = at_least_float32(pulled * weight.astype(x.dtype))
    along = jnp.mean(unit * pulled, axis=-1, keepdims=True)
    return (scale * (pulled - unit * along)).astype(x.dtype), of_weight.astype(weight.dtype)


root_mean_square_norm.defvjp(_norm_forward, _norm_backward)


class LayerNorm(nnx.Module):
    """Layer norm with weight and bias in float32 or wider."""

    def __init__(self, width: int, *, eps: float, init: ParamInit, stack: tuple[int, ...] = ()):
        self.weight = nnx.Param(init.full((*stack, width), 1.0))
        self.bias = nnx.Param(init.full((*stack, width), 0.0))
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        wide = at_least_float32(x)
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        weight, bias = self.weight[...].astype(wide.dtype), self.bias[...].astype(wide.dtype)
        return (wide * weight + bias).astype(x.dtype)


class SwiGLU(nnx.Module):
    """`down(silu(gate(x)) * up(x))`: the language model's MLP and, with biases, that of Qwen2.5-VL's tower."""

    def __init__(self, name: str, width: int, inner: int, *, bias: bool, init: ParamInit, stack: tuple[int, ...]):
        self.gate_proj = Linear(f"{name}.gate_proj", width, inner, bias=bias, init=init, stack=stack)
        self.up_proj = Linear(f"{name}.up_proj", width, inner, bias=bias, init=init, stack=stack)
        self.down_proj = Linear(f"{name}.down_proj", inner, width, bias=bias, init=init, stack=stack)

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return self.down_proj(gated(self.gate_proj(x), self.up_proj(x)))


@jax.custom_vjp
def gated(gate: Float[Array, "*batch inner"], up: Float[Array, "*batch inner"]) -> Float[Array, "*batch inner"]:
    """`silu(gate) * up`. Both gradients are written to memory, once: left to itself the TPU's compiler computes them
    again for every tile of the two products that take them, which costs half a product."""
    return jax.nn.silu(gate) * up


def _gated_forward(gate: Array, up: Array) -> tuple[Array, tuple[Array, Array]]:
    return gated(gate, up), (gate, up)


def _gated_backward(kept: tuple[Array, Array], pulled: Array) -> tuple[Array, Array]:
    pull = jax.vjp(lambda gate, up: jax.nn.silu(gate) * up, *kept)[1]
    gradients: tuple[Array, Array] = jax.lax.optimization_barrier(pull(pulled))
    return gradients


gated.defvjp(_gated_forward, _gated_backward)


def unstacked(stack: nnx.Module, depth: int) -> list[Any]:
    """The modules of a stack one by one. Slice them before a decode loop: inside it every step would copy them."""
    definition, weights = nnx.split(stack)
    return [
        nnx.merge(definition, jax.tree.map(lambda leaf, index=index: leaf[index], weights)) for index in range(depth)
    ]


def rematerialised(layer: Callable[..., Any], remat: Remat, in_scan: bool = False) -> Callable[..., Any]:
    """`layer`, with what `remat` names recomputed in the backward pass.

    Args:
        in_scan: a loop keeps the two passes apart by itself. Without saying so a barrier would: before it the layer's
            weights, and whatever was kept, are copied out of their stacks.
    """
    policies = jax.checkpoint_policies
    if remat == "none":
        if not is_split("fsdp"):
            return layer
        return jax.checkpoint(layer, policy=_but_what_is_gathered, prevent_cse=not in_scan)
    products = policies.save_from_both_policies(
        policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(KEPT)
    )
    policy = products if remat == "dots" else None
    return jax.checkpoint(layer, policy=policy, prevent_cse=not in_scan)


def _but_what_is_gathered(operation: Any, *_: Any, **__: Any) -> bool:
    """A policy of `jax.checkpoint`: keep all values but those that are said to lie elsewhere. They are made again from
    those that they were made of: a weight is gathered again, and not kept whole for each layer."""
    return bool(operation.name != "sharding_constraint")


def inverse_frequencies(dim: int, theta: float, dtype: jnp.dtype) -> Float[Array, "half"]:
    """Rotary frequencies `theta ** (-2i / dim)`."""
    return 1.0 / (theta ** (jnp.arange(0, dim, 2, dtype=dtype) / dim))


def mrope_axes(sections: tuple[int, int, int], interleaved: bool) -> tuple[int, ...]:
    """Which axis of a position (0 time, 1 height, 2 width) each of the head_dim / 2 frequencies turns with.

    In runs of `sections` (Qwen2-VL), or in turn as long as an axis has any left, and the rest to time (Qwen3-VL):

    >>> mrope_axes((4, 2, 2), False), mrope_axes((4, 2, 2), True)
    ((0, 0, 0, 0, 1, 1, 2, 2), (0, 1, 2, 0, 1, 2, 0, 0))
    """
    if not interleaved:
        return tuple(axis for axis, count in enumerate(sections) for _ in range(count))
    return tuple(axis if index < 3 * sections[axis] else 0 for index in range(sum(sections)) for axis in [index % 3])


def mrope(
    positions: Int[Array, "*batch 3"], head_dim: int, theta: float, axes: tuple[int, ...], dtype: jnp.dtype
) -> tuple[Float[Array, "*batch half"], Float[Array, "*batch half"]]:
    """Cosine and sine of a multimodal rotary embedding, from float32 angles.

    Axes (0, 0, 1, 2) and positions (t, h, w) give the angles t·f0, t·f1, h·f2, w·f3.
    """
    axis = jnp.array(axes)
    angles = jnp.take(positions, axis, axis=-1).astype(dtype) * inverse_frequencies(head_dim, theta, dtype)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "*batch heads dim"], cos: Float[Array, "*batch half"], sin: Float[Array, "*batch half"]
) -> Float[Array, "*batch heads dim"]:
    """Rotate the pairs (i, i + dim / 2) of every head, in float32 or wider."""
    if platform() == "tpu":
        return rotate_by_product(x, cos, sin)
    low, high = jnp.split(at_least_float32(x), 2, axis=-1)
    cos, sin = cos[..., None, :], sin[..., None, :]
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1).astype(x.dtype)


@jax.custom_vjp
def rotate_by_product(
    x: Float[Array, "*batch heads dim"], cos: Float[Array, "*batch half"], sin: Float[Array, "*batch half"]
) -> Float[Array, "*batch heads dim"]:
    """`rotate`, with the other of each pair from a product with ones and minus ones, which is exact: half of a head is
    half of a TPU's register, and taking heads apart there moves all of them."""
    half = x.shape[-1] // 2
    turn = np.zeros((2 * half, 2 * half))
    turn[half:, :half], turn[:half, half:] = -np.eye(half), np.eye(half)
    cos, sin = (jnp.concatenate([part, part], axis=-1)[..., None, :] for part in (cos, sin))
    wide = at_least_float32(x)
    other = jnp.matmul(x, jnp.asarray(turn, x.dtype), precision="highest", preferred_element_type=wide.dtype)
    return (wide * cos + other * sin).astype(x.dtype)


def _rotated(x: Array, cos: Array, sin: Array) -> tuple[Array, tuple[Array, Array]]:
    return rotate_by_product(x, cos, sin), (cos, sin)


def _rotated_back(kept: tuple[Array, Array], pulled: Array) -> tuple[Array, Array, Array]:
    """Positions are not trained."""
    cos, sin = kept
    return rotate_by_product(pulled, cos, -sin), jnp.zeros_like(cos), jnp.zeros_like(sin)


rotate_by_product.defvjp(_rotated, _rotated_back)
