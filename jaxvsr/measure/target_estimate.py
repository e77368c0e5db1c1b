"""Memory and seconds of a step on chips that are not here, by arithmetic: to choose what is worth compiling.

Weights, state, caches and what a forward pass must keep are counted exactly; temporaries are the few largest arrays.
Seconds are products at `USUAL_SHARE` of the peak, decoding at the same share of the bandwidth, and what the chips send.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.devices.targets import Target
from jaxvsr.measure.dry_run import reads_reference
from jaxvsr.measure.flops import StepSizes, decode_bytes, needed_flops
from jaxvsr.models.decode_plan import room_for_copies
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import ModelConfig, Remat
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.sharding import parameter_spec, without_fsdp
from jaxvsr.models.tree import ForwardOptions
from jaxvsr.training.load_policy import trains_vision

USUAL_SHARE = 0.5  # of a chip's peak or bandwidth, as the TPU's compiler counts most programs of this step
ITEM, WIDE = 2, 4  # bytes of bfloat16 and float32
MOST_TENSOR = 8  # devices that share one token's heads: those of one host


@dataclasses.dataclass(frozen=True)
class Settings:
    """What may be changed of a run so that it fits: nothing that changes its results but the number of scenes."""

    mesh: MeshShape
    remat: Remat
    accumulation: int
    scenes: int

    def flags(self, config: TrainConfig) -> str:
        """As `train.py` takes them, those that are another than the config's."""
        spec = ",".join(f"{axis}={size}" for axis, size in dataclasses.asdict(self.mesh).items() if size > 1)
        found = [f"--mesh {spec or 1}"]
        if self.remat != config.model.remat:
            found.append(f"--set model.remat={self.remat}")
        if self.accumulation != config.update.accumulation:
            found.append(f"--set update.accumulation={self.accumulation}")
        if self.scenes != config.data.scenes:
            found.append(f"--set data.scenes={self.scenes}")
        return " ".join(found)

    def applied(self, config: TrainConfig) -> TrainConfig:
        return dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, remat=self.remat),
            data=dataclasses.replace(config.data, scenes=self.scenes),
            update=dataclasses.replace(config.update, accumulation=self.accumulation),
            mesh=dataclasses.replace(config.mesh, spec=str(self.mesh)),
        )


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one step, on each device."""

    memory: Mapping[str, int]  # bytes by program, all that lies there included
    seconds: float  # a step
    asked: int  # questions a step

    @property
    def most(self) -> int:
        return max(self.memory.values())

    @property
    def seconds_per_question(self) -> float:
        return self.seconds / self.asked


def settings_for(config: TrainConfig, model: ModelConfig, devices: int, scenes: int) -> Iterator[Settings]:
    """All settings for this number of devices and scenes."""
    heads = model.text.num_attention_heads
    for tensor in _divisors(devices):
        if tensor > MOST_TENSOR or heads % tensor:
            continue
        for data in _divisors(devices // tensor):
            mesh = MeshShape(data, devices // tensor // data, tensor)
            if scenes % mesh.scene_shards:
                continue
            remats: tuple[Remat, ...] = ("none", "dots", "full")
            for remat in remats:
                for parts in _divisors(scenes // mesh.scene_shards):
                    yield Settings(mesh, remat, parts, scenes)


def estimate(config: TrainConfig, model: ModelConfig, sizes: StepSizes, target: Target, settings: Settings) -> Estimate:
    """Of a step of these sizes (their number of scenes is the settings')."""
    mesh, text = settings.mesh, model.text
    sizes = dataclasses.replace(sizes, scenes=settings.scenes)
    held = _held(model, config.lora, config.model.tower == "trained", reads_reference(config), mesh)
    scenes = settings.scenes // mesh.scene_shards
    part = scenes / settings.accumulation
    key_heads = text.num_key_value_heads / math.gcd(text.num_key_value_heads, mesh.tensor)
    queries = text.num_attention_heads * text.head_dim / mesh.tensor
    caches = 2 * text.head_dim * key_heads
    inner, width = text.intermediate_size / mesh.tensor, text.hidden_size
    prompt = sizes.scene_tokens + sizes.questions * sizes.question_tokens
    answers = sizes.questions * sizes.rollouts * (sizes.answer_tokens - 1)
    options = ForwardOptions()
    vocabulary = text.vocab_size / mesh.tensor * WIDE
    rows: float = answers * text.num_attention_heads
    rows /= text.num_key_value_heads
    rows = rows if rows <= options.score_rows else rows / sizes.questions
    scores = key_heads * rows * (sizes.scene_tokens + sizes.question_tokens + sizes.answer_tokens) * WIDE
    # Attention is a kernel, which writes none (`models/fused_attention.py`).
    fused = target.chip.kind == "tpu" and config.model.fused_attention == "auto"
    if fused:
        scores = 0.0

    def layer(tokens: float) -> float:
        """The largest arrays of one layer at once."""
        return tokens * (4 * width + 2 * queries + caches + 3 * inner) * ITEM

    chunk = min(options.logit_chunk, answers) * vocabulary
    gathers = held.layer * 2 + held.head if mesh.fsdp > 1 else 0.0
    reference = gathers + scenes * (max(layer(prompt + answers), chunk) + 2 * scores)
    normed = fused and text.query_key_norm  # queries and keys are kept before their norm and behind it
    kept: float = {
        "full": width,
        "dots": width * 3 + queries * (2 + normed) + caches * (1 + normed / 2) + 2 * inner,
        "none": width * 6 + queries * 4 + caches * 2 + 3 * inner,
    }[settings.remat] * ITEM  # a token and layer, for the backward pass
    if settings.remat == "none":
        kept += 2 * scores / (prompt + answers)
    update: float = gathers + held.gradients
    update += part * (text.num_hidden_layers * (prompt + answers) * kept + 2 * layer(prompt + answers) + 1.5 * chunk)
    update += part * 3 * scores
    own = prompt + sizes.questions * sizes.rollouts * sizes.answer_tokens
    sample: float = scenes * text.num_hidden_layers * caches * own * ITEM
    sample += max(scenes * layer(prompt), 4 * scenes * sizes.questions * sizes.rollouts * vocabulary)
    split = held.whole if mesh.fsdp > 1 else 0
    cast = held.whole if config.lora is None else 0
    layers = held.layer * text.num_hidden_layers
    whole, unrolled = room_for_copies(held.all, split, cast, layers, target.memory)
    unrolled &= target.chip.kind == "tpu"
    sample += (split or cast) + layers * unrolled if whole else gathers
    programs = {"update": update}
    if config.objective == "grpo":
        programs["sample"] = sample
    if reads_reference(config):
        programs["reference"] = reference
    seconds = _seconds(config, model, sizes, target, settings, held, whole)
    memory = {name: int(size + held.all) for name, size in programs.items()}
    return Estimate(memory, seconds, settings.scenes * sizes.questions)


@dataclasses.dataclass(frozen=True)
class _Held:
    """Bytes of parameters on one device."""

    all: int  # weights, reference and state, while any program runs
    whole: int  # all weights, whole over fsdp, in bfloat16
    layer: float  # one layer's of them, of the language model
    head: int
    gradients: int


@functools.cache
def _held(model: ModelConfig, lora: LoraConfig | None, tower_trained: bool, reference: bool, mesh: MeshShape) -> _Held:
    axes = dataclasses.asdict(mesh)
    everything = whole = head = gradients = 0
    layer = 0.0
    for name, leaf in parameter_shapes(model, lora).items():
        spec = parameter_spec(name, leaf.shape, axes, model)
        size = leaf.size // math.prod(axes[axis] for axis in spec if axis)
        over_tensor = leaf.size // math.prod(axes[axis] for axis in without_fsdp(spec) if axis)
        if ".lora_" in name if lora else tower_trained or not name.startswith("visual."):
            everything += 3 * size * WIDE + (size * ITEM if lora is None and reference else 0)  # AdamW has two moments
            gradients += size * WIDE
        else:
            everything += size * ITEM
        whole += over_tensor * ITEM
        if name.startswith("language_model.layers."):
            layer += over_tensor * ITEM / model.text.num_hidden_layers
        if name.startswith(("lm_head.", "language_model.embed_tokens.")):
            head = over_tensor * ITEM
    return _Held(everything, whole, layer, head, gradients)


def _seconds(
    config: TrainConfig, model: ModelConfig, sizes: StepSizes, target: Target, settings: Settings, held: _Held,
    whole: bool,
) -> float:  # fmt: skip
    chip, mesh = target.chip, settings.mesh
    sizes = dataclasses.replace(
        sizes,
        reference=reads_reference(config),
        trains_weights=config.lora is None,
        trains_tower=trains_vision(config, model),
    )
    needed = needed_flops(model, sizes)
    peak = chip.peak / chip.devices * mesh.devices * USUAL_SHARE
    one_way = target.interconnect * USUAL_SHARE
    forward = needed["update"] / (3 if config.lora is None else 2)
    again = {"none": 0.0, "dots": 0.1, "full": 1.0}[settings.remat]
    tokens = sizes.scene_tokens + sizes.questions * (sizes.question_tokens + sizes.rollouts * (sizes.answer_tokens - 1))
    here = dataclasses.replace(sizes, scenes=sizes.scenes // mesh.scene_shards)
    gathered = held.whole * (mesh.fsdp - 1) / mesh.fsdp / one_way  # seconds
    summed = 2 * 2 * model.text.num_hidden_layers * model.text.hidden_size * ITEM / one_way if mesh.tensor > 1 else 0.0
    summed *= here.scenes  # seconds a token of one forward pass: two sums a layer, sent twice
    passes = (2 if settings.remat == "none" else 3) * config.update.inner_steps
    update = max(
        (needed["update"] + again * forward) * config.update.inner_steps / peak,
        gathered * passes * settings.accumulation,
    )
    update += summed * tokens * passes
    reference = max(needed["reference"] / peak, gathered) + summed * tokens if reads_reference(config) else 0.0
    if config.objective != "grpo":
        return update + reference + (0.0 if sizes.trains_tower else needed["vision"] / peak)
    read = decode_bytes(model, here, ITEM) / mesh.tensor / (chip.bandwidth / chip.devices * USUAL_SHARE)
    decode = max(needed["decode"] / peak, read)
    fed = sizes.answer_tokens - 1
    decode = decode + gathered if whole else max(decode, gathered * fed)
    decode += summed * fed * sizes.questions * sizes.rollouts
    once = (needed["vision"] + needed["prefill"]) / peak
    return once + decode + reference + update


def _divisors(number: int) -> list[int]:
    return [part for part in range(1, number + 1) if number % part == 0]
