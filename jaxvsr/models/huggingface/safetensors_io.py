"""Reading and writing safetensors files, tensor by tensor, without trusting them.

A file is eight bytes N (little endian), N bytes of JSON header, and the data. The header maps a tensor's name to dtype,
shape and [start, stop) in the data (https://github.com/huggingface/safetensors). Everything is checked before the first
tensor is read; every fault is an `InputError` that names file and key. Tensors are mapped into memory one at a time, so
reading a file needs no more memory than what is kept of it.

The `safetensors` package is used only in the tests, to compare with: it needs all tensors of a file at once, but an
export makes them one by one, and copies unchanged ones from file to file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from jaxvsr.errors import InputError
from jaxvsr.files import replacing

MAX_HEADER_BYTES = 100_000_000  # the format's limit
MAX_AXES = 8
MAX_ELEMENTS = 2**60  # NumPy refuses more, even if another axis is zero
_LENGTH_BYTES = 8
_GIT_LFS = b"version "  # the start of the small file that a clone without Git LFS has in place of a large one
_COPY_BYTES = 2**20  # at a time

_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
# Floats as unsigned words, and the bits below the exponent.
_FINITE_BITS = {"float64": ("u8", 52), "float32": ("u4", 23), "float16": ("u2", 10), "bfloat16": ("u2", 7)}
_CHECKED_BYTES = 2**22  # at a time
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """One tensor in the header."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class SafetensorsFile:
    """A checked file. `entries` are in the order of their data."""

    path: Path
    entries: Mapping[str, TensorEntry]

    def view(self, name: str) -> np.ndarray:
        """The tensor as a read-only view of the file; only the parts that are used are read."""
        entry = self.entries[name]
        if entry.nbytes == 0:
            return np.empty(entry.shape, entry.dtype)
        return np.memmap(self.path, entry.dtype, mode="r", offset=entry.offset, shape=entry.shape)

    def read(self, name: str, out: np.ndarray | None = None) -> np.ndarray:
        """The whole tensor in memory, in `out` if given; `out` may have another dtype."""
        entry = self.entries[name]
        if out is None:
            out = np.empty(entry.shape, entry.dtype)
        if out.dtype != entry.dtype or not out.flags.c_contiguous or entry.nbytes == 0:
            out[...] = self.view(name)
            return out
        # One large read: several times faster than page faults.
        with self.path.open("rb", buffering=0) as file:
            file.seek(entry.offset)
            rest = out.reshape(-1).view(np.uint8).data
            while len(rest):
                count = file.readinto(rest)
                if not count:
                    raise InputError(f"{self.path}: tensor {name!r} ends too early; did the file change?")
                rest = rest[count:]
        return out


def is_finite(values: np.ndarray) -> bool:
    """Whether all numbers of an array are finite; of one that holds no floats they are."""
    bits = _FINITE_BITS.get(values.dtype.name)
    if bits is None or values.size == 0:
        return True
    words = np.ascontiguousarray(values).reshape(-1).view(bits[0])
    most, exponent = words.dtype.type(2 ** (8 * words.itemsize - 1) - 1), bits[1]
    step = _CHECKED_BYTES // words.itemsize
    least = int(most) >> exponent << exponent  # infinity
    return all(int((words[at : at + step] & most).max()) < least for at in range(0, words.size, step))


