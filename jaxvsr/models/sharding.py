"""How the mesh splits a model: one table for parameters, by name, and one for activations, by axis.

Weights are [out, in] (Hugging Face's order); stacked layers have one more axis in front, which is never split. A layer
that fans out (q, k, v, gate, up) splits its outputs over `tensor`, and the layer after it (o, down) its inputs, so that
the pair needs one sum over `tensor`. The other dimension is split over `fsdp`. What does not divide is replicated.

Activations are split by scenes: each device computes its own scenes, with weights that are gathered a layer at a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxvsr.models.model_config import ModelConfig

Axes = tuple[str | None, ...]
T = TypeVar("T")

# (pattern of the whole parameter name, mesh axes of the last dimensions); the first match counts.
# The tower runs once per scene, so it is split only to save memory (fsdp); its fused qkv cannot be split between heads.
RULES: tuple[tuple[str, Axes], ...] = (
    (r"(language_model\.embed_tokens|lm_head)\.weight", ("tensor", "fsdp")),
    (r"language_model\..*\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.weight", ("tensor", "fsdp")),
    (r"language_model\..*\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.bias", ("tensor",)),
    (r"language_model\..*\.(o_proj|down_proj)\.weight", ("fsdp", "tensor")),
    (r"language_model\..*\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.lora_A", (None, "fsdp")),
    (r"language_model\..*\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.lora_B", ("tensor", None)),
    (r"language_model\..*\.(o_proj|down_proj)\.lora_A", (None, "tensor")),
    (r"language_model\..*\.(o_proj|down_proj)\.lora_B", ("fsdp", None)),
    (r"visual\..*(norm\d?|ln_q)\.weight", ()),  # vectors: of a stack of them the two axes are no matrix's
    (r"visual\.patch_embed\.proj\.weight", ("fsdp", None, None, None, None)),
    (r"visual\..*\.weight", ("fsdp", None)),
    (r"visual\..*\.lora_A", (None, "fsdp")),
    (r"visual\..*\.lora_B", ("fsdp", None)),
)

# Mesh axes of the axes of activations that are split; all others are whole on every device.
ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "scenes": ("data", "fsdp"),  # S
    "rows": ("data", "fsdp", "tensor"),  # the tower's, S·F, which run over scenes first; it has no heads to split
    "scenes over data": ("data",),  # of what is looked up in the table of tokens, whose
    "table width": ("fsdp",),  # width lies so
    "heads": ("tensor",),  # K key heads, or all N = K·M query heads
    "vocabulary": ("tensor",),
}

# Outputs made of whole heads: a split within a head would separate its rotary pairs.
_HEAD_OUTPUTS = re.compile(r"language_model\..*\.(?P<projection>[qkvo])_proj\.(weight|bias|lora_A|lora_B)")


def parameter_spec(
    name: str, shape: tuple[int, ...], mesh: Mapping[str, int], config: ModelConfig | None = None
) -> PartitionSpec:
    """The mesh axes of one parameter; `mesh` is {axis: devices}.

    With `config`, heads stay whole: key and value projections are not split over `tensor` if it does not divide the
    number of key heads.

    >>> tuple(parameter_spec("language_model.layers.mlp.up_proj.weight", (28, 8960, 1536), {"fsdp": 4, "tensor": 2}))
    (None, 'tensor', 'fsdp')
    """
    axes = axes_of(name)
    tail = shape[len(shape) - len(axes) :]
    split = [
        axis
        if axis is not None and size % mesh[axis] == 0 and (axis != "tensor" or _whole_heads(name, mesh[axis], config))
        else None
        for axis, size in zip(axes, tail, strict=True)
    ]
    if not any(split):
        return PartitionSpec()
    return PartitionSpec(*[None] * (len(shape) - len(axes)), *split)


def axes_of(name: str) -> Axes:
    """What `RULES` says of the last dimensions of a parameter."""
    return next((axes for pattern, axes in RULES if re.fullmatch(pattern, name)), ())


def _whole_heads(name: str, parts: int, config: ModelConfig | None) -> bool:
    """Whether each of `parts` parts of this parameter has whole heads; True if it has no heads."""
    match = _HEAD_OUTPUTS.fullmatch(name)
    if config is None or match is None:
        return True
    heads = config.text.num_attention_heads if match["projection"] in "qo" else config.text.num_key_value_heads
    return heads % parts == 0


def split(x: Array, *axes: str | None) -> Array:
    """`x` with its first axes split as `ACTIVATIONS` says; axes named None, and those not named, are whole.

    The mesh is the one of `jax.set_mesh`; without one, `x` comes back as it is. The compiler decides about an axis that
    the mesh does not divide.

    >>> split(jnp.zeros((4, 7, 8)), "scenes", None, "heads").shape
    (4, 7, 8)
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    spec: list[Any] = []
    for size, axis in zip(x.shape, axes, strict=False):
        if axis is None:
            spec.append(None)
        else:
            spec.append(axes_that_divide(size, axis) or PartitionSpec.UNCONSTRAINED)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def split_rows(x: Array) -> Array:
    """`x` with the tower's rows over all devices, or over those that scenes are split over if that does not divide."""
    return split(x, "rows" if axes_that_divide(len(x), "rows") else "scenes")


