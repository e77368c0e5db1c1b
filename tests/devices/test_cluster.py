"""Processes that a cluster has started find each other by themselves: each environment as its cluster sets it."""

from __future__ import annotations

import http.server
import importlib.machinery
import os
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from jax._src.clusters import K8sCluster, cloud_tpu_cluster

from jaxvsr.devices.cluster import Place, place_of_process, share_of_task
from jaxvsr.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
IN_DETAIL = pytest.mark.skipif("JAXVSR_FAULTS" not in os.environ, reason="as the one of two processes: JAXVSR_FAULTS=1")
OPEN_MPI_4 = "1531576320.0;tcp://10.96.0.1,10.148.0.1,10.108.0.1:34911"
METADATA = {
    "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-16'\nWORKER_ID: '1'\n",
    "agent-worker-number": "1",
    "worker-network-endpoints": "0:8470:127.0.0.1,1:8470:10.0.0.2,2:8470:10.0.0.3,3:8470:10.0.0.4",
}
# What JAX asks of Kubernetes, answered for pod JOB_COMPLETION_INDEX of the JobSet `jaxvsr`.
KUBERNETES = """
import os, types
class Labels(dict):
    pass
set_name = os.environ["JOBSET_NAME"]
labels = {"job-name": "localhost", "jobset.sigs.k8s.io/jobset-name": set_name}
def of(**fields):
    return types.SimpleNamespace(**fields)
meta = of(name="localhost", labels=labels, owner_references=[of(controller=True, kind="Job")])
pod = of(metadata=meta, spec=of(subdomain=set_name))
job = of(metadata=meta, spec=of(parallelism=int(os.environ["PODS"])))
class CoreV1Api:
    def list_namespaced_pod(self, namespace, field_selector):
        return of(items=[pod])
class BatchV1Api:
    def read_namespaced_job(self, name, namespace):
        return job
config = of(load_incluster_config=lambda: None)
client = of(CoreV1Api=CoreV1Api, BatchV1Api=BatchV1Api, exceptions=of(ApiException=OSError))
"""


def slurm(process: int, count: int, nodes: str = "node[001-004]") -> dict[str, str]:
    """What `srun` sets (22.05)."""
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": "0",
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_NUM_TASKS": str(count),
    }


