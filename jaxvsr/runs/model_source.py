"""What a MODEL argument means: a Hugging Face folder, a hub id, a PEFT adapter, or a run; and its weights, merged, onto
a mesh.

A run's weights are its base folder with the adapters of all its stages merged in, one after the other: those of the
runs that it started from, then its own. So a run that starts from another trains fresh adapters on frozen merged
weights. A PEFT folder is read as such a stage on the base model that it names.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxvsr.buckets.fetching import fetched
from jaxvsr.buckets.places import named
from jaxvsr.buckets.urls import bucket_url
from jaxvsr.errors import InputError
from jaxvsr.files import json_sha256, read_json_object
from jaxvsr.models.huggingface.hf_config import CONFIG_FILE
from jaxvsr.models.huggingface.model_folder import (
    ModelFolder,
    Weight,
    folder_contents,
    open_folder,
)
from jaxvsr.models.huggingface.peft_adapter import ADAPTER_CONFIG, load_adapter
from jaxvsr.models.huggingface.safetensors_io import open_safetensors, write_safetensors
from jaxvsr.models.huggingface.stages import Stage, merged_weights
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import DtypeSetting, ModelConfig, VideoPrompt, stack_of
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.sharding import parameter_shardings
from jaxvsr.runs.array_digest import array_digest
from jaxvsr.runs.checkpoints import Checkpoints, OpenedRun, RunRecord, StageFile, is_run, open_run
from jaxvsr.runs.named_models import ROOMS_BASE, is_hub_id, named_folder
from jaxvsr.runs.run_folder import RunFolder

STAGES_FOLDER = "start"  # in a run folder: the weights of the runs that it started from


@dataclasses.dataclass(frozen=True)
class Model:
    """A base folder and what is merged into it."""

    name: str  # as the user gave it
    folder: ModelFolder
    base: str  # what the base was named by, which a run or an adapter carries on: a folder or hub id
    revision: str | None = None  # of the base
    stages: tuple[Stage, ...] = ()
    dtype_setting: DtypeSetting = "auto"  # `model.dtype` of a run
    video_prompt: VideoPrompt = "blocks"  # `data.video_prompt` of a run

    @property
    def config(self) -> ModelConfig:
        return self.folder.config

    @property
    def content_hash(self) -> str:
        """Of the base folder."""
        return json_sha256(self.folder.contents)

    def check_in_full(self) -> None:
        """`InputError` where the base's files are not what they were when their hashes were kept; reads all of them."""
        folder_contents(self.folder, in_full=True)

    @functools.cached_property
    def weight(self) -> Weight:
        """Any weight of the folder with all stages merged, in the base's dtype."""
        return merged_weights(self.folder, self.stages)

    @functools.cached_property
    def changed(self) -> set[str]:
        """Names of the weights that differ from the base's."""
        return set[str]().union(*(stage.changed for stage in self.stages))

    @functools.cached_property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of every parameter, in the dtype of the folder."""
        shapes = parameter_shapes(self.config)
        return {name: jax.ShapeDtypeStruct(leaf.shape, self.folder.dtype(name)) for name, leaf in shapes.items()}

    def shardings(self, mesh: Mesh) -> dict[str, NamedSharding]:
        """Where each parameter is on a mesh."""
        return parameter_shardings(self.shapes, mesh, self.config)

    def read(self, name: str, dtype: np.dtype | None = None) -> np.ndarray:
        """One parameter with all stages merged; in the base's dtype, or in `dtype`."""
        return self._reader(name, dtype)(())

    def _reader(self, name: str, dtype: np.dtype | None) -> Callable[[Any], np.ndarray]:
        """Part of a parameter by index. Only that part is read from the files, unless something is merged into it."""
        if name not in self.changed:
            return lambda index: self.folder.read(name, index, dtype)
        merged = self._merged(name, dtype or self.folder.dtype(name))
        return lambda index: merged[index]

    def _merged(self, name: str, dtype: np.dtype) -> np.ndarray:
        """A whole parameter, merged layer by layer: a stack in float32 might not fit into memory."""
        if stack_of(name) is None:
            return self.weight(name, None).astype(dtype, copy=False)
        out = np.empty(parameter_shapes(self.config)[name].shape, dtype)
        for layer in range(len(out)):
            out[layer] = self.weight(name, layer)
        return out

    def parameters(self, shardings: Mapping[str, NamedSharding], dtype: np.dtype | None = None) -> dict[str, jax.Array]:
        """The parameters that `shardings` names; each device receives only its slice."""
        shapes = parameter_shapes(self.config)
        return {
            name: jax.make_array_from_callback(shapes[name].shape, sharding, self._reader(name, dtype))
            for name, sharding in shardings.items()
        }


