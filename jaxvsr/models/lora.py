"""LoRA with PEFT's names, scaling and module selection (Hu et al. 2021, arXiv:2106.09685).

A linear layer `W` becomes `W + (alpha / rank) B A` with `A` [rank, in] and `B` [out, rank]; `B` starts at zero, so a
fresh adapter changes nothing. There is no dropout: all rollouts of a scene tree would share one mask. The
reference policy is the same model built without adapters, on the same base weights.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from jaxvsr.errors import InputError
from jaxvsr.models.model_config import stack_of

# Only the language model, by full path: Qwen2.5-VL's vision tower has a `gate_proj` too.
LANGUAGE_ATTENTION = r".*language_model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj"
LANGUAGE_LINEAR = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which linear layers get an adapter, and its size.

    Modules and layers are chosen as PEFT chooses them. A string in `target_modules` is a regular expression that must
    match the whole module name (`model.language_model.layers.0.self_attn.q_proj`) and can name single layers. A tuple
    holds names, and a module is adapted if its name ends in one of them; `layers_to_transform` then takes these layers
    alone. What `exclude_modules` matches in the same way is left out.
    """

    rank: int = 16  # r of PEFT
    alpha: float = 32.0  # lora_alpha of PEFT; the adapter's output is scaled by alpha / rank
    target_modules: str | tuple[str, ...] = LANGUAGE_LINEAR  # regular expression, or names, of the adapted modules
    layers_to_transform: tuple[int, ...] | None = None  # with names: only these layers, counted from 0; null: all
    exclude_modules: str | tuple[str, ...] | None = None  # regular expression, or names, of modules to leave out

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora.rank {self.rank}: must be at least 1")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise InputError(f"lora.alpha {self.alpha}: must be a finite number above 0")
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, str):
                try:
                    re.compile(value)
                except re.error as error:
                    raise InputError(f"lora.{name} {value!r}: not a regular expression ({error})") from None
        if self.layers_to_transform is not None:
            layers = ",".join(map(str, self.layers_to_transform))
            if isinstance(self.target_modules, str):
                raise InputError(
                    f"lora.layers_to_transform {layers}: goes with names in lora.target_modules, such as q_proj; a "
                    "regular expression names its layers itself"
                )
            if not self.layers_to_transform or min(self.layers_to_transform) < 0:
                raise InputError(f"lora.layers_to_transform {layers}: must be layers counted from 0, or null for all")

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    def adapted_layers(self, module: str, layers: int = 1) -> tuple[bool, ...]:
        """Which layers of the stacked module `language_model.layers.self_attn.q_proj` (our name) get an adapter; a
        module outside of a stack is one layer.
        """
        stack = stack_of(module)
        if stack is None:
            return (self.selects(f"model.{module}"),)
        rest = module.removeprefix(stack)
        return tuple(self.selects(f"model.{stack}{layer}.{rest}") for layer in range(layers))

    def adapts(self, module: str, layers: int = 1) -> bool:
        """Whether any of a module's layers gets an adapter."""
        return any(self.adapted_layers(module, layers))

    def selects(self, name: str, layers_pattern: Sequence[str] = ()) -> bool:
        """Whether the module of this name in Hugging Face's form gets an adapter: PEFT's `check_target_module_exists`.

        Args:
            layers_pattern: names of the lists whose indices `layers_to_transform` means; none: of any.
        """
        if self.exclude_modules and _matches(self.exclude_modules, name):
            return False
        if not _matches(self.target_modules, name) or self.layers_to_transform is None:
            return _matches(self.target_modules, name)
        if isinstance(self.target_modules, tuple) and name in self.target_modules:
            return True
        patterns = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in layers_pattern] or [r".*?\.[^.]*\.(\d+)\."]
        index = next((found for pattern in patterns if (found := re.match(pattern, name))), None)
        return index is not None and int(index[1]) in self.layers_to_transform


def _matches(targets: str | tuple[str, ...], name: str) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith("." + target) for target in targets)
