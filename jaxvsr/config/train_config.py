"""Everything that a training run is made of: one tree of frozen dataclasses.

YAML, `--set data.scenes=8` and Python use the same field names. The comment after each field says what it means and in
which unit; `config_reference.py` makes the reference page of these comments. `config_file.py` reads configs.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxvsr.config.algorithm import AdvantageRule, Difficulty, Objective, OptimizerConfig, PreferenceObjective
from jaxvsr.devices.mesh_shape import DeviceKind, parse_mesh
from jaxvsr.errors import InputError
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import DtypeSetting, Remat, VideoPrompt

ObjectiveName = Literal["grpo", "sft", "dpo"]
Tracker = Literal["tensorboard", "wandb"]


def _at_least(settings: object, least: int, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) >= least:
            raise InputError(f"{name} {getattr(settings, name)}: must be at least {least}")


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Which model is trained, and how it is computed."""

    path: str = ""  # a Hugging Face folder, a hub id, or a run: RUN, RUN@best, RUN@STEP
    revision: str | None = None  # branch, tag or commit of a hub id
    base: str | None = None  # base model of an adapter or a run, where it is not where they say
    tower: Literal["frozen", "trained"] = "frozen"  # vision tower and patch merger, in full fine-tuning
    reference: Literal["start", "base"] = "start"  # reference policy: the model this run starts from, or the original
    dtype: DtypeSetting = "auto"  # of activations; auto: float32 on CPU, else bfloat16
    remat: Remat = "none"  # computed again in the backward pass: nothing, layers, or all but matrix products (dots)
    fused_attention: Literal["auto", "off"] = "auto"  # in kernels: on TPUs, and of long scenes on NVIDIA's cards


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which questions a step asks."""

    folders: tuple[str, ...] = ()  # data folders, each DIR or DIR:WEIGHT
    split: str = "train"  # of splits.json, by room
    scenes: int = 4  # S, scenes per step, over all devices
    questions: int = 4  # Q, questions per scene and step
    question_types: tuple[str, ...] | None = None  # only these tasks; null: all
    frames: int = 8  # frames of a video that the model sees
    max_pixels: int | None = None  # most pixels per frame; null: as stored
    prompt: str = "question"  # name of a prompt, or a file that holds one
    video_prompt: VideoPrompt = "blocks"  # of Qwen3-VL: blocks of a video, or with a pair around them (wrapped)
    rejected: Difficulty = "mixed"  # how far DPO's wrong answers are off: easy (far), medium, hard; mixed: any of these
    workers: int = 0  # processes that load data, besides this one
    blank: bool = False  # mid-grey frames instead of the video: the control run
    skip_short_scenes: bool = False  # leave out scenes with fewer than `questions` questions, instead of refusing them
    mirror: Literal["none", "pairs"] = "none"  # pairs: scenes 2i and 2i + 1 of a step are a scene and its mirror image
    features: Literal["auto", "off", "require"] = "auto"  # stored vision features instead of running a frozen tower

    def __post_init__(self) -> None:
        _at_least(self, 1, "scenes", "questions", "frames")
        _at_least(self, 0, "workers")
        if self.mirror == "pairs" and self.scenes % 2:
            raise InputError(
                f"data.scenes {self.scenes}: must be even with data.mirror=pairs, a scene and its mirror image"
            )

    def weighted_folders(self) -> tuple[tuple[str, float], ...]:
        """(folder, weight) pairs; the weight is 1 where none is given.

        >>> DataSettings(folders=("a:2", "b")).weighted_folders()
        (('a', 2.0), ('b', 1.0))
        """
        pairs = []
        for text in self.folders:
            folder, colon, weight = text.rpartition(":")
            if not colon or weight.startswith("//"):  # s3://bucket
                pairs.append((text, 1.0))
                continue
            try:
                pairs.append((folder, float(weight)))
            except ValueError:
                raise InputError(
                    f"data.folders {text!r}: expected DIR or DIR:WEIGHT, found weight {weight!r}"
                ) from None
            if not 0 < pairs[-1][1] < float("inf"):
                raise InputError(f"data.folders {text!r}: the weight must be above 0")
        return tuple(pairs)


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """How rollouts are drawn. Log-probabilities are always those of the full softmax at the temperature."""

    group: int = 8  # G, rollouts per question
    answer_tokens: int = 16  # R, tokens that a rollout may have, its end-of-sequence token included
    temperature: float = 1.0  # logits are divided by it
    top_k: int = 0  # draw among the k likeliest tokens; 0: off
    top_p: float = 1.0  # draw among the likeliest tokens that hold this probability; 1: off
    max_draws: int = 1  # times that a step's questions are drawn until enough groups are informative (DAPO); 1: once
    min_informative: float = 1.0  # share of a step's groups that is enough; only read where max_draws is above 1

    def __post_init__(self) -> None:
        _at_least(self, 1, "group", "answer_tokens", "max_draws")
        _at_least(self, 0, "top_k")
        if not 0 < self.min_informative <= 1:
            raise InputError(f"min_informative {self.min_informative}: must be above 0 and at most 1")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature {self.temperature}: must be above 0 (evaluation is greedy anyway)")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p}: must be above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class ViewConsistencySettings:
    """Spatial-GRPO (SVQA-R1, Eq. 2 to 4): of a question and its mirror image, the view with the higher mean reward
    loses the difference. Needs data.mirror=pairs; groups stay apart in the advantages."""

    rewards: tuple[str, ...] = ()  # names of the rewards that are corrected, such as svqa_semantic; none: off
    delta: float = 0.5  # only rewards above it are corrected
    eta: float = 1.0  # times the difference of the two means

    def __post_init__(self) -> None:
        if not 0 <= self.eta < float("inf"):
            raise InputError(f"eta {self.eta}: must be at least 0, and finite")
        if self.delta != self.delta:
            raise InputError(f"delta {self.delta}: must be a number")


@dataclasses.dataclass(frozen=True)
class UpdateSettings:
    """How a step's rollouts become weight updates."""

    inner_steps: int = 1  # optimizer updates on the same rollouts
    accumulation: int = 1  # parts that the scenes of a step are computed in, one after the other, to save memory
    skip_not_finite: int = 0  # steps in a row whose update is left out where it is not finite; one more ends the run

    def __post_init__(self) -> None:
        _at_least(self, 1, "inner_steps", "accumulation")
        _at_least(self, 0, "skip_not_finite")


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Greedy answers to held-out questions during training."""

    split: str = "heldout"  # of splits.json, by room
    questions: int = 64  # questions scored each time, always the same

    def __post_init__(self) -> None:
        _at_least(self, 1, "questions")


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Devices."""

    spec: str | None = None  # 8, or fsdp=4,tensor=2; null: all devices on fsdp
    device: DeviceKind = "auto"  # auto takes accelerators where there are any
    deterministic: bool = False  # bit for bit the same on GPU from run to run, at some cost

    def __post_init__(self) -> None:
        if self.spec is not None:
            parse_mesh(self.spec)


