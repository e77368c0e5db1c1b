"""Shape types are checked while the tests run; JAX sees the CPU alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jaxtyping
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.support.shape_types
import tests.support.torchvision_cpu  # noqa: F401  (before transformers looks for torchvision)

if TYPE_CHECKING:
    from tests.support.runs import Bench

install_import_hook("jaxvsr", "tests.support.shape_types.checker")

# Random inputs are the same in every run, and how long one takes is nobody's promise.
settings.register_profile("jaxvsr", deadline=None, derandomize=True)
settings.load_profile("jaxvsr")


@pytest.fixture(scope="module")
def without_shape_types(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """JAX's ahead-of-time compilation builds the tree's dataclasses with descriptions in place of arrays."""
    jaxtyping.config.update("jaxtyping_disable", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
    jax.config.update("jax_compilation_cache_dir", None)
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """`open_bench` of `tests.support.runs`; what it opens is closed after the test."""
    from tests.support.runs import open_bench

    opened: list[Bench] = []

    def opening(*given: Any, **settings: Any) -> Bench:
        opened.append(open_bench(*given, **settings))
        return opened[-1]

    yield opening
    for run in opened:
        run.context.checkpoints.close()
        if run.context.log is not None:
            run.context.log.close()
