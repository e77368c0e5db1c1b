"""From a config to a run that is ready: model on the mesh, data, rewards, compiled step, checkpoints, logs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxvsr.config.config_file import to_yaml
from jaxvsr.config.train_config import LoggingSettings, TrainConfig
from jaxvsr.devices.processes import SceneAxis
from jaxvsr.errors import InputError
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.grpo.step_context import StepContext
from jaxvsr.rewards.registry import Reward
from jaxvsr.runs.checkpoints import Checkpoints, RunRecord
from jaxvsr.runs.metrics_log import MetricsLog
from jaxvsr.runs.model_source import reopen_model, start_record, write_stages
from jaxvsr.runs.run_folder import RunFolder, check_run_folder, make_run_folder, settings_that_stay
from jaxvsr.runs.trained_as import of_config
from jaxvsr.training.console import CompileTimes, Console
from jaxvsr.training.heldout import HeldOut, ScoreAnswers
from jaxvsr.training.load_policy import LoadedPolicy, load_policy
from jaxvsr.training.run_contents import check_contents, run_contents
from jaxvsr.training.run_context import RunContext
from jaxvsr.training.run_inputs import SceneBatches, open_inputs


@dataclasses.dataclass(frozen=True)
class ReadyRun:
    """A run before its first step, or before the step that it goes on with."""

    run: RunContext
    policy: LoadedPolicy
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
    scene_batches: SceneBatches | None = None,
    rewards: tuple[Reward, ...] | None = None,
    changed_data: bool = False,
    own_disk: bool = False,
) -> Iterator[ReadyRun]:
    """Check everything, then make the run folder and load the model; what is open is closed behind the block.

    Args:
        cache: folder in which compiled programs and their compile times are kept; None keeps nothing.
        score_answers: the metric of evaluations during training.
        scene_batches: scenes in memory, from a step on; None reads the config's data folders.
        rewards: in place of the config's.
        own_disk: each of several processes has a run folder of its own; what the first writes counts.
        changed_data: go on where questions, frames, features, prompt or reward files are not those of the run so far.

    Raises:
        InputError: anything that is wrong, before anything is written.
    """
    model = reopen_model(run_path, config.model.base) if resume else None
    evaluates = score_answers is not None and config.intervals.evaluate > 0
    inputs = open_inputs(
        config, mesh, model=model, evaluates=evaluates, scene_batches=scene_batches, rewards=rewards, resume=resume
    )
    model, processor = inputs.model, inputs.processor

    writes = jax.process_index() == 0
    run = check_run_folder(run_path, config, resume=resume) if writes else RunFolder(run_path)
    record = dataclasses.replace(
        start_record(model, config.lora), settings=settings_that_stay(config), data=run_contents(inputs)
    )
    if resume:
        check_contents(RunFolder(run_path), record, changed_data=changed_data)
    policy = load_policy(config, model, processor, mesh)
    state = policy.start()
    first, state, record = restored(run, state, record, own_disk=own_disk)
    if first > config.steps:
        raise InputError(f"steps {config.steps}: {run.path} has done {first} already; take steps {first} or more")
    if jax.process_count() > 1:  # none may make the folder of checkpoints while another still looks for it
        multihost_utils.sync_global_devices("restored")

    # From here on the run's folder is written.
    if writes:
        make_run_folder(run.path, config)
        if not first:
            write_stages(model, run.path)
            of_config(config, tuple(pool.folder for pool in inputs.pools)).write(run.path)
    checkpoints = Checkpoints(run.checkpoints, keep=config.intervals.keep, own_disk=own_disk)
    log = MetricsLog(run, config, restored_step=first, run_id=record.run_id) if writes else None
    checkpoints.before_save = log.sync if log is not None else checkpoints.before_save
    console = Console(config.steps, done=first, line_seconds=config.logging.line_seconds, quiet=quiet or not writes)
    if log is not None and log.gap is not None:
        console.say(log.gap)
    times = CompileTimes(console, (cache or run.path) / "compile_seconds.json", _signature(config, mesh))
    scenes, heldout = SceneAxis(mesh, config.data.scenes), None
    if score_answers is not None and evaluates:
        greedy = policy.step(greedy=True)
        for function in greedy.functions:
            function.on_compile = lambda name, bucket: times.starts(f"held-out {name}", bucket)
        heldout = HeldOut(
            config,
            inputs.heldout_schedule,
            inputs.heldout_batches,
            greedy,
            scenes,
            processor.chat.text,
            score_answers,
            console.say,
        )
    step = StepContext(
        config=config,
        compiled=policy.step(),
        scenes=scenes,
        decode=processor.texts,
        rewards=inputs.rewards,
        prompt_text=inputs.prompt.render,
        scored_text=inputs.prompt.without_thought,
        thought_tag=inputs.prompt.thought_tag,
    )
    run_context = RunContext(
        step=step,
        batches=inputs.batches,
        # A part of the run without Weights & Biases does not forget which run it was there.
        record=dataclasses.replace(record, run_id=(log.run_id if log is not None else None) or record.run_id),
        checkpoints=checkpoints,
        console=console,
        compile_times=times,
        log=log,
        evaluate=heldout,
    )
    try:
        yield ReadyRun(run_context, policy, state, first)
    finally:
        console.close()
        if log is not None:
            log.close()
        checkpoints.close()


def restored(
    run: RunFolder, state: TrainState, record: RunRecord, *, own_disk: bool = False
) -> tuple[int, TrainState, RunRecord]:
    """Steps that the run in the folder has done, the state after them, and its record; 0 where it has no checkpoint."""
    if not run.checkpoints.is_dir():
        return 0, state, record
    checkpoints = Checkpoints(run.checkpoints, own_disk=own_disk)
    try:
        if checkpoints.latest is None:
            return 0, state, record
        state = checkpoints.restore(checkpoints.latest, state, record)
        record = dataclasses.replace(record, run_id=checkpoints.record(checkpoints.latest).run_id)
        return checkpoints.latest, state, record
    finally:
        checkpoints.close()


def _signature(config: TrainConfig, mesh: Mesh) -> str:
    """What compile times depend on."""
    device = mesh.devices.flat[0]
    same = dataclasses.replace(config, steps=1, seed=0, logging=LoggingSettings())
    text = f"{to_yaml(same)} {dict(mesh.shape)} {device.device_kind} {os.cpu_count()} {jax.__version__}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
