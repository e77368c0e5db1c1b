"""Writing parameters to a Hugging Face folder of sharded safetensors.

A written folder has the names, the split into files and, unless another is asked for, the dtypes of the folder that its
weights came from.
"""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object
from jaxvsr.locks import only_maker
from jaxvsr.models.huggingface.file_contents import write_sums
from jaxvsr.models.huggingface.hf_config import CONFIG_FILE
from jaxvsr.models.huggingface.model_folder import (
    COMPANIONS,
    INDEX_FILE,
    SINGLE_FILE,
    TRAINED_AS_FILE,
    ModelFolder,
    Weight,
    check_stack_dtypes,
    is_weight_file,
)
from jaxvsr.models.huggingface.parameter_names import EMBEDDING, HEAD, Style, file_names, file_shape
from jaxvsr.models.huggingface.safetensors_io import Data, Entry, is_finite, open_safetensors, write_safetensors
from jaxvsr.models.qwen_vl import parameter_shapes

LAYOUT_FILE = "hf_layout.json"  # in a folder of `from-hf`: names and files of the Hugging Face folder
MAX_SHARD_BYTES = 5_000_000_000  # Hugging Face's
# Errors of the disk while a folder is written, not faults in our code.
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def save_folder(
    out: Path,
    base: ModelFolder,
    weight: Weight | None = None,
    texts: Mapping[str, str] | None = None,
    changed: Container[str] | None = None,
    dtype: str | None = None,
) -> None:
    """Write a Hugging Face folder like `base`: the same names, dtypes, files and companions, with other weights.

    `weight(name, layer)` gives each tensor in any float dtype when its turn comes; None: all are the base's. Tensors
    that are not in `changed` (our names; None: all are in it) are the base's too, copied from file to file. `texts` are
    further files by name. With a `dtype` all tensors have it, and the config says so. The base may be a folder of
    `from-hf`. `out` must not exist; it appears when it is complete.
    """
    style, files = _hugging_face_layout(base)
    tied = base.config.text.tie_word_embeddings
    known = file_names(base.config, style) | ({HEAD: (EMBEDDING, None)} if tied else {})

    def dtype_of(name: str) -> np.dtype:
        return base.dtype(*known[name]) if dtype is None else np.dtype(dtype)

    def tensor(name: str) -> Data:
        kept = weight is None or (changed is not None and known[name][0] not in changed)
        if kept and dtype_of(name) == base.dtype(*known[name]):
            return base.where_bytes(*known[name])
        ours, layer = known[name]
        whole = base.read(ours, () if layer is None else (layer,)) if weight is None else weight(ours, layer)
        return _rounded(name, np.asarray(whole), dtype_of(name))

    with new_folder(out) as partial:
        copy_companions(base.path, partial)
        for file, names in files.items():
            entries = {name: (dtype_of(name), file_shape(*known[name], base.config)) for name in names}
            write_safetensors(partial / file, entries, tensor)
        if list(files) != [SINGLE_FILE]:
            _write_index(partial, {name: file for file, names in files.items() for name in names})
        if dtype is not None:
            config = _with_dtype(read_json_object(partial / CONFIG_FILE), dtype)
            if "dtype" not in config:
                config["torch_dtype"] = dtype
            write_texts(partial, {CONFIG_FILE: json.dumps(config, indent=2) + "\n"})
        write_texts(partial, texts)


