"""Shape types are checked while the tests run; JAX sees the CPU alone; what several files need is made once."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.xla_flags import FLAGS

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()

import jax
import jaxtyping
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.support.shape_types
import tests.support.torchvision_cpu
from tests.support.files import contents

if TYPE_CHECKING:
    from tests.support.runs import Bench

gc.disable()  # until the tests are imported
for decorators in (jaxtyping, jaxtyping._decorator):
    vars(decorators)["jaxtyped"] = tests.support.shape_types.jaxtyped
install_import_hook("jaxvsr", "tests.support.shape_types.checker")
jax.tree_util.register_dataclass = tests.support.shape_types.register_dataclass  # type: ignore[assignment]

# Random inputs are the same in every run, and how long one takes is nobody's promise.
settings.register_profile("jaxvsr", deadline=None, derandomize=True)
settings.load_profile("jaxvsr")

# Tests send Ctrl-C to themselves; what a shell has started in the background begins with ignoring it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What imports have made stays: the garbage collector need not look at it again.

    It runs as often as always: PyAV's encoders and decoders, each with its threads, go when it does.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder of compiled programs for all tests of a run, its worker processes and the commands that they start."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture
def without_type_checks() -> Iterator[None]:
    """As in production, where no type checker comes before our own message."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """The folder of a tiny model, made on first use: `tiny_model(family, shape=SMALL, seed=0)`.

    Tests that write into one copy it first; the end of the session finds those that did not.
    """
    from jaxvsr.models.tiny.tiny_model import write_tiny_model
    from tests.support.models import SMALL

    folders: dict[Any, Path] = {}
    before: dict[Path, dict[str, bytes]] = {}

    def folder_of(family: Any = "qwen2_vl", shape: Any = SMALL, seed: int = 0) -> Path:
        key = (family, shape, seed)
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("tiny") / family
            write_tiny_model(folders[key], seed, shape=shape, family=family)
            before[folders[key]] = contents(folders[key])
        return folders[key]

    yield folder_of
    assert before == {folder: contents(folder) for folder in before}, "a test wrote into a model of all tests"


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`write_data_folder` with what it takes by itself. Tests that write into it copy it first."""
    from tests.support.data_folders import write_data_folder

    folder = write_data_folder(tmp_path_factory.mktemp("data"))
    before = contents(folder)
    yield folder
    assert before == contents(folder), "a test wrote into the data folder of all tests"


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


@pytest.fixture
def alarm() -> Iterator[Callable[[], object]]:
    """`alarm()` ends what hangs: a minute later, where nothing should take a second."""

    def hung(number: int, frame: object) -> None:
        pytest.fail("hangs")  # no Exception, which the scoring of rewards would catch and try again row by row

    before = signal.signal(signal.SIGALRM, hung)
    yield lambda: signal.alarm(60)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
