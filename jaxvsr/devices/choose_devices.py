"""Which devices a run computes on, decided before JAX starts, and said in its first line.

Virtual CPU devices are made only where there is no accelerator, or with `--device cpu`: a GPU that JAX cannot use stops
the run with the install line instead of training slowly.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from jaxvsr.devices.accelerators import find_accelerators
from jaxvsr.devices.mesh_shape import DeviceKind, MeshShape
from jaxvsr.errors import InputError

# On few cores the virtual devices wait for each other for minutes while one of them computes; XLA gives up after 40 s.
_COLLECTIVE_TIMEOUTS = {
    "xla_cpu_collective_timeout_seconds": 3600,
    "xla_cpu_collective_call_warn_stuck_timeout_seconds": 1800,
    "xla_cpu_collective_call_terminate_timeout_seconds": 3600,
}


def choose_devices(
    kind: DeviceKind, mesh: MeshShape | None, *, processes: int = 1, deterministic: bool = False
) -> list[jax.Device]:
    """Start JAX on the right platform and return the devices of the run, in mesh order.

    `mesh=None` takes all there are. Call it before anything else touches a JAX device; `processes` is the number that
    `jax.distributed` joins, each of which makes its share of virtual CPU devices.
    """
    found = find_accelerators()
    if kind == "auto" and os.environ.get("JAX_PLATFORMS", "").lower() == "cpu":
        kind = "cpu"
    if kind == "gpu" and not found.gpus:
        raise InputError(f"device gpu: no GPU that can be opened (found: {found}); --device cpu makes virtual devices")
    if kind == "tpu" and not found.tpus:
        raise InputError(
            f"device tpu: no TPU that can be opened (found: {found}; a container needs /dev/vfio or /dev/accel*); "
            "--device cpu makes virtual devices"
        )
    virtual = kind == "cpu" or not (found.gpus or found.tpus)
    if mesh is not None and mesh.devices % processes:
        raise InputError(f"mesh {mesh}: {mesh.devices} devices do not divide over {processes} processes")
    if deterministic:
        _add_xla_flag("xla_gpu_deterministic_ops", "true")
    if virtual:
        _prepare_virtual_devices(mesh.devices // processes if mesh else 1)
        if kind == "cpu":
            jax.config.update("jax_platforms", "cpu")
    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise InputError(
            f"JAX cannot start on {found}: {' '.join(str(error).split())[:200]}; {found.install_line}"
        ) from None
    if not virtual and devices[0].platform == "cpu":
        raise InputError(f"this machine has {found}, but JAX sees only the CPU: {found.install_line}, or --device cpu")
    if kind in ("gpu", "tpu") and devices[0].platform not in (kind, "cpu"):
        raise InputError(f"device {kind}: JAX starts on {devices[0].platform.upper()}; JAX_PLATFORMS chooses another")
    if mesh is None:
        return devices
    if len(devices) < mesh.devices:
        have = f"{len(devices)} {devices[0].platform.upper()} device(s)"
        raise InputError(f"mesh {mesh} asks for {mesh.devices} devices and JAX sees {have}: take --mesh {len(devices)}"
                         + ("" if virtual else f", {found.install_line}, or --device cpu"))  # fmt: skip
    if processes > 1 and len(devices) > mesh.devices:
        raise InputError(
            f"mesh {mesh} leaves {len(devices) - mesh.devices} devices of {processes} processes unused; name them all"
        )
    return devices[: mesh.devices]


def _prepare_virtual_devices(count: int) -> None:
    """`count` CPU devices for this process. Environment variables a user has set already win."""
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:  # JAX runs already (a second run in one Python process): what it has must do
            return
    if count > 1:
        for flag, seconds in _COLLECTIVE_TIMEOUTS.items():
            if _xla_knows(flag):
                _add_xla_flag(flag, str(seconds))


def _add_xla_flag(flag: str, value: str) -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{flag}={value}".strip()


def _xla_knows(flag: str) -> bool:
    """Whether this jaxlib has the flag: XLA aborts the process at one that it does not know."""
    import jaxlib

    for library in Path(jaxlib.__file__).parent.glob("libjax_common*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(b"\0" + flag.encode() + b"\0") >= 0
    return False


def keep_compiled_programs() -> Path:
    """Turn JAX's persistent compilation cache on, and return its folder.

    It is `$JAX_COMPILATION_CACHE_DIR`, or `jaxvsr/xla` in the user's cache folder. What cannot be written is not kept.
    """
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(given) if given else home / "jaxvsr" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return folder
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether a device's memory does not suffice. A kernel that wants more of a core's fast memory than it has asked
    for is a mistake of the program."""
    return "RESOURCE_EXHAUSTED" in str(error) and "memory space vmem" not in str(error)


@contextlib.contextmanager
def explain_out_of_memory(mesh: MeshShape) -> Iterator[None]:
    """Running out of device memory inside raises `InputError`: one line with the compiled function and its bucket of
    shapes, the memory that it asked for, and what to change first.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        wanted = re.search(r"allocat\w+ ([\d.]+ ?\w*)", str(error))
        need = f" ({wanted[1]} more were asked for)" if wanted else ""
        where = "".join(f" in {note}" for note in getattr(error, "__notes__", ()))
        raise InputError(
            f"out of device memory on mesh {mesh}{where}{need}: first --set model.remat=full, then --set "
            "update.accumulation=2 (or more), then fewer data.scenes or a larger mesh; --dry-run says what each "
            "compiled function needs"
        ) from None


def describe_devices(devices: Sequence[jax.Device], mesh: MeshShape) -> str:
    """The first line of a run: platform, devices, memory, mesh.

    >>> describe_devices(jax.devices("cpu")[:1], MeshShape())          # doctest: +SKIP
    '1 CPU device (2 cores, 23 GiB memory), mesh 1'
    """
    count, first = len(devices), devices[0]
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    if first.platform == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        what = "1 CPU device" if count == 1 else f"{count} virtual CPU devices"
        return f"{what}{processes} ({len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB memory), mesh {mesh}"
    stats = first.memory_stats() if first.process_index == jax.process_index() else None
    limit = f" ({stats['bytes_limit'] / 2**30:.0f} GiB each)" if stats and "bytes_limit" in stats else ""
    return f"{count} × {first.platform.upper()} {first.device_kind}{limit}{processes}, mesh {mesh}"