def open_model(argument: str, revision: str | None = None, base: str | None = None) -> Model:
    """The model that a folder, a hub id (at `revision`) or a run (`RUN`, `RUN@best`, `RUN@STEP`) means.

    Args:
        base: the base model of an adapter or a run, where it is not where they say; of a run it must be the same.

    Raises:
        InputError: there is no such model; it has no revisions; its weights are not finite; or a file of it has
            changed: a run's base folder, or one that jaxvsr wrote.
    """
    model = _open(argument, revision, base=base)
    _ = model.folder.contents  # its weights and files are checked now, before anything is made of them
    return model


def _open(argument: str, revision: str | None, adapters: tuple[Path, ...] = (), base: str | None = None) -> Model:
    """`open_model` of the base model of `adapters`, each on the next."""
    if not argument:
        raise InputError(
            f"no model given: --model FOLDER, a hub id such as Qwen/Qwen2-VL-2B-Instruct, a run, or {ROOMS_BASE}"
        )
    kind = "a run" if is_run(argument) else "a folder" if _is_there(argument) else None
    if revision is not None and (kind or argument == ROOMS_BASE):
        what = kind or "part of jaxvsr"
        raise InputError(f"revision {revision!r}: only a hub id has revisions, {argument!r} is {what}; leave it out")
    if kind and argument == ROOMS_BASE:
        raise InputError(
            f"model {ROOMS_BASE!r}: is the model that comes with jaxvsr, and {kind} of that name is here; give "
            f"./{ROOMS_BASE} for what is here, or rename it"
        )
    if kind == "a run":
        return _of_run(argument, open_run(argument), base)
    if kind == "a folder":
        return _of_folder(argument, fetched(argument), None, adapters, base)
    if argument == ROOMS_BASE:
        _check_no_base(argument, base)
        return Model(argument, open_folder(named_folder(argument)), argument)
    if is_hub_id(argument):
        return _of_folder(argument, named_folder(argument, revision), revision, adapters, base)
    raise InputError(
        f"model {argument!r}: no such folder, and neither a run, a hub id (ORGANISATION/NAME) nor {ROOMS_BASE}"
    )


def _is_there(folder: str) -> bool:
    return bucket_url(folder) is not None or Path(folder).is_dir()


def _check_no_base(argument: str, base: str | None) -> None:
    if base is not None:
        raise InputError(
            f"--base {base}: only an adapter or a run has a base model, {argument!r} is a model; leave it out"
        )


def _of_folder(
    argument: str, folder: Path, revision: str | None, adapters: tuple[Path, ...], given_base: str | None
) -> Model:
    """A model, or where there is an adapter and no model, the adapter on the base model that it names."""
    if not (folder / ADAPTER_CONFIG).is_file() or (folder / CONFIG_FILE).is_file():
        _check_no_base(argument, given_base)
        return Model(argument, open_folder(folder), argument, revision)
    if folder.resolve() in adapters:
        raise InputError(
            f"{folder}: base_model_name_or_path names the adapter itself as its base model; it must name a model"
        )
    adapters = (*adapters, folder.resolve())
    named = read_json_object(folder / ADAPTER_CONFIG)
    base, its_revision = named.get("base_model_name_or_path"), named.get("revision")
    if given_base is not None:
        base, its_revision = given_base, None
    if not isinstance(base, str) or not base:
        raise InputError(
            f"{folder / ADAPTER_CONFIG}: base_model_name_or_path {base!r} must name the base model; or give one with "
            "--base FOLDER"
        )
    if not isinstance(its_revision, str | None):
        raise InputError(
            f"{folder / ADAPTER_CONFIG}: revision {its_revision!r} must be a branch, tag or commit of the base model, "
            "or null"
        )
    try:
        model = _open(base, its_revision, adapters)
    except InputError as error:
        way_out = "" if given_base else "; give the folder where it is here with --base FOLDER"
        raise InputError(f"{folder / ADAPTER_CONFIG}: its base model cannot be opened: {error}{way_out}") from None
    adapter = load_adapter(folder, model.config)
    return dataclasses.replace(model, name=argument, stages=(*model.stages, adapter))


