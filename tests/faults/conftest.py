"""Experiments with counts for docs/reliability.md; they take minutes each and run only with JAXVSR_FAULTS=1."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.forked_commands import fill_place

collect_ignore_glob = [] if os.environ.get("JAXVSR_FAULTS") else ["test_*.py"]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path], data_folder: Path) -> Path:
    """A folder with what the commands of `tests.support.forked_commands` read."""
    folder = tmp_path_factory.mktemp("place")
    fill_place(folder, tiny_model(), data_folder)
    return folder
