"""LoRA adapters in PEFT's format, out and in, and merged into weights.

PEFT keeps one pair of matrices a module, `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight`
[out, r]; ours are stacked over layers like the weights they belong to.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object
from jaxvsr.models.huggingface.model_folder import ModelFolder, Weight, new_folder
from jaxvsr.models.huggingface.parameter_names import Shape, Style, expected_shapes, file_name, stack_of
from jaxvsr.models.huggingface.safetensors_io import open_safetensors, write_safetensors
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import ModelConfig

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Fields of adapter_config.json that change what the adapter computes, with the only values that we can honour.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "lora_dropout": (0, 0.0),
    "init_lora_weights": (True, False, "gaussian"),  # others change the base weights as well (PiSSA, OLoRA, LoftQ)
}
# Fields that say where it came from or how to load it, or that are read below.
_IGNORED = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_alpha", "megatron_core", "peft_version",
    "qalora_group_size", "r", "revision", "target_modules", "task_type", "use_rslora",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Trained LoRA matrices: `<module>.lora_A` [L, r, in] and `<module>.lora_B` [L, out, r] under our names."""

    lora: LoraConfig
    leaves: Mapping[str, np.ndarray]

    @property
    def modules(self) -> list[str]:
        return sorted(name.removesuffix(".lora_A") for name in self.leaves if name.endswith(".lora_A"))

    def matrices(self, module: str, layer: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """A and B of a module, of one layer or of all."""
        down, up = np.asarray(self.leaves[f"{module}.lora_A"]), np.asarray(self.leaves[f"{module}.lora_B"])
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


def merged_weights(base: ModelFolder, stages: Sequence[Adapter | Mapping[str, np.ndarray]]) -> Weight:
    """The base's weights with each stage applied in turn: an adapter merged, or full weights in the base's place.

    Raises:
        InputError: an adapter does not fit the base, or has another rank than its config, which scales it, says.
    """
    for stage in stages:
        if isinstance(stage, Adapter):
            _check(stage, base.config)

    def weight(name: str, layer: int | None) -> np.ndarray:
        index = () if layer is None else (layer,)
        value, module = base.read(name, index), name.removesuffix(".weight")
        for stage in stages:
            if not isinstance(stage, Adapter):
                value = np.asarray(stage[name])[index].astype(value.dtype, copy=False) if name in stage else value
            elif f"{module}.lora_A" in stage.leaves and name.endswith(".weight"):
                value = merge(value, *stage.matrices(module, layer), stage.lora.scaling)
        return value

    return weight


def changed_weights(stages: Sequence[Adapter | Mapping[str, np.ndarray]]) -> set[str]:
    """Our names of the weights that `merged_weights` does not leave as they are."""
    changed: set[str] = set()
    for stage in stages:
        changed |= {f"{module}.weight" for module in stage.modules} if isinstance(stage, Adapter) else set(stage)
    return changed


def join(adapters: Sequence[Adapter]) -> Adapter:
    """One adapter that adds what all of them add: their ranks side by side, each B with its scaling in it."""
    if len(adapters) == 1:
        return adapters[0]
    rank, leaves = sum(adapter.lora.rank for adapter in adapters), {}
    for module in sorted({module for adapter in adapters for module in adapter.modules}):
        pairs = [_scaled(adapter, module, adapters) for adapter in adapters]
        leaves[f"{module}.lora_A"] = np.concatenate([down for down, _ in pairs], axis=-2)
        leaves[f"{module}.lora_B"] = np.concatenate([up for _, up in pairs], axis=-1)
    return Adapter(LoraConfig(rank, float(rank), module_pattern(leaves)), leaves)


def save_adapter(
    out: Path,
    adapter: Adapter,
    config: ModelConfig,
    base: str,
    readme: str | None = None,
    revision: str | None = None,
) -> None:
    """Write a PEFT folder. `base` is what PEFT loads the base model by: a hub id (at `revision`) or a folder."""
    _check(adapter, config)
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
        "target_modules": module_pattern(adapter.leaves),
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


def load_adapter(folder: Path, config: ModelConfig) -> Adapter:
    """Read a PEFT folder, its modules under old or new names. Whatever we would compute otherwise is refused by name.

    rsLoRA (scaling by the root of the rank) is read as the alpha that gives the same scaling.
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
    adapter = Adapter(LoraConfig(rank, float(alpha), module_pattern(leaves)), leaves)
    _check(adapter, config, str(weights))
    return adapter


def module_pattern(leaves: Iterable[str]) -> str:
    """A `target_modules` expression for exactly these modules in all layers, by full path, old names and new."""
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


def _scaled(adapter: Adapter, module: str, adapters: Sequence[Adapter]) -> tuple[np.ndarray, np.ndarray]:
    """A, and B with the scaling in it; zeros where this adapter leaves the module alone."""
    if f"{module}.lora_A" in adapter.leaves:
        down, up = adapter.matrices(module)
        return down.astype(np.float32), up.astype(np.float32) * np.float32(adapter.lora.scaling)
    down, up = next(other.matrices(module) for other in adapters if f"{module}.lora_A" in other.leaves)
    rank = adapter.lora.rank
    return (
        np.zeros((*down.shape[:-2], rank, down.shape[-1]), np.float32),
        np.zeros((*up.shape[:-1], rank), np.float32),
    )


def _read_leaves(path: Path, config: ModelConfig) -> dict[str, np.ndarray]:
    file = open_safetensors(path)
    found, unread = {}, set(file.entries)
    for module in _linear_modules(config):
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
        raise InputError(f"{path}: {min(unread)!r} belongs to no linear layer of this {config.family} model")
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
        # Everything else is a variant of LoRA, switched off by a false or empty value.
        if name not in _REQUIRED and name not in _IGNORED and value:
            raise InputError(f"{path}: {name} {value!r} is not supported; it must be left out")


def _check(adapter: Adapter, config: ModelConfig, where: str = "adapter") -> None:
    """Every module is a linear layer of the model, and its two matrices fit it."""
    shapes, rank = _linear_modules(config), adapter.lora.rank
    for module in adapter.modules:
        if module not in shapes:
            raise InputError(f"{where}: {module!r} is no linear layer of this {config.family} model")
        *stack, fan_out, fan_in = shapes[module]
        for side, expected in (("A", (*stack, rank, fan_in)), ("B", (*stack, fan_out, rank))):
            name = f"{module}.lora_{side}"
            if name not in adapter.leaves or tuple(adapter.leaves[name].shape) != expected:
                found = list(adapter.leaves[name].shape) if name in adapter.leaves else "missing"
                raise InputError(f"{where}: {name!r} is {found}, rank {rank} of this model needs {list(expected)}")


def _linear_modules(config: ModelConfig) -> dict[str, Shape]:
    """Weight shapes of all linear layers; not the embedding, the head or the patch convolution."""
    return {
        name.removesuffix(".weight"): shape
        for name, shape in expected_shapes(config).items()
        if name.endswith(".weight") and len(shape) == (3 if stack_of(name) else 2) and _is_linear(name)
    }


def _is_linear(name: str) -> bool:
    return "embed" not in name and not name.startswith("lm_head")


def _layers(module: str, config: ModelConfig) -> list[int | None]:
    shape = expected_shapes(config)[f"{module}.weight"]
    return list(range(shape[0])) if stack_of(module) else [None]


def _whole(alpha: float) -> int | float:
    """PEFT's own type for alpha is an integer; fractions are kept where there are any."""
    return int(alpha) if alpha == int(alpha) else alpha
