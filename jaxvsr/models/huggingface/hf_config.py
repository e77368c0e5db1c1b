"""`config.json` and `generation_config.json` of a model folder.

Three forms of `config.json` exist: the flat one of the older checkpoints (text fields at the top level,
`rope_scaling`), one with a nested `text_config`, and transformers 5's (`rope_parameters`). Missing fields have the
defaults of transformers' configuration classes, because transformers writes only what differs from them. The fields of
a family are read and written in its module of `families/`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object
from jaxvsr.models.families.family import TOKEN_DEFAULTS
from jaxvsr.models.families.known_families import FAMILIES, REFUSED, family_of
from jaxvsr.models.huggingface.config_fields import ConfigFields, is_integer
from jaxvsr.models.model_config import ModelConfig

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
DTYPES = ("float32", "bfloat16", "float16")


def read_config(folder: Path) -> ModelConfig:
    """The model of a Hugging Face folder. A model that this package cannot compute exactly is an `InputError`."""
    path = folder / CONFIG_FILE
    return parse_config(read_json_object(path, missing="a model is a Hugging Face folder"), str(path))


def parse_config(raw: Mapping[str, Any], where: str = CONFIG_FILE) -> ModelConfig:
    """The model in a `config.json` of any form; `where` names the file in errors."""
    found = raw.get("model_type")
    if found in REFUSED:
        raise InputError(f"{where}: model_type {found!r} is {REFUSED[str(found)]}")
    if found not in FAMILIES:
        raise InputError(f"{where}: model_type {found!r} is not one of {', '.join(FAMILIES)}")
    family = FAMILIES[found]
    top = ConfigFields(raw, where)
    fields = top if raw.get("text_config") is None else top.object("text_config")
    dtype = str(fields.first("torch_dtype", "dtype") or top.first("torch_dtype", "dtype") or "float32")
    if dtype not in DTYPES:
        raise InputError(f"{where}: dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    tied = top.flag("tie_word_embeddings") or fields.flag("tie_word_embeddings")
    text = family.read_text(fields, tied)
    tower = family.read_vision(top.object("vision_config"))
    if tower.out_hidden_size != text.hidden_size:
        raise InputError(
            f"{where}: the vision tower's tokens have width {tower.out_hidden_size}, "
            f"but the language model's hidden_size is {text.hidden_size}"
        )
    tokens = {name: top.integer(name, default, minimum=0) for name, default in TOKEN_DEFAULTS.items()}
    return ModelConfig(**tokens, family=family.name, text=text, vision=tower, dtype=dtype)


def config_json(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of this model, in the form of its family's published checkpoints."""
    return family_of(config).config_json(config)


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """A folder's settings for sampling. Each of `eos_token_ids` ends an answer."""

    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    repetition_penalty: float = 1.0


def read_generation_config(folder: Path) -> GenerationConfig:
    """`generation_config.json`; if it has no end-of-sequence id, then with the token ids of `config.json`."""
    path = folder / GENERATION_FILE
    raw = read_json_object(path) if path.is_file() else {}
    if raw.get("eos_token_id") is None:
        path = folder / CONFIG_FILE
        top = ConfigFields(read_json_object(path), str(path))
        for given in (top.object("text_config").raw, top.raw):
            raw |= {name: given[name] for name in ("eos_token_id", "pad_token_id") if given.get(name) is not None}
    eos = raw.get("eos_token_id")
    eos = eos if isinstance(eos, list) else [eos]
    if not eos or not all(is_integer(token) and token >= 0 for token in eos):
        raise InputError(f"{path}: eos_token_id {raw.get('eos_token_id')!r} must be a token id or a list of them")
    fields = ConfigFields(raw, str(path))
    pad, penalty = fields.integer("pad_token_id", eos[0], minimum=0), fields.positive("repetition_penalty", 1.0)
    return GenerationConfig(tuple(eos), pad, penalty)
