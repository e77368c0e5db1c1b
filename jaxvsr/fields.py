"""Frozen dataclasses from YAML and JSON, and single values from text: the types of the fields say what is accepted.

Errors are one line that begins with the field's dotted path; callers that know the file or the flag put it before that
(`errors.prefixed`). Types: bool, int, float, str, Literal, `X | None`, `tuple[X, ...]`, dict, dataclasses of these.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import reprlib
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from jaxvsr.errors import InputError, prefixed

Settings = TypeVar("Settings")

_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", dict: "fields"}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_COMMA = re.compile(r",(?![^(]*\))")  # outside of brackets


def read_fields(kind: type[Settings], tree: Any, path: str = "", *, loose: bool = False) -> Settings:
    """The dataclass `kind` of a mapping that YAML or JSON gave; `path` is the mapping's own.

    Args:
        loose: as people write configs: a number is also a string, and a string is also a list, separated by commas.

    Raises:
        InputError: an unknown or missing field, a value of another type, or one that the dataclass itself refuses.
    """
    types_of, required = _types_of_fields(kind)  # type: ignore[arg-type]
    if not isinstance(tree, dict):
        raise InputError(f"{_at(path)}expected fields ({', '.join(types_of)}), found {_shown(tree)}")
    check_names(tree, types_of, path)
    values = {
        name: value if type(value) in types_of[name] else _read(types_of[name], value, _below(path, name), loose)
        for name, value in tree.items()
    }
    for name in required:
        if name not in values:
            raise InputError(f"{_below(path, name)}: is missing; expected {expected(types_of[name])}")
    try:
        return kind(**values)
    except InputError as error:
        message = str(error)
        raise InputError(message if not path or message.startswith(path) else f"{path}.{message}") from None


def read_value(hint: Any, value: Any, path: str = "", *, loose: bool = False) -> Any:
    """`value`, as YAML or JSON has it, as the type `hint`."""
    return _read(_alternatives(hint), value, path, loose)


def _read(kinds: tuple[Any, ...], value: Any, path: str, loose: bool) -> Any:
    """`value` as one of several types, the parts of `X | Y`."""
    if type(value) in kinds:
        return value
    hint, *others = (kind for kind in kinds if kind is not type(None))
    if others and (get_origin(hint) is tuple) != isinstance(value, list):  # str | tuple[str, ...]
        hint = others[0]
    if dataclasses.is_dataclass(hint):
        return read_fields(hint, value, path, loose=loose)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value in choices and not isinstance(value, bool):
            return value
        names = [str(choice) for choice in choices]
        raise InputError(f"{_at(path)}{_shown(value)} is not one of {', '.join(names)}{did_you_mean(value, names)}")
    if get_origin(hint) is tuple:
        kinds_of_item = _alternatives(get_args(hint)[0])
        if loose and isinstance(value, str):
            return read_text(hint, value, path)
        items = [value] if loose and value is not None and not isinstance(value, dict | list | tuple) else value
        if isinstance(items, list | tuple):
            return tuple(_read(kinds_of_item, one, f"{path}[{index}]", loose) for index, one in enumerate(items))
    if get_origin(hint) is dict and isinstance(value, dict):
        return value
    if hint is str and loose and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # `mesh: {spec: 8}`, a folder named 2026
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # of a string because YAML 1.1 reads 1e-5, without a point, as one
        except ValueError:
            pass
    if hint is int and isinstance(value, float) and value.is_integer():  # 1.0e3
        return int(value)
    raise InputError(f"{_at(path)}expected {expected(kinds)}, found {_shown(value)}")


def read_text(hint: Any, text: str, path: str = "") -> Any:
    """A value written on a command line: strings as they are, lists as `a,b`, everything else as in YAML."""
    kinds = _alternatives(hint)
    if type(None) in kinds and text.lower() in ("null", "none"):
        return None
    if str in kinds:
        return text
    for kind in kinds:
        if get_origin(kind) is Literal:
            return read_value(kind, {str(choice): choice for choice in get_args(kind)}.get(text, text), path)
        if get_origin(kind) is tuple:
            parts = (part.strip() for part in _COMMA.split(text))
            return tuple(read_text(get_args(kind)[0], part, path) for part in parts if part)
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        value = text
    return read_value(hint, value, path, loose=True)


def hint_of(kind: type, path: str) -> Any:
    """The type of a field of the dataclass `kind`, or of the groups in it, by its dotted path.

    Raises:
        KeyError: there is no such field.
    """
    hint: Any = kind
    for name in path.split("."):
        hint = get_type_hints(next(part for part in _alternatives(hint) if dataclasses.is_dataclass(part)))[name]
    return hint


def replace_fields(settings: Settings, assignments: Iterable[str]) -> Settings:
    """The settings with `field=value` texts of `--set` applied."""
    hints = get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    for assignment in assignments:
        with prefixed(f"--set {assignment}"):
            name, equals, text = assignment.partition("=")
            if not equals:
                raise InputError("expected field=value")
            check_names((name,), hints)
            changes[name] = read_text(hints[name], text)
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


def check_names(given: Iterable[object], known: Collection[str], path: str = "") -> None:
    """Whether all names of fields are known ones."""
    for name in given:
        if name not in known:
            names = ", ".join(sorted(known))
            raise InputError(f"{_at(path)}unknown field {name!r}{did_you_mean(name, known)} (fields: {names})")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'scenes'?`, or nothing where no known name is like it."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def expected(kinds: Iterable[Any]) -> str:
    """What is accepted, in plain words: `a whole number`, `a string, or a list of them`, `null`.

    >>> expected((str, type(None)))
    'a string or null'
    """
    return " or ".join(_words_of(kind) for kind in kinds)


def _words_of(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return f"a list (each {expected(_alternatives(get_args(kind)[0]))})"
    return "null" if kind is type(None) else _EXPECTED.get(get_origin(kind) or kind, str(kind))


def to_tree(settings: Any) -> Any:
    """A dataclass as YAML holds it; `read_fields` of it gives an equal one."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {field.name: to_tree(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    if isinstance(settings, tuple):
        return [to_tree(item) for item in settings]
    if isinstance(settings, dict):
        return {name: to_tree(item) for name, item in settings.items()}
    return settings


def flat_fields(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every leaf of a tree of fields.

    >>> list(flat_fields({"steps": 3, "data": {"scenes": 4}}))
    [('steps', 3), ('data.scenes', 4)]
    """
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat_fields(value, _below(path, name))
        else:
            yield _below(path, name), value


@functools.cache
def _types_of_fields(kind: type) -> tuple[dict[str, tuple[Any, ...]], tuple[str, ...]]:
    """The types that each field takes, and the names of those without a default."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    required = [field.name for field in fields if field.default is field.default_factory is missing]
    hints = get_type_hints(kind)
    return {field.name: _alternatives(hints[field.name]) for field in fields}, tuple(required)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _shown(value: object) -> str:
    """A value in an error, cut where it is long or nested: aliases of YAML can stand for more than any memory holds."""
    return _SHORT.repr(value)


def _below(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _at(path: str) -> str:
    return f"{path}: " if path else ""
