"""How many batches per second a data folder gives: `build_data.py check DATA --batches CONFIG`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from jaxvsr.config.config_file import find_config, read_config
from jaxvsr.devices.choose_devices import choose_devices
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.training.run_inputs import open_inputs

_WARM_UP_BATCHES = 10  # more than are prepared in advance
_MEASURED_SECONDS = 5.0


def batches_per_second(folder: Path, config_name: str) -> str:
    """A line on the batches that a run of this config would get if its steps took no time: frames read and cut into
    patches, questions tokenized, by the config's number of workers.

    Raises:
        InputError: no such config, or the folder does not have what it asks for.
    """
    config = read_config(find_config(config_name), [("OUT", "data.folders", str(folder))])
    data = config.data
    with_pixels = dataclasses.replace(config, data=dataclasses.replace(data, features="off"))
    (device,) = choose_devices("auto", MeshShape())
    batches = open_inputs(with_pixels, make_mesh(MeshShape(), [device]), evaluates=False, trains=False).batches()
    for _ in range(_WARM_UP_BATCHES):
        next(batches)
    start, spent, count = time.monotonic(), time.process_time(), 0
    while (seconds := time.monotonic() - start) < _MEASURED_SECONDS:
        next(batches)
        count += 1
    spent = time.process_time() - spent
    batches.close()
    return (
        f"batches of {config_name} ({data.scenes} scenes, {data.questions} questions, {data.frames} frames): "
        f"{count / seconds:.1f} per second, {1000 * spent / count:.0f} ms of this process's CPU time each"
    )
