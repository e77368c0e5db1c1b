"""Configs from YAML, `--set field=value` and flags, and back; every mistake is one line.

read_config("configs/demo-grpo.yaml", [("--set", "data.scenes", "8"), ("--steps", "steps", "200")])
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import inspect
import re
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from jaxvsr.config.known_names import known_name
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.errors import InputError
from jaxvsr.prompts import prompt_from
from jaxvsr.yaml_file import read_yaml

Settings = TypeVar("Settings")
Override = tuple[str, str, str]  # what the user typed it as (`--set`, `--steps`), field, text of the value


def read_config(path: Path | None, overrides: Iterable[Override] = ()) -> TrainConfig:
    """The config of a YAML file (None: the defaults) with fields replaced in order.

    Who names a prompt and no `sampling.answer_tokens` beside it, in the file or among the overrides, gets the prompt's.
    """
    tree = read_yaml(path) if path is not None else {}
    with _named(f"config {path}"):
        _take_prompts_budget(tree)
        build(TrainConfig, tree)
    given = list(overrides)
    for flag, field, text in given:
        with _named(flag):
            set_field(tree, field, text)
    fields = {field for _, field, _ in given}
    if "data.prompt" in fields and "sampling.answer_tokens" not in fields:
        (tree.get("sampling") or {}).pop("answer_tokens", None)
        _take_prompts_budget(tree)
    return build(TrainConfig, tree)


def _take_prompts_budget(tree: dict[str, Any]) -> None:
    """A prompt carries its token budget: where one is named and `sampling.answer_tokens` is not, that is taken."""
    data, sampling = tree.get("data"), tree.get("sampling") or {}
    name = data.get("prompt") if isinstance(data, dict) else None
    if isinstance(name, str) and isinstance(sampling, dict) and "answer_tokens" not in sampling:
        tree["sampling"] = {**sampling, "answer_tokens": prompt_from(name).max_answer_tokens}


@contextlib.contextmanager
def _named(source: str) -> Iterator[None]:
    """Errors inside name where the value was given instead of just `config`."""
    try:
        yield
    except InputError as error:
        message = str(error)
        raise InputError(source + message.removeprefix("config") if message.startswith("config") else message) from None


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


def set_field(tree: dict[str, Any], field: str, text: str) -> None:
    """Put one value, written as in YAML or as `a,b`, into a tree of fields; `field` is a dotted path."""
    hint: Any = TrainConfig
    *parents, last = field.split(".")
    for depth, name in enumerate([*parents, last]):
        kind = next((part for part in (hint, *get_args(hint)) if dataclasses.is_dataclass(part)), None)
        where = "".join(f"{parent}." for parent in parents[:depth])
        if kind is not None:
            hints = get_type_hints(kind)
            if name not in hints:
                raise InputError(_unknown_field(kind, where + ".".join([*parents, last][depth:]), text))  # type: ignore[arg-type]
            hint = hints[name]
        else:
            raise InputError(f"config: {where[:-1]!r} has no fields, found {field!r}")
    value = convert(hint, _from_text(hint, text), field)
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = to_tree(value)


def _from_text(hint: Any, text: str) -> Any:
    """Texts and lists of texts as they stand; everything else as YAML reads it."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if type(None) in kinds and text.lower() in ("null", "none"):
        return None
    if any(kind is str or get_origin(kind) in (Literal, tuple) for kind in kinds):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def parse_assignment(text: str) -> Override:
    """`data.scenes=8` of `--set`."""
    field, equals, value = text.partition("=")
    if not equals or not field.strip():
        raise InputError(f"--set {text}: expected field=value, such as --set data.scenes=8")
    return f"--set {text}", field.strip(), value.strip()


def build(kind: type[Settings], tree: Mapping[str, Any], where: str = "") -> Settings:
    """The dataclass of a mapping; `where` is the dotted path of the mapping itself."""
    hints = get_type_hints(kind)
    for name, value in tree.items():
        if name not in hints:
            path, value = next(
                flat_fields({name: value})
            )  # of a whole unknown group its first field, which may be known
            raise InputError(_unknown_field(kind, f"{where}{path}", value))
    values = {name: convert(hints[name], value, f"{where}{name}") for name, value in tree.items()}
    try:
        return kind(**values)
    except InputError as error:
        message = str(error)
        raise InputError(
            message if message.startswith((where.rstrip("."), "config")) else f"{where}{message}"
        ) from None


