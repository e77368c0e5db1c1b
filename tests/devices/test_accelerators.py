"""Accelerators are found in made-up trees of /dev, /sys and /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvsr.devices.accelerators import Accelerators, find_accelerators

GOOGLE, NVIDIA = "0x1ae0", "0x10de"


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def pci(*ids: tuple[str, str]) -> dict[str, str]:
    """Vendor and device of each slot of the PCI bus."""
    files = {}
    for slot, (vendor, device) in enumerate(ids):
        files[f"sys/bus/pci/devices/0000:00:0{slot}.0/vendor"] = f"{vendor}\n"
        files[f"sys/bus/pci/devices/0000:00:0{slot}.0/device"] = f"{device}\n"
    return files


def dev(*names: str) -> dict[str, str]:
    return {f"dev/{name}": "" for name in names}


def kfd(*simd_counts: int) -> dict[str, str]:
    nodes = "sys/class/kfd/kfd/topology/nodes"
    return {f"{nodes}/{i}/properties": f"cpu_cores_count 8\nsimd_count {n}\n" for i, n in enumerate(simd_counts)}


V5E, NETWORK = (GOOGLE, "0x0063"), (GOOGLE, "0x0042")


@pytest.mark.parametrize(
    ("files", "found", "install"),
    [
        (dev("accel0", "accel1"), Accelerators(tpus=2), "jaxvsr[tpu]"),
        ({**pci(V5E, V5E, NETWORK), **dev("vfio/vfio", "vfio/0", "vfio/1")}, Accelerators(tpus=2), "jaxvsr[tpu]"),
        ({**pci(NETWORK, (NVIDIA, "0x2330")), **dev("vfio/vfio", "vfio/0")}, Accelerators(), ""),  # something else's
        (pci(V5E, V5E), Accelerators(), ""),  # a container that may not open the chips of its host
        ({**dev("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm")}, Accelerators(nvidia=2), "jaxvsr[cuda12]"),
        (
            {**dev("nvidia0", "nvidiactl"), "sys/module/nvidia/version": "580.65.06\n"},
            Accelerators(nvidia=1, driver=580),
            "jaxvsr[cuda13]",
        ),
        (
            {
                **dev("nvidia3", "nvidiactl"),
                "proc/driver/nvidia/gpus/0000:03:00.0/information": "",
                "proc/driver/nvidia/gpus/0000:04:00.0/information": "",  # of the host, not given to this container
                "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Wed\n",
            },
            Accelerators(nvidia=1, driver=550),
            "jaxvsr[cuda12]",
        ),
        ({"proc/driver/nvidia/gpus/0000:03:00.0/information": ""}, Accelerators(), ""),
        (dev("nvidiactl"), Accelerators(nvidia=1), "jaxvsr[cuda12]"),
        (dev("dxg"), Accelerators(nvidia=1), "jaxvsr[cuda12]"),  # Linux in Windows
        ({**dev("kfd"), **kfd(0, 416, 416)}, Accelerators(amd=2), "jax[rocm7-local]"),
        (kfd(0, 416), Accelerators(), ""),
        ({**dev("kfd", "nvidia0"), **kfd(0, 8)}, Accelerators(nvidia=1, amd=1), "jaxvsr[cuda12]"),
        (dev("null", "nvidia-caps/nvidia-cap1", "accel/accel0"), Accelerators(), ""),
    ],
)  # fmt: skip
def test_what_this_process_can_open_is_found(
    tmp_path: Path, files: dict[str, str], found: Accelerators, install: str
) -> None:
    seen = find_accelerators(write(tmp_path, files))
    assert seen == found
    assert not install or install in seen.install_line


def test_variables_hide_the_gpus_of_their_vendor_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, {**dev("kfd", "nvidia0"), **kfd(64)})
    assert str(find_accelerators(root)) == "1 NVIDIA GPU(s) and 1 AMD GPU(s)"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_accelerators(root) == Accelerators(amd=1)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "-1")
    assert str(find_accelerators(root)) == "no accelerator"
