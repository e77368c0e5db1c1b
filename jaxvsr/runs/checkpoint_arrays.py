"""The arrays of a checkpoint, read where Orbax has written them: zarr arrays in one key-value store (OCDBT) per tree.

Reading is not left to Orbax. It reads in many tasks at once, each of which prints a traceback where bytes are damaged;
here the first one that cannot be read raises, and nothing is printed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore

_DESCRIPTION = "/zarr.json"
_CACHE_BYTES = 2**26  # of what says where in the store an array lies


def described(folder: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of each array of a tree, by name.

    Raises:
        ValueError, OSError: they cannot be read, or there is none.
    """
    store = tensorstore.KvStore.open(_store(folder)).result()
    names = [key.decode() for key in store.list().result() if key.endswith(_DESCRIPTION.encode())]
    reading = {name.removesuffix(_DESCRIPTION): store.read(name) for name in names}
    found = {name: json.loads(read.result().value) for name, read in reading.items()}
    if not found:
        raise ValueError(f"{folder.name} holds no arrays")
    return {
        name: jax.ShapeDtypeStruct(tuple(array["shape"]), jax.numpy.dtype(array["data_type"]))
        for name, array in found.items()
    }


def read_tree(folder: Path, like: Any) -> Any:
    """A tree of arrays as `like`, a tree of `jax.ShapeDtypeStruct`: on its sharding, in host memory where it has none.

    Raises:
        ValueError, OSError: an array is not there, has another shape or dtype, or cannot be read.
    """
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})

    def read(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array | np.ndarray:
        name = _name(path)
        spec = {"driver": "zarr3", "kvstore": {**_store(folder), "path": f"{name}/"}}
        return _read(tensorstore.open(spec, open=True, context=context).result(), name, leaf)

    return jax.tree.map_with_path(read, like)


def _store(folder: Path) -> dict[str, Any]:
    return {"driver": "ocdbt", "base": f"{folder.resolve().as_uri()}/"}


def _read(array: tensorstore.TensorStore, name: str, like: jax.ShapeDtypeStruct) -> jax.Array | np.ndarray:
    found, wanted = (tuple(array.shape), array.dtype.numpy_dtype), (like.shape, like.dtype)
    if found != wanted:
        raise ValueError(f"{name} is {found[1]}{list(found[0])} and not {wanted[1]}{list(wanted[0])}")
    if like.sharding is None:
        return np.asarray(array.read().result())
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: array[index].read().result())


def _name(path: tuple[Any, ...]) -> str:
    """What Orbax calls a leaf: `optimizer.1.0.mu.language_model…`."""
    parts = (getattr(key, "key", getattr(key, "idx", getattr(key, "name", None))) for key in path)
    return ".".join(str(part) for part in parts)
