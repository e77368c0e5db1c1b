"""The shapes of the published checkpoints, to build a model of a known size without its folder."""

from __future__ import annotations

from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.model_config import ModelConfig

PUBLISHED: dict[str, ModelConfig] = {
    name: config for family in FAMILIES.values() for name, config in family.published.items()
}
