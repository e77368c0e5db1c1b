"""Which options XLA's compilers are given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import pytest

from jaxvsr.devices.compiled import CompiledFunction


class _Lowered:
    """A program that notes with what it is compiled."""

    def __init__(self, refused: str | None = None):
        self.asked: list[Any] = []
        self.refused = refused

    def compile(self, compiler_options: Any = None) -> str:
        self.asked.append(compiler_options)
        if compiler_options and self.refused:
            raise jax.errors.JaxRuntimeError(self.refused)
        return "program"


def _compile(monkeypatch: pytest.MonkeyPatch, lowered: _Lowered, platform: str, kind: str) -> str:
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform=platform, device_kind=kind)])
    return CompiledFunction("sample", lambda x: x)._compiled(lowered)


@pytest.mark.parametrize(
    "platform, kind, given",
    [
        ("cpu", "cpu", {"xla_cpu_copy_insertion_use_region_analysis": True}),
        ("tpu", "TPU v5 lite", {"xla_tpu_scoped_vmem_limit_kib": 32768}),
        ("tpu", "TPU7x", {"xla_tpu_scoped_vmem_limit_kib": 32768}),
        ("tpu", "TPU v4", None),  # has not so much
        ("gpu", "NVIDIA H100 80GB HBM3", None),
    ],
)
def test_each_platform_gets_its_own(monkeypatch: pytest.MonkeyPatch, platform: str, kind: str, given: Any) -> None:
    lowered = _Lowered()
    assert _compile(monkeypatch, lowered, platform, kind) == "program" and lowered.asked == [given]


def test_a_compiler_without_the_option_goes_without_and_other_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered = _Lowered("INVALID_ARGUMENT: No such compile option: 'xla_tpu_scoped_vmem_limit_kib'")
    assert _compile(monkeypatch, lowered, "tpu", "TPU v5p") == "program" and lowered.asked[1:] == [None]
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        _compile(monkeypatch, _Lowered("RESOURCE_EXHAUSTED: no memory"), "tpu", "TPU v5p")
