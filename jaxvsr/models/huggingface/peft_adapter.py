"""Writing and reading LoRA adapters in PEFT's format.

PEFT keeps one pair of matrices per module, `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight`
[out, r]; ours are stacked over layers like the weights that they adapt.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object
from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.huggingface.file_contents import check_sums
from jaxvsr.models.huggingface.parameter_names import Style, file_name
from jaxvsr.models.huggingface.safetensors_io import (
    SafetensorsFile,
    is_finite,
    open_safetensors,
    write_safetensors,
)
from jaxvsr.models.huggingface.stages import Stage, check_adapter, linear_modules
from jaxvsr.models.huggingface.write_model_folder import copy_processor, new_folder, write_texts
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import ModelConfig, stack_of
from jaxvsr.models.qwen_vl import parameter_shapes

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Fields of adapter_config.json that change what the adapter computes, with the values that we support.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),  # others change the base (PiSSA, OLoRA, …)
}
# Fields about the adapter's origin or loading, and those that are read below.
_IGNORED = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform", "lora_alpha", "megatron_core", "peft_version", "qalora_group_size", "r", "revision",
    "target_modules", "task_type", "use_rslora",
}  # fmt: skip
# Fields that only training reads.
_OF_TRAINING = ("lora_dropout", "eva_config", "loftq_config", "runtime_config", "megatron_config")
_MERGE = "merge it with PEFT (merge_and_unload, then save_pretrained) and give that folder"
_LOG = logging.getLogger(__name__)


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
    texts: Mapping[str, str] | None = None,
    revision: str | None = None,
    processor: Path | None = None,
) -> None:
    """Write a PEFT folder, which `AutoPeftModel` loads.

    Args:
        base: where PEFT finds the base model: a hub id (at `revision`) or a folder.
        texts: further files by name.
        processor: the folder whose tokenizer, chat template and processor files go with it, as TRL writes them.
    """
    check_adapter(adapter, config)
    assert adapter.lora is not None
    tensors = {}
    for module in adapter.modules:
        for layer in _layers(module, config):
            if not any(matrix.any() for matrix in adapter.matrices(module, layer)):
                continue  # this layer has no adapter
            for side, matrix in zip("AB", adapter.matrices(module, layer), strict=True):
                name = file_name(f"{module}.lora_{side}.weight", layer, "new")
                tensors[_PREFIX + name] = np.asarray(matrix, np.float32)
    content = {
        "peft_type": "LORA",
        # As PEFT says it of a model with vision, which is of none of its task types.
        "task_type": None,
        "auto_mapping": {
            "base_model_class": family_of(config).architecture,
            "parent_library": f"transformers.models.{config.family}.modeling_{config.family}",
        },
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
        if processor is not None:
            copy_processor(processor, partial)
        write_texts(partial, texts)


def load_adapter(folder: Path, config: ModelConfig) -> Stage:
    """Read a PEFT folder with old or new module names. An option that we do not support is refused by name.

    rsLoRA (scaling by the root of the rank) becomes the alpha that gives the same scaling.
    """
    path = folder / ADAPTER_CONFIG
    check_sums(folder)
    raw = read_json_object(path)
    _check_fields(raw, path)
    for name in _OF_TRAINING:
        if raw.get(name):
            _LOG.warning("%s: %s %r is of training alone and changes no answer", path, name, raw[name])
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
    leaves, names = _read_leaves(weights, config)
    _check_selection(raw, names, path)
    adapter = Stage(leaves, LoraConfig(rank, float(alpha), module_pattern(leaves)))
    check_adapter(adapter, config, str(weights))
    return adapter


def module_pattern(leaves: Mapping[str, np.ndarray]) -> str:
    """A `target_modules` expression for exactly these modules, by full path, with old and new names; in a stack for the
    layers whose matrices are not all 0."""
    groups: dict[tuple[str, str], set[str]] = {}
    for module in sorted({re.sub(r"\.lora_[AB]$", "", name) for name in leaves}):
        stack, down, up = stack_of(module) or "", leaves[f"{module}.lora_A"], leaves[f"{module}.lora_B"]
        layers = [layer for layer in range(len(down)) if down[layer].any() or up[layer].any()] if stack else []
        index = r"\d+" if len(layers) == len(down) else f"(?:{'|'.join(map(str, layers))})"
        groups.setdefault((stack, index if stack else ""), set()).add(re.escape(module.removeprefix(stack)))
    prefixes = {
        "language_model.layers.": r"model\.(?:language_model\.)?layers\.",
        "visual.blocks.": r"(?:model\.)?visual\.blocks\.",
        "visual.deepstack_merger_list.": r"(?:model\.)?visual\.deepstack_merger_list\.",
        "": r"(?:model\.)?",
    }
    return "|".join(
        f"{prefixes[stack]}{index}{re.escape('.') if stack else ''}(?:{'|'.join(sorted(modules))})"
        for (stack, index), modules in sorted(groups.items())
    )


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


def _read_leaves(path: Path, config: ModelConfig) -> tuple[dict[str, np.ndarray], list[str]]:
    """The matrices under our names, 0 in layers that the file leaves out; and the modules of the file."""
    file = open_safetensors(path)
    names = _plain_names(file, path)
    found, unread = {}, set(names)
    modules = sorted({re.sub(r"\.lora_[AB]\.weight$", "", name).removeprefix(_PREFIX) for name in names})
    for module in linear_modules(config):
        for side in "AB":
            for style in ("new", "old"):
                wanted = [_PREFIX + _tensor_name(module, side, layer, style) for layer in _layers(module, config)]
                there = [name for name in wanted if name in unread]
                if not there:
                    continue
                shape = file.entries[names[there[0]]].shape
                for name in there:
                    other = name.replace(f".lora_{side}.", f".lora_{'B' if side == 'A' else 'A'}.")
                    if other not in names:
                        raise InputError(f"{path}: {other!r} is missing")
                    if file.entries[names[name]].shape != shape:
                        raise InputError(f"{path}: {name!r} has another shape than {there[0]!r}")
                zeros = np.zeros(shape, np.float32)
                layers = [file.read(names[name]) if name in unread else zeros for name in wanted]
                found[f"{module}.lora_{side}"] = np.array(layers if stack_of(module) else layers[0], np.float32)
                unread -= set(there)
                break
    broken = next((name for name in sorted(found) if not is_finite(found[name])), None)
    if broken is not None:
        raise InputError(f"{path}: {broken!r} holds numbers that are not finite; take another adapter")
    if unread:
        raise InputError(f"{path}: {min(unread)!r} is for no linear layer of this {config.family} model; {_MERGE}")
    if not found:
        raise InputError(f"{path}: the adapter is empty")
    return found, modules


def _plain_names(file: SafetensorsFile, path: Path) -> dict[str, str]:
    """Tensors as PEFT saves them → as they are in the file: a raw state dict has the adapter's name in them
    (`lora_A.default.weight`)."""
    plain: dict[str, str] = {}
    adapters = set()
    for name in file.entries:
        match = re.fullmatch(r"(.*\.lora_[AB])\.([^.]+)\.weight", name)
        adapters.add(match[2] if match else None)
        short = f"{match[1]}.weight" if match else name
        if short in plain:
            raise InputError(f"{path}: {name!r} and {plain[short]!r} are the same matrix; an adapter has it once")
        plain[short] = name
    if len(adapters) > 1:
        held = ", ".join(sorted(map(str, adapters)))
        raise InputError(f"{path}: holds several adapters ({held}); save one of them with PEFT's save_pretrained")
    return plain


def _check_selection(raw: Mapping[str, Any], modules: Sequence[str], path: Path) -> None:
    """Every module of the file is one that PEFT would load by this `adapter_config.json`.

    Raises:
        InputError: PEFT would leave one out; or a field is no choice of modules.
    """
    choice = {name: raw.get(name) for name in ("target_modules", "exclude_modules", "layers_to_transform")}
    patterns = raw.get("layers_pattern") or []
    for name, value in {**choice, "layers_pattern": patterns}.items():
        kind = int if name == "layers_to_transform" else str
        listed = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(item, kind) and not isinstance(item, bool) for item in listed):
            raise InputError(f"{path}: {name} {value!r} must be a list of {'layers' if kind is int else 'names'}")
        if isinstance(value, list | int):
            choice[name] = tuple(listed) or None
    if choice["target_modules"] is None:
        return  # older versions of PEFT knew the modules of each model
    try:
        selection = LoraConfig(
            target_modules=choice["target_modules"],
            exclude_modules=choice["exclude_modules"],
            layers_to_transform=choice["layers_to_transform"],
        )
        listed = [patterns] if isinstance(patterns, str) else patterns
        left_out = [module for module in modules if not selection.selects(module, listed)]
    except (InputError, re.error) as error:
        raise InputError(f"{path}: {error}") from None
    if left_out:
        raise InputError(
            f"{path}: does not choose {left_out[0]!r}, which the weights hold and PEFT would leave out; "
            "correct target_modules, exclude_modules or layers_to_transform"
        )


def _tensor_name(module: str, side: str, layer: int | None, style: Style) -> str:
    return file_name(f"{module}.lora_{side}.weight", layer, style)


def _check_fields(raw: Mapping[str, Any], path: Path) -> None:
    for name, accepted in _REQUIRED.items():
        if name in raw and not any(raw[name] == value and type(raw[name]) is type(value) for value in accepted):
            raise InputError(f"{path}: {name} {raw[name]!r} is not supported; it must be {accepted[0]!r}: {_MERGE}")
    for name, value in raw.items():
        # Every other field is a variant of LoRA, and a false or empty value switches it off.
        if value and not (name in _REQUIRED or name in _IGNORED or name in _OF_TRAINING):
            raise InputError(f"{path}: {name} {value!r} is not supported; {_MERGE}")


def _layers(module: str, config: ModelConfig) -> list[int | None]:
    return list(range(parameter_shapes(config)[f"{module}.weight"].shape[0])) if stack_of(module) else [None]


def _whole(alpha: float) -> int | float:
    """An integer if it is whole: PEFT declares alpha as an integer."""
    return int(alpha) if alpha == int(alpha) else alpha
