"""Model folders: parameters in and out of Hugging Face's sharded safetensors.

Reading is lazy: opening a folder checks every header against the model's expected names and shapes, then a parameter, a
slice of it or all of them are copied out of the mapped files, one tensor at a time. Writing keeps the names, the dtypes
and the division into files that the folder came with.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object
from jaxvsr.models.huggingface.hf_config import read_config
from jaxvsr.models.huggingface.parameter_names import (
    EMBEDDING,
    HEAD,
    Style,
    file_name,
    file_names,
    file_shape,
    style_of,
)
from jaxvsr.models.huggingface.safetensors_io import (
    Data,
    Entry,
    FileBytes,
    SafetensorsFile,
    open_safetensors,
    write_safetensors,
)
from jaxvsr.models.model_config import ModelConfig, stack_of
from jaxvsr.models.qwen_vl import parameter_shapes

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
LAYOUT_FILE = "hf_layout.json"  # in folders that `from-hf` wrote: how the weights lay in the Hugging Face folder
PARTIAL = ".partial"  # behind the name of a folder that is being written
MAX_SHARD_BYTES = 5_000_000_000  # Hugging Face's
# Everything but the weights: copied as it is. No Python file ever is.
COMPANIONS = ("*.json", "*.txt", "*.jinja", "LICENSE*", "NOTICE*", "README.md")
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
WEIGHT_DTYPES = tuple(np.dtype(name) for name in ("float32", "bfloat16", "float16"))
# What the disk says while a folder is written, when it is not a mistake of ours.
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
# How much of each tensor the content hash reads, at its start and at its end.
HASHED_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A checked model folder. Get one with `open_folder`."""

    path: Path
    config: ModelConfig
    style: Style
    files: Mapping[str, SafetensorsFile]  # by file name
    where: Mapping[str, str]  # name in the files: file name

    def dtype(self, name: str, layer: int | None = None) -> np.dtype:
        """The dtype that a parameter (our name), or a layer of a stack, has in the files."""
        tensors = self._tensors(name)
        return tensors[layer if layer and len(tensors) > 1 else 0].dtype

    def where_bytes(self, name: str, layer: int | None = None) -> list[FileBytes]:
        """Where the data of a parameter (our name), or of a layer of a stack, lies: one part after another."""
        tensors = self._tensors(name)
        if layer is not None and len(tensors) > 1:
            tensors = tensors[layer : layer + 1]
        parts = [tensor.bytes for tensor in tensors]
        if layer is None or self.style != "stacked":
            return parts
        nbytes = parts[0].nbytes // tensors[0].shape[0]
        return [FileBytes(parts[0].path, parts[0].offset + layer * nbytes, nbytes)]

    def read(self, name: str, index: tuple[slice | int, ...] = (), dtype: np.dtype | None = None) -> np.ndarray:
        """One parameter (our name), or the part of it that `index` asks for, copied out of the files.

        Only the bytes of that part are read, so `jax.make_array_from_callback(shape, sharding, lambda index:
        folder.read(name, index))` gives every device just its slice.
        """
        tensors = self._tensors(name)
        if self.style == "stacked" or stack_of(name) is None:
            return tensors[0].read(index, dtype or tensors[0].dtype)
        layers, rest = (index[0], index[1:]) if index else (slice(None), ())
        if not isinstance(layers, slice):
            return tensors[layers].read(rest, dtype or tensors[layers].dtype)
        dtype = dtype or tensors[0].dtype
        chosen = tensors[layers]
        out = np.empty((len(chosen), *tensors[0].part_shape(rest)), dtype)
        for part, tensor in zip(out, chosen, strict=True):
            tensor.read(rest, dtype, part)
        return out

    def _tensors(self, name: str) -> list[_Tensor]:
        """The tensors of the files that make up a parameter, layer by layer."""
        layers: list[int | None] = [None]
        if self.style != "stacked" and stack_of(name):
            layers = list(range(parameter_shapes(self.config)[name].shape[0]))
        names = [file_name(name, layer, self.style) for layer in layers]
        return [_Tensor(self.files[self.where[inner]], inner) for inner in names]


