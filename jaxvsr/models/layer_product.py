"""The product of a layer: its weight is gathered over fsdp before it, and its gradient scattered over fsdp in summing.

Both have to be said. A partitioner that may choose splits the product's sum instead, and the TPU's gives every device
the whole gradient.
"""

from __future__ import annotations

import functools

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from jaxvsr.models.sharding import Axes, axes_of, axes_that_divide, devices_of, gathered, is_split


def matmul_transposed(x: Float[Array, "*batch fan_in"], weight: Float[Array, "fan_out fan_in"]) -> Array:
    """`x @ weight.T` in the dtype of `x`.

    One product instead of a transpose and a product: the backward pass then needs the weight itself, which a scan over
    layers already has. Of a transpose it would keep one per layer: a second copy of the model.
    """
    contracted = (((x.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(x, weight.astype(x.dtype), contracted)


def layer_product(
    x: Float[Array, "*batch fan_in"], weight: Float[Array, "fan_out fan_in"], name: str, heads: int = 0
) -> Array:
    """`matmul_transposed` with a layer's weight of this name.

    Args:
        x: of scenes, or in the tower of rows.
        heads: that stay whole on a device, 0: there are none.
    """
    weight = weight.astype(x.dtype)
    axes, rows = _gradient_axes(x, weight, name, heads), _row_axes(x, name)
    if axes is None or rows is None:
        return matmul_transposed(x, gathered(weight, name))
    return _scattered_product(x, weight, name, axes, rows)


def _gradient_axes(x: Array, weight: Array, name: str, heads: int) -> Axes | None:
    """The mesh axes of a gradient that is scattered; None where the weight is whole on each device, or does not divide,
    and of adapters, whose gradients are small."""
    axes = axes_of(name)
    if "fsdp" not in axes or not name.endswith(".weight") or not is_split("fsdp"):
        return None
    if weight.shape[axes.index("fsdp")] % devices_of("fsdp"):
        return None
    parts = devices_of("tensor")
    return tuple(
        None if axis == "tensor" and (size % parts or heads % parts) else axis
        for axis, size in zip(axes, weight.shape, strict=True)
    )


def _row_axes(x: Array, name: str) -> tuple[str, ...] | None:
    """The mesh axes of the first axis of `x`; None where it does not divide over them."""
    rows = axes_that_divide(len(x), "rows") if name.startswith("visual.") else None
    return rows or axes_that_divide(len(x), "scenes")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _scattered_product(x: Array, weight: Array, name: str, axes: Axes, rows: tuple[str, ...]) -> Array:
    return matmul_transposed(x, gathered(weight, name))


def _forward(
    x: Array, weight: Array, name: str, axes: Axes, rows: tuple[str, ...]
) -> tuple[Array, tuple[Array, Array]]:
    whole = gathered(weight, name)  # `rematerialised` does not keep it: it is gathered again
    return matmul_transposed(x, whole), (x, whole)


def _backward(
    name: str, axes: Axes, rows: tuple[str, ...], kept: tuple[Array, Array], pulled: Array
) -> tuple[Array, Array]:
    (x, whole), middle = kept, [None] * (kept[0].ndim - 2)
    outputs, inputs = (axis if axis == "tensor" else None for axis in axes)
    others, turned = tuple(axis for axis in rows if axis != "fsdp" and is_split(axis)), axes.index("fsdp") == 1

    def of_own_rows(x: Array, pulled: Array) -> Array:
        """The sum over a device's own rows, added up over all; each device of fsdp gets its part."""
        summed = tuple(range(x.ndim - 1))
        # Scattered along its first axis: along the last one TPUs send every device the whole sum. Without the barrier
        # their compiler turns the sum back before it is sent.
        first_and_second = (x, pulled) if turned else (pulled, x)
        gradient = jax.lax.dot_general(*first_and_second, ((summed, summed), ((), ())))
        gradient = jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=0, tiled=True)
        gradient = jax.lax.psum(gradient, others) if others else gradient
        return jax.lax.optimization_barrier(gradient).T if turned else gradient

    gradient = jax.shard_map(
        of_own_rows,
        in_specs=(PartitionSpec(rows, *middle, inputs), PartitionSpec(rows, *middle, outputs)),
        out_specs=PartitionSpec(*axes),
        check_vma=False,
    )(x, pulled)
    return jax.lax.dot_general(pulled, whole, (((pulled.ndim - 1,), (0,)), ((), ()))), gradient


_scattered_product.defvjp(_forward, _backward)
