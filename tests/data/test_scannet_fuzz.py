"""Files of every format, cut and overwritten at random: an InputError or a value, nothing else, in little memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.scannet.instance_masks import InstanceMasks
from jaxvsr.data.scannet.ply import Mesh, write_ply
from jaxvsr.data.scannet.read_scan import read_scene
from jaxvsr.data.scannet.sens import SensReader
from jaxvsr.errors import InputError
from tests.support.damage import MEMORY_LIMIT_BYTES, mutated
from tests.support.scans import NAME, png, write_scan, write_zip
from tests.support.sens_files import POSE, sens_bytes

MUTATIONS_A_FILE = 150


def read_everything(scan: Path, suffix: str) -> None:
    """Read the file with this suffix to the last pixel."""
    if suffix == ".sens":
        reader = SensReader(scan / f"{NAME}.sens")
        for index in range(len(reader)):
            reader.color(index)
            reader.depth(index)
            reader.pose(index)
        assert np.isfinite(reader.timestamps).all()
    elif suffix == "_2d-instance-filt.zip":
        masks = InstanceMasks(scan / f"{NAME}_2d-instance-filt.zip")
        for frame in masks.frames:
            masks.read(frame)
    else:
        scene = read_scene(scan)
        assert np.isfinite(scene.vertices).all()
        for item in scene.objects:
            assert np.isfinite(item.obb.extent).all() and len(item.points)


@pytest.mark.slow
@pytest.mark.parametrize(
    "suffix",
    [
        ".sens",
        "_vh_clean_2.ply",
        "ascii.ply",
        "_vh_clean_2.0.010000.segs.json",
        ".aggregation.json",
        ".txt",
        "_2d-instance-filt.zip",
    ],
)
def test_a_mutated_file_is_an_input_error_or_is_read(tmp_path: Path, suffix: str):
    scan = write_scan(tmp_path)
    if suffix == "ascii.ply":
        suffix = "_vh_clean_2.ply"  # as write_scan writes it
    else:
        vertices = np.arange(18, dtype=np.float32).reshape(6, 3) ** 2 / 100
        write_ply(scan / f"{NAME}_vh_clean_2.ply", Mesh(vertices, np.array([[0, 1, 2]], np.int32)))
    (scan / f"{NAME}.sens").write_bytes(sens_bytes(poses=(POSE, POSE), times=(0, 1)))
    masks = {f"instance-filt/{index}.png": png(np.full((6, 8), index, np.uint8)) for index in range(2)}
    write_zip(scan / f"{NAME}_2d-instance-filt.zip", masks)
    path = scan / f"{NAME}{suffix}"
    data = path.read_bytes()
    read_everything(scan, suffix)

    rng = np.random.default_rng(7)
    refused = 0
    tracemalloc.start()
    try:
        for number in range(MUTATIONS_A_FILE):
            path.write_bytes(mutated(rng, data))
            tracemalloc.reset_peak()
            try:
                read_everything(scan, suffix)
            except InputError as error:
                refused += 1
                assert NAME in str(error) and "\n" not in str(error), f"mutation {number}"
            assert tracemalloc.get_traced_memory()[1] < MEMORY_LIMIT_BYTES, f"mutation {number}"
    finally:
        tracemalloc.stop()
    assert refused > MUTATIONS_A_FILE / 10, "the mutations hardly touch what is read"
