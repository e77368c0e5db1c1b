"""Which of how many processes this one is, and where they meet: said by flags, or by what has started them.

JAX's own readers of a cluster (`jax._src.clusters`: SLURM, TPU pods, Kubernetes, Open MPI) are asked for the three
numbers that `jax.distributed.initialize()` would take; nothing starts here. What JAX does not read (a launcher that
names no address, a SLURM job without `srun`) is refused, so that several processes are never several runs.

    flags   environment                        place
    none    nothing                            alone
    none    a cluster that JAX reads           what JAX reads
    none    several processes, no address      refused
    all     nothing, or the same numbers       the flags
    some    a launcher that knows the others   both together
    --process-count 1 alone                    alone, whatever the environment says

Work that is dealt out scene by scene needs no meeting: `share_of_task` says which share is this process's.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from typing import Any

from jaxvsr.errors import InputError, one_line

FIND_SECONDS = 300  # for the name of process 0's host to be known, which takes time after pods start


@dataclasses.dataclass(frozen=True)
class Place:
    """One of `count` processes; `source` says by whom they were started, empty where flags say it."""

    process: int = 0
    count: int = 1
    host: str = ""
    port: int = 0
    source: str = ""

    @property
    def where(self) -> str:
        """The meeting place in words."""
        return f"{self.source}, {self.host}:{self.port}" if self.source else f"--coordinator {self.host}:{self.port}"


@dataclasses.dataclass(frozen=True)
class _Launched:
    """What the program that has started this process tells it."""

    by: str
    process: int | None  # None: its number is not told
    count: int
    variables: str


# Programs that start processes, and the variables in which each is told its number and their count. Open MPI first:
# inside a SLURM job its processes have SLURM's variables too, with other numbers.
_LAUNCHERS = (
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM", "SLURM_PROCID", "SLURM_NTASKS"),
    ("MPI", "PMI_RANK", "PMI_SIZE"),
    ("torchrun", "RANK", "WORLD_SIZE"),
)
_NAMES = {
    "OmpiCluster": "Open MPI",
    "SlurmCluster": "SLURM",
    "GkeTpuCluster": "TPU pod",
    "GceTpuCluster": "TPU pod",
    "K8sCluster": "Kubernetes",
    "Mpi4pyCluster": "MPI",
}
_ALONE = "or let it run alone with --process-count 1"
_ADDRESS = "JAX_COORDINATOR_ADDRESS"  # JAX's own variable, where a cluster's address is not the right one
_ARRAY_INDEX = "SLURM_ARRAY_TASK_ID"
_POD_INDEX = "JOB_COMPLETION_INDEX"  # of a pod in an indexed Job, also in those of a JobSet


def place_of_process(
    coordinator: str | None = None, process_id: int | None = None, process_count: int | None = None
) -> Place:
    """The place of this process, from `--coordinator`, `--process-id` and `--process-count`, else from the cluster.

    Raises:
        InputError: the flags are wrong, incomplete or contradict the launcher; or several processes were started and
            nothing says where they meet.
    """
    if (coordinator, process_id, process_count) == (None, None, 1):
        return Place()
    if (coordinator, process_id, process_count) == (None, None, None):
        return _from_cluster()
    return _from_flags(coordinator or os.environ.get(_ADDRESS), process_id, process_count)


def _from_flags(address: str | None, process: int | None, count: int | None) -> Place:
    """Flags, and what they leave out from the launcher."""
    launched = _launched()
    if launched is not None and launched.process is not None:
        for flag, ours, theirs in (("id", process, launched.process), ("count", count, launched.count)):
            if launched.count > 1 and ours not in (None, theirs):
                raise InputError(
                    f"--process-{flag} {ours}: {launched.by} has started this process as {launched.process} of "
                    f"{launched.count} ({launched.variables}); leave the flag out"
                )
        process, count = launched.process if process is None else process, count or launched.count
    elif process is None and _POD_INDEX in os.environ:
        process = _number(_POD_INDEX)
    given = {"--coordinator": address, "--process-id": process, "--process-count": count}
    missing = [flag for flag, value in given.items() if value is None]
    if missing:
        raise InputError(
            f"{missing[0]} is missing: several processes need --coordinator HOST:PORT, --process-id and --process-count"
        )
    assert address is not None and process is not None and count is not None
    host, port = _host_and_port(address)
    if not 0 <= process < count:
        raise InputError(f"--process-id {process}: must be from 0 to {count - 1} (--process-count {count})")
    return Place(process, count, host, port)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"--coordinator {address!r}: expected HOST:PORT of process 0, such as 10.0.0.1:8476")
    return host.strip("[]"), int(port)


def _from_cluster() -> Place:
    launched = _launched()
    found = _found_by_jax(launched)
    if launched is None or launched.count == 1 or found.count > 1:
        return found
    if launched.process is None:
        raise InputError(
            f"SLURM: the job has {launched.count} tasks (SLURM_NTASKS) and this process is none of them; start it with "
            f"srun, as in srun python launch/train.py, {_ALONE}"
        )
    if _ADDRESS in os.environ:
        return Place(launched.process, launched.count, *_host_and_port(os.environ[_ADDRESS]), source=launched.by)
    needs = "pip install mpi4py, which tells it, or " if launched.by == "Open MPI" else ""
    raise InputError(
        f"{launched.by} has started {launched.count} processes ({launched.variables}), and nothing says where they "
        f"meet: {needs}give --coordinator HOST:PORT of process 0, {_ALONE}"
    )


def share_of_task(count: int | None = None) -> tuple[int, int]:
    """Which share of how many this process takes of work that is dealt out, counted from 1: by its number in a SLURM
    array or an indexed Job, and by its number among the processes that each of these tasks has started.

    Args:
        count: of the tasks, which Kubernetes does not tell; None where the cluster does.

    Raises:
        InputError: nothing says it, or not without doubt.
    """
    task, launched = _array_task(count), _launched()
    process, processes = 0, 1
    if launched is not None and launched.process is not None:
        process, processes = launched.process, launched.count
    elif task is None:
        raise InputError(
            "--shard auto: nothing says which share this process takes (no SLURM array, no indexed Job, no srun or "
            "mpirun); give --shard i/n"
        )
    index, tasks = task or (0, 1)
    if task is None and count not in (None, processes):
        assert launched is not None
        raise InputError(
            f"--shard auto/{count}: {launched.by} has started {processes} processes ({launched.variables}); "
            "leave the number out"
        )
    return index * processes + process + 1, tasks * processes


def _array_task(count: int | None) -> tuple[int, int] | None:
    """Number from 0 and count of the tasks of a SLURM array or an indexed Job; None outside of both."""
    if _ARRAY_INDEX in os.environ:
        first, last, tasks = (_number(f"SLURM_ARRAY_TASK_{name}") for name in ("MIN", "MAX", "COUNT"))
        between, rest = divmod(last - first, max(tasks - 1, 1))
        index, off = divmod(_number(_ARRAY_INDEX) - first, max(between, 1))
        if rest or off:
            raise InputError(
                f"--shard auto: the {tasks} tasks of this array, from {first} to {last}, are not evenly spaced; start "
                f"--array=0-{tasks - 1}: what is done already is not done again"
            )
        if count not in (None, tasks):
            raise InputError(
                f"--shard auto/{count}: the array has {tasks} tasks (SLURM_ARRAY_TASK_COUNT); leave the number out"
            )
        return index, tasks
    if _POD_INDEX not in os.environ:
        return None
    index = _number(_POD_INDEX)
    if count is None:
        raise InputError(
            f"--shard auto: this is pod {index} of an indexed Job ({_POD_INDEX}), and Kubernetes does not tell it how "
            "many there are; give --shard auto/N with the Job's completions"
        )
    if index >= count:
        raise InputError(f"--shard auto/{count}: this is pod {index} ({_POD_INDEX}), the pods count from 0")
    return index, count


def _outside_srun() -> bool:
    """Whether this is a SLURM job's own shell, where SLURM_NTASKS counts the tasks that `srun` would start."""
    step = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS"))
    return "SLURM_STEP_NODELIST" not in os.environ or step != os.environ.get("SLURM_NTASKS")


