"""A whole training run, an evaluation, and log-probabilities of given answers, from Python."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvsr.api.load_model import start_devices
from jaxvsr.api.policy import Policy, named
from jaxvsr.api.scenes_in_memory import Scene, scene_batches
from jaxvsr.config.config_file import find_config, read_config
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.devices.mesh_shape import DeviceKind
from jaxvsr.errors import InputError, NotFiniteError
from jaxvsr.files import read_rows
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.prompts import prompt_from
from jaxvsr.rewards.registry import Reward, RewardFunction


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """What a run leaves."""

    policy: Policy
    state: TrainState
    metrics: list[dict[str, Any]]  # a row per step, as in metrics.jsonl
    samples: list[dict[str, Any]]  # questions with their answers, as in samples.jsonl
    ended: str  # why the run ended: "all steps", "scenes used up", "time limit", "Ctrl-C", "SIGTERM"


def train(
    config: str | Path | TrainConfig = "demo-grpo",
    *,
    scenes: Iterable[Scene] | None = None,
    rewards: Sequence[RewardFunction | Reward] | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    changed_data: bool = False,
    quiet: bool = False,
    mesh: str | None = None,
    device: DeviceKind | None = None,
    **fields: Any,
) -> Trained:
    """Train as `launch/train.py` does.

    Args:
        config: a recipe's name, a YAML file, or a `TrainConfig`.
        scenes: scenes in memory, in place of the config's data folders; a list is gone through again and again.
        rewards: functions with TRL's signature, in place of the config's rewards: `reward(completions, **columns)`, the
            columns being the fields of the questions; each counts once. `Reward(name, function, weight)` weighs one.
        run_dir: where the run is kept; None keeps nothing (it is in a temporary folder while it lasts).
        changed_data: with `resume`, go on with other questions, frames or features than those of the run so far.
        quiet: print nothing.
        mesh: as the command's flags; None takes the config's, and one device where that names no mesh.
        device: as mesh.
        fields: fields of the config with `__` for the dot: `data__scenes=8`, `steps=20`; or whole parts of it:
            `lora=Lora(rank=8)`, `optimizer=Optimizer(learning_rate=1e-4)`, `grpo=Objective(beta=0.01)`.

    Raises:
        InputError: something that was given is wrong.
        NotFiniteError: a loss, a gradient or a weight is not finite; with `run_dir` the last state that is, is saved.
    """
    from jaxvsr.locks import only_writer
    from jaxvsr.runs.run_folder import RunFolder
    from jaxvsr.training.assemble import ready_run
    from jaxvsr.training.heldout import benchmark_score
    from jaxvsr.training.loop import train as train_loop
    from jaxvsr.training.stopping import StopRequest

    settings = _settings(config, fields)
    if scenes is not None and fields.get("intervals__evaluate"):
        raise InputError("intervals.evaluate: held-out questions are those of data folders; with scenes, call evaluate")
    if scenes is not None and settings.intervals.evaluate:
        intervals = dataclasses.replace(settings.intervals, evaluate=0)  # held-out questions are those of data folders
        settings = dataclasses.replace(settings, intervals=intervals)
    given = None if rewards is None else tuple(named(reward) for reward in rewards)
    if given is not None:  # the run's config says what was given, though it cannot hold the functions
        settings = dataclasses.replace(settings, rewards=tuple(f"{one.weight:g}*{one.name}" for one in given))
    batches = None
    if scenes is not None:
        _check_scenes(settings, scenes)
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, folders=()))
        data = settings.data
        batches = scene_batches(scenes, size=data.scenes, questions=data.questions, seed=settings.seed)
    if run_dir is None:
        settings = dataclasses.replace(settings, logging=dataclasses.replace(settings.logging, trackers=()))
    on_mesh, line = start_devices(
        device or settings.mesh.device, mesh or settings.mesh.spec, deterministic=settings.mesh.deterministic
    )
    if not quiet:
        print(line)
    with contextlib.ExitStack() as stack:
        if run_dir is None:  # nothing is kept
            stack.enter_context(_without_folder())
            run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        folder = RunFolder(Path(run_dir))
        stack.enter_context(only_writer(folder.path))
        ready = stack.enter_context(
            ready_run(
                settings,
                folder.path,
                on_mesh,
                resume=resume,
                changed_data=changed_data,
                quiet=quiet,
                scene_batches=batches,
                rewards=given,
                score_answers=benchmark_score(settings.data.prompt),
            )
        )
        stop = stack.enter_context(StopRequest(settings.intervals.time_limit).listening())
        state, ended = train_loop(ready.run, ready.state, stop, first=ready.first)
        policy = Policy(ready.policy, prompt_from(settings.data.prompt))
        return Trained(policy, state, list(read_rows(folder.metrics)), list(read_rows(folder.samples)), ended)


@contextlib.contextmanager
def _without_folder() -> Iterator[None]:
    """Lines about a run that is not kept name no folder of it."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{str(error).partition('; ')[0]}; with run_dir the state before it is kept") from None


