"""Parameters out of a Hugging Face folder of sharded safetensors.

Reading is lazy: opening a folder checks every header against the model's names and shapes. A parameter, a slice of it
or all of them are then copied from the mapped files, one tensor at a time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object
from jaxvsr.models.huggingface.file_contents import check_sums, plain_sha256, weights_sha256
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
    FileBytes,
    SafetensorsFile,
    open_safetensors,
)
from jaxvsr.models.model_config import ModelConfig, stack_of
from jaxvsr.models.qwen_vl import parameter_shapes

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PARTIAL = ".partial"  # ends the name of a folder that is being written
TRAINED_AS_FILE = "trained_as.json"  # how the model was asked in training: it is of a model, not of its base
# All files but the weights; an export copies them unchanged. Python files are never copied.
COMPANIONS = ("*.json", "*.txt", "*.jinja", "LICENSE*", "NOTICE*", "README.md")
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
WEIGHT_DTYPES = tuple(np.dtype(name) for name in ("float32", "bfloat16", "float16"))
_COMPUTED_WITH = ("*.json", "*.txt", "*.jinja")  # these change how a model is asked and computed

# A weight by our name and its layer in a stack (None: all of them).
Weight = Callable[[str, int | None], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A checked model folder. Get one with `open_folder`."""

    path: Path
    config: ModelConfig
    style: Style
    files: Mapping[str, SafetensorsFile]  # by file name
    where: Mapping[str, str]  # name in the files: file name

    @functools.cached_property
    def contents(self) -> dict[str, str]:
        """`folder_contents` of it, read once."""
        return folder_contents(self)

    def dtype(self, name: str, layer: int | None = None) -> np.dtype:
        """The dtype that a parameter (our name), or a layer of a stack, has in the files."""
        tensors = self._tensors(name)
        return tensors[layer if layer and len(tensors) > 1 else 0].dtype

    def where_bytes(self, name: str, layer: int | None = None) -> list[FileBytes]:
        """The files' bytes of a parameter (our name), or of a layer of a stack, in order."""
        tensors = self._tensors(name)
        if layer is not None and len(tensors) > 1:
            tensors = tensors[layer : layer + 1]
        parts = [tensor.bytes for tensor in tensors]
        if layer is None or self.style != "stacked":
            return parts
        nbytes = parts[0].nbytes // tensors[0].shape[0]
        return [FileBytes(parts[0].path, parts[0].offset + layer * nbytes, nbytes)]

    def read(self, name: str, index: tuple[slice | int, ...] = (), dtype: np.dtype | None = None) -> np.ndarray:
        """One parameter (our name), or the part of it that `index` selects, copied from the files.

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
        """A parameter's tensors in the files, layer by layer."""
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
        """The part that `index` selects, in memory; a whole tensor is one read."""
        if out is None:
            out = np.empty(self.part_shape(index), dtype)
        whole = zip(index, self.shape, strict=False)
        if all(isinstance(part, slice) and part.indices(size) == (0, size, 1) for part, size in whole):
            return self.file.read(self.name, out)
        out[...] = self.file.view(self.name)[index]
        return out


def open_folder(path: Path) -> ModelFolder:
    """Check config, index and headers of a folder. An error names a missing, unexpected or mis-shaped weight."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; a model is a Hugging Face folder")
    if path.name.endswith(PARTIAL):
        raise InputError(f"{path}: was left by an interrupted conversion; run that again, it replaces this folder")
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
    """All parameters under our names. `dtype` None keeps that of the files, which must then be the same within a stack.

    Host memory peaks at the model's size plus one tensor.
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


def folder_contents(folder: ModelFolder, *, in_full: bool = False) -> dict[str, str]:
    """The SHA-256 of every file that a model is computed with: weights, config, tokenizer, chat template, processor.

    Args:
        in_full: read weights also where their hash is kept.

    Raises:
        InputError: a weight is not finite, or a file is not the one that the folder's SHA256SUMS names.
    """
    check_sums(folder.path, in_full=in_full)
    found = {name: weights_sha256(file, in_full=in_full) for name, file in folder.files.items()}
    for pattern in _COMPUTED_WITH:
        paths = [path for path in folder.path.glob(pattern) if path.is_file() and path.name != TRAINED_AS_FILE]
        found |= {path.name: plain_sha256(path) for path in paths}
    return dict(sorted(found.items()))


def _open_shards(path: Path) -> tuple[dict[str, SafetensorsFile], dict[str, str]]:
    """All weight files of a folder, and which of them holds each name."""
    if not (path / INDEX_FILE).is_file():
        if not (path / SINGLE_FILE).is_file():
            if pickled := sorted(found for found in path.iterdir() if found.suffix in PICKLED):
                raise InputError(f"{pickled[0]}: pickled weights are never loaded; convert them to safetensors")
            raise InputError(f"{path}: has neither {SINGLE_FILE} nor {INDEX_FILE}")
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


def _check_tied_head(folder: ModelFolder) -> None:
    """If the files of a tied model have a head, it must be a copy of the embedding."""
    embedding = folder.read(EMBEDDING)
    head = folder.files[folder.where[HEAD]].view(HEAD)
    if embedding.dtype != head.dtype or not np.array_equal(embedding, head):
        raise InputError(
            f"{folder.path}: {HEAD!r} differs from the embedding, but config.json ties them; "
            "a head of its own needs tie_word_embeddings false there, else take it out of the weights"
        )


def is_weight_file(file: object) -> bool:
    return _is_plain_name(file) and Path(str(file)).suffix == ".safetensors"


def _is_plain_name(file: object) -> bool:
    return isinstance(file, str) and file == Path(file).name and not file.startswith(".")
