"""From a config to a run that is ready: model on the mesh, data, rewards, compiled step, checkpoints, logs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxvsr.config.config_file import to_yaml
from jaxvsr.config.reward_terms import rewards_from
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.loader import make_loader
from jaxvsr.data.scene_pools import ScenePool
from jaxvsr.devices.mesh import loader_share
from jaxvsr.devices.mesh_shape import MeshShape, check_mesh
from jaxvsr.errors import InputError
from jaxvsr.grpo.batches import BatchBuilder, HostBatches
from jaxvsr.grpo.compiled_step import TrainState, start_state
from jaxvsr.grpo.rollouts import check_view_consistency
from jaxvsr.grpo.video_gain import check_video_gain
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.sharding import state_shardings
from jaxvsr.prompts import prompt_from
from jaxvsr.rewards.registry import check_rewards
from jaxvsr.runs.checkpoints import Checkpoints, RunRecord
from jaxvsr.runs.metrics_log import MetricsLog, check_trackers
from jaxvsr.runs.model_source import open_model, reopen_model, start_record, write_stages
from jaxvsr.runs.run_folder import RunFolder, check_run_folder, make_run_folder
from jaxvsr.training.console import CompileTimes, Console
from jaxvsr.training.heldout import HeldOut, ScoreAnswers
from jaxvsr.training.policy import compute_dtype, load_policy, trains_vision
from jaxvsr.training.run_context import Training
from jaxvsr.training.scenes_of_run import asked_questions, read_run_pools
from jaxvsr.training.stored_features import usable_features


@dataclasses.dataclass(frozen=True)
class ReadyRun:
    """A run before its first step, or before the step that it goes on with."""

    training: Training
    state: TrainState
    first: int  # steps that are done


@contextlib.contextmanager
def ready_run(
    config: TrainConfig,
    run_path: Path,
    mesh: Mesh,
    *,
    resume: bool = False,
    quiet: bool = False,
    cache: Path | None = None,
    score_answers: ScoreAnswers | None = None,
) -> Iterator[ReadyRun]:
    """Check everything, then make the run folder and load the model; what is open is closed behind the block.

    Args:
        cache: folder in which compiled programs and their compile times are kept; None keeps nothing.
        score_answers: the metric of evaluations during training.

    Raises:
        InputError: anything that is wrong, before anything is written.
    """
    model = (reopen_model(run_path) if resume else None) or open_model(config.model.path, config.model.revision)
    shape = MeshShape(**dict(mesh.shape))
    check_mesh(
        shape,
        scenes=config.data.scenes,
        attention_heads=model.config.text.num_attention_heads,
        processes=jax.process_count(),
        accumulation=config.update.accumulation,
    )
    processor = SceneProcessor.from_folder(model.folder.path, max_pixels=config.data.max_pixels)
    prompt, rewards = prompt_from(config.data.prompt), rewards_from(config.rewards)
    builder = BatchBuilder(processor, prompt, config.objective, config.sampling.answer_tokens, config.data.rejected)
    check_view_consistency(config, rewards)
    check_video_gain(config, config.data.scenes // loader_share(mesh, config.data.scenes)[1])
    check_trackers(config.logging)
    pools = read_run_pools(config)
    evaluates = score_answers is not None and config.intervals.evaluate > 0
    heldout_pools = read_run_pools(config, config.evaluation.split) if evaluates else ()
    features = usable_features(
        config,
        model,
        processor,
        (*pools, *heldout_pools),
        dtype=compute_dtype(config, mesh),
        trains_vision=trains_vision(config, model),
    )
    batches = functools.partial(host_batches, config, builder, mesh, pools=pools, features=features)
    batches(0).close()  # whatever is wrong with the data is said now
    builder.check_answers(asked_questions(pools))
    if config.objective == "grpo":
        check_rewards(rewards)
    asking = dataclasses.replace(builder, objective="grpo")
    heldout_batches = functools.partial(
        host_batches, config, asking, mesh, split=config.evaluation.split, pools=heldout_pools, features=features
    )
    if evaluates:
        heldout_batches().close()

    writes = jax.process_index() == 0
    run = check_run_folder(run_path, config, resume=resume) if writes else RunFolder(run_path)
    record = start_record(model, config.lora)
    make_step, trainable, optimizer = load_policy(config, model, processor, mesh)
    state = start_state(trainable, optimizer, config.seed)
    state = jax.device_put(state, state_shardings(state, mesh, model.config))
    first, state, record = restored(run, state, record)
    if first > config.steps:
        raise InputError(f"steps {config.steps}: {run.path} has done {first} already; take steps {first} or more")
    if jax.process_count() > 1:  # none may make the folder of checkpoints while another still looks for it
        multihost_utils.sync_global_devices("restored")

    # From here on the run's folder is written.
    if writes:
        make_run_folder(run.path, config)
        if not first:
            write_stages(model, run.path)
    checkpoints = Checkpoints(run.checkpoints, keep=config.intervals.keep)
    log = MetricsLog(run, config, restored_step=first, run_id=record.run_id) if writes else None
    console = Console(config.steps, done=first, line_seconds=config.logging.line_seconds, quiet=quiet or not writes)
    heldout = None
    times = CompileTimes(console, (cache or run.path) / "compile_seconds.json", _signature(config, mesh))
    if score_answers is not None and evaluates:
        greedy, text = make_step(greedy=True), processor.chat.text
        for function in greedy.functions:
            function.on_compile = lambda name, bucket: times.starts(f"held-out {name}", bucket)
        heldout = HeldOut(config, heldout_batches, greedy, mesh, text, score_answers, console.say)
    training = Training(
        config=config,
        step=make_step(),
        mesh=mesh,
        batches=batches,
        decode=lambda tokens, length: [processor.chat.text(row[:n]) for row, n in zip(tokens, length, strict=True)],
        rewards=rewards,
        # A part of the run without Weights & Biases does not forget which run it was there.
        record=dataclasses.replace(record, run_id=(log.run_id if log is not None else None) or record.run_id),
        checkpoints=checkpoints,
        console=console,
        compile_times=times,
        log=log,
        prompt_text=prompt.render,
        thought_tag=prompt.thought_tag,
        evaluate=heldout,
    )
    try:
        yield ReadyRun(training, state, first)
    finally:
        console.close()
        if log is not None:
            log.close()
        checkpoints.close()


def restored(run: RunFolder, state: TrainState, record: RunRecord) -> tuple[int, TrainState, RunRecord]:
    """Steps that the run in the folder has done, the state after them, and its record; 0 where it has no checkpoint."""
    if not run.checkpoints.is_dir():
        return 0, state, record
    checkpoints = Checkpoints(run.checkpoints)
    try:
        if checkpoints.latest is None:
            return 0, state, record
        state = checkpoints.restore(checkpoints.latest, state, record)
        record = dataclasses.replace(record, run_id=checkpoints.record(checkpoints.latest).run_id)
        return checkpoints.latest, state, record
    finally:
        checkpoints.close()


def host_batches(
    config: TrainConfig,
    builder: BatchBuilder,
    mesh: Mesh,
    first: int = 0,
    *,
    split: str | None = None,
    pools: Sequence[ScenePool] | None = None,
    features: str | None = None,
) -> HostBatches:
    """The batches of this process from step `first` on; those of another `split` come in their order under seed 0.

    `pools`: what `read_run_pools` gave, where that is known; `features`: the set of stored features to read.
    """
    data = config.data
    index, count = loader_share(mesh, data.scenes)
    several = jax.process_count() > 1
    loader = make_loader(
        read_run_pools(config, split) if pools is None else pools,
        scenes=data.scenes,
        questions=data.questions,
        frames=data.frames,
        seed=config.seed if split is None else 0,
        start_step=first,
        process_index=index,
        process_count=count,
        workers=data.workers if split is None else 0,
        transform=builder.encode if several else builder,
        blank=data.blank,
        features=features,
    )
    return HostBatches(loader, builder if several else None)


def _signature(config: TrainConfig, mesh: Mesh) -> str:
    """What compile times depend on."""
    device = mesh.devices.flat[0]
    same = dataclasses.replace(config, steps=1, seed=0)
    text = f"{to_yaml(same)} {dict(mesh.shape)} {device.device_kind} {os.cpu_count()} {jax.__version__}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
