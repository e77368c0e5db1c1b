"""Parameter names: ours, with the layers of a stack on a leading axis, and those of Hugging Face's files.

| style | a weight of layer 3 in the language model, and in the tower |
|---|---|
| `stacked` (ours) | `language_model.layers.mlp.up_proj.weight` [L, out, in], `visual.blocks.attn.qkv.weight` |
| `new` (transformers 5) | `model.language_model.layers.3.mlp.up_proj.weight`, `model.visual.blocks.3.attn.qkv.weight` |
| `old` (before) | `model.layers.3.mlp.up_proj.weight`, `visual.blocks.3.attn.qkv.weight` |

The published Qwen2-VL and Qwen2.5-VL have the old names, Qwen3-VL the new ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxvsr.models.families.family import Style
from jaxvsr.models.model_config import ModelConfig, stack_of
from jaxvsr.models.qwen_vl import parameter_shapes

HEAD, EMBEDDING = "lm_head.weight", "language_model.embed_tokens.weight"


def file_name(name: str, layer: int | None, style: Style) -> str:
    """The name in a file of our name; `layer` is the index in the stack, None outside of stacks."""
    if style == "stacked":
        return name
    stack = stack_of(name)
    if stack is not None and layer is not None:
        name = f"{stack}{layer}.{name.removeprefix(stack)}"
    if name.startswith("lm_head."):
        return name
    if style == "new":
        return "model." + name
    return "model." + name.removeprefix("language_model.") if name.startswith("language_model.") else name


def file_names(config: ModelConfig, style: Style) -> dict[str, tuple[str, int | None]]:
    """Every name in files of this style, with our name and the layer (None: outside of stacks)."""
    names: dict[str, tuple[str, int | None]] = {}
    for name, leaf in parameter_shapes(config).items():
        layers = range(leaf.shape[0]) if style != "stacked" and stack_of(name) else [None]
        names |= {file_name(name, layer, style): (name, layer) for layer in layers}
    return names


def file_shape(name: str, layer: int | None, config: ModelConfig) -> tuple[int, ...]:
    """Shape in the files of a parameter (our name), or of a layer of a stack."""
    shape = parameter_shapes(config)[name].shape
    return shape if layer is None else shape[1:]


def style_of(names: Iterable[str]) -> Style:
    """Which style a checkpoint's names are in."""
    names = list(names)
    if any(name.startswith(("model.language_model.", "model.visual.")) for name in names):
        return "new"
    if any(name.startswith("language_model.") for name in names):
        return "stacked"
    return "old"
