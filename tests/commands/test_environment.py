"""The environment that `make setup` makes, without making one."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import libusb_package
import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("native_libraries", ROOT / "setup" / "native_libraries.py")
assert SPEC is not None and SPEC.loader is not None
native_libraries = importlib.util.module_from_spec(SPEC)  # not by name: `setup` is setup.py
SPEC.loader.exec_module(native_libraries)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_make_refuses_a_python_that_an_up_to_date_environment_does_not_have(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "setup", checkout / "setup", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout / name)
    program(checkout / ".venv" / "bin" / "python", "echo 3.11")
    (checkout / ".venv" / ".scans").touch()

    def make(**variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS")}
        return subprocess.run(
            ["make", "setup"], capture_output=True, text=True, cwd=checkout, env=environment | variables, timeout=60
        )

    other = program(tmp_path / "other", "echo 3.13")
    refused = make(PYTHON=str(other))
    assert refused.returncode == 2 and "installing" not in refused.stdout
    error = f"error: .venv has another Python than PYTHON={other}; remove it to make it anew"
    assert refused.stderr.splitlines()[0] == error
    for kept in (make(), make(PYTHON=str(program(tmp_path / "same", "echo 3.11")))):
        assert kept.returncode == 0 and "installing" not in kept.stdout, kept.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the layout of Open3D's wheel for Linux")
def test_whoever_imports_open3d_finds_libusb_in_the_environment(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert native_libraries.main() == 0
    library = tmp_path / "lib" / "libusb-1.0.so.0"
    assert library.read_bytes() == Path(str(libusb_package.get_library_path())).read_bytes()
