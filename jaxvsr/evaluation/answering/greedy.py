"""Greedy decoding of a model on a mesh, by the scene tree with G = 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.devices.mesh import scene_shards
from jaxvsr.devices.mesh_shape import MeshShape, check_mesh
from jaxvsr.devices.processes import SceneAxis, largest_of_processes, own_rows
from jaxvsr.devices.targets import device_memory
from jaxvsr.errors import InputError
from jaxvsr.grpo.sampler import SamplingOptions, rollout_keys, sample
from jaxvsr.models.decode_plan import decode_plan, decoding_weights
from jaxvsr.models.inputs.collate import EncodedScene, TreeShape
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.model_config import VideoPrompt, compute_dtype
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tree import ForwardOptions
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt
from jaxvsr.runs.model_source import Model


class GreedyModel:
    """A model on a mesh that answers greedily; each bucket of shapes compiles one program.

    A run computes in the dtype that it was trained in (`model.dtype`).

    Args:
        answer_tokens: the most tokens of an answer, its end-of-sequence token included.
        max_pixels: pixel budget per frame; None: frames as they are stored (`SceneProcessor.from_folder`).
        video_prompt: how a video of Qwen3-VL is written; None: as the run was trained with.
        min_pixels: the least per frame, beside `max_pixels`; None: the model folder's.
    """

    def __init__(
        self,
        model: Model,
        mesh: Mesh,
        *,
        answer_tokens: int,
        max_pixels: int | None = None,
        video_prompt: VideoPrompt | None = None,
        min_pixels: int | None = None,
    ):
        check_mesh(
            MeshShape(**dict(mesh.shape)),
            scenes=scene_shards(mesh),
            attention_heads=model.config.text.num_attention_heads,
        )
        self.mesh = mesh
        self.processor = SceneProcessor.from_folder(
            model.folder.path,
            max_pixels=max_pixels,
            video_prompt=video_prompt or model.video_prompt,
            min_pixels=min_pixels,
        )
        chat = self.processor.chat
        self._sampling = SamplingOptions(
            group=1,
            answer_tokens=answer_tokens,
            eos_ids=chat.eos_token_ids,
            pad_id=chat.generation.pad_token_id,
            suppressed_ids=chat.suppressed_token_ids,
            greedy=True,
            repetition_penalty=chat.generation.repetition_penalty,
        )
        self._dtype_setting = model.dtype_setting
        self._forward = ForwardOptions(dtype=compute_dtype(model.dtype_setting, mesh.devices.flat[0].platform))
        self._definition = model_definition(model.config)
        self._shardings = model.shardings(mesh)
        self._parameters = model.parameters(self._shardings)
        dtype, memory = self._forward.compute_dtype, device_memory(mesh.devices.flat[0])
        self._plan = decode_plan(self._parameters, (), model.config, dtype, mesh, memory)
        self._shape: TreeShape | None = None
        self.program = CompiledFunction("answers", self._program, mesh=mesh)

    @property
    def scene_shards(self) -> int:
        """The number of scenes in a batch is a multiple of this."""
        return scene_shards(self.mesh)

    @property
    def repetition_penalty(self) -> float:
        """That of the folder's `generation_config.json`, as Hugging Face's `generate` applies it; 1: none."""
        return self._sampling.repetition_penalty

    def load(self, model: Model) -> None:
        """Replace the weights by others of the same shape, such as another checkpoint of the run."""
        if (model.config, model.dtype_setting) != (self.processor.config, self._dtype_setting):
            raise InputError(f"model {model.name}: its config or model.dtype differs from that of the one before")
        self._parameters = {}  # frees the device's memory before the next ones come
        self._parameters = model.parameters(self._shardings)

    def answer(self, scenes: Sequence[EncodedScene], batch_size: int | None = None) -> list[list[str]]:
        """The completions [S][Q] of this process's scenes, each with Q questions.

        `batch_size` is the number of scenes of all processes, a multiple of `scene_shards`; None: those of this one.
        """
        own = dataclasses.astuple(self.processor.shape(scenes))
        needed = TreeShape(*map(int, largest_of_processes(own)))
        self._shape = needed if self._shape is None else _larger(self._shape, needed)  # shapes only grow
        axis = SceneAxis(self.mesh, batch_size or len(scenes))
        prompt = axis.place(self.processor.collate(scenes, self._shape))
        rollouts = self.program(self._parameters, prompt)
        texts = self.processor.decode(RolloutTokens(own_rows(rollouts.tokens), own_rows(rollouts.length)))
        return [[answer for (answer,) in scene] for scene in texts]

    def _program(self, parameters: dict[str, jax.Array], prompt: TreePrompt) -> RolloutTokens:
        dtype, config = self._forward.compute_dtype, self.processor.config
        model = bind(self._definition, decoding_weights(parameters, self._plan, config, dtype, self.mesh))
        no_seed = jnp.zeros((), jnp.uint32)  # the sampler takes keys, but draws nothing when it is greedy
        keys = rollout_keys(no_seed, jnp.zeros((), jnp.int32), jnp.zeros(prompt.question_length.shape, jnp.uint32), 1)
        temperature = jnp.ones((), jnp.float32)
        how = self._plan.scanned
        return sample(model, prompt, keys, temperature, self._sampling, self._forward, scanned=how).rollouts


def _larger(one: TreeShape, other: TreeShape) -> TreeShape:
    return TreeShape(*map(max, zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)))