def reopen_model(run_folder: Path, base: str | None = None) -> Model | None:
    """The model that the run in a folder started from, out of its own record and its own copies of earlier runs'
    weights; None where it has no checkpoint, or a base alone that is not where it was.

    Args:
        base: where the base model is now; None: where it was.

    Raises:
        InputError: the base folder is gone or has changed, or a copy is missing.
    """
    folder = RunFolder(run_folder).checkpoints
    if not folder.is_dir():
        return None
    checkpoints = Checkpoints(folder)
    try:
        record = None if checkpoints.latest is None else checkpoints.record(checkpoints.latest)
    finally:
        checkpoints.close()
    if record is None or not (record.stages or base or _is_there(record.base_folder)):
        return None  # it may be at the same relative path elsewhere: restoring compares its hash
    if base and not _is_there(base) and _is_there(record.base_folder):
        base = None  # a relative path of the run's config, seen from another folder
    return _recorded(record.base, run_folder, record, base)


def _of_run(argument: str, run: OpenedRun, base: str | None) -> Model:
    started = _recorded(argument, run.folder, run.record, base)
    return dataclasses.replace(
        started,
        stages=(*started.stages, Stage(run.weights, run.lora)),
        dtype_setting=run.dtype_setting,
        video_prompt=run.video_prompt,
    )


def _recorded(name: str, run_folder: Path, record: RunRecord, base: str | None = None) -> Model:
    """The model that a run started from."""
    path = fetched(base or record.base_folder)
    if not path.is_dir():
        raise InputError(
            f"model {name!r}: its base model {record.base} is not at {path} any more; give the folder where it is now "
            "with --base FOLDER"
        )
    folder = open_folder(path)
    found = folder.contents
    if json_sha256(found) != record.content_hash:
        files = [file for file in sorted({*found, *record.files}) if found.get(file) != record.files.get(file)]
        raise InputError(
            f"model {name!r}: its base model at {path} has changed since the run was made ({', '.join(files)}); "
            "put it back as it was, or give the folder of the right one with --base FOLDER"
        )
    stages = tuple(Stage(_read_stage(run_folder / stage.file, stage.digest), stage.lora) for stage in record.stages)
    return Model(name, folder, record.base, record.revision, stages)


def _read_stage(path: Path, digest: str | None) -> dict[str, np.ndarray]:
    file = open_safetensors(path)
    weights = {name: np.array(file.read(name)) for name in file.entries}
    if digest is not None and stage_digest(weights) != digest:
        raise InputError(f"{path}: the bits are not those that the run saved; take it from a copy of the run")
    return weights


def stage_digest(weights: Mapping[str, Any]) -> str:
    """Of a stage's weights in host memory, by name."""
    return json_sha256({name: array_digest(np.asarray(weight)) for name, weight in weights.items()})


def start_record(model: Model, lora: LoraConfig | None = None) -> RunRecord:
    """The record of a run that starts from `model` and trains an adapter of `lora`; None: full weights."""
    stages = tuple(
        StageFile(_stage_file(number), stage.lora, stage_digest(stage.weights))
        for number, stage in enumerate(model.stages)
    )
    folder = named(os.path.abspath(model.folder.path))
    return RunRecord(
        model.base, folder, model.revision, model.content_hash, stages, lora=lora, files=model.folder.contents
    )


def write_stages(model: Model, run_folder: Path) -> None:
    """Keep the weights of the stages in the folder of the run that starts from them."""
    for number, stage in enumerate(model.stages):
        path = run_folder / _stage_file(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {name: np.asarray(weight) for name, weight in stage.weights.items()}
        entries = {name: (weight.dtype, weight.shape) for name, weight in weights.items()}
        write_safetensors(path, entries, weights.__getitem__)


def _stage_file(number: int) -> str:
    return f"{STAGES_FOLDER}/stage-{number}.safetensors"