def _rounded(name: str, weight: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The weight in a dtype; `InputError` where a finite number is none there."""
    with np.errstate(over="ignore"):
        rounded = weight.astype(dtype, copy=False)
    if rounded is not weight and not is_finite(rounded) and is_finite(weight):
        largest = float(np.abs(weight.astype(np.float32)).max())
        raise InputError(f"{name}: holds {largest:g}, which is no number in {dtype}; take --dtype bfloat16 or float32")
    return rounded


def _with_dtype(config: Any, dtype: str) -> Any:
    """A config whose fields named dtype or torch_dtype, nested ones too, are this one."""
    if not isinstance(config, dict):
        return config
    return {
        key: dtype if key in ("dtype", "torch_dtype") else _with_dtype(value, dtype) for key, value in config.items()
    }


def save_stacked_folder(out: Path, base: ModelFolder, texts: Mapping[str, str] | None = None) -> None:
    """Write the weights under our names with the layers stacked, and a file that records the layout of `base`.

    Such a folder loads without stacking; `save_folder` turns it back into the Hugging Face folder, bit for bit.
    """
    check_stack_dtypes(base)
    style, layout = _hugging_face_layout(base)
    entries = {name: (base.dtype(name), leaf.shape) for name, leaf in parameter_shapes(base.config).items()}
    with new_folder(out) as partial:
        copy_companions(base.path, partial)
        write_shards(partial, entries, base.where_bytes)
        (partial / LAYOUT_FILE).write_text(json.dumps({"style": style, "files": layout}, indent=1) + "\n")
        write_texts(partial, texts)


def write_shards(
    folder: Path, entries: Mapping[str, Entry], tensor: Callable[[str], Data], most: int | None = None
) -> None:
    """Write tensors in the order of `entries` into files of at most `most` bytes (None: Hugging Face's 5 GB), with an
    index if there are several."""
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


def check_new(out: Path) -> None:
    """Raises `InputError` where no new folder can be: something is there."""
    try:
        # A folder cannot replace a link, and the link's target would not be new.
        taken = out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir())))
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"{out}: cannot be written ({_reason(error)})") from None
    if taken:
        raise InputError(f"{out}: {'is a link' if out.is_symlink() else 'exists and is not empty'}; give a new folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into. It gets its SHA256SUMS and its name at the end of the block; after an error it is
    deleted."""
    check_new(out)
    try:
        with only_maker(out) as partial:
            yield partial
            write_sums(partial)
    except OSError as error:
        if error.errno in _CANNOT_WRITE:
            raise InputError(f"{out}: cannot be written ({_reason(error)}); the partial folder was deleted") from None
        raise


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def write_texts(folder: Path, texts: Mapping[str, str] | None) -> None:
    """Files of text by name."""
    for name, text in (texts or {}).items():
        (folder / name).write_text(text, encoding="utf-8")


def copy_companions(source: Path, target: Path) -> None:
    """Config, generation config, tokenizer, chat template, processor files and licence, byte for byte."""
    for path in _companions(source, COMPANIONS):
        shutil.copyfile(path, target / path.name)


def copy_processor(source: Path, target: Path) -> None:
    """Tokenizer, chat template and processor files alone, byte for byte."""
    for path in _companions(source, ("*.json", "*.txt", "*.jinja")):
        if path.name not in (CONFIG_FILE, "generation_config.json"):
            shutil.copyfile(path, target / path.name)


def _companions(folder: Path, patterns: Iterable[str]) -> list[Path]:
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    return [path for path in found if path.name not in (INDEX_FILE, LAYOUT_FILE, TRAINED_AS_FILE)]


def _hugging_face_layout(folder: ModelFolder) -> tuple[Style, dict[str, list[str]]]:
    """Style and files of the Hugging Face folder that this one is or came from; names in the order of their data."""
    if folder.style != "stacked":
        return folder.style, {file: list(opened.entries) for file, opened in folder.files.items()}
    path = folder.path / LAYOUT_FILE
    raw = read_json_object(path)
    style, files = raw.get("style"), raw.get("files")
    if style not in ("old", "new") or not isinstance(files, dict) or not all(map(is_weight_file, files)):
        raise InputError(f"{path}: must have a style and files; convert the original folder again")
    names = [str(name) for listed in files.values() for name in (listed if isinstance(listed, list) else [])]
    expected = set(file_names(folder.config, style))
    tied = {HEAD} if folder.config.text.tie_word_embeddings else set()
    if len(set(names)) != len(names) or not expected <= set(names) <= expected | tied:
        raise InputError(f"{path}: does not list the weights of this config.json; convert the original folder again")
    return style, files


def _write_index(folder: Path, where: Mapping[str, str]) -> None:
    """The index of the shards in `folder`, in Hugging Face's form."""
    files = [open_safetensors(folder / file) for file in sorted(set(where.values()))]
    total = sum(entry.nbytes for file in files for entry in file.entries.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(where)}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
