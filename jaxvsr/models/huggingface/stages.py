"""Trained weights on top of a base model, and merging them into it.

The weights that a run starts from and those that are exported come from the same merge: stage after stage, each rounded
once to the base's dtype.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.model_folder import ModelFolder, Weight
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import ModelConfig, stack_of
from jaxvsr.models.qwen_vl import parameter_shapes


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one training run adds to its base: an adapter, or (`lora` None) full weights that replace the base's.

    An adapter has `<module>.lora_A` [L, r, in] and `<module>.lora_B` [L, out, r] under our names; L are the layers of a
    stack.
    """

    weights: Mapping[str, np.ndarray]
    lora: LoraConfig | None

    @property
    def modules(self) -> list[str]:
        """The modules that an adapter adapts, sorted; empty for full weights."""
        return sorted(name.removesuffix(".lora_A") for name in self.weights if name.endswith(".lora_A"))

    @property
    def changed(self) -> set[str]:
        """Names of the base's weights that merging changes."""
        return set(self.weights) if self.lora is None else {f"{module}.weight" for module in self.modules}

    @property
    def rank(self) -> int:
        """The rank of an adapter."""
        assert self.lora is not None
        return self.lora.rank

    @property
    def scaling(self) -> float:
        """The factor of an adapter's output."""
        assert self.lora is not None
        return self.lora.scaling

    def matrices(self, module: str, layer: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """A and B of a module, of one layer or of all."""
        down, up = (np.asarray(self.weights[f"{module}.lora_{side}"]) for side in "AB")
        return (down, up) if layer is None else (down[layer], up[layer])


def merge(
    weight: Float[np.ndarray, "*L out in"],
    lora_a: Float[np.ndarray, "*L r in"],
    lora_b: Float[np.ndarray, "*L out r"],
    scaling: float,
) -> Float[np.ndarray, "*L out in"]:
    """`W + scaling · B A`, in float32, rounded once to the weight's dtype."""
    delta = np.float32(scaling) * (lora_b.astype(np.float32) @ lora_a.astype(np.float32))
    return (weight.astype(np.float32) + delta).astype(weight.dtype)


def merged_weights(base: ModelFolder, stages: Sequence[Stage]) -> Weight:
    """The base's weights with each stage applied in turn.

    Raises:
        InputError: an adapter does not fit the base, or its rank is not that of its config (which sets the scaling).
    """
    for stage in stages:
        if stage.lora is not None:
            check_adapter(stage, base.config)
    changed = [stage.changed for stage in stages]

    def weight(name: str, layer: int | None) -> np.ndarray:
        index = () if layer is None else (layer,)
        value = base.read(name, index)
        for stage, names in zip(stages, changed, strict=True):
            if name not in names:
                continue
            if stage.lora is None:
                value = np.asarray(stage.weights[name])[index].astype(value.dtype, copy=False)
            else:
                value = merge(value, *stage.matrices(name.removesuffix(".weight"), layer), stage.scaling)
        return value

    return weight


def check_adapter(adapter: Stage, config: ModelConfig, where: str = "adapter") -> None:
    """Check that every module is a linear layer of the model, and that its two matrices fit.

    Raises:
        InputError: one does not.
    """
    shapes, rank = linear_modules(config), adapter.rank
    for module in adapter.modules:
        if module not in shapes:
            raise InputError(f"{where}: {module!r} is not a linear layer of this {config.family} model")
        *stack, fan_out, fan_in = shapes[module]
        for side, expected in (("A", (*stack, rank, fan_in)), ("B", (*stack, fan_out, rank))):
            name = f"{module}.lora_{side}"
            if name not in adapter.weights or tuple(adapter.weights[name].shape) != expected:
                found = list(adapter.weights[name].shape) if name in adapter.weights else "missing"
                raise InputError(f"{where}: {name!r} is {found}, but must be {list(expected)} for rank {rank}")


def linear_modules(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Weight shapes of all linear layers; not the embedding, the head or the patch convolution."""
    return {
        name.removesuffix(".weight"): leaf.shape
        for name, leaf in parameter_shapes(config).items()
        if name.endswith(".weight") and leaf.ndim == (3 if stack_of(name) else 2) and _is_linear(name)
    }


def _is_linear(name: str) -> bool:
    return "embed" not in name and not name.startswith("lm_head")
