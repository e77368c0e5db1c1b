"""Which accelerators a machine has, found by the files of their drivers, without JAX."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

_CUDA13_DRIVER = 580  # the first driver series that runs CUDA 13
_GOOGLE = "0x1ae0"  # PCI vendor
# PCI device ids of TPU chips, as JAX 0.10 knows them (`jax/_src/hardware_utils.py`): v3, plc, v4, v5p, v5e, v6e, TPU7x.
_TPU_CHIPS = frozenset({"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"})


@dataclasses.dataclass(frozen=True)
class Accelerators:
    """What the machine has and this process may open."""

    nvidia: int = 0
    amd: int = 0
    tpus: int = 0
    driver: int = 0  # NVIDIA's driver series (580), 0: unknown

    @property
    def gpus(self) -> int:
        return self.nvidia + self.amd

    @property
    def install_line(self) -> str:
        """How JAX is installed for them: TPU before NVIDIA before AMD."""
        if not self.tpus and not self.nvidia and self.amd:
            return "pip install 'jax[rocm7-local]' (needs ROCm 7)"
        extra = "tpu" if self.tpus else "cuda13" if self.driver >= _CUDA13_DRIVER else "cuda12"
        return f"pip install 'jaxvsr[{extra}]'"

    def __str__(self) -> str:
        """`2 NVIDIA GPU(s) and 1 AMD GPU(s)`."""
        counts = {"TPU chip(s)": self.tpus, "NVIDIA GPU(s)": self.nvidia, "AMD GPU(s)": self.amd}
        return " and ".join(f"{count} {name}" for name, count in counts.items() if count) or "no accelerator"


def find_accelerators(root: Path = Path("/")) -> Accelerators:
    """Count what can be opened: a container sees the host's PCI bus, but may lack the device files.

    `CUDA_VISIBLE_DEVICES=` hides NVIDIA's GPUs, `HIP_VISIBLE_DEVICES=` and `ROCR_VISIBLE_DEVICES=` AMD's.
    """
    nvidia = 0 if _hidden("CUDA_VISIBLE_DEVICES") else _nvidia_gpus(root)
    amd = 0 if _hidden("HIP_VISIBLE_DEVICES") or _hidden("ROCR_VISIBLE_DEVICES") else _amd_gpus(root)
    return Accelerators(nvidia, amd, _tpu_chips(root), _nvidia_driver(root) if nvidia else 0)


def _hidden(variable: str) -> bool:
    return os.environ.get(variable, "unset").strip() in ("", "-1")


def _tpu_chips(root: Path) -> int:
    """Up to v4 a chip is /dev/accel0, from v5e on a group of /dev/vfio, which other devices have too: so by PCI id."""
    if not (root / "dev/vfio").is_dir():
        return len(list((root / "dev").glob("accel[0-9]*")))
    chips = 0
    for vendor in (root / "sys/bus/pci/devices").glob("*/vendor"):
        chips += _text(vendor).strip() == _GOOGLE and _text(vendor.with_name("device")).strip() in _TPU_CHIPS
    return chips or len(list((root / "dev").glob("accel[0-9]*")))


def _nvidia_gpus(root: Path) -> int:
    dev = root / "dev"
    numbered = sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in dev.glob("nvidia*"))
    if numbered:
        return numbered
    # Kubernetes may give the control device alone, Linux in Windows another one; how many there are, /proc says.
    if (dev / "nvidiactl").exists() or (dev / "dxg").exists():
        return len(list((root / "proc/driver/nvidia/gpus").glob("*"))) or 1
    return 0


def _nvidia_driver(root: Path) -> int:
    """550 of 550.54.15. Containers may hide one of the two files."""
    for path, pattern in (
        ("proc/driver/nvidia/version", r"\s(\d{3})\.\d+"),
        ("sys/module/nvidia/version", r"(\d{3})\."),
    ):
        found = re.search(pattern, _text(root / path))
        if found:
            return int(found[1])
    return 0


def _amd_gpus(root: Path) -> int:
    """Nodes of AMD's compute driver that have SIMD units; those without are processors."""
    if not (root / "dev/kfd").exists():
        return 0
    return sum(units > 0 for units in _simd_units(root / "sys/class/kfd/kfd/topology/nodes"))


def _simd_units(nodes: Path) -> Iterator[int]:
    for properties in nodes.glob("*/properties"):
        found = re.search(r"^simd_count\s+(\d+)", _text(properties), re.MULTILINE)
        yield int(found[1]) if found else 0


def _text(path: Path) -> str:
    """What a file says; nothing where it is not there or may not be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
