"""Folders below CACHE/buckets/own that one process has for itself, and that end with it."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from jaxvsr.buckets.places import places_root
from jaxvsr.locks import LOCK_FILE, is_held, only_writer

_MAKING_LOCK = ".making.lock"


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that no other process knows, gone after the block; those of processes that were killed go first."""
    root = places_root() / "own"
    with contextlib.ExitStack() as held:
        with only_writer(root, name=_MAKING_LOCK, wait=True):
            for left in root.iterdir():
                if left.is_dir() and not is_held(left / LOCK_FILE):
                    shutil.rmtree(left, ignore_errors=True)
            here = root / uuid.uuid4().hex[:12]
            held.enter_context(only_writer(here))
        try:
            yield here
        finally:
            shutil.rmtree(here, ignore_errors=True)