def _unknown_field(kind: type, path: str, value: object) -> str:
    line = f"config: unknown field {path!r} (value {value!r})"
    ours = known_name(path)
    if ours:
        return f"{line}: here it is {ours}"
    names = [field.name for field in dataclasses.fields(kind)]
    paths = [name for name, *_ in field_table(TrainConfig)]
    group, _, last = path.rpartition(".")
    close = [name for name in paths if name.rpartition(".")[2] == last] or difflib.get_close_matches(
        path, paths, n=1, cutoff=0.7
    )
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return f"{line}{guess} (fields{f' of {group}' if group else ''}: {', '.join(names)})"


_COMMA = re.compile(r",(?![^(]*\))")  # a comma that stands in no brackets


def convert(hint: Any, value: Any, where: str) -> Any:
    """`value`, as YAML has it, as the type `hint`: numbers, texts, Literal, `X | None`, tuples, dataclasses."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or value == "null":
            if type(None) in arguments:
                return None
            raise InputError(f"config {where}: must not be null")
        kinds = [kind for kind in arguments if kind is not type(None)]
        if len(kinds) > 1:  # str | tuple[str, ...]
            kinds = [kind for kind in kinds if (get_origin(kind) is tuple) == isinstance(value, list)]
        return convert(kinds[0], value, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            names = ", ".join(field.name for field in dataclasses.fields(hint))
            raise InputError(f"config {where}: expected fields ({names}), found {value!r}")
        return build(hint, value, f"{where}.")  # type: ignore[arg-type]
    if origin is Literal:
        if value in arguments and not isinstance(value, bool):
            return value
        close = difflib.get_close_matches(str(value), [str(choice) for choice in arguments], n=1)
        hint_text = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"config {where}: {value!r} is not one of {', '.join(map(str, arguments))}{hint_text}")
    if origin is tuple:
        items = [part.strip() for part in _COMMA.split(value) if part.strip()] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            items = [items]
        return tuple(convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(items))
    return _scalar(hint, value, where)


_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def _scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-5, without a point, as a text
        try:
            return float(value)
        except ValueError:
            pass
    if hint is int and isinstance(value, float) and value.is_integer():  # 1.0e3
        return int(value)
    if (
        hint is str and isinstance(value, (int, float)) and not isinstance(value, bool)
    ):  # `--mesh 8`, a folder named 2026
        return str(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise InputError(f"config {where}: expected {_EXPECTED[hint]}, found {value!r}")


def to_tree(settings: Any) -> Any:
    """A config as YAML holds it; `build` of it gives the same config back."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {field.name: to_tree(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    if isinstance(settings, tuple):
        return [to_tree(item) for item in settings]
    if isinstance(settings, dict):
        return {name: to_tree(item) for name, item in settings.items()}
    return settings


def to_yaml(config: TrainConfig) -> str:
    return yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True, width=120)


def flat_fields(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every leaf of a tree of fields."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat_fields(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", value


def field_table(kind: type, where: str = "") -> list[tuple[str, str, Any, str]]:
    """(dotted path, type, default, meaning with its unit) of every field, for the reference page."""
    rows: list[tuple[str, str, Any, str]] = []
    hints, meanings = get_type_hints(kind), field_meanings(kind)
    defaults = kind()
    for field in dataclasses.fields(kind):
        inner = [part for part in (hints[field.name], *get_args(hints[field.name])) if dataclasses.is_dataclass(part)]
        path = f"{where}{field.name}"
        if inner:
            rows += field_table(inner[0], f"{path}.")  # type: ignore[arg-type]
        else:
            rows.append((path, str(field.type), to_tree(getattr(defaults, field.name)), meanings.get(field.name, "")))
    return rows


def field_meanings(kind: type) -> dict[str, str]:
    """What the source says about each field: the comment behind or above it, or `name: text` in the class docstring."""
    meanings: dict[str, str] = {}
    entry = re.compile(r"^([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*(?:\n {4,}.*)*)", re.MULTILINE)
    for names, text in entry.findall(inspect.cleandoc(kind.__doc__ or "")):
        meanings |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except OSError:  # installed without sources
        return meanings
    lines = source.splitlines()
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            behind = lines[node.end_lineno - 1][node.end_col_offset :].strip()  # type: ignore[operator]
            above = lines[node.lineno - 2].strip()
            comment = behind if behind.startswith("#") else above
            if comment.startswith("#"):
                meanings[node.target.id] = comment.lstrip("# ")
    return meanings