def _check_scenes(config: TrainConfig, scenes: Iterable[Scene]) -> None:
    """`InputError` where a setting of data folders would be dropped, or an answer that is learned from is missing."""
    data = config.data
    for name, value, default in (
        ("blank", data.blank, False),
        ("mirror", data.mirror, "none"),
        ("question_types", data.question_types, None),
        ("features", data.features, "auto"),
    ):
        if value != default and not (name == "features" and value == "off"):
            raise InputError(
                f"data.{name}={value}: is for data folders; with scenes in memory take data__{name}={default}"
            )
    if config.objective != "grpo" and not isinstance(scenes, Sequence):
        raise InputError(f"objective {config.objective}: takes its scenes as a list, whose answers are checked first")
    for index, scene in enumerate(scenes if isinstance(scenes, Sequence) else ()):
        if config.objective != "grpo" and scene.answers is None:
            raise InputError(
                f"scene {scene.name or index}: has no answers, and objective {config.objective} learns them"
            )


def _settings(config: str | Path | TrainConfig, fields: Mapping[str, Any]) -> TrainConfig:
    parts: dict[str, Any] = {name: value for name, value in fields.items() if dataclasses.is_dataclass(value)}
    overrides = [(name, name.replace("__", "."), _text(fields[name])) for name in fields if name not in parts]
    if not isinstance(config, TrainConfig):
        config = read_config(find_config(str(config)), overrides)
    elif overrides:
        raise InputError(f"{overrides[0][0]}: give fields beside a recipe or a file, not beside a TrainConfig")
    defaults = TrainConfig()
    for name, value in parts.items():
        if type(value) is not type(getattr(defaults, name, None)):
            raise InputError(f"{name}: a {type(value).__name__} is no part of that name in a config")
    return dataclasses.replace(config, **parts)


def _text(value: Any) -> str:
    """A value as `--set` takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def tree_logprobs(
    policy: Policy,
    state: TrainState,
    scenes: Sequence[Scene],
    answers: Sequence[Sequence[Sequence[str]]],
    temperature: float = 1.0,
) -> list[list[list[np.ndarray]]]:
    """Log-probability of each token of given answers `[S][Q][G]`, the end-of-sequence token included, in nats.

    All questions of a scene share its video and all answers of a question share the question, in one forward pass.
    """
    values, mask = policy.logprobs(state, policy.batch(scenes), answers, temperature)
    return [
        [[row[real] for row, real in zip(*group, strict=True)] for group in zip(*scene, strict=True)]
        for scene in zip(values, mask, strict=True)
    ]


def evaluate(policy: Policy, state: TrainState, scenes: Iterable[Scene], *, batch_size: int = 8) -> dict[str, float]:
    """VSI-Bench's scores of greedy answers, in per cent: `overall`, and one per task of `question_types`.

    Raises:
        InputError: a scene has no answers or no question types.
    """
    from jaxvsr.evaluation.metrics.vsi_bench_scores import score_vsi_bench
    from jaxvsr.evaluation.predictions import Prediction

    predictions = []
    for scene, texts in policy.answered(state, scenes, batch_size=batch_size):
        if scene.answers is None or scene.question_types is None:
            raise InputError(f"scene {scene.name}: evaluate needs answers and question_types of every scene")
        rows = scene.rows(scene.name or "scene")
        predictions += [Prediction(row, text) for row, text in zip(rows, texts, strict=True)]
    return score_vsi_bench(predictions, answer_of=policy.prompt.answer).metrics()