def open_mpi(process: int, count: int, **more: str) -> dict[str, str]:
    rank = {"OMPI_COMM_WORLD_RANK": str(process), "OMPI_COMM_WORLD_LOCAL_RANK": str(process)}
    return {"OMPI_COMM_WORLD_SIZE": str(count), **rank, **more}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], None]:
    """Only these variables of a cluster are set."""
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "PMI_", "TPU_", "KUBERNETES_", "JAX_COORDINATOR", "JOB_")):
            monkeypatch.delenv(name)

    def have(variables: Mapping[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return have


@pytest.fixture
def metadata_server() -> Iterator[str]:
    """Google's metadata server, as a TPU VM sees it."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METADATA[self.path.rpartition("/")[2]].encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, Place()),
        (slurm(2, 4), Place(2, 4, "node001", 61447, "SLURM")),
        (slurm(0, 1), Place()),
        ({"JAX_COORDINATOR_PORT": "1234", **slurm(0, 2)}, Place(0, 2, "node001", 1234, "SLURM")),
        (open_mpi(1, 2, OMPI_MCA_orte_hnp_uri=OPEN_MPI_4), Place(1, 2, "10.96.0.1", 62624, "Open MPI")),
        # mpirun inside of a SLURM job: SLURM's numbers are those of Open MPI's own helper.
        (
            {**slurm(0, 1), **open_mpi(1, 2, OMPI_MCA_orte_hnp_uri=OPEN_MPI_4)},
            Place(1, 2, "10.96.0.1", 62624, "Open MPI"),
        ),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", **open_mpi(1, 2)}, Place(1, 2, "a", 1, "Open MPI")),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, Place()),  # any pod
    ],
)
def test_a_cluster_says_where_a_process_stands(
    environment: Callable[[Mapping[str, str]], None], variables: dict[str, str], place: Place
) -> None:
    environment(variables)
    assert place_of_process() == place


@pytest.mark.filterwarnings("ignore:'maxsplit' is passed:DeprecationWarning")  # JAX's, from Python 3.13 on
def test_a_tpu_pod_says_where_a_process_stands(
    environment: Callable[[Mapping[str, str]], None], monkeypatch: pytest.MonkeyPatch, metadata_server: str
) -> None:
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    environment({"GCE_METADATA_IP": metadata_server})
    assert place_of_process() == Place(1, 4, "127.0.0.1", 8482, "TPU pod")
    in_gke = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "localhost,other"}
    environment(in_gke)
    assert place_of_process() == Place(1, 2, "localhost", 8482, "TPU pod")
    environment({**in_gke, "TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"})
    assert place_of_process() == Place()
    environment(in_gke)
    environment({"MEGASCALE_NUM_SLICES": "3", "MEGASCALE_SLICE_ID": "2", "MEGASCALE_COORDINATOR_ADDRESS": "localhost"})
    assert place_of_process() == Place(5, 6, "localhost", 8482, "TPU pod")


def test_a_tpu_pod_that_does_not_answer_is_one_line(
    environment: Callable[[Mapping[str, str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    environment({"GCE_METADATA_IP": "127.0.0.1:9"})
    with pytest.raises(InputError, match="JAX's search for a cluster: the other processes cannot be found"):
        place_of_process()


@pytest.mark.parametrize(
    ("process", "pods", "place"),
    [(1, 4, Place(1, 4, "localhost-0.jaxvsr", 55527, "Kubernetes")), (0, 1, Place())],
)
def test_a_pod_of_a_jobset_asks_kubernetes(
    environment: Callable[[Mapping[str, str]], None],
    monkeypatch: pytest.MonkeyPatch,
    process: int,
    pods: int,
    place: Place,
) -> None:
    environment({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1", "HOSTNAME": "localhost"})
    with pytest.raises(InputError, match=r"pod 1 of a Job .*pip install 'jaxvsr\[k8s\]'"):
        place_of_process()
    environment({"JOBSET_NAME": "jaxvsr", "PODS": str(pods), "JOB_COMPLETION_INDEX": str(process)})
    module = types.ModuleType("kubernetes")
    module.__spec__ = importlib.machinery.ModuleSpec("kubernetes", None)
    exec(KUBERNETES, module.__dict__)
    monkeypatch.setitem(sys.modules, "kubernetes", module)
    monkeypatch.setattr(K8sCluster, "_namespace", lambda: "default")
    for asked in (K8sCluster._pod, K8sCluster._job, K8sCluster._controller):
        asked.__func__.cache_clear()  # type: ignore[attr-defined]
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.0.1")
    assert place_of_process() == place


@pytest.mark.parametrize(
    ("variables", "flags", "says"),
    [
        # The shells of sbatch and salloc, and the interactive step of newer versions.
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, (), "SLURM: the job has 4 tasks .* start it with srun"),
        ({**slurm(0, 4), "SLURM_STEP_NUM_TASKS": "1"}, (), "SLURM: the job has 4 tasks .* start it with srun"),
        (open_mpi(0, 2), (), r"Open MPI has started 2 processes \(OMPI_.* pip install mpi4py"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, (), "MPI has started 2 processes .* give --coordinator HOST:PORT"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, (), "torchrun has started 2 processes"),
        ({**slurm(0, 2), "SLURM_NTASKS": "two", "SLURM_STEP_NUM_TASKS": "two"}, (), "SLURM_NTASKS='two': expected a"),
        (slurm(5, 4), (), "SLURM: process 5 of 4 cannot be"),
        (slurm(1, 2), ("a:1", 0, 2), r"--process-id 0: SLURM has started this process as 1 of 2 \(SLURM_PROCID"),
        (slurm(1, 2), ("a:1", 1, 4), "--process-count 4: SLURM has started this process as 1 of 2"),
        ({}, ("localhost:1234", 0, None), "--process-count is missing"),
        ({}, ("localhost", 0, 2), "HOST:PORT"),
        ({}, ("localhost:1234", 2, 2), "from 0 to 1"),
    ],
)
def test_several_processes_that_are_not_joined_are_refused(
    environment: Callable[[Mapping[str, str]], None],
    variables: dict[str, str],
    flags: tuple[str | int | None, ...],
    says: str,
) -> None:
    environment(variables)
    with pytest.raises(InputError, match=says):
        place_of_process(*flags)  # type: ignore[arg-type]


def test_flags_say_what_the_launcher_does_not(environment: Callable[[Mapping[str, str]], None]) -> None:
    assert place_of_process("10.0.0.1:1234", 1, 2) == Place(1, 2, "10.0.0.1", 1234)
    environment({**slurm(1, 2), "JAX_COORDINATOR_ADDRESS": "b:2"})
    assert place_of_process("a:1") == Place(1, 2, "a", 1)
    assert place_of_process(None, 1, None) == Place(1, 2, "b", 2)
    assert place_of_process(None, None, 1) == Place()
    environment({"SLURM_STEP_NUM_TASKS": "1"})  # the job's shell, which starts processes itself
    assert place_of_process("a:1", 3, 4) == Place(3, 4, "a", 1)


def array(task: int, first: int, last: int, count: int) -> dict[str, str]:
    """What SLURM sets in a task of an array."""
    numbers = {"ID": task, "MIN": first, "MAX": last, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()}


@pytest.mark.parametrize(
    ("variables", "count", "share"),
    [
        (array(0, 0, 7, 8), None, (1, 8)),
        (array(9, 1, 9, 5), None, (5, 5)),  # --array=1-9:2
        (array(3, 3, 3, 1), None, (1, 1)),
        ({**array(1, 0, 3, 4), "SLURM_NTASKS": "2"}, 4, (2, 4)),  # not by srun: one process a task
        ({**array(1, 0, 3, 4), **slurm(1, 2)}, None, (4, 8)),
        (slurm(2, 4), None, (3, 4)),
        (open_mpi(1, 2), 2, (2, 2)),
        ({"JOB_COMPLETION_INDEX": "7"}, 8, (8, 8)),
    ],
)
def test_a_task_of_a_cluster_knows_its_share(
    environment: Callable[[Mapping[str, str]], None],
    variables: dict[str, str],
    count: int | None,
    share: tuple[int, int],
) -> None:
    environment(variables)
    assert share_of_task(count) == share


@pytest.mark.parametrize(
    ("variables", "count", "says"),
    [
        ({}, None, "nothing says which share"),
        ({"SLURM_NTASKS": "2"}, None, "nothing says which share"),
        (array(2, 1, 5, 3), None, "3 tasks of this array, from 1 to 5, are not evenly spaced; start --array=0-2"),
        (array(4, 0, 4, 4), None, "not evenly spaced"),
        (array(0, 0, 7, 8), 4, r"auto/4: the array has 8 tasks \(SLURM_ARRAY_TASK_COUNT\)"),
        ({"JOB_COMPLETION_INDEX": "1"}, None, r"pod 1 of an indexed Job .* give --shard auto/N"),
        ({"JOB_COMPLETION_INDEX": "8"}, 8, "this is pod 8 .* count from 0"),
        (slurm(0, 2), 8, "auto/8: SLURM has started 2 processes"),
    ],
)
def test_a_share_that_nothing_tells_without_doubt_is_refused(
    environment: Callable[[Mapping[str, str]], None], variables: dict[str, str], count: int | None, says: str
) -> None:
    environment(variables)
    with pytest.raises(InputError, match=says):
        share_of_task(count)


# Joins as train.py does, and adds the numbers of all processes up.
PROGRAM = """
import sys
from jaxvsr import stop_signals
stop_signals.take_signals()
from jaxvsr.command_line import run
from jaxvsr.devices.cluster import place_of_process
from jaxvsr.devices.joining import join, speak_as
from jaxvsr.devices.processes import sum_of_processes
from jaxvsr.errors import InputError
def command(argv):
    place = place_of_process()
    speak_as(place)
    join(place)
    print(place.source, sum_of_processes(place.process + 1), flush=True)
    sum_of_processes(0)
    if place.process == 1:
        raise InputError("data/x: no such file")
    sum_of_processes(0)
    return 0
sys.exit(run(command))
"""


def tpu(process: int, count: int) -> dict[str, str]:
    """What GKE sets; JAX_FORCE_TPU_INIT stands for the chips."""
    hosts = {"TPU_WORKER_ID": str(process), "TPU_WORKER_HOSTNAMES": ",".join(["localhost"] * count)}
    return {"JAX_FORCE_TPU_INIT": "1", "MEGASCALE_COORDINATOR_ADDRESS": "localhost", **hosts}


def jobset(process: int, count: int) -> dict[str, str]:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": str(process), "HOSTNAME": "localhost"}
    return {**pod, "JOBSET_NAME": "localdomain", "PODS": str(count)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cluster", "count"),
    [
        ("SLURM", 4),
        ("TPU pod", 2),
        ("Kubernetes", 2),
        *(pytest.param(name, 4, marks=IN_DETAIL) for name in ("TPU pod", "Kubernetes")),
    ],
)
def test_processes_of_a_cluster_join_and_the_failure_of_one_names_it(
    cluster: str, count: int, tmp_path: Path, metadata_server: str
) -> None:
    (tmp_path / "kubernetes.py").write_text(KUBERNETES)
    # Without a cluster around: where a pod's own files are, and that job-0.jobset is the name of a host.
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, sys\n"
        "real = socket.getaddrinfo\n"
        "pod = lambda host: '127.0.0.1' if host == 'localhost-0.localdomain' else host\n"
        "socket.getaddrinfo = lambda host, *args, **more: real(pod(host), *args, **more)\n"
        "socket.gethostbyname = lambda host: '127.0.0.1'\n"
    )
    program = PROGRAM
    if cluster == "Kubernetes":
        program = "from jax._src.clusters import K8sCluster\nK8sCluster._namespace = lambda: 'default'\n" + program
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    processes = []
    for index in range(count):
        variables = {
            "SLURM": slurm(index, count, "localhost"),
            "TPU pod": tpu(index, count) | {"GCE_METADATA_IP": metadata_server, "MEGASCALE_NUM_SLICES": "1"},
            "Kubernetes": jobset(index, count),
        }[cluster]
        python_path = os.pathsep.join([str(tmp_path), str(ROOT)])
        given = {"PYTHONPATH": python_path, "JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_PORT": port}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program],
                env={**os.environ, **variables, **given},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [2] * count, said
    total = count * (count + 1) // 2
    assert f"{cluster} {total}\n" in said[0][0] and [out for out, _ in said[1:]] == [""] * (count - 1), said
    host = socket.gethostname()
    for _, errors in said:  # the failing process and those that it ends
        assert errors == f"process 1 on {host} (pid {processes[1].pid}): error: data/x: no such file\n", said
