"""Typed access to the objects of a `config.json`, with messages that name the file and the field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvsr.errors import InputError

MAX_LAYERS = 1000  # names are made for every layer: a nonsense number must not fill the memory


class ConfigFields:
    """Typed access to one object of `config.json`."""

    def __init__(self, raw: Any, where: str):
        if not isinstance(raw, Mapping):
            raise InputError(f"{where}: expected a JSON object, found {type(raw).__name__}")
        self.raw, self.where = raw, where

    def object(self, name: str) -> ConfigFields:
        """The object under this name; an empty one if there is none."""
        value = self.raw.get(name)
        return ConfigFields({} if value is None else value, f"{self.where} {name}")

    def flag(self, name: str) -> bool:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, bool):
            raise InputError(f"{self.where}: {name} {value!r} must be true or false")
        return bool(value)

    def first(self, *names: str) -> Any:
        return next((self.raw[name] for name in names if self.raw.get(name) is not None), None)

    def integer(self, name: str, default: int, minimum: int = 1) -> int:
        value = self.raw.get(name)
        value = default if value is None else value
        if isinstance(value, list) and value and all(side == value[0] for side in value):
            value = value[0]  # patch_size may be written as [14, 14]
        if not is_integer(value) or value < minimum:
            raise InputError(f"{self.where}: {name} {value!r} must be an integer of at least {minimum}")
        if name in ("num_hidden_layers", "depth") and value > MAX_LAYERS:
            raise InputError(f"{self.where}: {name} {value} must be at most {MAX_LAYERS}")
        return value

    def positive(self, name: str, default: int | float) -> float:
        value = self.raw.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{self.where}: {name} {value!r} must be a positive number")
        return float(value)

    def require(self, name: str, default: Any, accepted: Any) -> None:
        value = self.raw.get(name)
        if (default if value is None else value) != accepted:
            raise InputError(f"{self.where}: {name} {value!r} is not supported; it must be {accepted!r}")

    def integers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """A list of numbers of at least 0."""
        values = self.raw.get(name)
        values = default if values is None else values
        if not isinstance(values, list | tuple) or not all(is_integer(value) and value >= 0 for value in values):
            raise InputError(f"{self.where}: {name} {values!r} must be a list of layer numbers")
        return tuple(values)


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
