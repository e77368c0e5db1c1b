"""Functions from a user's file: `path/to/file.py:function`, as rewards and judges are given."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvsr.errors import InputError


def function_of_file(target: str, what: str) -> Callable[..., Any]:
    """The function that `file.py:function` names; `what` ("reward", "judge") begins the error. Runs the file."""
    file, _, name = target.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not name:
        raise InputError(f"{what} {target!r}: expected path/to/file.py:function")
    if not path.is_file():
        raise InputError(f"{what} {target}: no such file")
    spec = importlib.util.spec_from_file_location(f"jaxvsr_{what}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in the file look themselves up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that calls sys.exit() would end us without a word
        raise InputError(f"{what} {target}: importing the file raised {described(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{what} {target}: the file has no function {name!r}")
    return function


def described(error: BaseException) -> str:
    """An exception on one line: ValueError: what it said."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
