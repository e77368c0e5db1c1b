"""Arrays in TensorStore: zarr 3, one shard, one chunk per item of the first axis, each with its CRC-32C."""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Int64, Shaped

from jaxvsr.buckets.objects import context, reason, spec_of
from jaxvsr.buckets.places import url_at
from jaxvsr.errors import InputError
from jaxvsr.files import json_sha256, partial_name, write_text

SEAL = "zarr_json_sha256"  # attribute with the checksum of all else in a zarr.json; arrays of older versions have none


def write_array(
    target: Path, values: Shaped[np.ndarray, "F ..."], attributes: Mapping[str, Any], *, compress: bool = True
) -> None:
    """Write to a temporary folder, then rename it to `target`: an interrupted run leaves no partial array there.

    An array that is already at `target` is renamed first and removed last, so a run that is killed in between loses
    nothing either: `recover_array` puts it back.
    """
    recover_array(target)
    if target.exists() and not _is_array(target):
        raise InputError(f"{target}: exists and is not an array of jaxvsr; move it away (nothing in it was changed)")
    partial = partial_name(target)
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{partial}{os.sep}"},
        "metadata": _metadata(values, attributes, compress),
        "create": True,
        "store_data_equal_to_fill_value": True,  # black frames are data; a missing chunk is an error
    }
    try:
        ts.open(spec).result().write(values).result()
        _seal(partial / "zarr.json")
        if target.exists():
            os.replace(target, _aside(target))
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(_aside(target), ignore_errors=True)


def _seal(metadata: Path) -> None:
    """Add to an array's `zarr.json` the checksum of all of it."""
    content = json.loads(metadata.read_text(encoding="utf-8"))
    content["attributes"][SEAL] = _checksum(content)
    write_text(metadata, json.dumps(content, indent=1) + "\n")


def _checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of what a `zarr.json` says, without its own checksum."""
    attributes = {name: value for name, value in content["attributes"].items() if name != SEAL}
    return json_sha256({**content, "attributes": attributes})


def _is_array(path: Path) -> bool:
    """Whether a folder is an array that `write_array` wrote, and so may be replaced: it has our schema number."""
    try:
        return "schema" in json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def recover_array(target: Path) -> None:
    """Put back an array that a killed `write_array` had renamed, or remove it if the new one is complete."""
    if target.exists():
        shutil.rmtree(_aside(target), ignore_errors=True)
    elif _aside(target).exists():
        os.replace(_aside(target), target)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.before")


def read_array(path: Path, what: str, items: Int64[np.ndarray, " F"] | None = None) -> Shaped[np.ndarray, "F ..."]:
    """The items of an array, or all of it; `InputError` if a chunk is lost or fails its checksum.

    `what` names the values in errors ("the frames").
    """
    try:
        array = _open(path)
        count = array.shape[0] if items is None else len(items)
        size = count * math.prod(array.shape[1:]) * array.dtype.numpy_dtype.itemsize
        if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):  # TensorStore would abort the process
            raise ValueError(f"it says that it holds {size / 1e9:,.0f} GB, more than this machine's memory")
        return np.asarray((array if items is None else array[items]).read().result())
    except (ValueError, OSError) as error:
        said = str(error).splitlines()[0][:200] if url_at(path) is None else reason(error)
        raise InputError(f"{path}: cannot read {what} ({said})") from None


def _open(path: Path) -> ts.TensorStore:
    """An array, where it is: of a folder in a bucket only what describes the array is on this machine.

    Raises:
        ValueError, OSError: it cannot be opened, or is another one by now than is described here.
    """
    url = url_at(path)
    in_bucket = url is not None and not (path / "c").is_dir()
    kvstore = spec_of(url) if in_bucket and url is not None else {"driver": "file", "path": f"{path}{os.sep}"}
    # Otherwise a lost chunk would be read as zeros.
    spec = {"driver": "zarr3", "kvstore": kvstore, "fill_missing_data_reads": False}
    array = ts.open(spec, open=True, context=context() if in_bucket else None).result()
    if in_bucket:
        here = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        if array.spec().to_json()["metadata"].get("attributes") != here:
            raise ValueError("it was written again since this command began")
    return array


def array_attributes(path: Path, what: str, schema: int) -> Mapping[str, Any]:
    """The attributes that an array was written with; `what` names its values in errors, as in `read_array`.

    Raises:
        FileNotFoundError: there is no array.
        InputError: its `zarr.json` was not written by jaxvsr, or has another schema.
    """
    metadata = path / "zarr.json"
    return _parsed_attributes(metadata, metadata.stat().st_mtime_ns, what, schema)


class _Attributes(dict[str, Any]):
    """Attributes of an array; one that is missing is an `InputError`."""

    def __init__(self, metadata: Path, attributes: Mapping[str, Any]):
        super().__init__(attributes)
        self._metadata = metadata

    def __missing__(self, name: str) -> Any:
        raise InputError(f"{self._metadata}: has no {name!r}; delete the folder and write it again")


@functools.lru_cache(maxsize=16384)
def _parsed_attributes(metadata: Path, _modified: int, what: str, schema: int) -> Mapping[str, Any]:
    try:
        content = json.loads(metadata.read_text(encoding="utf-8"))
        attributes = content["attributes"]
        found = attributes["schema"]
        damaged = SEAL in attributes and attributes[SEAL] != _checksum(content)
        attributes = _Attributes(metadata, attributes)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{metadata}: not the metadata of {what}; delete the folder and write them again") from None
    if found != schema:
        raise InputError(f"{metadata}: {what} have schema {found}, this version reads {schema}")
    if damaged:
        raise InputError(
            f"{metadata}: is not what was written, by its checksum; delete the folder and write {what} again"
        )
    return attributes


def _metadata(values: Shaped[np.ndarray, "F ..."], attributes: Mapping[str, Any], compress: bool) -> dict[str, Any]:
    shape, crc32c = list(values.shape), {"name": "crc32c"}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    inner: list[dict[str, Any]] = [{"name": "bytes"} if values.dtype.itemsize == 1 else little]
    if compress:
        inner.append({"name": "zstd", "configuration": {"level": 1}})
    sharding = {"chunk_shape": [1, *shape[1:]], "codecs": [*inner, crc32c], "index_codecs": [little, crc32c]}
    return {
        "shape": shape,
        "data_type": values.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": dict(attributes),
    }
