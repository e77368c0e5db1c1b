"""The run-time type checker of the tests: beartype, with int accepted for float as static checkers do (PEP 484)."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import jax
import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import _decorator, _storage

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))


def jaxtyped(checked: Any = None, *, typechecker: Any) -> Any:
    """jaxtyping's decorator of this name, which the import hook puts on every function, at a fraction of its time.

    It checks parameters and result in one go, where jaxtyping's checks the parameters twice and binds them by name, for
    its message. A function must not use its parameters in a shape ("{size}").
    """
    if checked is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not isinstance(checked, types.FunctionType) or inspect.isgeneratorfunction(checked):
        return _jaxtyped(checked, typechecker=typechecker)
    function = checked
    made = _in_a_function if "<locals>" in function.__qualname__ else _in_a_module
    check = made(function, typechecker)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        memos = _storage.push_shape_memo({})
        try:
            return check(*args, **kwargs)
        except BeartypeCallHintViolation as error:
            error.add_note(_storage.shape_str(memos))
            raise
        finally:
            _storage.pop_shape_memo()

    return wrapped


_jaxtyped = jaxtyping.jaxtyped
_Function = Callable[..., Any]
_stubs: dict[types.CodeType, tuple[_Function, _Function, str]] = {}


def _signature(function: types.FunctionType) -> inspect.Signature:
    """With types for strings. Names that are imported for type checkers alone are not checked."""

    def resolved(hint: Any) -> Any:
        return hint if hint is inspect.Signature.empty else _decorator._destring_annotation(hint, function.__globals__)

    signature = inspect.signature(function)
    parameters = [one.replace(annotation=resolved(one.annotation)) for one in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=resolved(signature.return_annotation))


def _in_a_module(function: types.FunctionType, typechecker: _Function) -> _Function:
    copied = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    functools.update_wrapper(copied, function)
    copied.__kwdefaults__ = function.__kwdefaults__
    signature = _signature(function)
    hints = {one.name: one.annotation for one in signature.parameters.values()} | {
        "return": signature.return_annotation
    }
    copied.__annotations__ = {name: hint for name, hint in hints.items() if hint is not inspect.Signature.empty}
    return typechecker(copied)


def _in_a_function(function: types.FunctionType, typechecker: _Function) -> _Function:
    """It is made anew in each call of the other one: what checks it is not, and stands apart from it."""
    if function.__code__ not in _stubs:
        signature = _signature(function)
        name = (function.__name__, function.__qualname__, function.__module__)
        parameters = _decorator._make_fn_with_signature(*name, signature.replace(return_annotation=Any), output=False)
        result, returned = _decorator._make_fn_with_signature(*name, signature, output=True)
        _stubs[function.__code__] = typechecker(parameters), typechecker(result), returned
    parameters, result, returned = _stubs[function.__code__]

    def check(*args: Any, **kwargs: Any) -> Any:
        parameters(*args, **kwargs)
        return result(*args, **kwargs, **{returned: function(*args, **kwargs)})

    return check


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
