"""The families that this package computes, by their `model_type` in config.json."""

from __future__ import annotations

from jaxvsr.models.families.family import Family
from jaxvsr.models.families.qwen2_5_vl import Qwen25VL
from jaxvsr.models.families.qwen2_vl import Qwen2VL
from jaxvsr.models.families.qwen3_vl import Qwen3VL
from jaxvsr.models.model_config import ModelConfig

FAMILIES: dict[str, Family] = {family.name: family for family in (Qwen2VL(), Qwen25VL(), Qwen3VL())}

# Models of the same line that are known, and not computed.
REFUSED = {
    "qwen3_vl_moe": (
        "a mixture of experts (Qwen3-VL-30B-A3B, Qwen3-VL-235B-A22B), which is not supported; "
        "the dense Qwen3-VL are: 2B, 4B, 8B and 32B"
    ),
}


def family_of(config: ModelConfig) -> Family:
    """The family of a model."""
    return FAMILIES[config.family]
