"""From a model's name to a policy on the devices."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import jax
from jax.sharding import Mesh

from jaxvsr.api.policy import Policy
from jaxvsr.config.algorithm import OptimizerConfig
from jaxvsr.config.train_config import DataSettings, ModelSettings, TrainConfig
from jaxvsr.devices.choose_devices import keep_compiled_programs
from jaxvsr.devices.mesh import open_mesh, scene_shards
from jaxvsr.devices.mesh_shape import DeviceKind, MeshShape, check_mesh
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.lora import LoraConfig
from jaxvsr.runs.model_source import open_model
from jaxvsr.runs.trained_as import prompt_of, trained_as
from jaxvsr.training.load_policy import load_policy

DEFAULT_LORA = LoraConfig()
UNTRAINED_PROMPT = DataSettings().prompt


def load(
    model: str | Path = "rooms-base",
    *,
    lora: LoraConfig | None = DEFAULT_LORA,
    optimizer: OptimizerConfig | None = None,
    prompt: str | None = None,
    revision: str | None = None,
    base: str | None = None,
    max_pixels: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    mesh: str | None = None,
    device: DeviceKind = "auto",
    steps: int = 1000,
    reference: bool = True,
) -> Policy:
    """A policy on the devices.

    Args:
        model: a Hugging Face folder, a hub id, a run (`RUN`, `RUN@best`, `RUN@STEP`), or `rooms-base`, the small model
            that is part of jaxvsr.
        lora: the adapter that is trained; None trains the language model's own weights.
        optimizer: AdamW's settings; None has a constant learning rate of 1e-5.
        steps: updates over which the optimizer's schedule goes, where it has one.
        prompt: how a question is put to the model: a name of `prompts.PROMPTS`, or a file. None is the one that a run,
            its export or `rooms-base` was trained with, and for other models the question alone.
        base: the base model of an adapter or a run, where it is not where they say.
        max_pixels: of a frame at most; None takes frames as they are, within the limits of the model folder.
        dtype: of activations; auto is what a run was trained in, else float32 on CPU and bfloat16 elsewhere.
        mesh: `4`, or `fsdp=2,tensor=2`; None: one device.
        reference: with `lora=None`, keep a copy of the weights as reference policy, which a KL term needs.

    Raises:
        InputError: there is no such model, prompt or mesh.
    """
    source, trained = open_model(str(model), revision, base), trained_as(str(model), revision)
    template = prompt_of(trained, prompt, UNTRAINED_PROMPT)
    on_mesh, _ = start_devices(device, mesh)
    check_mesh(
        MeshShape(**dict(on_mesh.shape)),
        scenes=scene_shards(on_mesh),
        attention_heads=source.config.text.num_attention_heads,
    )
    config = TrainConfig(
        model=ModelSettings(
            path=str(model), revision=revision, base=base, dtype=source.dtype_setting if dtype == "auto" else dtype
        ),
        lora=lora,
        data=DataSettings(prompt=prompt or template.name, max_pixels=max_pixels, video_prompt=source.video_prompt),
        optimizer=optimizer or OptimizerConfig(schedule="constant"),
        steps=steps,
    )
    processor = SceneProcessor.from_folder(source.folder.path, max_pixels=max_pixels, video_prompt=source.video_prompt)
    return Policy(load_policy(config, source, processor, on_mesh, keep_reference=reference), template)


def start_devices(device: DeviceKind, mesh: str | None, *, deterministic: bool = False) -> tuple[Mesh, str]:
    """The mesh, and a line that describes it; None is one device. Compiled programs are kept, as by the commands."""
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        keep_compiled_programs()
    return open_mesh(device, mesh or "1", deterministic=deterministic)
