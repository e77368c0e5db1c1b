"""Memory in pages of 2 MiB for a command that computes on CPUs, where Linux gives them to those who ask.

XLA takes its temporary memory from the C library anew in every step, and the kernel hands it out page by page. glibc
asks for large pages if it finds that in the environment when a process begins, so the process begins once more.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

from jaxvsr.devices.accelerators import find_accelerators

TUNABLE = "glibc.malloc.hugetlb"  # since glibc 2.35; an older one takes no notice
_BEGUN = "JAXVSR_BEGUN_AGAIN"  # the process that has
_ON_REQUEST = "[madvise]"  # as Linux says it; `[always]` gives them to all, `[never]` to nobody


def take_large_pages(root: Path = Path("/")) -> None:
    """Begin this process again, with the same arguments and process id, if it will have large pages then.

    Nothing happens where a user has set `GLIBC_TUNABLES=glibc.malloc.hugetlb=…` already, where accelerators compute, or
    where something runs in this process: a debugger, a notebook. Call it before the imports that take time.
    """
    if os.environ.pop(_BEGUN, "") == str(os.getpid()):  # once, also where the tunables do not come through
        return
    before = os.environ.get("GLIBC_TUNABLES", "")
    if TUNABLE in before or not _are_on_request(root) or not _is_fresh() or _accelerators_compute(root):
        return
    added = {_BEGUN: str(os.getpid()), "GLIBC_TUNABLES": f"{before}:{TUNABLE}=1".lstrip(":")}
    with contextlib.suppress(OSError):  # then without
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **added})


def _accelerators_compute(root: Path) -> bool:
    found = find_accelerators(root)
    return bool(found.gpus or found.tpus) and os.environ.get("JAX_PLATFORMS", "").lower() != "cpu"


def _are_on_request(root: Path) -> bool:
    try:
        return _ON_REQUEST in (root / "sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return False


def _is_fresh() -> bool:
    """Whether this process has done nothing yet that a new beginning would lose."""
    return (
        bool(sys.executable and sys.orig_argv)
        and threading.active_count() == 1
        and sys.gettrace() is None
        and not {"numpy", "jax", "pytest", "ipykernel", "pdb"} & sys.modules.keys()
    )
