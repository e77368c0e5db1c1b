"""Our safetensors reader and writer against the safetensors package, and against hostile headers."""

import json
import random
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.safetensors_io import FileBytes, open_safetensors, write_safetensors

DTYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def save(path, tensors):
    entries = {name: (array.dtype, array.shape) for name, array in tensors.items()}
    write_safetensors(path, entries, tensors.__getitem__)


def raw_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.slow
@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)),
        min_size=1,
        max_size=5,
    )
)
def test_files_are_exchanged_with_the_safetensors_package_in_both_directions(tmp_path_factory, kinds):
    folder, rng = tmp_path_factory.mktemp("tensors"), np.random.default_rng(0)
    tensors = {name: np.asarray(rng.normal(size=shape) * 9).astype(dtype) for name, (dtype, shape) in kinds.items()}
    save(folder / "ours.safetensors", tensors)
    theirs = safetensors.numpy.load_file(folder / "ours.safetensors")
    safetensors.numpy.save_file(tensors, folder / "theirs.safetensors")
    opened = open_safetensors(folder / "theirs.safetensors")
    assert set(theirs) == set(opened.entries) == set(tensors)
    for name, array in tensors.items():
        for found in (theirs[name], opened.read(name)):
            assert found.dtype == array.dtype and found.shape == array.shape
            np.testing.assert_array_equal(found, array)


def test_bfloat16_tensors_are_read_back_bit_for_bit(tmp_path):
    array = np.arange(-700, 700, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(7, 200)
    save(tmp_path / "a.safetensors", {"w": array})
    assert open_safetensors(tmp_path / "a.safetensors").read("w").tobytes() == array.tobytes()
    assert safetensors.numpy.load_file(tmp_path / "a.safetensors")["w"].tobytes() == array.tobytes()


def test_an_interrupted_write_leaves_no_file(tmp_path):
    def broken(name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_safetensors(tmp_path / "a.safetensors", {"w": (np.dtype("float32"), (2,))}, broken)
    assert not (tmp_path / "a.safetensors").exists()


def test_copied_tensors_have_the_bytes_of_their_source_and_a_wrong_size_is_refused(tmp_path):
    array = np.random.default_rng(0).normal(size=(7, 60_000)).astype(np.float32)  # more than is copied at a time
    (tmp_path / "raw").write_bytes(b"before" + array.tobytes() + b"after")
    entries = {"w": (array.dtype, array.shape)}
    halves = [FileBytes(tmp_path / "raw", 6, 1_200_002), FileBytes(tmp_path / "raw", 1_200_008, 479_998)]
    write_safetensors(tmp_path / "a.safetensors", entries, lambda name: halves)
    np.testing.assert_array_equal(open_safetensors(tmp_path / "a.safetensors").read("w"), array)
    with pytest.raises(ValueError, match="announced"):
        write_safetensors(tmp_path / "b.safetensors", entries, lambda name: halves[:1])
    (tmp_path / "raw").write_bytes(b"before" + array.tobytes()[:-4])
    with pytest.raises(InputError, match="raw: ends 4 bytes too early; did the file change"):
        write_safetensors(tmp_path / "b.safetensors", entries, lambda name: halves)
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"[]", b"", "not a JSON object"),
        (b"{ ", b"", "header is not valid"),
        (b"\xff\xfe", b"", "header is not valid"),
        (b'{"a":' + b"[" * 100_000, b"", "header is not valid"),
        (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', b"", "not valid"),
        ({"a": 3}, b"", "tensor 'a': must have dtype"),
        ({"a": tensor(dtype="F128")}, bytes(8), "dtype 'F128'"),
        ({"a": tensor(dtype=["F32"])}, bytes(8), "dtype"),
        ({"a": tensor(shape=[-2])}, bytes(8), "shape must be"),
        ({"a": tensor(shape=[True, 2])}, bytes(8), "shape must be"),
        ({"a": tensor(shape=[1] * 99)}, bytes(8), "shape must be"),
        ({"a": tensor(shape=[2**63])}, bytes(8), "shape must be"),
        ({"a": tensor(shape=[2**40, 2**40, 0], offsets=[0, 0])}, b"", "shape must be"),
        ({"a": tensor(shape=[2**50, 2**9])}, bytes(8), "does not fit"),
        ({"a": tensor(offsets=[8, 0])}, bytes(8), "data_offsets must be"),
        ({"a": tensor(offsets=[0, 8, 16])}, bytes(8), "data_offsets must be"),
        ({"a": tensor(offsets=[0, 8])}, bytes(4), "cut off"),
        ({"a": tensor(), "b": tensor()}, bytes(8), "starts at byte 0, but the one before it ends at 8"),
        ({"a": tensor(offsets=[8, 16])}, bytes(16), "starts at byte 8"),
        ({"a": tensor()}, bytes(12), "end at byte 8, but the data at 12"),
        ({"a": tensor(), "__metadata__": {"format": 1}}, bytes(8), "__metadata__"),
        (b'{"a":1,"a":2}', b"", "is listed twice"),
    ],
)
def test_broken_headers_are_refused_in_one_line_that_names_file_and_tensor(tmp_path, header, data, message):
    path = raw_file(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(InputError, match=message) as caught:
        open_safetensors(path)
    assert "bad.safetensors" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 8, b"\x00" * 8, (2**40).to_bytes(8, "little") + b"{}"])
def test_files_too_short_for_their_header_are_refused(tmp_path, content):
    path = tmp_path / "short.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a safetensors file, or cut off"):
        open_safetensors(path)


def test_a_git_lfs_pointer_is_named_as_one(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4418050848\n")
    with pytest.raises(InputError, match=r"model.safetensors: is a Git LFS pointer, not the weights"):
        open_safetensors(path)


def test_a_fuzzed_header_is_read_or_refused_without_large_allocations(tmp_path):
    """800 mutations: each is refused, or gives tensors that lie within the file."""
    rng = random.Random(0)
    original = tmp_path / "whole.safetensors"
    save(original, {f"layer.{i}.weight": np.full((i, 3), i, np.float32) for i in range(1, 6)})
    whole = original.read_bytes()
    header_end = 8 + int.from_bytes(whole[:8], "little")
    path, refused = tmp_path / "fuzzed.safetensors", 0
    tracemalloc.start()
    for _ in range(800):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            kind, at = rng.randrange(4), rng.randrange(header_end)
            if kind == 0:
                content[at] = rng.randrange(256)
            elif kind == 1:
                content[at] ^= 1 << rng.randrange(8)
            elif kind == 2:
                content[at:at] = rng.choice([b"9" * 30, b"[" * 50, b'"', b"-1", b"1e308", b"null", b"\x00"])
            else:
                del content[at : at + rng.randint(1, 40)]
        path.write_bytes(content)
        try:
            opened = open_safetensors(path)
            for name, entry in opened.entries.items():
                assert opened.read(name).nbytes == entry.nbytes <= len(content)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > 600
    assert peak < 5_000_000
