"""Chips that are not here: their names, and what is said where a compiler is missing or another version."""

from __future__ import annotations

import re
from importlib import metadata, util
from typing import Any

import pytest

from jaxvsr.devices import targets
from jaxvsr.devices.targets import CHIPS, parse_target, prepare_compiler
from jaxvsr.errors import InputError


@pytest.mark.parametrize(
    ("text", "chip", "chips", "devices", "name"),
    [
        ("v5e:2x2", "v5e", 4, 4, "v5e:2x2"),
        ("v5e:16x16", "v5e", 256, 256, "v5e:16x16"),
        ("v5p:2x2x1", "v5p", 4, 4, "v5p:2x2x1"),
        ("TPU7x:2x2x1", "TPU7x", 4, 8, "TPU7x:2x2x1"),
        ("tpu7X:2x2x2", "TPU7x", 8, 16, "TPU7x:2x2x2"),
        ("h100:8", "h100", 8, 8, "h100:8"),
        ("h100:2x8", "h100", 16, 16, "h100:2x8"),
        ("a100-80:8", "a100-80", 8, 8, "a100-80:8"),
    ],
)
def test_a_target_is_a_chip_and_its_number(text: str, chip: str, chips: int, devices: int, name: str) -> None:
    target = parse_target(text)
    assert (target.chip.name, target.chips, target.devices, str(target)) == (chip, chips, devices, name)
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("v9:2x2", "no chip 'v9'; there are v4, v5e,"),
        ("v5e:2x2x1", "v5e is named by its 2 axes: v5e:2x2"),
        ("v5p:2x2", "v5p is named by its 3 axes: v5p:2x2x1"),
        ("v5p", "its 3 axes"),
        ("h100", "cards are a number, h100:8"),
        ("h100:0", "cards are a number"),
        ("h100:2x2x2", "hosts x cards, h100:2x8"),
        ("h100:eight", "cards are a number"),
    ],
)
def test_another_name_is_refused_in_one_line(text: str, line: str) -> None:
    with pytest.raises(InputError, match=re.escape(line)) as refused:
        parse_target(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("target", "one_way"),
    [
        ("h100:8", 450e9),
        ("h100:2x8", 50e9),
        ("l40s:4", 32e9),
        ("l40s:2x4", 32e9),
        ("TPU7x:2x2x1", 300e9),
        ("v5e:16x16", 200e9),
    ],
)
def test_what_a_device_sends_goes_over_the_network_between_hosts_of_cards(target: str, one_way: float) -> None:
    """Bytes per second; chips of a slice are all on one interconnect."""
    assert parse_target(target).interconnect == one_way


def test_figures_are_of_one_chip_with_their_source() -> None:
    clocks = {name: round(chip.clock / 1e9, 2) for name, chip in CHIPS.items() if chip.kind == "tpu"}
    assert clocks == {"v4": 1.05, "v5e": 1.5, "v5p": 1.75, "v6e": 1.75, "TPU7x": 2.2}
    assert all(chip.source for chip in CHIPS.values())


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions of packages; those that are not named are not installed. The environment is as it was afterwards."""
    versions = {"jax": "0.10.2"}

    def version(package: str) -> str:
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    needs = ['libtpu==0.0.42.*; extra == "tpu"', 'jax-cuda12-plugin<=0.10.2,>=0.10.2; extra == "cuda12-local"']
    monkeypatch.setattr(targets.metadata, "version", version)
    monkeypatch.setattr(targets.metadata, "requires", lambda package: needs)
    monkeypatch.setattr(util, "find_spec", lambda name: object())
    monkeypatch.setattr(targets.os, "environ", {"XLA_FLAGS": "--xla_one"})
    return versions


@pytest.mark.parametrize(
    ("target", "versions", "line"),
    [
        ("v5e:2x2", {}, "the TPU's compiler is not installed (libtpu): pip install 'jaxvsr[compile-tpu]'"),
        ("v5e:2x2", {"libtpu": "0.0.41"}, "libtpu 0.0.41 does not go with jax 0.10.2, which needs 0.0.42: pip install"),
        ("v5e:2x2", {"libtpu": "0.0.420"}, "libtpu 0.0.420 does not go with jax"),
        ("h100:8", {}, "NVIDIA's compiler is not installed (jax-cuda12-plugin): pip install 'jaxvsr[compile-cuda]'"),
        (
            "h100:8",
            {"jax-cuda12-plugin": "0.10.2", "jax-cuda12-pjrt": "0.10.1"},
            "jax-cuda12-pjrt 0.10.1 does not go with jax 0.10.2",
        ),
        (
            "h100:8",
            {"jax-cuda12-plugin": "0.10.2", "jax-cuda12-pjrt": "0.10.2"},
            "not installed (nvidia-cuda-nvcc-cu12)",
        ),
    ],
)
def test_a_compiler_that_does_not_go_with_jax_is_one_line_with_the_fix(
    installed: dict[str, str], target: str, versions: dict[str, str], line: str
) -> None:
    installed.update(versions)
    with pytest.raises(InputError, match=re.escape(line)):
        prepare_compiler(parse_target(target))


def test_what_the_compilers_read_is_set_beside_what_is_there(installed: dict[str, str]) -> None:
    installed.update({"libtpu": "0.0.42.1", "jax-cuda12-plugin": "0.10.2", "jax-cuda12-pjrt": "0.10.2"})
    installed |= {"nvidia-cuda-nvcc-cu12": "12.9.86", "nvidia-cudnn-cu12": "9.28.0.42"}
    environment: Any = targets.os.environ
    prepare_compiler(parse_target("h100:8"))
    assert environment["XLA_FLAGS"] == "--xla_one --xla_gpu_enable_triton_gemm=false"
    prepare_compiler(parse_target("v5e:2x2"))
    assert environment["JAX_PLATFORMS"] == "cpu" and environment["ALLOW_MULTIPLE_LIBTPU_LOAD"] == "1"
