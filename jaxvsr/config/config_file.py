"""Configs from YAML, `--set field=value` and flags, and back; every mistake is one line.

    read_config("configs/demo-grpo.yaml", [("--set", "data.scenes", "8"), ("--steps", "steps", "200")])

A file with `extends: NAME` has the fields of another file, a recipe or one beside it, and what it changes of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from jaxvsr.buckets.urls import bucket_url, refuse_url
from jaxvsr.config.known_names import known_name
from jaxvsr.config.train_config import IN_BUCKETS, TrainConfig
from jaxvsr.errors import InputError, prefixed
from jaxvsr.fields import did_you_mean, flat_fields, hint_of, read_fields, read_text, to_tree
from jaxvsr.prompts import prompt_from
from jaxvsr.yaml_file import read_yaml

Override = tuple[str, str, str]  # what the user typed it as (`--set`, `--steps`), field, text of the value

_FIELDS = tuple(field for field, _ in flat_fields(to_tree(TrainConfig())))


def read_config(path: Path | None, overrides: Iterable[Override] = ()) -> TrainConfig:
    """The config of a YAML file (None: the defaults) with fields replaced in order.

    A prompt brings its own `sampling.answer_tokens`, unless the file or the overrides that name it set them too.
    """
    tree = _read_tree(path) if path is not None else {}
    given = list(overrides)
    for flag, field, text in given:
        with prefixed(flag):
            _set_field(tree, field, text)
    fields = {field for _, field, _ in given}
    if "data.prompt" in fields and "sampling.answer_tokens" not in fields:
        (tree.get("sampling") or {}).pop("answer_tokens", None)
        _take_prompts_budget(tree)
    return config_from(tree)


def _read_tree(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The fields of a file over those of the file that it extends."""
    tree, base = read_yaml(path), None
    with prefixed(f"config {path}"):
        name = tree.pop("extends", None)
        _check_fields(tree)
        if name is not None:
            base = _extended(path, name)
            chain = (*extended_by, path)
            if any(base.samefile(file) for file in chain):
                raise InputError(f"extends itself: {' extends '.join(str(file) for file in (*chain, base))}")
    if base is not None:
        tree = _merged(_read_tree(base, (*extended_by, path)), tree)
    with prefixed(f"config {path}"):
        _take_prompts_budget(tree)
        config_from(tree)
    return tree


def _extended(path: Path, name: Any) -> Path:
    """The file that `extends` names in the file `path`: one by its path from there, or a recipe."""
    if not isinstance(name, str):
        raise InputError(f"extends: expected the name of a recipe or a file, found {name!r}")
    beside = [file for file in (path.parent / name, path.parent / f"{name}.yaml") if file.is_file()]
    recipes = _recipes()
    if not beside and name not in recipes:
        raise InputError(
            f"extends {name!r}: neither a file in {path.parent} nor a recipe{did_you_mean(name, recipes)} "
            f"(recipes: {', '.join(sorted(recipes))})"
        )
    return beside[0] if beside else recipes[name]


def _merged(base: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` over `base`, without the base's `sampling.answer_tokens` where `tree` names another prompt."""
    data, sampling = tree.get("data"), tree.get("sampling") or {}
    if isinstance(data, dict) and "prompt" in data and "answer_tokens" not in sampling:
        (base.get("sampling") or {}).pop("answer_tokens", None)
    return _over(base, tree)


def _over(base: Any, tree: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(tree, dict):
        return tree
    return {**base, **{name: _over(base.get(name), value) for name, value in tree.items()}}


def config_from(tree: Mapping[str, Any]) -> TrainConfig:
    """The config of a tree of fields, as YAML holds it; `fields.to_tree` gives the tree back."""
    _check_fields(tree)
    for field, value in flat_fields(tree):
        if field not in IN_BUCKETS:
            refuse_url(value, field)
            continue
        for folder in value if isinstance(value, list | tuple) else (value,):
            bucket_url(str(folder))
    return read_fields(TrainConfig, tree, loose=True)


def to_yaml(config: TrainConfig) -> str:
    """All fields, also those that have their defaults."""
    return yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True, width=120)


def find_config(name: str, folder: str = ".") -> Path:
    """The file of `--config`: a file, or the name of a recipe in configs/, or in a folder there."""
    path = Path(name)
    if path.is_file():
        return path
    recipes = _recipes(folder)
    if name in recipes:
        return recipes[name]
    known = ", ".join(sorted(recipes)) or "none"
    raise InputError(f"--config {name}: neither a file nor a recipe; recipes are {known}")


def _recipes(folder: str = ".") -> dict[str, Path]:
    """The files of configs/, or of a folder there, by name."""
    package = Path(__file__).resolve().parents[1]
    places = (package / "configs", package.parent / "configs")  # installed; in a checkout
    return {found.stem: found for place in places for found in (place / folder).glob("*.yaml")}


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
    """Set `sampling.answer_tokens` to the budget of the prompt, where a prompt is named and they are not."""
    data, sampling = tree.get("data"), tree.get("sampling") or {}
    name = data.get("prompt") if isinstance(data, dict) else None
    if isinstance(name, str) and isinstance(sampling, dict) and "answer_tokens" not in sampling:
        tree["sampling"] = {**sampling, "answer_tokens": prompt_from(name).max_answer_tokens}


def _check_fields(tree: Mapping[str, Any]) -> None:
    for path, value in flat_fields(tree):
        _check_field(path, value)


def _check_field(path: str, value: object) -> None:
    """Whether a dotted path names a field or a group; a name of TRL or EasyR1 is answered with the field here."""
    if path in _FIELDS or any(field.startswith(f"{path}.") for field in _FIELDS):
        return
    line = f"unknown field {path!r} (value {value!r})"
    if here := known_name(path):
        raise InputError(f"{line}: here it is {here}")
    group, _, last = path.rpartition(".")
    if group in _FIELDS:
        raise InputError(f"{line}: {group!r} has no fields")
    close = [field for field in _FIELDS if field.rpartition(".")[2] == last]
    close = close or difflib.get_close_matches(path, _FIELDS, n=1, cutoff=0.7)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    start = f"{group}." if any(field.startswith(f"{group}.") for field in _FIELDS) else ""
    names = dict.fromkeys(field.removeprefix(start).split(".")[0] for field in _FIELDS if field.startswith(start))
    raise InputError(f"{line}{guess} (fields{f' of {group}' if start else ''}: {', '.join(names)})")
