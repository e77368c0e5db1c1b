"""Vision features computed once a scene (`build_data.py features`), and whether a run may use those that are stored.

A tower that is frozen and carries no LoRA gives the same tokens for a scene in every step. With them stored it does not
run at all: the loader hands them on, and no pixels are read.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.features import FeatureStore, stored_sets
from jaxvsr.data.frames import FrameStore
from jaxvsr.data.scene_pools import ScenePool
from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.devices.processes import sum_of_processes
from jaxvsr.errors import InputError
from jaxvsr.models.inputs.processor import SceneProcessor, ScenePrompt, Video
from jaxvsr.models.model_config import ComputeDtype
from jaxvsr.models.qwen_vl import bind, model_definition, parameter_shapes
from jaxvsr.models.tree import ForwardOptions, encode_vision
from jaxvsr.models.tree_batch import TreePrompt
from jaxvsr.runs.model_source import Model

_NAME_DIGITS = 12  # of the weights' hash, in the name of a set


def vision_weights_hash(model: Model) -> str:
    """SHA-256 of tower and patch merger as a run that starts from `model` has them, shapes and settings included."""
    digest = hashlib.sha256(repr(model.config.vision).encode())
    for name in _visual_names(model):
        weight = np.ascontiguousarray(model.read(name))
        digest.update(f"{name} {weight.dtype} {weight.shape}".encode())
        digest.update(weight.view(np.uint8).data)
    return digest.hexdigest()


def set_name(model: Model, dtype: ComputeDtype) -> str:
    """Name of the set of features that belongs to a model, computed in `dtype`."""
    return f"{vision_weights_hash(model)[:_NAME_DIGITS]}-{dtype}"


@dataclasses.dataclass(frozen=True)
class FeatureReport:
    """How many arrays were written now, and how many lay there already, by all processes together."""

    name: str
    written: int
    kept: int


def write_features(
    folder: Path,
    model: Model,
    processor: SceneProcessor,
    *,
    dtype: ComputeDtype,
    counts: Sequence[int] = (),
    views: Iterable[bool] = (False,),
    scenes: Sequence[str] | None = None,
    device: jax.Device | None = None,
    on_done: Callable[[str], object] = lambda scene: None,
) -> FeatureReport:
    """Store the features of all scenes of a data folder; what fits its frames already is kept.

    Of several processes each takes every n-th scene, and all return when the last one is done.

    Args:
        counts: of frames; none takes all that are stored of a scene.
        views: False for the scene as it was seen, True for its mirror image.
        scenes: None takes all.

    Raises:
        InputError: frames are missing or broken.
    """
    frame_store, name = FrameStore(folder), set_name(model, dtype)
    store, encode = FeatureStore(folder, name), _Encoder(model, processor, dtype, device or jax.devices()[0])
    written = kept = 0
    for scene in (frame_store.scenes() if scenes is None else scenes)[jax.process_index() :: jax.process_count()]:
        if frame_store.is_image_set(scene):
            raise InputError(f"{folder}: {scene} is a set of images; vision features are stored of videos alone")
        for count in counts or frame_store.counts(scene):
            height, width = frame_store.attributes(scene)["height_width"]
            size = processor.frame_size(count, height, width, is_video=True)
            for mirrored in views:
                if store.stale_reason(scene, count, mirrored=mirrored, size=size) is None:
                    kept += 1
                    continue
                frames = frame_store.read(scene, count)
                seen = frames.mirrored() if mirrored else frames
                features = encode(Video(seen.pixels, seen.timestamps))
                parts = model.config.vision.feature_parts
                store.write(scene, count, features, mirrored=mirrored, size=size, model=model.name, parts=parts)
                written += 1
        on_done(scene)
    written, kept = sum_of_processes((written, kept)).tolist()
    return FeatureReport(name, written, kept)


class _Encoder:
    """One scene after another through the tower, on one device."""

    def __init__(self, model: Model, processor: SceneProcessor, dtype: ComputeDtype, device: jax.Device):
        shardings, config = model.shardings(make_mesh(MeshShape(), [device])), model.config
        self._processor, self._device = processor, device
        self._weights = model.parameters({name: shardings[name] for name in _visual_names(model)})
        definition, everything = model_definition(config), parameter_shapes(config)

        def program(weights: dict[str, jax.Array], prompt: TreePrompt) -> jax.Array:
            # Nothing reads the language model's zeros, so they are never made.
            unread = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in everything.items()}
            return encode_vision(bind(definition, {**unread, **weights}), prompt, ForwardOptions(dtype=dtype))

        self._program = CompiledFunction("features", program)

    def __call__(self, video: Video) -> Float[np.ndarray, "rows units W"]:
        encoded = self._processor.encode(ScenePrompt((video,), ("",)))
        prompt = self._processor.collate([encoded])
        padded = self._program(self._weights, jax.device_put(prompt, self._device))
        (layout,), rows = encoded.layouts, encoded.rows
        assert prompt.pixels is not None
        by_row = np.asarray(padded[0]).reshape(prompt.pixels.patches.shape[1], -1, padded.shape[-1])
        return np.ascontiguousarray(by_row[:rows, layout.unit_slot])


def usable_features(
    config: TrainConfig,
    model: Model,
    processor: SceneProcessor,
    pools: Sequence[ScenePool],
    *,
    dtype: ComputeDtype,
    trains_vision: bool,
) -> str | None:
    """The set of features that a run reads instead of pixels; None where its tower runs.

    `data.features`: `off` never looks at them; `auto` takes them where the data folders have any; `require` insists.

    Raises:
        InputError: features are there but of another model, or not for all scenes; or required and not usable.
    """
    asked, folders = config.data.features, sorted({pool.folder for pool in pools})
    if asked == "off":
        return None
    why_not = _runs_anyway(config, model, trains_vision)
    stored = {folder: stored_sets(folder) for folder in folders}
    if asked == "auto" and (why_not or not any(stored.values())):
        return None
    if why_not:
        raise InputError(f"data.features=require: {why_not}; take data.features=off")
    name = set_name(model, dtype)
    for folder in folders:
        if name not in stored[folder]:
            others = ", ".join(f"{other} of {made_with}" for other, made_with in stored[folder].items()) or "none"
            raise InputError(
                f"{folder}: no vision features of this model in {dtype} ({name}), there are {others}; "
                f"{_command(folder, config, dtype)} writes them, or data.features=off lets the tower run"
            )
    for pool in pools:
        _check_pool(pool, name, config, processor, dtype)
    return name


def _runs_anyway(config: TrainConfig, model: Model, trains_vision: bool) -> str | None:
    """Why the tower has to run whatever is stored."""
    if trains_vision:
        return "the vision tower is trained in this run"
    if config.data.blank:
        return "blank frames have no stored features"
    if config.model.reference == "base" and model.stages:
        return "the reference policy has a vision tower of its own (model.reference=base)"
    return None


def _check_pool(
    pool: ScenePool, name: str, config: TrainConfig, processor: SceneProcessor, dtype: ComputeDtype
) -> None:
    frames, frame_store, store = config.data.frames, FrameStore(pool.folder), FeatureStore(pool.folder, name)
    wrong: dict[str, str] = {}
    for scene in pool.scenes:
        height, width = frame_store.attributes(scene.name)["height_width"]
        size = processor.frame_size(frames, height, width, is_video=True)
        for mirrored in (False, True) if scene.mirrored else (False,):
            reason = store.stale_reason(scene.name, frames, mirrored=mirrored, size=size)
            if reason is not None:
                wrong[scene.name + (" mirrored" if mirrored else "")] = reason
    if wrong:
        first, reason = next(iter(wrong.items()))
        raise InputError(
            f"{pool.folder}: vision features of {len(wrong)} views do not fit, the first is {first} ({reason}); "
            f"{_command(pool.folder, config, dtype)} writes them, or data.features=off lets the tower run"
        )


def _command(folder: Path, config: TrainConfig, dtype: ComputeDtype) -> str:
    pixels = f" --max-pixels {config.data.max_pixels}" if config.data.max_pixels else ""
    mirror = " --mirror" if config.data.mirror == "pairs" else ""
    return (
        f"build_data.py features {folder} --model {config.model.path} --frames {config.data.frames} "
        f"--dtype {dtype}{pixels}{mirror}"
    )


def _visual_names(model: Model) -> list[str]:
    return sorted(name for name in parameter_shapes(model.config) if name.startswith("visual."))
