"""Writing and reading LoRA adapters in PEFT's format.

PEFT keeps one pair of matrices per module, `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight`
[out, r]; ours are stacked over layers like the weights that they adapt.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object
from jaxvsr.models.huggingface.parameter_names import Style, file_name
from jaxvsr.models.huggingface.safetensors_io import open_safetensors, write_safetensors
from jaxvsr.models.huggingface.stages import Stage, check_adapter, linear_modules
from jaxvsr.models.huggingface.write_model_folder import new_folder
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import ModelConfig, stack_of
from jaxvsr.models.qwen_vl import parameter_shapes

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Fields of adapter_config.json that change what the adapter computes, with the values that we support.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "lora_dropout": (0, 0.0),
    "init_lora_weights": (True, False, "gaussian"),  # others change the base weights as well (PiSSA, OLoRA, LoftQ)
}
# Fields about the adapter's origin or loading, and those that are read below.
_IGNORED = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_alpha", "megatron_core", "peft_version",
    "qalora_group_size", "r", "revision", "target_modules", "task_type", "use_rslora",
}  # fmt: skip


def join(adapters: Sequence[Stage]) -> Stage:
    """One adapter that equals the sum of these: their ranks are concatenated, and each B includes its scaling."""
    if len(adapters) == 1:
        return adapters[0]
    rank, leaves = sum(adapter.rank for adapter in adapters), {}
    for module in sorted({module for adapter in adapters for module in adapter.modules}):
        pairs = [_scaled(adapter, module, adapters) for adapter in adapters]
        leaves[f"{module}.lora_A"] = np.concatenate([down for down, _ in pairs], axis=-2)
        leaves[f"{module}.lora_B"] = np.concatenate([up for _, up in pairs], axis=-1)
    return Stage(leaves, LoraConfig(rank, float(rank), module_pattern(leaves)))


def save_adapter(
    out: Path,
    adapter: Stage,
    config: ModelConfig,
    base: str,
    readme: str | None = None,
    revision: str | None = None,
) -> None:
    """Write a PEFT folder. `base` is where PEFT finds the base model: a hub id (at `revision`) or a folder."""
    check_adapter(adapter, config)
    assert adapter.lora is not None
    tensors = {}
    for module in adapter.modules:
        for layer in _layers(module, config):
            for side, matrix in zip("AB", adapter.matrices(module, layer), strict=True):
                name = file_name(f"{module}.lora_{side}.weight", layer, "new")
                tensors[_PREFIX + name] = np.asarray(matrix, np.float32)
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": adapter.lora.rank,
        "lora_alpha": _whole(adapter.lora.alpha),
        "lora_dropout": 0.0,
        "target_modules": module_pattern(adapter.weights),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "inference_mode": True,
    }
    with new_folder(out) as partial:
        entries = {name: (matrix.dtype, matrix.shape) for name, matrix in tensors.items()}
        write_safetensors(partial / ADAPTER_WEIGHTS, entries, tensors.__getitem__)
        (partial / ADAPTER_CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if readme is not None:
            (partial / "README.md").write_text(readme, encoding="utf-8")


def load_adapter(folder: Path, config: ModelConfig) -> Stage:
    """Read a PEFT folder with old or new module names. An option that we do not support is refused by name.

    rsLoRA (scaling by the root of the rank) becomes the alpha that gives the same scaling.
    """
    path = folder / ADAPTER_CONFIG
    raw = read_json_object(path)
    _check_fields(raw, path)
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise InputError(f"{path}: r {rank!r} must be an integer of at least 1")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise InputError(f"{path}: lora_alpha {alpha!r} must be a number above 0")
    if raw.get("use_rslora"):
        alpha = alpha * math.sqrt(rank)
    weights = folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; pickled adapters are never loaded")
    leaves = _read_leaves(weights, config)
    adapter = Stage(leaves, LoraConfig(rank, float(alpha), module_pattern(leaves)))
    check_adapter(adapter, config, str(weights))
    return adapter


def module_pattern(leaves: Iterable[str]) -> str:
    """A `target_modules` expression for exactly these modules in all layers, by full path, with old and new names."""
    groups: dict[str | None, set[str]] = {}
    for name in leaves:
        module = re.sub(r"\.lora_[AB]$", "", name)
        stack = stack_of(module)
        groups.setdefault(stack, set()).add(re.escape(module.removeprefix(stack or "")))
    prefixes = {
        "language_model.layers.": r"model\.(?:language_model\.)?layers\.\d+\.",
        "visual.blocks.": r"(?:model\.)?visual\.blocks\.\d+\.",
        None: r"(?:model\.)?",
    }
    ordered = sorted(groups.items(), key=lambda group: group[0] or "")
    return "|".join(f"{prefixes[stack]}(?:{'|'.join(sorted(modules))})" for stack, modules in ordered)


def _scaled(adapter: Stage, module: str, adapters: Sequence[Stage]) -> tuple[np.ndarray, np.ndarray]:
    """A, and B times the scaling; zeros if this adapter does not adapt the module."""
    if f"{module}.lora_A" in adapter.weights:
        down, up = adapter.matrices(module)
        return down.astype(np.float32), up.astype(np.float32) * np.float32(adapter.scaling)
    down, up = next(other.matrices(module) for other in adapters if f"{module}.lora_A" in other.weights)
    rank = adapter.rank
    return (
        np.zeros((*down.shape[:-2], rank, down.shape[-1]), np.float32),
        np.zeros((*up.shape[:-1], rank), np.float32),
    )


def _read_leaves(path: Path, config: ModelConfig) -> dict[str, np.ndarray]:
    file = open_safetensors(path)
    found, unread = {}, set(file.entries)
    for module in linear_modules(config):
        for side in "AB":
            for style in ("new", "old"):
                names = [_PREFIX + _tensor_name(module, side, layer, style) for layer in _layers(module, config)]
                if not unread.intersection(names):
                    continue
                for name in names:
                    if name not in unread:
                        raise InputError(f"{path}: {name!r} is missing; an adapter has all layers of a module or none")
                    if file.entries[name].shape != file.entries[names[0]].shape:
                        raise InputError(f"{path}: {name!r} has another shape than {names[0]!r}")
                layers = [file.read(name) for name in names]
                found[f"{module}.lora_{side}"] = np.array(layers if stack_of(module) else layers[0], np.float32)
                unread -= set(names)
                break
    if unread:
        raise InputError(f"{path}: {min(unread)!r} is for no linear layer of this {config.family} model")
    if not found:
        raise InputError(f"{path}: the adapter is empty")
    return found


def _tensor_name(module: str, side: str, layer: int | None, style: Style) -> str:
    return file_name(f"{module}.lora_{side}.weight", layer, style)


def _check_fields(raw: Mapping[str, Any], path: Path) -> None:
    for name, accepted in _REQUIRED.items():
        if name in raw and not any(raw[name] == value and type(raw[name]) is type(value) for value in accepted):
            raise InputError(f"{path}: {name} {raw[name]!r} is not supported; it must be {accepted[0]!r}")
    for name, value in raw.items():
        # Every other field is a variant of LoRA, and a false or empty value switches it off.
        if name not in _REQUIRED and name not in _IGNORED and value:
            raise InputError(f"{path}: {name} {value!r} is not supported; it must be left out")


def _layers(module: str, config: ModelConfig) -> list[int | None]:
    return list(range(parameter_shapes(config)[f"{module}.weight"].shape[0])) if stack_of(module) else [None]


def _whole(alpha: float) -> int | float:
    """An integer if it is whole: PEFT declares alpha as an integer."""
    return int(alpha) if alpha == int(alpha) else alpha
