"""Digests see every changed bit, agree between host, device and mesh, and no damaged checkpoint is read."""

import contextlib
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from jaxvsr.errors import InputError
from jaxvsr.grpo.compiled_step import start_state
from jaxvsr.runs import array_digest
from jaxvsr.runs.array_digest import array_digest as digest
from jaxvsr.runs.checkpoints import Checkpoints
from tests.support.checkpoint_states import NAME, OPTIMIZER, RECORD, assert_equal, state_after

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint32", "uint8", "bool")


def random_array(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 200, shape)
    return np.asarray(jnp.asarray(values).astype(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_host_and_device_digests_agree_for_every_chunk_size(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in [(), (1,), (7,), (3, 5, 2), (0, 4)]:
        array = random_array(dtype, shape)
        on_host = digest(array)
        plain, weighted = array_digest._device_sums(jnp.asarray(array))
        assert on_host == f"{int(plain):08x}{int(weighted):08x}"
        monkeypatch.setattr(array_digest, "_CHUNK", 3)
        assert digest(array) == on_host
        monkeypatch.undo()


@given(st.sampled_from(("float32", "bfloat16", "uint8", "int32")), st.integers(0, 10**6))
def test_every_flipped_bit_and_every_swap_changes_the_digest(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    array = random_array(dtype, (4, 6), seed)
    changed = array.copy()
    flat = changed.reshape(-1).view(np.uint8)
    flat[rng.integers(flat.size)] ^= np.uint8(1 << rng.integers(8))
    assert digest(changed) != digest(array)
    swapped = array.copy().reshape(-1)
    i, j = rng.choice(swapped.size, 2, replace=False)
    swapped[[i, j]] = swapped[[j, i]]
    if swapped.reshape(array.shape).tobytes() != array.tobytes():
        assert digest(swapped.reshape(array.shape)) != digest(array)


def test_the_digest_equals_its_formula() -> None:
    words = [5, 2**31, 7]
    plain = sum(words) % 2**32
    weighted = sum(word * ((index * 0x9E3779B1 % 2**32) | 1) for index, word in enumerate(words)) % 2**32
    assert digest(np.array(words, np.uint32)) == f"{plain:08x}{weighted:08x}"


def test_a_digest_does_not_depend_on_the_mesh() -> None:
    mesh = jax.make_mesh((1,), ("x",))
    array = random_array("float32", (8, 3))
    placed = jax.device_put(array, jax.sharding.NamedSharding(mesh, PartitionSpec("x")))
    plain, weighted = array_digest._device_sums(placed)
    assert digest(array) == f"{int(plain):08x}{int(weighted):08x}"


# Where a flip hits an index, tasks of Orbax complain of a loop that is closed.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    """60 flips in the array data of a checkpoint: each is one line, or hits nothing that is read."""
    weights = np.random.default_rng(1).normal(size=(2, 64, 256)).astype(np.float32)
    state = start_state({NAME: jnp.asarray(weights)}, OPTIMIZER, seed=7)
    written = Checkpoints(tmp_path / "whole", keep=2)
    written.save(3, state, RECORD)
    written.close()
    rng, refused = np.random.default_rng(0), 0
    files = [path for path in (tmp_path / "whole" / "3" / "weights").rglob("*") if path.is_file()]
    data = [path for path in files if path.stat().st_size > weights.nbytes / 2]
    assert data, "the weights, compressed"
    for number in range(60):
        damaged = tmp_path / f"damaged-{number}"
        shutil.copytree(tmp_path / "whole", damaged)
        path = damaged / data[rng.integers(len(data))].relative_to(tmp_path / "whole")
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        checkpoints = Checkpoints(damaged)
        try:
            assert_equal(checkpoints.restore(3, state, RECORD), state)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
        with contextlib.suppress(InputError):
            np.testing.assert_array_equal(checkpoints.weights(3)[NAME], weights)
        checkpoints.close()
        shutil.rmtree(damaged)
    assert refused >= 50


@pytest.mark.slow
def test_the_line_about_changed_bits_names_the_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Checkpoints(tmp_path, keep=2)
    written.save(3, state_after(3), RECORD)
    written.close()
    read = Checkpoints(tmp_path)
    monkeypatch.setattr(array_digest, "array_digest", lambda array: "0" * 16)
    with pytest.raises(InputError, match=r"3: .*the bits of weights\[.*\] are not those that were saved"):
        read.restore(3, state_after(0), RECORD)
    with pytest.raises(InputError, match="the bits of weights"):
        read.weights(3)
