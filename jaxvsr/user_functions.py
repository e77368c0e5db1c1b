"""Functions from a user's file: `path/to/file.py:function`, as rewards and judges are given."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxvsr.errors import InputError, described


def function_of_file(target: str, what: str) -> Callable[..., Any]:
    """The function that `file.py:function` names; `what` ("reward", "judge") begins the error. Runs the file, once
    however many of its functions are named; it can import its neighbours, as a script can.
    """
    file, _, name = target.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not name:
        raise InputError(f"{what} {target!r}: expected path/to/file.py:function")
    if not path.is_file():
        raise InputError(f"{what} {target}: no such file")
    try:
        module = _module(path.resolve(), path.stat().st_mtime_ns)
    except (Exception, SystemExit) as error:  # a script that calls sys.exit() would end us without a word
        raise InputError(f"{what} {target}: importing the file raised {described(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{what} {target}: the file has no function {name!r}")
    return function


@functools.lru_cache
def _module(path: Path, changed: int) -> ModuleType:
    """The file as a module; `changed`, when it was written, makes an edited file another one."""
    spec = importlib.util.spec_from_file_location(f"jaxvsr_file_{path.stem}_{hash(path):x}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in the file look themselves up there
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last: a neighbour hides no installed package
    spec.loader.exec_module(module)
    return module
