"""Parameter names: ours, with the layers of a stack on a leading axis, and those of Hugging Face's files.

| style | a weight of layer 3, and one of the tower's |
|---|---|
| `stacked` (ours) | `language_model.layers.mlp.up_proj.weight` [L, out, in], `visual.blocks.attn.qkv.weight` |
| `new` (transformers 5) | `model.language_model.layers.3.mlp.up_proj.weight`, `model.visual.blocks.3.attn.qkv.weight` |
| `old` (published checkpoints) | `model.layers.3.mlp.up_proj.weight`, `visual.blocks.3.attn.qkv.weight` |
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from jaxvsr.models.model_config import ModelConfig, TextConfig, VisionConfig

Style = Literal["stacked", "new", "old"]
Shape = tuple[int, ...]

STACKS = ("language_model.layers.", "visual.blocks.")
HEAD, EMBEDDING = "lm_head.weight", "language_model.embed_tokens.weight"


def expected_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Name (ours) and shape of every parameter of the model, in the order of the forward pass. No adapters."""
    shapes = {f"visual.{name}": shape for name, shape in _tower_shapes(config.vision).items()}
    shapes |= {f"language_model.{name}": shape for name, shape in _language_shapes(config.text).items()}
    if not config.text.tie_word_embeddings:
        shapes[HEAD] = (config.text.vocab_size, config.text.hidden_size)
    return shapes


def stack_of(name: str) -> str | None:
    """The stack that a parameter or module (our name) belongs to, as a prefix of its name, or None."""
    return next((stack for stack in STACKS if name.startswith(stack)), None)


def file_name(name: str, layer: int | None, style: Style) -> str:
    """Our name as a file has it; `layer` counts along the leading axis of a stack and is None outside of one."""
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
    """Every name that a file of this style has, with our name and the layer it stands for."""
    names: dict[str, tuple[str, int | None]] = {}
    for name, shape in expected_shapes(config).items():
        layers = range(shape[0]) if style != "stacked" and stack_of(name) else [None]
        names |= {file_name(name, layer, style): (name, layer) for layer in layers}
    return names


def style_of(names: Iterable[str]) -> Style:
    """Which style a checkpoint's names are in."""
    names = list(names)
    if any(name.startswith(("model.language_model.", "model.visual.")) for name in names):
        return "new"
    if any(name.startswith("language_model.") for name in names):
        return "stacked"
    return "old"


def _tower_shapes(config: VisionConfig) -> dict[str, Shape]:
    width, inner, depth = config.embed_dim, config.intermediate_size, config.depth
    norm_has_bias = not config.window_size  # LayerNorm in Qwen2-VL, RMSNorm in Qwen2.5-VL
    block: dict[str, Shape] = {}
    for norm in ("norm1", "norm2"):
        block |= _norm(norm, width, norm_has_bias)
    block |= _linear("attn.qkv", width, 3 * width) | _linear("attn.proj", width, width)
    if config.window_size:
        block |= _linear("mlp.gate_proj", width, inner) | _linear("mlp.up_proj", width, inner)
        block |= _linear("mlp.down_proj", inner, width)
    else:
        block |= _linear("mlp.fc1", width, inner) | _linear("mlp.fc2", inner, width)
    merged, side = width * config.merge_unit, config.patch_size
    return {
        "patch_embed.proj.weight": (width, config.in_channels, config.temporal_patch_size, side, side),
        **{f"blocks.{name}": (depth, *shape) for name, shape in block.items()},
        **_norm("merger.ln_q", width, norm_has_bias),
        **_linear("merger.mlp.0", merged, merged),
        **_linear("merger.mlp.2", merged, config.out_hidden_size),
    }


def _language_shapes(config: TextConfig) -> dict[str, Shape]:
    width, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer: dict[str, Shape] = {
        "input_layernorm.weight": (width,),
        **_linear("self_attn.q_proj", width, queries),
        **_linear("self_attn.k_proj", width, keys),
        **_linear("self_attn.v_proj", width, keys),
        "self_attn.o_proj.weight": (width, queries),
        "post_attention_layernorm.weight": (width,),
        "mlp.gate_proj.weight": (inner, width),
        "mlp.up_proj.weight": (inner, width),
        "mlp.down_proj.weight": (width, inner),
    }
    return {
        "embed_tokens.weight": (config.vocab_size, width),
        **{f"layers.{name}": (config.num_hidden_layers, *shape) for name, shape in layer.items()},
        "norm.weight": (width,),
    }


def _linear(name: str, fan_in: int, fan_out: int) -> dict[str, Shape]:
    return {f"{name}.weight": (fan_out, fan_in), f"{name}.bias": (fan_out,)}


def _norm(name: str, width: int, has_bias: bool) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{name}.weight": (width,)}
    return shapes | ({f"{name}.bias": (width,)} if has_bias else {})
