"""The run-time type checker of the tests: beartype, with int accepted for float as static checkers do (PEP 484)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from beartype import BeartypeConf, beartype

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))

_register_dataclass = jax.tree_util.register_dataclass


def register_dataclass(nodetype: type, *fields: Any, **more: Any) -> type:
    """JAX's function of this name, without type checks of the trees that JAX itself makes of a dataclass of ours.

    Its fields then hold shapes, shardings or nothing in place of arrays. Those that our code makes are checked.
    """
    if fields or more or not nodetype.__module__.startswith("jaxvsr."):
        return _register_dataclass(nodetype, *fields, **more)
    names = [field.name for field in dataclasses.fields(nodetype)]

    def flatten(tree: Any) -> tuple[list[Any], None]:
        return [getattr(tree, name) for name in names], None

    def flatten_with_keys(tree: Any) -> tuple[list[Any], None]:
        return [(jax.tree_util.GetAttrKey(name), getattr(tree, name)) for name in names], None

    def unflatten(_: None, leaves: Any) -> Any:
        tree: Any = object.__new__(nodetype)
        made = vars(nodetype)["__init__"]
        getattr(made, "__wrapped__", made)(tree, **dict(zip(names, leaves, strict=True)))
        return tree

    jax.tree_util.register_pytree_with_keys(nodetype, flatten_with_keys, unflatten, flatten)
    return nodetype
