"""Shapes of the tiny models that the tests run, and random adapters of them."""

import shutil
from pathlib import Path

import numpy as np

from jaxvsr.models.huggingface.stages import Stage
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tiny.tiny_model import TinyShape

SMALL = TinyShape(width=32, text_layers=1, text_intermediate=48, vision_layers=1)
DEEP = TinyShape(width=32, text_layers=2, text_intermediate=40, vision_layers=2)


def thinking_copy(model: Path, out: Path) -> Path:
    """The model with a template that begins every answer with a thought, as those of thinking models do."""
    shutil.copytree(model, out)
    template, turn = out / "chat_template.jinja", "<|im_start|>assistant\n{% endif %}"
    assert template.read_text().count(turn) == 1
    template.write_text(template.read_text().replace(turn, turn.replace("{%", "<think>\n{%")))
    return out


def random_adapter(config: ModelConfig, lora: LoraConfig, seed: int = 0) -> Stage:
    """Random weights for every module that `lora` adapts."""
    rng, leaves = np.random.default_rng(seed), {}
    for name, leaf in parameter_shapes(config).items():
        shape = leaf.shape
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and "norm" not in name and lora.adapts(module, shape[0]):
            leaves[f"{module}.lora_A"] = rng.normal(size=(*shape[:-2], lora.rank, shape[-1])).astype(np.float32)
            leaves[f"{module}.lora_B"] = rng.normal(size=(*shape[:-1], lora.rank)).astype(np.float32)
            if len(shape) == 3:
                for side in "AB":
                    leaves[f"{module}.lora_{side}"][~np.array(lora.adapted_layers(module, shape[0]))] = 0
    return Stage(leaves, lora)