def open_safetensors(path: Path) -> SafetensorsFile:
    """Check a file's header against its size. No tensor data is read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_LENGTH_BYTES)
            if start == _GIT_LFS:
                raise InputError(f"{path}: is a Git LFS pointer, not the weights; run `git lfs pull` there")
            length = int.from_bytes(start, "little")
            if len(start) < _LENGTH_BYTES or length < 2 or length > min(MAX_HEADER_BYTES, size - _LENGTH_BYTES):
                raise InputError(f"{path}: not a safetensors file, or cut off: {size} bytes, header of {length}")
            header = file.read(length)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return SafetensorsFile(path, _check_header(header, size - _LENGTH_BYTES - length, path))


@dataclasses.dataclass(frozen=True)
class FileBytes:
    """Bytes of a file, to be copied into another unchanged."""

    path: Path
    offset: int
    nbytes: int


# dtype and shape of a tensor to write.
Entry = tuple[np.dtype, tuple[int, ...]]
# A tensor to write: in memory, or as consecutive bytes of files.
Data = np.ndarray | Sequence[FileBytes]


def write_safetensors(path: Path, entries: Mapping[str, Entry], tensor: Callable[[str], Data]) -> None:
    """Write tensors one at a time, in the order of `entries` (by name); the file appears when it is complete.

    `tensor(name)` is called when its turn comes, so only one of them has to be in memory. The data is on the disk
    before the file gets its name: even a power failure leaves nothing that looks complete.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses files that do not say so
    offset = 0
    for name, (dtype, shape) in entries.items():
        stop = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data starts at a multiple of eight bytes
    with replacing(path) as partial, partial.open("wb") as out:
        out.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for name, (dtype, shape) in entries.items():
            data = tensor(name)
            if not isinstance(data, np.ndarray):
                if sum(part.nbytes for part in data) != math.prod(shape) * dtype.itemsize:
                    raise ValueError(f"{name}: {data} was announced as {dtype}{shape}")
                for part in data:
                    _copy_bytes(part, out)
                continue
            if data.shape != shape or data.dtype != dtype:
                raise ValueError(f"{name}: {data.dtype}{data.shape} was announced as {dtype}{shape}")
            if not is_finite(data):
                raise InputError(f"{path.name}: {name!r} holds numbers that are not finite; it is not written")
            out.write(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
        out.flush()
        os.fsync(out.fileno())


def _copy_bytes(part: FileBytes, out: IO[bytes]) -> None:
    """Append to `out`, through a buffer small enough to stay in the processor's cache."""
    rest, chunk = part.nbytes, memoryview(bytearray(min(_COPY_BYTES, part.nbytes)))
    with part.path.open("rb", buffering=0) as file:
        file.seek(part.offset)
        while rest:
            count = file.readinto(chunk[:rest])
            if not count:
                raise InputError(f"{part.path}: ends {rest} bytes too early; did the file change?")
            out.write(chunk[:count])
            rest -= count


def _check_header(header: bytes, data_bytes: int, path: Path) -> dict[str, TensorEntry]:
    try:
        raw = json.loads(header.decode("utf-8"), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: the header is not valid ({error})") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: the header is not a JSON object")
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(f"{path}: __metadata__ must map strings to strings")
    data_start = _LENGTH_BYTES + len(header)
    entries, ranges = {}, []
    for name, fields in raw.items():
        dtype, shape, (start, stop) = _check_tensor(fields, f"{path}: tensor {name!r}")
        if stop - start != math.prod(shape) * dtype.itemsize or stop > data_bytes:
            raise InputError(
                f"{path}: tensor {name!r}: {dtype}{list(shape)} does not fit bytes {start} to {stop} of {data_bytes}; "
                "is the file cut off?"
            )
        entries[name] = TensorEntry(dtype, shape, data_start + start)
        ranges.append((start, stop, name))
    ranges.sort()
    covered = 0
    for start, stop, name in ranges:
        if start != covered:
            raise InputError(f"{path}: tensor {name!r} starts at byte {start}, but the one before it ends at {covered}")
        covered = stop
    if covered != data_bytes:
        raise InputError(f"{path}: the tensors end at byte {covered}, but the data at {data_bytes}")
    return {name: entries[name] for _, _, name in ranges}


def _check_tensor(fields: Any, where: str) -> tuple[np.dtype, tuple[int, ...], tuple[int, int]]:
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{where}: must have dtype, shape and data_offsets, and nothing else")
    code, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise InputError(f"{where}: dtype {str(code)[:20]!r} is not one of {', '.join(_DTYPES)}")
    if not _are_sizes(shape) or len(shape) > MAX_AXES or math.prod(axis or 1 for axis in shape) >= MAX_ELEMENTS:
        raise InputError(f"{where}: shape must be at most {MAX_AXES} non-negative integers that fit in memory")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InputError(f"{where}: data_offsets must be two non-negative integers, in order")
    return _DTYPES[code], tuple(shape), (offsets[0], offsets[1])


def _are_sizes(values: Any) -> bool:
    """Whether this is a list of integers of at most 63 bits; JSON's have no limit."""
    if not isinstance(values, list):
        return False
    return all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 for value in values)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a name is listed twice")
    return keys
