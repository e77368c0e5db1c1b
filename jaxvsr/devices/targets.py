"""Accelerators that are not here: what each chip has, and its compiler, which needs no device.

`v5p:2x2x1` is a slice of TPUs by its torus, `h100:8` cards of one host, `h100:2x8` of two hosts.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from importlib import metadata, util
from typing import Any, Literal

from jaxvsr.errors import InputError, one_line

GIB = 2**30
NETWORK = 100e9  # bytes/s of a card to those of other hosts, both directions: its port of 400 Gb/s, as in a DGX H100
USABLE_OF_CARD = 0.95  # with XLA_PYTHON_CLIENT_MEM_FRACTION=.95
_GOOGLE = "docs.cloud.google.com/tpu/docs/"


@dataclasses.dataclass(frozen=True)
class Card:
    """What NVIDIA's compiler is told of a card: XLA's `backends/gpu/target_config/specs`, and L40S's data sheet."""

    name: str
    capability: tuple[int, int]
    cores: int
    units: int  # of float32 per core
    clock: float  # GHz
    level2: int  # bytes
    shared: int  # bytes of shared memory per core
    threads: int = 2048  # per core


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip by its maker's documents. The figures are of the whole chip; JAX sees `devices` of it."""

    name: str
    memory: int  # bytes that its compiler or driver has for programs
    peak: float  # FLOP/s of bfloat16 products, without sparsity
    bandwidth: float  # bytes/s of its memory
    interconnect: float  # bytes/s to the other chips of the slice or host, both directions together
    source: str
    axes: int = 0  # TPU: of its torus
    devices: int = 1
    jax_names: tuple[str, ...] = ()  # TPU: what JAX calls its devices (`device_kind`)
    flops_per_cycle: int = 0  # TPU: of a device's matrix units; the compiler counts large products at 83 to 97 % of it
    card: Card | None = None

    @property
    def kind(self) -> Literal["tpu", "cuda"]:
        return "tpu" if self.axes else "cuda"

    @property
    def clock(self) -> float:
        """Cycles per second of a TPU, as its compiler counts them."""
        return self.peak / self.devices / self.flops_per_cycle


# TPU: `memory` is what libtpu 0.0.42 has for programs (its message where one does not fit), times the devices.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", int(30.75 * GIB), 275e12, 1200e9, 300e9, _GOOGLE + "v4", 3, 1, ("TPU v4",), 262_144),
        Chip("v5e", int(15.75 * GIB), 197e12, 819e9, 400e9, _GOOGLE + "v5e", 2, 1, ("TPU v5 lite", "TPU v5e"), 131_072),
        Chip("v5p", int(95.74 * GIB), 459e12, 2765e9, 1200e9, _GOOGLE + "v5p", 3, 1, ("TPU v5", "TPU v5p"), 262_144),
        Chip("v6e", int(31.25 * GIB), 918e12, 1638e9, 8e11, _GOOGLE + "v6e", 2, 1, ("TPU v6 lite", "TPU v6e"), 524_288),
        Chip("TPU7x", int(189.5 * GIB), 2307e12, 7380e9, 1200e9, _GOOGLE + "tpu7x", 3, 2, ("TPU7x",), 524_288),
        Chip(
            "a100-80", 85_100_068_864, 312e12, 2039e9, 600e9, "data sheet of the A100 80GB SXM",
            card=Card("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 1.41, 41_943_040, 167_936),
        ),
        Chip(
            "h100", 84_929_347_584, 989.4e12, 3350e9, 900e9, "data sheet of the H100 SXM",
            card=Card("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 1.98, 52_428_800, 233_472),
        ),
        Chip(
            "h200", 151_397_597_184, 989.4e12, 4800e9, 900e9, "data sheet of the H200 SXM",
            card=Card("NVIDIA H200", (9, 0), 132, 128, 1.98, 52_428_800, 233_472),
        ),
        Chip(
            "b200", 191_514_411_008, 2250e12, 8000e9, 1800e9, "data sheet of the HGX B200",
            card=Card("NVIDIA B200", (10, 0), 148, 128, 1.965, 132_644_864, 233_472),
        ),
        Chip(
            "l40s", 48_000_000_000, 362.05e12, 864e9, 64e9, "data sheet of the L40S (PCIe)",
            card=Card("NVIDIA L40S", (8, 9), 142, 128, 2.52, 100_663_296, 102_400, 1536),
        ),
    )
}  # fmt: skip
_INSTALL = {"tpu": "pip install 'jaxvsr[compile-tpu]'", "cuda": "pip install 'jaxvsr[compile-cuda]'"}


@dataclasses.dataclass(frozen=True)
class Target:
    """Chips that a program is compiled for."""

    chip: Chip
    shape: tuple[int, ...]  # TPU: chips along each axis of the torus; cards: (hosts, cards per host)

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """As many as JAX sees."""
        return self.chips * self.chip.devices

    @property
    def memory(self) -> int:
        """Bytes of one device."""
        return self.chip.memory // self.chip.devices

    @property
    def usable(self) -> int:
        """Bytes of one device that programs may take: of a card not all, since its driver and XLA have their own."""
        return int(USABLE_OF_CARD * self.memory) if self.chip.kind == "cuda" else self.memory

    @property
    def interconnect(self) -> float:
        """Bytes per second of one device to the others in one direction; over several hosts, the network's."""
        several = self.chip.kind == "cuda" and self.shape[0] > 1
        both = min(self.chip.interconnect, NETWORK) if several else self.chip.interconnect
        return both / self.chip.devices / 2

    def __str__(self) -> str:
        shape = self.shape[1:] if self.chip.kind == "cuda" and self.shape[0] == 1 else self.shape
        return f"{self.chip.name}:{'x'.join(map(str, shape))}"


