"""A model folder of a published shape with random weights, for measuring: no tokenizer, no download.

Tensors are drawn and written one at a time, with the names and in the order of the published checkpoints. A folder of
any size needs only the memory of its largest tensor.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.huggingface.hf_config import CONFIG_FILE, config_json
from jaxvsr.models.huggingface.parameter_names import file_names, file_shape
from jaxvsr.models.huggingface.write_model_folder import new_folder, write_shards
from jaxvsr.models.layers import INITIAL_STD
from jaxvsr.models.model_config import ModelConfig

SHARD_BYTES = 2_000_000_000
_DRAWN_AT_ONCE = 2**24  # numbers


def write_random_folder(
    out: Path, config: ModelConfig, seed: int, dtype: str | None = None, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write config and weights: the same bytes for the same arguments. `dtype` None is the config's; `out` must be new.

    Matrices are normal, norms are one, biases zero.
    """
    config = dataclasses.replace(config, dtype=dtype or config.dtype)
    wanted, names = np.dtype(config.dtype), file_names(config, family_of(config).style)
    entries = {name: (wanted, file_shape(ours, layer, config)) for name, (ours, layer) in names.items()}
    numbers = {name: number for number, name in enumerate(names)}
    with new_folder(out) as folder:
        (folder / CONFIG_FILE).write_text(json.dumps(config_json(config), indent=2) + "\n", encoding="utf-8")
        write_shards(
            folder, entries, lambda name: _tensor(name, *entries[name][::-1], [seed, numbers[name]]), shard_bytes
        )


def _tensor(name: str, shape: tuple[int, ...], dtype: np.dtype, seed: list[int]) -> np.ndarray:
    if len(shape) == 1:
        return np.full(shape, 0 if name.endswith(".bias") else 1, dtype)
    tensor, rng = np.empty(shape, dtype), np.random.default_rng(seed)
    flat = tensor.reshape(-1)
    for start in range(0, flat.size, _DRAWN_AT_ONCE):
        part = flat[start : start + _DRAWN_AT_ONCE]
        part[:] = rng.standard_normal(part.size, np.float32) * np.float32(INITIAL_STD)
    return tensor