def has_several_devices() -> bool:
    """Whether the mesh of `jax.set_mesh` has; a kernel is then split by hand."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and math.prod(mesh.shape.values()) > 1


def devices_of(axis: str) -> int:
    """How many devices the mesh of `jax.set_mesh` has on an axis; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[axis]


def is_split(axis: str) -> bool:
    """Whether the mesh of `jax.set_mesh` has several devices on an axis."""
    return devices_of(axis) > 1


def gathered(weight: Array, name: str) -> Array:
    """A layer's matrix of this name, whole over fsdp.

    To be said where the weight is used: a partitioner that may choose splits the product's sum instead, and adds up
    one partial product of all tokens for each device, which on 16 of them takes five times as long.
    """
    axes = axes_of(name)
    if "fsdp" not in axes or not is_split("fsdp"):
        return weight
    whole = PartitionSpec(*(None if axis == "fsdp" else PartitionSpec.UNCONSTRAINED for axis in axes))
    return jax.lax.with_sharding_constraint(weight, whole)


def axes_that_divide(size: int, axis: str) -> tuple[str, ...] | None:
    """The mesh axes that `ACTIVATIONS` says for an axis of this size; None where they do not divide it, or there is no
    mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or size % math.prod(mesh.shape[name] for name in ACTIVATIONS[axis]):
        return None
    return ACTIVATIONS[axis]


def parts_of(size: int, axis: str) -> int:
    """Over how many devices an axis of this size is split."""
    return math.prod(jax.sharding.get_abstract_mesh().shape[name] for name in axes_that_divide(size, axis) or ())


def platform() -> str:
    """What a program is compiled for (cpu, gpu, tpu): the devices of `jax.set_mesh`, or else JAX's own."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def without_fsdp(spec: PartitionSpec) -> PartitionSpec:
    """The same spec, gathered over fsdp."""
    return PartitionSpec(*[None if axis == "fsdp" else axis for axis in spec])


def parameter_shardings(
    shapes: Mapping[str, jax.ShapeDtypeStruct | jax.Array], mesh: Mesh, config: ModelConfig | None = None
) -> dict[str, NamedSharding]:
    """One sharding per parameter, by name."""
    return {
        name: NamedSharding(mesh, parameter_spec(name, tuple(leaf.shape), mesh.shape, config))
        for name, leaf in shapes.items()
    }


def as_parameters_lie(tree: T, mesh: Mesh | None, config: ModelConfig) -> T:
    """Inside a compiled function: parameters, their gradients or a state, laid out as the table says."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, state_shardings(tree, mesh, config))


def state_shardings(state: object, mesh: Mesh, config: ModelConfig | None = None) -> object:
    """Shardings for any pytree that holds parameters, or moments of them, in dictionaries by parameter name.

    Leaves outside of such dictionaries (step counters, random keys) are replicated.
    """

    def place(path: tuple[object, ...], leaf: jax.Array) -> NamedSharding:
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        name = str(names[-1]) if names else ""
        return NamedSharding(mesh, parameter_spec(name, tuple(leaf.shape), mesh.shape, config))

    return jax.tree_util.tree_map_with_path(place, state)
