"""Configs from YAML, `--set field=value` and flags, and back; every mistake is one line.

read_config("configs/demo-grpo.yaml", [("--set", "data.scenes", "8"), ("--steps", "steps", "200")])
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from jaxvsr.config.known_names import known_name
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.errors import InputError, prefixed
from jaxvsr.fields import flat_fields, hint_of, read_fields, read_text, to_tree
from jaxvsr.prompts import prompt_from
from jaxvsr.yaml_file import read_yaml

Override = tuple[str, str, str]  # what the user typed it as (`--set`, `--steps`), field, text of the value

_FIELDS = tuple(field for field, _ in flat_fields(to_tree(TrainConfig())))


def read_config(path: Path | None, overrides: Iterable[Override] = ()) -> TrainConfig:
    """The config of a YAML file (None: the defaults) with fields replaced in order.

    Who names a prompt and no `sampling.answer_tokens` beside it, in the file or among the overrides, gets the prompt's.
    """
    tree = read_yaml(path) if path is not None else {}
    with prefixed(f"config {path}"):
        _take_prompts_budget(tree)
        config_from(tree)
    given = list(overrides)
    for flag, field, text in given:
        with prefixed(flag):
            _set_field(tree, field, text)
    fields = {field for _, field, _ in given}
    if "data.prompt" in fields and "sampling.answer_tokens" not in fields:
        (tree.get("sampling") or {}).pop("answer_tokens", None)
        _take_prompts_budget(tree)
    return config_from(tree)


def config_from(tree: Mapping[str, Any]) -> TrainConfig:
    """The config of a tree of fields, as YAML holds it; `fields.to_tree` gives the tree back."""
    for field, value in flat_fields(tree):
        _check_field(field, value)
    return read_fields(TrainConfig, tree, loose=True)


def to_yaml(config: TrainConfig) -> str:
    """All fields, also those that have their defaults."""
    return yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True, width=120)


def find_config(name: str, folder: str = ".") -> Path:
    """The file of `--config`: a file, or the name of a recipe in configs/, or in a folder there."""
    path = Path(name)
    if path.is_file():
        return path
    package = Path(__file__).resolve().parents[1]
    places = (package / "configs", package.parent / "configs")  # installed; in a checkout
    recipes = {found.stem: found for place in places for found in (place / folder).glob("*.yaml")}
    if name in recipes:
        return recipes[name]
    known = ", ".join(sorted(recipes)) or "none"
    raise InputError(f"--config {name}: neither a file nor a recipe; recipes are {known}")


def parse_assignment(text: str) -> Override:
    """`data.scenes=8` of `--set`."""
    field, equals, value = text.partition("=")
    if not equals or not field.strip():
        raise InputError(f"--set {text}: expected field=value, such as --set data.scenes=8")
    return f"--set {text}", field.strip(), value.strip()


def _set_field(tree: dict[str, Any], field: str, text: str) -> None:
    """Put one value, written as in YAML or as `a,b`, into a tree of fields."""
    _check_field(field, text)
    value = read_text(hint_of(TrainConfig, field), text)
    *parents, last = field.split(".")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = to_tree(value)


def _take_prompts_budget(tree: dict[str, Any]) -> None:
    """A prompt carries its token budget: where one is named and `sampling.answer_tokens` is not, that is taken."""
    data, sampling = tree.get("data"), tree.get("sampling") or {}
    name = data.get("prompt") if isinstance(data, dict) else None
    if isinstance(name, str) and isinstance(sampling, dict) and "answer_tokens" not in sampling:
        tree["sampling"] = {**sampling, "answer_tokens": prompt_from(name).max_answer_tokens}


def _check_field(path: str, value: object) -> None:
    """Whether a dotted path names a field or a group of them; a name of TRL or EasyR1 is answered with ours."""
    if path in _FIELDS or any(field.startswith(f"{path}.") for field in _FIELDS):
        return
    line = f"unknown field {path!r} (value {value!r})"
    if ours := known_name(path):
        raise InputError(f"{line}: here it is {ours}")
    group, _, last = path.rpartition(".")
    if group in _FIELDS:
        raise InputError(f"{line}: {group!r} has no fields")
    close = [field for field in _FIELDS if field.rpartition(".")[2] == last]
    close = close or difflib.get_close_matches(path, _FIELDS, n=1, cutoff=0.7)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    start = f"{group}." if any(field.startswith(f"{group}.") for field in _FIELDS) else ""
    names = dict.fromkeys(field.removeprefix(start).split(".")[0] for field in _FIELDS if field.startswith(start))
    raise InputError(f"{line}{guess} (fields{f' of {group}' if start else ''}: {', '.join(names)})")
