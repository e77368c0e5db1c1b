"""A bit that flips in what a data folder stores is never read as something else."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxvsr.data.features import FeatureStore
from jaxvsr.data.frames import FrameStore
from jaxvsr.data.splits import read_splits, write_splits
from jaxvsr.data.stored_arrays import SEAL, _parsed_attributes
from jaxvsr.errors import InputError

SCENE = "scene0000_00"


def read_frames(folder: Path) -> object:
    _parsed_attributes.cache_clear()
    store = FrameStore(folder)
    frames = store.read(SCENE, 2)
    facts = {name: value for name, value in store.attributes(SCENE).items() if name != SEAL}
    return facts, frames.pixels.tobytes(), frames.timestamps.tolist(), frames.indices.tolist()


def read_features(folder: Path) -> object:
    _parsed_attributes.cache_clear()
    store = FeatureStore(folder, "set")
    facts = store.attributes(SCENE, 2, mirrored=False)
    features = store.read(SCENE, 2, mirrored=False)
    return {name: value for name, value in facts.items() if name != SEAL}, features.dtype, features.tobytes()


def known(found: Any, right: Any) -> Any:
    """What was found, without attributes that were not there before."""
    if isinstance(right, tuple) and isinstance(right[0], dict):
        return {name: value for name, value in found[0].items() if name in right[0]}, *found[1:]
    return found


@pytest.fixture
def folder(data_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(data_folder, tmp_path / "data")
    features = np.random.default_rng(0).normal(size=(1, 4, 8)).astype(np.float32)
    FeatureStore(tmp_path / "data", "set").write(SCENE, 2, features, mirrored=False, size=(56, 56), model="tiny")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("file", "read"),
    [
        (f"frames/{SCENE}/zarr.json", read_frames),
        (f"frames/{SCENE}/c/0/0/0/0", read_frames),
        (f"features/set/{SCENE}/2/zarr.json", read_features),
        (f"features/set/{SCENE}/2/c/0/0/0", read_features),
        ("splits.json", read_splits),
    ],
)
def test_a_flipped_bit_is_one_line_or_no_matter(folder: Path, file: str, read) -> None:
    right, path, rng = read(folder), folder / file, np.random.default_rng(len(file))
    data, refused = path.read_bytes(), 0
    for _ in range(40):
        flipped = bytearray(data)
        flipped[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            found = read(folder)
        except InputError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
            refused += 1
        else:
            assert (
                known(found, right) == right
            )  # between words of a JSON file, in bytes that no item has, or SEAL's name
    assert refused > 20
    path.write_bytes(data)
    assert read(folder) == right


def test_splits_that_were_edited_on_purpose_are_read_without_their_checksum(folder: Path) -> None:
    path = folder / "splits.json"
    path.write_text(path.read_text().replace("scene0001_00", "scene0091_00"))
    with pytest.raises(InputError, match=r"splits.json: is not what was written, by its sha256; .* delete that line"):
        read_splits(folder)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if '"sha256"' not in line).replace("],\n}", "]\n}"))
    splits = read_splits(folder)
    assert "scene0091_00" in splits["train"]
    write_splits(folder, splits)
    assert read_splits(folder) == {name: sorted(scenes) for name, scenes in splits.items()}
