"""What a run reads: its model, prompt, rewards and data, checked against each other before anything is computed.

There is one way to open them (`open_inputs`), whether a run is trained, planned, or measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
from jax.sharding import Mesh

from jaxvsr.buckets.fetching import fetched
from jaxvsr.config.reward_terms import rewards_from
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.loader import SceneBatch, Schedule, make_loader
from jaxvsr.data.questions import Question
from jaxvsr.data.scene_pools import ScenePool, read_pools
from jaxvsr.devices.mesh import loader_share
from jaxvsr.devices.mesh_shape import MeshShape, check_mesh
from jaxvsr.grpo.batches import BatchBuilder, HostBatches
from jaxvsr.grpo.rollouts import check_view_consistency
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.model_config import compute_dtype
from jaxvsr.prompts import Prompt, prompt_from
from jaxvsr.rewards.registry import Reward, check_rewards
from jaxvsr.runs.metrics_log import check_trackers
from jaxvsr.runs.model_source import Model, open_model
from jaxvsr.training.learnable import check_adapted, check_learnable, check_rewards_differ
from jaxvsr.training.load_policy import trains_vision
from jaxvsr.training.stored_features import usable_features
from jaxvsr.training.video_gain import check_video_gain

SceneBatches = Callable[[int], Iterator[SceneBatch]]  # from a step on


@dataclasses.dataclass(frozen=True, eq=False)
class RunInputs:
    """What a run reads."""

    config: TrainConfig
    mesh: Mesh
    model: Model
    processor: SceneProcessor
    prompt: Prompt
    rewards: tuple[Reward, ...]
    pools: tuple[ScenePool, ...]  # of the training split
    heldout_pools: tuple[ScenePool, ...]  # empty where nothing is evaluated during training
    features: str | None  # the set of stored vision features that is read instead of pixels
    scene_batches: SceneBatches | None = None  # scenes in memory, in place of the pools

    @property
    def builder(self) -> BatchBuilder:
        config = self.config
        return BatchBuilder(
            self.processor, self.prompt, config.objective, config.sampling.answer_tokens, config.data.rejected
        )

    def batches(self, first: int = 0) -> HostBatches:
        """The batches of this process from step `first` on."""
        if self.scene_batches is not None:
            return HostBatches(self.builder(batch) for batch in self.scene_batches(first))
        return self._batches(self.builder, self.pools, self.config.seed, first, self.config.data.workers)

    @property
    def heldout_schedule(self) -> Schedule:
        """Which scenes and questions `heldout_batches` has at each step, those of all processes."""
        return Schedule(self.heldout_pools, self.config.data.scenes, self.config.data.questions, 0)

    def heldout_batches(self, steps: Sequence[int] | None = None) -> HostBatches:
        """Questions of the held-out split in their order under seed 0, without targets; `steps`: these alone."""
        return self._batches(dataclasses.replace(self.builder, objective="grpo"), self.heldout_pools, 0, 0, 0, steps)

    def _batches(
        self, builder: BatchBuilder, pools: Sequence[ScenePool], seed: int, first: int, workers: int,
        steps: Sequence[int] | None = None,
    ) -> HostBatches:  # fmt: skip
        data, several = self.config.data, jax.process_count() > 1
        index, count = loader_share(self.mesh, data.scenes)
        loader = make_loader(
            pools,
            scenes=data.scenes,
            questions=data.questions,
            frames=data.frames,
            seed=seed,
            start_step=first,
            steps=steps,
            process_index=index,
            process_count=count,
            workers=workers,
            transform=builder.encode if several else builder,
            blank=data.blank,
            features=self.features,
        )
        return HostBatches(loader, builder if several else None)


def open_inputs(
    config: TrainConfig,
    mesh: Mesh,
    *,
    model: Model | None = None,
    evaluates: bool | None = None,
    scene_batches: SceneBatches | None = None,
    rewards: tuple[Reward, ...] | None = None,
    trains: bool = True,
    resume: bool = False,
) -> RunInputs:
    """Open everything that a run reads, and check it.

    Args:
        model: None opens the config's.
        scene_batches: scenes in memory, from a step on; None reads the config's data folders.
        rewards: None takes the config's.
        trains: False reads the inputs without what only training needs: rewards that work, trackers, another video.
        resume: the run exists, and trains what it trained so far.
        evaluates: whether held-out questions are read; None: where the config evaluates during training.

    Raises:
        InputError: anything that is wrong.
    """
    prompt = prompt_from(config.data.prompt)
    rewards = rewards_from(config.rewards) if rewards is None else rewards
    if trains:
        check_view_consistency(config, rewards)
        check_trackers(config.logging)
        if config.objective == "grpo":
            check_rewards(rewards)
    model = model or open_model(config.model.path, config.model.revision, config.model.base)
    check_mesh(
        MeshShape(**dict(mesh.shape)),
        scenes=config.data.scenes,
        attention_heads=model.config.text.num_attention_heads,
        processes=jax.process_count(),
        accumulation=config.update.accumulation,
    )
    if trains:
        check_video_gain(config, config.data.scenes // loader_share(mesh, config.data.scenes)[1])
        check_learnable(config, model.config, rewards)
        if not resume:
            check_adapted(config, model.config)
    data = config.data
    processor = SceneProcessor.from_folder(
        model.folder.path, max_pixels=data.max_pixels, video_prompt=data.video_prompt
    )
    evaluates = config.intervals.evaluate > 0 if evaluates is None else evaluates
    pools = read_run_pools(config) if scene_batches is None else ()
    heldout_pools = read_run_pools(config, config.evaluation.split) if evaluates else ()
    features = usable_features(
        config,
        model,
        processor,
        (*pools, *heldout_pools),
        dtype=compute_dtype(config.model.dtype, mesh.devices.flat[0].platform),
        trains_vision=trains_vision(config, model.config),
    )
    inputs = RunInputs(config, mesh, model, processor, prompt, rewards, pools, heldout_pools, features, scene_batches)
    if scene_batches is None:
        inputs.batches().close()  # whatever is wrong with the data is said now
    inputs.builder.check_answers(asked_questions(pools))
    if trains and config.objective == "grpo":
        check_rewards_differ(rewards, tuple(asked_questions(pools)), prompt)
    if heldout_pools:
        inputs.heldout_batches().close()
    return inputs


def read_run_pools(config: TrainConfig, split: str | None = None) -> tuple[ScenePool, ...]:
    """What the data folders offer for training; `split` another than that: for held-out questions, which are never
    mirrored."""
    data = config.data
    return read_pools(
        [(fetched(folder), weight) for folder, weight in data.weighted_folders()],
        split=split or data.split,
        questions=data.questions,
        frames=data.frames,
        question_types=data.question_types,
        skip_short_scenes=data.skip_short_scenes,
        mirror=data.mirror if split is None else "none",
    )


def asked_questions(pools: Sequence[ScenePool]) -> Iterator[Question]:
    """All questions that may be asked, mirror images included."""
    for pool in pools:
        for scene in pool.scenes:
            yield from (*scene.questions, *scene.mirrored)
