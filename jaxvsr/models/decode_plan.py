"""How decoding goes through the layers, and where their weights lie: decided once, from the devices and the sizes.

Unrolled, the weights of each layer are cut out of their stack before the loop of tokens: a second copy of the language
model's layers, and a program that grows with depth. A scan would cut them out for every token, which on CPU takes as
long as the products; an accelerator reads them where they lie. A TPU's compiler fetches weights that are arrays of
their own into fast memory while other operations run, so there layers are unrolled too, where the copy has room.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.sharding import parameter_shardings, without_fsdp

# Of a device's memory, what weights may take while decoding; the rest is for caches and logits.
WEIGHTS_SHARE = 2 / 3
UNROLLED_SHARE = 1 / 2  # with a copy of the layers, which only makes decoding faster


@dataclasses.dataclass(frozen=True)
class DecodePlan:
    """What a sampling program does with the language model's layers and weights."""

    scanned: bool  # all layers are one loop body; else one after the other
    gathered: bool  # weights are whole over fsdp while decoding; else gathered a layer at a time, for every token
    whole_bytes: int  # of all weights on a device, where they are whole over fsdp

    def __str__(self) -> str:
        layers = "scanned" if self.scanned else "unrolled"
        where = "whole over fsdp" if self.gathered else "split over fsdp, gathered a layer at a time for every token"
        return f"layers {layers}, weights {where} ({self.whole_bytes / 2**30:.3g} GiB a device if whole)"


def decode_plan(
    parameters: Mapping[str, Any],
    beside: Iterable[Any],
    config: ModelConfig,
    dtype: jnp.dtype,
    mesh: Mesh | None,
    memory: int | None,
    unroll: bool | None = None,
) -> DecodePlan:
    """The plan for a model on a mesh.

    Args:
        parameters: the model's arrays by name, or their shapes.
        beside: arrays that lie on the devices too: an optimizer's moments, a reference policy.
        dtype: of activations; weights are read in it.
        memory: bytes of a device; None: not known.
        unroll: `ForwardOptions.unroll`; None: unrolled on CPU, and on TPUs where a copy of the layers has room.
    """
    platform = mesh.devices.flat[0].platform if mesh else jax.default_backend()
    sizes = {
        name: _size(leaf, place) * jnp.dtype(dtype).itemsize
        for name, (leaf, place) in zip(parameters, _whole(parameters, mesh, config), strict=True)
    }
    whole = sum(sizes.values())
    layers = sum(size for name, size in sizes.items() if name.startswith("language_model.layers."))
    held = sum(
        _size(leaf, getattr(leaf, "sharding", None)) * leaf.dtype.itemsize for leaf in (*parameters.values(), *beside)
    )
    split = mesh is not None and mesh.shape["fsdp"] > 1
    cast = sum(sizes[name] for name, leaf in parameters.items() if leaf.dtype != dtype)
    gathered, copied = room_for_copies(held, whole if split else 0, cast, layers, memory)
    if unroll is None:
        unroll = platform == "cpu" or (platform == "tpu" and copied)
    return DecodePlan(not unroll, gathered, whole)


def room_for_copies(held: float, whole: float, cast: float, layers: float, memory: int | None) -> tuple[bool, bool]:
    """Whether a device has room for the weights whole over fsdp, and for a copy of the layers with them.

    Args:
        held: bytes of all that lies on the device.
        whole: of all weights, where they are split over fsdp; 0: they are not, and whole as they lie.
        cast: of those that are read in another dtype; whole weights are in that dtype already.
        layers: of the language model's layers.
        memory: of the device; None: not known, and weights are whole, without a copy.
    """
    if memory is None:
        return True, False
    gathered = not whole or held + whole <= WEIGHTS_SHARE * memory
    return gathered, gathered and held + (whole or cast) + layers <= UNROLLED_SHARE * memory


def decoding_weights(
    parameters: dict[str, jax.Array], plan: DecodePlan, config: ModelConfig, dtype: jnp.dtype, mesh: Mesh | None
) -> dict[str, jax.Array]:
    """Inside a compiled function: the parameters as sampling reads them. The language model's are in `dtype`, into
    which its layers convert whatever they use: values stay as they are."""
    read = {name: leaf if name.startswith("visual.") else leaf.astype(dtype) for name, leaf in parameters.items()}
    if mesh is None or not plan.gathered:
        return read
    places = _whole(read, mesh, config)
    return {name: jax.lax.with_sharding_constraint(*there) for name, there in zip(read, places, strict=True)}


def _whole(
    parameters: Mapping[str, Any], mesh: Mesh | None, config: ModelConfig
) -> list[tuple[Any, NamedSharding | None]]:
    """Each parameter with where it lies if it is whole over fsdp."""
    if mesh is None:
        return [(leaf, None) for leaf in parameters.values()]
    places = parameter_shardings(parameters, mesh, config)
    return [(leaf, NamedSharding(mesh, without_fsdp(places[name].spec))) for name, leaf in parameters.items()]


def _size(leaf: Any, place: Any) -> int:
    """Values on one device."""
    return math.prod(place.shard_shape(leaf.shape) if place else leaf.shape)