@dataclasses.dataclass(frozen=True)
class IntervalSettings:
    """When something happens besides training."""

    checkpoint: int = 100  # steps between checkpoints; the last step always has one
    evaluate: int = 0  # steps between evaluations on held-out questions; 0: never
    samples: int = 10  # steps between entries in samples.jsonl and hacking.jsonl; 0: never
    video_gain: int = 0  # steps between answers to the same questions about another scene's video; 0: never
    keep: int = 2  # checkpoints kept, besides the best
    time_limit: float | None = None  # seconds after which the run saves and stops

    def __post_init__(self) -> None:
        _at_least(self, 1, "checkpoint", "keep")
        _at_least(self, 0, "evaluate", "samples", "video_gain")
        if self.time_limit is not None:
            _at_least(self, 0, "time_limit")


@dataclasses.dataclass(frozen=True)
class LoggingSettings:
    """Where numbers go besides metrics.jsonl."""

    trackers: tuple[Tracker, ...] = ("tensorboard",)  # tensorboard and wandb, or none of them
    sample_questions: int = 4  # questions whose G answers go into samples.jsonl each time
    line_seconds: float = 30.0  # seconds between plain lines where there is no terminal
    project: str = "jaxvsr"  # of Weights & Biases
    name: str | None = None  # of Weights & Biases; null: that of the run folder
    group: str | None = None  # of Weights & Biases
    tags: tuple[str, ...] = ()  # of Weights & Biases
    profile: str | None = None  # FIRST:LAST, steps whose trace the first process writes to RUN/profile; null: none
    stuck_minutes: float = 10.0  # a phase that takes so long is said on stderr; 0: never

    def __post_init__(self) -> None:
        _at_least(self, 0, "stuck_minutes")
        if self.profile is not None:
            first, _, last = self.profile.partition(":")
            if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
                raise InputError(f"logging.profile {self.profile!r}: expected FIRST:LAST, steps such as 10:13")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    objective: ObjectiveName = "grpo"  # grpo: rewarded samples; sft: given answers; dpo: pairs
    steps: int = 100  # updates of the policy
    seed: int = 0  # of sampling, data order and fresh adapters
    model: ModelSettings = ModelSettings()
    lora: LoraConfig | None = dataclasses.field(default_factory=LoraConfig)  # null: full fine-tuning
    data: DataSettings = DataSettings()
    sampling: SamplingSettings = SamplingSettings()
    rewards: tuple[str, ...] = ("vsi_bench",)  # terms WEIGHT*NAME(option=value); NAME may be FILE.py:function
    view_consistency: ViewConsistencySettings = ViewConsistencySettings()
    advantages: AdvantageRule = dataclasses.field(default_factory=AdvantageRule)
    grpo: Objective = dataclasses.field(default_factory=Objective)
    dpo: PreferenceObjective = dataclasses.field(default_factory=PreferenceObjective)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    update: UpdateSettings = UpdateSettings()
    mesh: MeshSettings = MeshSettings()
    intervals: IntervalSettings = IntervalSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    logging: LoggingSettings = LoggingSettings()

    def __post_init__(self) -> None:
        _at_least(self, 1, "steps")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed}: must be from 0 to 2**32 - 1")
        if self.objective != "grpo" and self.update.inner_steps > 1:
            raise InputError(
                f"update.inner_steps {self.update.inner_steps}: only grpo updates several times on the same rollouts; "
                f"with objective {self.objective} it must be 1"
            )
        if self.view_consistency.rewards and self.sampling.max_draws > 1:
            raise InputError(
                f"sampling.max_draws {self.sampling.max_draws}: must be 1 with view_consistency.rewards, which compare "
                "the two views' answers of one draw"
            )
        if self.view_consistency.rewards and (self.data.mirror != "pairs" or self.objective != "grpo"):
            raise InputError(
                f"view_consistency.rewards={','.join(self.view_consistency.rewards)}: compares a scene with its mirror "
                "image; take data.mirror=pairs and objective=grpo"
            )
        if self.logging.profile and int(self.logging.profile.partition(":")[0]) > self.steps:
            raise InputError(f"logging.profile {self.logging.profile}: the run has {self.steps} steps")
        views = 2 if self.data.mirror == "pairs" else 1
        if self.intervals.video_gain and self.data.scenes < 2 * views:
            raise InputError(
                f"intervals.video_gain {self.intervals.video_gain}: shows a question another scene of its step; "
                f"take data.scenes={2 * views} or more"
            )
        if self.data.scenes % self.update.accumulation:
            raise InputError(
                f"update.accumulation {self.update.accumulation}: must divide data.scenes={self.data.scenes}, "
                "which it computes in that many parts"
            )

    @property
    def rollouts(self) -> int:
        """Rollouts of a step, S·Q·G."""
        return self.data.scenes * self.data.questions * self.sampling.group


IN_BUCKETS = ("data.folders", "model.path", "model.base")  # fields that take folders in buckets

# What may change in a resumed run: nothing that a finished step depended on.
CHANGEABLE = (
    "steps", "mesh", "intervals", "logging", "data.workers", "model.base", "model.fused_attention",
    "update.skip_not_finite",
)  # fmt: skip
