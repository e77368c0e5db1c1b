"""A model class of the installed transformers, which needs torch; a torchvision that does not fit it is not used."""

from __future__ import annotations

import sys
from typing import Any

import transformers

from jaxvsr.errors import InputError


def transformers_class(name: str) -> Any:
    """The class of this name.

    Raises:
        InputError: torch is missing, or transformers' models cannot be imported.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise InputError("transformers' models need torch: pip install torch") from None
    _hide_broken_torchvision()
    try:
        return getattr(transformers, name)
    except (AttributeError, ImportError, RuntimeError) as error:
        raise InputError(
            f"transformers {transformers.__version__}: {name} cannot be imported here ({_root_cause(error)}); in a "
            "fresh environment: pip install torch transformers"
        ) from None


def _hide_broken_torchvision() -> None:
    """A torchvision built for another torch fails on import, and transformers' models with it. They work without
    torchvision if they find none; pixels come from our processor."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # how import marks a missing module
        is_available = transformers.utils.is_torchvision_available
        getattr(is_available, "cache_clear", lambda: None)()


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200]