@dataclasses.dataclass(frozen=True)
class _Tensor:
    file: SafetensorsFile
    name: str

    @property
    def dtype(self) -> np.dtype:
        return self.file.entries[self.name].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.entries[self.name].shape

    @property
    def bytes(self) -> FileBytes:
        entry = self.file.entries[self.name]
        return FileBytes(self.file.path, entry.offset, entry.nbytes)

    def part_shape(self, index: tuple[slice | int, ...]) -> tuple[int, ...]:
        return np.broadcast_to(0, self.shape)[index].shape

    def read(self, index: tuple[slice | int, ...], dtype: np.dtype, out: np.ndarray | None = None) -> np.ndarray:
        """The part that `index` asks for, in memory; a whole tensor is read in one go."""
        if out is None:
            out = np.empty(self.part_shape(index), dtype)
        whole = zip(index, self.shape, strict=False)
        if all(isinstance(part, slice) and part.indices(size) == (0, size, 1) for part, size in whole):
            return self.file.read(self.name, out)
        out[...] = self.file.view(self.name)[index]
        return out


def open_folder(path: Path) -> ModelFolder:
    """Check config, index and headers of a folder. Missing, unexpected and mis-shaped weights are named."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; a model is a Hugging Face folder")
    if path.name.endswith(PARTIAL):
        raise InputError(f"{path}: was left by a conversion that was interrupted; run that again, which replaces it")
    config = read_config(path)
    files, where = _open_shards(path)
    style = style_of(where)
    expected = {name: file_shape(ours, layer, config) for name, (ours, layer) in file_names(config, style).items()}
    head = HEAD if HEAD in where and config.text.tie_word_embeddings else None
    missing = sorted(set(expected) - set(where))
    unexpected = sorted(set(where) - set(expected) - {head})
    for kind, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{path}: {kind} weight {names[0]!r}{more} for this {config.family} config.json")
    for name, shape in expected.items():
        entry = files[where[name]].entries[name]
        if entry.shape != shape:
            raise InputError(
                f"{path / where[name]}: {name!r} is {list(entry.shape)}, config.json asks for {list(shape)}"
            )
        if entry.dtype not in WEIGHT_DTYPES:
            raise InputError(
                f"{path / where[name]}: {name!r} is {entry.dtype}; weights are {', '.join(map(str, WEIGHT_DTYPES))}"
            )
    folder = ModelFolder(path, config, style, files, where)
    if head is not None:
        _check_tied_head(folder)
    return folder


def load_parameters(folder: ModelFolder | Path, dtype: np.dtype | str | None = None) -> dict[str, np.ndarray]:
    """All parameters under our names. `dtype` None keeps each as it is in the files, which must then agree in a stack.

    Host memory peaks at the model's own size plus one tensor.
    """
    folder = folder if isinstance(folder, ModelFolder) else open_folder(folder)
    if dtype is None:
        check_stack_dtypes(folder)
    wanted = None if dtype is None else np.dtype(dtype)
    return {name: folder.read(name, dtype=wanted) for name in parameter_shapes(folder.config)}


def check_stack_dtypes(folder: ModelFolder) -> None:
    """The layers of a stack are one array, so they must have one dtype."""
    for name in parameter_shapes(folder.config):
        dtypes = {tensor.dtype for tensor in folder._tensors(name)}
        if len(dtypes) > 1:
            kinds = " and ".join(sorted(map(str, dtypes)))
            raise InputError(f"{folder.path}: the layers of {name!r} are {kinds}; load them with one dtype")


def content_hash(folder: ModelFolder) -> str:
    """A SHA-256 that tells checkpoints apart without reading them whole.

    It covers the model's shape and, as they lie in the files, every tensor's name, dtype, shape, and the first and last
    4 KiB of its data.
    """
    digest = hashlib.sha256(repr(folder.config).encode())
    for name in sorted(folder.where):
        file = folder.files[folder.where[name]]
        entry = file.entries[name]
        digest.update(f"{name} {entry.dtype} {entry.shape}".encode())
        data = file.view(name).reshape(-1).view(np.uint8)
        digest.update(data[:HASHED_BYTES].tobytes() + data[-HASHED_BYTES:].tobytes())
    return digest.hexdigest()


# A weight of the folder to be written: our name, and the layer within its stack (None: all of it).
Weight = Callable[[str, int | None], np.ndarray]


def save_folder(
    out: Path,
    base: ModelFolder,
    weight: Weight | None = None,
    readme: str | None = None,
    changed: Container[str] | None = None,
) -> None:
    """Write a Hugging Face folder like `base`: the same names, dtypes, files and companions, with other weights.

    `weight(name, layer)` gives each tensor in any float dtype when its turn has come; without it they are the base's,
    and so are those that are not in `changed` (our names; None: all are). The base's are copied from file to file.
    The base may be a folder of `from-hf`. `out` must not exist; it appears when it is complete.
    """
    style, files = _hugging_face_layout(base)
    tied = base.config.text.tie_word_embeddings
    known = file_names(base.config, style) | ({HEAD: (EMBEDDING, None)} if tied else {})

    def tensor(name: str) -> Data:
        if weight is None or (changed is not None and known[name][0] not in changed):
            return base.where_bytes(*known[name])
        return np.asarray(weight(*known[name])).astype(base.dtype(*known[name]), copy=False)

    with new_folder(out) as partial:
        copy_companions(base.path, partial)
        for file, names in files.items():
            entries = {name: (base.dtype(*known[name]), file_shape(*known[name], base.config)) for name in names}
            write_safetensors(partial / file, entries, tensor)
        if list(files) != [SINGLE_FILE]:
            _write_index(partial, {name: file for file, names in files.items() for name in names})
        if readme is not None:
            (partial / "README.md").write_text(readme, encoding="utf-8")


def save_stacked_folder(out: Path, base: ModelFolder) -> None:
    """Write the weights under our names with the layers stacked, and beside them how they lay in `base`.

    Such a folder loads without stacking anything; `save_folder` gives the Hugging Face folder back bit for bit.
    """
    check_stack_dtypes(base)
    style, layout = _hugging_face_layout(base)
    entries = {name: (base.dtype(name), leaf.shape) for name, leaf in parameter_shapes(base.config).items()}
    with new_folder(out) as partial:
        copy_companions(base.path, partial)
        write_shards(partial, entries, base.where_bytes)
        (partial / LAYOUT_FILE).write_text(json.dumps({"style": style, "files": layout}, indent=1) + "\n")


def write_shards(
    folder: Path, entries: Mapping[str, Entry], tensor: Callable[[str], Data], most: int | None = None
) -> None:
    """Write tensors in the order of `entries` into files of at most `most` bytes (None: Hugging Face's 5 GB), with an
    index if they are several."""
    most, size, files = most or MAX_SHARD_BYTES, 0, [dict[str, Entry]()]
    for name, (dtype, shape) in entries.items():
        nbytes = math.prod(shape) * dtype.itemsize
        if files[-1] and size + nbytes > most:
            files.append({})
            size = 0
        files[-1][name] = (dtype, shape)
        size += nbytes
    where: dict[str, str] = {}
    for number, some in enumerate(files, start=1):
        file = SINGLE_FILE if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        write_safetensors(folder / file, some, tensor)
        where |= dict.fromkeys(some, file)
    if len(files) > 1:
        _write_index(folder, where)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into that gets its name when the block ends well, and is gone when it does not."""
    try:
        # A link cannot be replaced by a folder; where it leads would not be new.
        taken = out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir())))
        partial = out.with_name(out.name + PARTIAL)
        if not taken and partial.exists():
            shutil.rmtree(partial)
        if not taken:
            partial.mkdir(parents=True)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"{out}: cannot be written ({_reason(error)})") from None
    if taken:
        raise InputError(f"{out}: {'is a link' if out.is_symlink() else 'exists and is not empty'}; give a new folder")
    try:
        yield partial
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            raise InputError(f"{out}: cannot be written ({_reason(error)}); nothing of it is left") from None
        raise


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def copy_companions(source: Path, target: Path) -> None:
    """Config, generation config, tokenizer, chat template, processor files and licence, byte for byte."""
    for pattern in COMPANIONS:
        for path in sorted(source.glob(pattern)):
            if path.is_file() and path.name not in (INDEX_FILE, LAYOUT_FILE):
                shutil.copyfile(path, target / path.name)


