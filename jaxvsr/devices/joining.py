"""Several processes become one command: the first one prints, all lines of a failure say whose they are, and
`jax.distributed` starts once all have met.
"""

from __future__ import annotations

import os
import sys

import jax

from jaxvsr import stop_signals
from jaxvsr.devices.choose_devices import find_accelerators
from jaxvsr.devices.cluster import Place
from jaxvsr.devices.peers import Peers, name_of_process
from jaxvsr.errors import InputError, one_line


def speak_as(place: Place) -> None:
    """From now on this process's failures are said with its name and host, and only process 0 prints anything else."""
    if place.count == 1:
        return
    stop_signals.speaker = f"{name_of_process(place.process)}: "
    if place.process:
        sys.stdout.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)  # also for what children print
        os.close(nowhere)


def join(place: Place) -> None:
    """Wait for the other processes and start `jax.distributed`. Before anything else touches a JAX device.

    Raises:
        InputError: they do not come, or JAX cannot start.
    """
    if place.count == 1:
        return
    peers = Peers(place.process, place.count)
    address, bind = peers.meet(place.host, place.port, place.where)
    peers.watch()
    try:
        jax.distributed.initialize(
            address,
            place.count,
            place.process,
            local_device_ids=own_gpus(*peers.on_host, visible_gpus()),
            cluster_detection_method="deactivate",
            coordinator_bind_address=bind or None,
        )
    except RuntimeError as error:
        raise InputError(f"{place.where}: {one_line(error)}") from None
    stop_signals.take_back()


MOST_SECONDS = 24 * 3600  # for what the others do meanwhile; one that dies is noticed apart from that


def wait_for_all(what: str) -> None:
    """Go on when all processes have come here. It chooses no devices, as sums over processes would.

    Raises:
        InputError: they do not come.
    """
    from jax._src import distributed  # no public name waits without devices

    client = distributed.global_state.client
    assert client is not None
    try:
        client.wait_at_barrier(f"jaxvsr {what}", MOST_SECONDS * 1000)
    except RuntimeError as error:
        raise InputError(f"{what}: the other processes have not come ({one_line(error)})") from None


def end_together() -> None:
    """Called by every process at the end of a command that all of them end, whatever the exit code: waits for all, and
    tells them that the end of this one is no reason to end. One that ends alone must not call it."""
    with stop_signals.answered_by(lambda number: None):  # another signal asks for what is being done
        wait_for_all("end")
    for farewell in stop_signals.before_end:
        farewell(0, "")


def own_gpus(index: int, count: int, visible: int) -> list[int] | None:
    """Which of the GPUs that `count` processes of one host all see belong to the one of number `index`; None: all.

    SLURM's `--gpus-per-task` has dealt them out already.

    >>> own_gpus(1, 2, 8), own_gpus(0, 1, 8)
    ([4, 5, 6, 7], None)

    Raises:
        InputError: they cannot be dealt out evenly.
    """
    dealt = {"JAX_LOCAL_DEVICE_IDS", "SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK"}.intersection(os.environ)
    if count == 1 or visible < count or dealt:
        return None
    each, rest = divmod(visible, count)
    if rest:
        raise InputError(
            f"{visible} GPUs do not divide over the {count} processes of this host; start as many as divide them, or "
            "one for all"
        )
    return list(range(index * each, (index + 1) * each))


def visible_gpus() -> int:
    """GPUs that this process sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = find_accelerators().gpus  # 0 where none is to be seen
    return len(named.split(",")) if named and found else found