def _found_by_jax(launched: _Launched | None) -> Place:
    """What JAX reads of the cluster around this process; alone where it knows none.

    Raises:
        InputError: there is a cluster, but it cannot be read.
    """
    name = "JAX's search for a cluster"
    try:
        cluster = _cluster(launched)
        if cluster is None:
            return Place()
        name = _NAMES.get(cluster.__name__, cluster.__name__)
        count = int(cluster.get_process_count())
        if count == 1:
            return Place()
        process = int(cluster.get_process_id())
        port = os.environ.get("JAX_COORDINATOR_PORT")
        address = os.environ.get(_ADDRESS) or cluster.get_coordinator_address(
            timeout_secs=FIND_SECONDS, override_coordinator_port=port
        )
    except InputError:
        raise
    except Exception as error:  # a variable that is missing, a metadata server or an API that refuses
        raise InputError(
            f"{name}: the other processes cannot be found ({type(error).__name__}: {one_line(error)}); give "
            f"--coordinator, --process-id and --process-count, {_ALONE}"
        ) from None
    if not 0 <= process < count:
        raise InputError(f"{name}: process {process} of {count} cannot be, {_ALONE}")
    return Place(process, count, *_host_and_port(address), source=name)


def _cluster(launched: _Launched | None) -> Any:
    """The class of JAX that reads this cluster."""
    from jax._src import clusters  # no public name gives the numbers without starting

    for cluster in clusters.ClusterEnv._cluster_types:
        if cluster.opt_in_only_method or (cluster is clusters.K8sCluster and not _is_pod_of_several()):
            continue
        if cluster is clusters.SlurmCluster and _outside_srun():
            continue
        if cluster is clusters.OmpiCluster and "OMPI_MCA_orte_hnp_uri" not in os.environ:
            continue  # Open MPI 5 names no address: mpi4py, below
        if cluster.is_env_present():
            return cluster
    if launched is not None and launched.by == "Open MPI" and clusters.Mpi4pyCluster.is_env_present():
        return clusters.Mpi4pyCluster
    return None


def _is_pod_of_several() -> bool:
    """Whether this is a pod of an indexed Job. Every other pod has Kubernetes' variables too."""
    if _POD_INDEX not in os.environ or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return False
    if importlib.util.find_spec("kubernetes") is None:
        raise InputError(
            f"Kubernetes: this is pod {os.environ[_POD_INDEX]} of a Job ({_POD_INDEX}); JAX finds the others with the "
            f"package kubernetes: pip install 'jaxvsr[k8s]', {_ALONE}"
        )
    return True


def _launched() -> _Launched | None:
    for by, process, count in _LAUNCHERS:
        if count in os.environ and by == "SLURM" and _outside_srun():
            return _Launched(by, None, _number(count), count)
        if count in os.environ and process in os.environ:
            return _Launched(by, _number(process), _number(count), f"{process}, {count}")
    return None


def _number(variable: str) -> int:
    text = os.environ[variable]
    if not text.isdecimal():
        raise InputError(f"{variable}={text!r}: expected a number")
    return int(text)