def _hugging_face_layout(folder: ModelFolder) -> tuple[Style, dict[str, list[str]]]:
    """Style and files of the Hugging Face folder that this one is or came from; names in the order of their data."""
    if folder.style != "stacked":
        return folder.style, {file: list(opened.entries) for file, opened in folder.files.items()}
    path = folder.path / LAYOUT_FILE
    raw = read_json_object(path)
    style, files = raw.get("style"), raw.get("files")
    if style not in ("old", "new") or not isinstance(files, dict) or not all(map(_is_weight_file, files)):
        raise InputError(f"{path}: must name a style and files; convert the original folder again")
    names = [str(name) for listed in files.values() for name in (listed if isinstance(listed, list) else [])]
    expected = set(file_names(folder.config, style))
    tied = {HEAD} if folder.config.text.tie_word_embeddings else set()
    if len(set(names)) != len(names) or not expected <= set(names) <= expected | tied:
        raise InputError(f"{path}: does not list the weights of this config.json; convert the original folder again")
    return style, files


def _open_shards(path: Path) -> tuple[dict[str, SafetensorsFile], dict[str, str]]:
    """All weight files of a folder, and which of them holds each name."""
    if not (path / INDEX_FILE).is_file():
        if not (path / SINGLE_FILE).is_file():
            if pickled := sorted(found for found in path.iterdir() if found.suffix in PICKLED):
                raise InputError(f"{pickled[0]}: pickled weights are never loaded; convert them to safetensors")
            raise InputError(f"{path}: neither {SINGLE_FILE} nor {INDEX_FILE} is there")
        single = open_safetensors(path / SINGLE_FILE)
        return {SINGLE_FILE: single}, dict.fromkeys(single.entries, SINGLE_FILE)
    index = path / INDEX_FILE
    where = read_json_object(index).get("weight_map")
    if not isinstance(where, dict) or not where or not all(_is_plain_name(file) for file in where.values()):
        raise InputError(f"{index}: weight_map must map weights to files of this folder")
    files = {}
    for file in sorted(set(where.values())):
        if not file.endswith(".safetensors"):
            raise InputError(f"{index}: {file!r} is not a safetensors file; pickled weights are never loaded")
        if not (path / file).is_file():
            raise InputError(f"{path / file}: missing, though {INDEX_FILE} names it; is the download complete?")
        files[file] = open_safetensors(path / file)
    for name, file in where.items():
        if name not in files[file].entries:
            raise InputError(f"{path / file}: {name!r} is not in it, though {INDEX_FILE} says so")
    for file, opened in files.items():
        for name in opened.entries:
            if where.get(name) != file:
                raise InputError(f"{path / file}: {name!r} is in it, but not in {INDEX_FILE}")
    return files, where


def _write_index(folder: Path, where: Mapping[str, str]) -> None:
    """The index of the shards that lie in `folder`, in Hugging Face's form."""
    files = [open_safetensors(folder / file) for file in sorted(set(where.values()))]
    total = sum(entry.nbytes for file in files for entry in file.entries.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(where)}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_tied_head(folder: ModelFolder) -> None:
    """A head in the file of a tied model is a copy of the embedding, or the file contradicts its config."""
    embedding = folder.read(EMBEDDING)
    head = folder.files[folder.where[HEAD]].view(HEAD)
    if embedding.dtype != head.dtype or not np.array_equal(embedding, head):
        raise InputError(f"{folder.path}: {HEAD!r} differs from the embedding, though config.json ties them")


def _is_weight_file(file: object) -> bool:
    return _is_plain_name(file) and Path(str(file)).suffix == ".safetensors"


def _is_plain_name(file: object) -> bool:
    return isinstance(file, str) and file == Path(file).name and not file.startswith(".")
