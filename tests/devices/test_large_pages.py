"""A command begins once more where it will have large pages then, and otherwise never."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvsr import cli

SETTING = "sys/kernel/mm/transparent_hugepage/enabled"
ON_REQUEST = "always [madvise] never\n"
COMMAND = """
import os, sys, threading
from pathlib import Path
from jaxvsr.devices.large_pages import take_large_pages
{first}
print("begun", os.getpid(), flush=True)
take_large_pages(Path(sys.argv[1]))
print(sys.argv[2:], os.environ.get("GLIBC_TUNABLES"))
"""


def lines_of(root: Path, *arguments: str, first: str = "", **environment: str) -> list[str]:
    """What a command prints that takes large pages on a machine whose files are under `root`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "JAX_PLATFORMS")}
    command = [sys.executable, "-c", COMMAND.format(first=first), str(root), *arguments]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_same_process_begins_again_with_its_arguments(tmp_path: Path):
    first, second, end = lines_of(machine(tmp_path, {SETTING: ON_REQUEST}), "--steps", "two words")
    assert first == second and first.startswith("begun")
    assert end == "['--steps', 'two words'] glibc.malloc.hugetlb=1"


def test_other_tunables_are_kept(tmp_path: Path):
    root = machine(tmp_path, {SETTING: ON_REQUEST})
    *_, end = lines_of(root, GLIBC_TUNABLES="glibc.malloc.arena_max=2")
    assert end == "[] glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"


@pytest.mark.skipif(
    not Path("/", SETTING).exists() or "[madvise]" not in Path("/", SETTING).read_text(),
    reason="Linux gives large pages to all here, or to nobody",
)
def test_what_the_c_library_gives_is_in_large_pages():
    script = """
import ctypes
from jaxvsr.devices.large_pages import take_large_pages
take_large_pages()
library, size = ctypes.CDLL(None), ctypes.c_size_t(2**28)
library.malloc.restype = ctypes.c_void_p
ctypes.memset(library.malloc(size), 1, size)
print(*[line.split()[1] for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages")])
"""
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) > 128 * 1024, f"{done.stdout} KiB of 256 MiB, {done.stderr}"


def test_cpus_compute_beside_a_card_that_is_not_used(tmp_path: Path):
    root = machine(tmp_path, {SETTING: ON_REQUEST, "dev/nvidia0": ""})
    assert lines_of(root, JAX_PLATFORMS="cpu")[-1] == "[] glibc.malloc.hugetlb=1"


def test_it_begins_twice_at_most_where_the_tunables_do_not_come_through(tmp_path: Path):
    """As where an interpreter has capabilities of its own."""
    root = machine(tmp_path, {SETTING: ON_REQUEST})
    assert lines_of(root, first="os.environ.pop('GLIBC_TUNABLES', None)")[-1] == "[] None"


def test_the_jaxvsr_command_takes_them_for_the_scripts_that_do():
    launch = Path(cli.__file__).parents[1] / "launch"
    scripts = {command: (launch / f"{module}.py").read_text() for command, (module, _) in cli.COMMANDS.items()}
    assert {command for command, text in scripts.items() if "    take_large_pages()\n" in text} == set(cli.COMPUTING)


def test_a_command_has_done_nothing_yet_where_it_takes_them():
    script = "import jaxvsr.cli; from jaxvsr.devices import large_pages; print(large_pages._is_fresh())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    ("files", "first", "environment"),
    [
        ({}, "", {}),  # a system without such pages
        ({SETTING: "[always] madvise never\n"}, "", {}),
        ({SETTING: "always madvise [never]\n"}, "", {}),
        ({SETTING: ON_REQUEST, "dev/nvidia0": ""}, "", {}),
        ({SETTING: ON_REQUEST}, "", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}),
        ({SETTING: ON_REQUEST, "dev/nvidia0": ""}, "os.environ['JAX_PLATFORMS'] = 'cuda,cpu'", {}),
        ({SETTING: ON_REQUEST}, "import numpy", {}),
        ({SETTING: ON_REQUEST}, "threading.Thread(target=threading.Event().wait, daemon=True).start()", {}),
        ({SETTING: ON_REQUEST}, "sys.settrace(lambda *_: None)", {}),
        ({SETTING: ON_REQUEST}, "sys.executable = ''", {}),
        ({SETTING: ON_REQUEST}, "sys.executable = 'no/such/python'", {}),
    ],
)
def test_it_begins_once(tmp_path: Path, files: dict[str, str], first: str, environment: dict[str, str]):
    root = machine(tmp_path, files)
    assert len(lines_of(root, first=first, **environment)) == 2
