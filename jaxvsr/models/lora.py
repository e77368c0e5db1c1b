"""LoRA with PEFT's names, scaling and module selection (Hu et al. 2021, arXiv:2106.09685).

A linear layer `W` becomes `W + (alpha / rank) B A` with `A` [rank, in] and `B` [out, rank]; `B` starts at zero, so a
fresh adapter changes nothing. There is no dropout: all rollouts of a scene tree would share one mask. The
reference policy is the same model built without adapters, on the same base weights.
"""

from __future__ import annotations

import dataclasses
import math
import re

from jaxvsr.errors import InputError
from jaxvsr.models.model_config import stack_of

# Only the language model, by full path: Qwen2.5-VL's vision tower has a `gate_proj` too.
LANGUAGE_ATTENTION = r".*language_model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj"
LANGUAGE_LINEAR = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which linear layers get an adapter, and its size.

    `target_modules` is read as PEFT reads it: a string is a regular expression that must match the whole module name
    (`model.language_model.layers.0.self_attn.q_proj`), a tuple holds names, and a module is adapted if
    its name ends in one of them.
    """

    rank: int = 16  # r of PEFT
    alpha: float = 32.0  # lora_alpha of PEFT; the adapter's output is scaled by alpha / rank
    target_modules: str | tuple[str, ...] = LANGUAGE_LINEAR  # regular expression, or names, of the adapted modules

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora.rank {self.rank}: must be at least 1")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise InputError(f"lora.alpha {self.alpha}: must be a finite number above 0")
        if isinstance(self.target_modules, str):
            try:
                re.compile(self.target_modules)
            except re.error as error:
                raise InputError(
                    f"lora.target_modules {self.target_modules!r}: not a regular expression ({error})"
                ) from None

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    def adapts(self, module: str) -> bool:
        """Whether the stacked module `language_model.layers.self_attn.q_proj` (our name) gets an adapter.

        All layers of a stack are treated alike, so the pattern is matched with layer 0, under Hugging Face's name.
        """
        stack = stack_of(module) or ""
        module = f"model.{stack}{'0.' if stack else ''}{module.removeprefix(stack)}"
        if isinstance(self.target_modules, str):
            return re.fullmatch(self.target_modules, module) is not None
        return any(module == target or module.endswith("." + target) for target in self.target_modules)