def parse_target(text: str) -> Target:
    """The chips that a text names.

    >>> parse_target("v5p:2x2x1").chips, str(parse_target("h100:2x8"))
    (4, 'h100:2x8')
    """
    name, _, rest = text.strip().partition(":")
    chip = {known.lower(): chip for known, chip in CHIPS.items()}.get(name.lower())
    if chip is None:
        raise InputError(f"target {text!r}: no chip {name!r}; there are {', '.join(CHIPS)}, such as v5e:2x2 or h100:8")
    sizes = tuple(int(size) for size in rest.split("x")) if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", rest) else ()
    if chip.kind == "tpu":
        if len(sizes) != chip.axes:
            example = "2x2" if chip.axes == 2 else "2x2x1"
            raise InputError(f"target {text!r}: {chip.name} is named by its {chip.axes} axes: {chip.name}:{example}")
        return Target(chip, sizes)
    if len(sizes) not in (1, 2):
        raise InputError(f"target {text!r}: cards are a number, {chip.name}:8, or hosts x cards, {chip.name}:2x8")
    return Target(chip, sizes if len(sizes) == 2 else (1, *sizes))


def device_memory(device: Any) -> int | None:
    """Bytes of a JAX device: those of the chip that is called so, also where it is not here, or else its own count.
    None: neither says."""
    for chip in CHIPS.values():
        if device.device_kind in chip.jax_names or (chip.card and device.device_kind == chip.card.name):
            return chip.memory // chip.devices
    counted = device.memory_stats() if device.platform != "cpu" else None
    return counted.get("bytes_limit") if counted else None


def prepare_compiler(target: Target) -> None:
    """Check that the target's compiler is installed, and set what it reads. Call it before JAX starts.

    Raises:
        InputError: it is missing or of another version, with the line that installs it.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"  # values that are not abstract stay here
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if target.chip.kind == "tpu":
        _check_installed(target, "libtpu", ("libtpu",), r"libtpu==([\d.]+)\.\*")
        quiet = {"TPU_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3", "TPU_WORKER_HOSTNAMES": "localhost"}
        # No metadata server is asked, and another process may compile at the same time.
        for name, value in {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", **quiet}.items():
            os.environ.setdefault(name, value)
        return
    _check_installed(
        target, "jax_cuda12_plugin", ("jax-cuda12-plugin", "jax-cuda12-pjrt"), r"jax-cuda12-plugin<=([\d.]+)"
    )
    _check_installed(target, "nvidia.cuda_nvcc", ("nvidia-cuda-nvcc-cu12",), None)
    _check_installed(target, "nvidia.cudnn", ("nvidia-cudnn-cu12",), None)  # attention of long scenes is its kernel
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there are no CUDA libraries beside the compiler
    # Without a device nothing can be tuned, and Triton's products need it: products go to cuBLAS.
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_enable_triton_gemm" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_enable_triton_gemm=false".strip()


def _check_installed(target: Target, module: str, packages: tuple[str, ...], wanted: str | None) -> None:
    """`wanted`: the pattern of a requirement of JAX with the version that these packages must begin with."""
    fix = _INSTALL[target.chip.kind]
    maker = "the TPU's" if target.chip.kind == "tpu" else "NVIDIA's"
    for package in packages:
        try:
            version = metadata.version(package)
            if util.find_spec(module) is None:
                raise ModuleNotFoundError(module)
        except (metadata.PackageNotFoundError, ModuleNotFoundError):
            raise InputError(f"target {target}: {maker} compiler is not installed ({package}): {fix}") from None
        needed = next(
            (found[1] for line in metadata.requires("jax") or () if wanted and (found := re.match(wanted, line))), ""
        )
        if not f"{version}.".startswith(f"{needed}." if needed else ""):
            raise InputError(
                f"target {target}: {package} {version} does not go with jax {metadata.version('jax')}, "
                f"which needs {needed}: {fix}"
            )


def target_devices(target: Target) -> list[Any]:
    """The target's devices, to compile for; nothing can run on them. After `prepare_compiler`.

    Raises:
        InputError: its compiler does not know the topology.
    """
    from jax.experimental import topologies

    try:
        if target.chip.kind == "cuda":
            shape = "x".join(map(str, (1, *target.shape)))  # slices, hosts, cards
            return list(
                topologies.get_topology_desc(
                    platform="cuda", topology_name=str(target), target_config=_card_text(target.chip), topology=shape
                ).devices
            )
        options: dict[str, Any] = {}
        if target.chip.name == "v4":  # by default each of its two cores is one; a real v4 is one
            options["chip_config_name"] = "megacore"
        if target.chips == 1:  # hosts have four chips otherwise
            options["chips_per_host_bounds"] = [1, 1, 1]
        return list(topologies.get_topology_desc(platform="tpu", topology_name=str(target), **options).devices)
    except Exception as error:  # XLA's errors have no class of their own
        raise InputError(f"target {target}: {one_line(error, 200)}") from None


def _card_text(chip: Chip) -> str:
    """The card as XLA's `GpuTargetConfigProto`, in text form."""
    card = chip.card
    assert card is not None
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {card.shared}
  shared_memory_per_block_optin: {card.shared - 1024}
  threads_per_core_limit: {card.threads}
  core_count: {card.cores}
  fpus_per_core: {card.units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {chip.bandwidth:.0f}
  l2_cache_size: {card.level2}
  clock_rate_ghz: {card.clock}
  device_memory_size: {chip.memory}
  cuda_compute_capability {{ major: {card.capability[0]} minor: {card.capability[1]} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
device_description_str: "{card.name}"
"""
