"""Checkpoints of a run: the train state, how far the data got, and which base model the weights belong to.

Orbax writes each one to a temporary name and renames it, so an interrupted save leaves nothing that looks whole. A
checkpoint holds two trees, so that export and evaluation read the weights alone:

    weights     the trainable parameters by name
    training    step, optimizer state, seed
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxvsr.errors import InputError
from jaxvsr.grpo.step import TrainState
from jaxvsr.models.lora import LoraConfig

SCORE = "score"  # what @best goes by, higher is better
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Stage:
    """Weights that were merged into the base before this run began: those of the run that it started from."""

    file: str  # safetensors with trainable parameters, relative to the run folder
    lora: LoraConfig | None  # None: full weights, which replace the base's


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a checkpoint says about itself besides its arrays."""

    base: str  # as the user named it: folder or hub id
    base_folder: str  # absolute path of the folder that it was read from
    revision: str | None
    content_hash: str  # `jaxvsr.models.folder.content_hash` of it
    stages: tuple[Stage, ...] = ()
    run_id: str | None = None  # of Weights & Biases

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, raw: Any, where: str) -> RunRecord:
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise InputError(f"{where}: not a checkpoint of this version of jaxvsr (format {FORMAT})")
        fields = {field.name: raw[field.name] for field in dataclasses.fields(cls)}
        fields["stages"] = tuple(Stage(stage["file"], _lora_from_json(stage["lora"])) for stage in raw["stages"])
        return cls(**fields)


def _lora_from_json(raw: Any) -> LoraConfig | None:
    if raw is None:
        return None
    modules = raw["target_modules"]
    return LoraConfig(**{**raw, "target_modules": tuple(modules) if isinstance(modules, list) else modules})


class Checkpoints:
    """The checkpoints of one run. `keep` is how many stay besides the best; None only reads."""

    def __init__(self, folder: Path, keep: int | None = None):
        policies = ocp.training.preservation_policies
        policy = None
        if keep is not None:
            best = policies.BestN(
                get_metric_fn=lambda scores: scores[SCORE], n=1, keep_checkpoints_without_metrics=False
            )
            policy = policies.AnyPreservationPolicy([policies.LatestN(keep), best])
        self.folder = folder
        self._checkpointer = ocp.training.Checkpointer(
            folder.resolve(), preservation_policy=policy, cleanup_tmp_directories=keep is not None
        )

    @property
    def steps(self) -> Sequence[int]:
        """Steps with a checkpoint, rising."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    @property
    def latest(self) -> int | None:
        return self.steps[-1] if self.steps else None

    @property
    def best(self) -> int | None:
        """The step with the highest score, the later of equals; None where nothing was scored."""
        scored = [(found.metrics[SCORE], found.step) for found in self._checkpointer.checkpoints if found.metrics]
        return max(scored)[1] if scored else None

    @property
    def best_score(self) -> float | None:
        return next((found.metrics[SCORE] for found in self._checkpointer.checkpoints if found.step == self.best), None)

    def choose(self, which: str) -> int:
        """The step that `latest`, `best` or a number means."""
        step = {"latest": self.latest, "best": self.best}.get(which, int(which) if which.isdecimal() else None)
        if step is None or step not in self.steps:
            have = ", ".join(map(str, self.steps)) or "none"
            why = "no evaluation was made (intervals.evaluate)" if which == "best" and self.steps else f"it has {have}"
            raise InputError(f"{self.folder.parent}@{which}: no such checkpoint; {why}")
        return step

    def save(self, step: int, state: TrainState, record: RunRecord, score: float | None = None) -> None:
        """Save the state after `step` steps; a step that is already there stays. `score` is what @best goes by."""
        if step in self.steps:
            return
        training = {"step": state.step, "optimizer": state.optimizer, "seed": state.seed}
        saved = self._checkpointer.save_checkpointables_async(
            step,
            {"weights": state.trainable, "training": training},
            force=True,
            metrics=None if score is None else {SCORE: float(score)},
            custom_metadata={**record.to_json(), "data_step": step},
        )
        # The next step donates the state; on CPU its buffers are what is being written, elsewhere a copy of them.
        if saved is not None and jax.default_backend() == "cpu":
            saved.result()

    def record(self, step: int) -> RunRecord:
        metadata = self._checkpointer.checkpointables_metadata(step)
        return RunRecord.from_json(metadata.custom_metadata, f"{self.folder}/{step}")

    def restore(self, step: int, like: TrainState, record: RunRecord) -> TrainState:
        """The state of a checkpoint, laid out as `like` is, on whatever mesh that is.

        Raises:
            InputError: the checkpoint belongs to another base model.
        """
        saved = self.record(step)
        if saved.content_hash != record.content_hash:
            raise InputError(
                f"{self.folder}/{step}: is a checkpoint of another model: it was trained on {saved.base} (content "
                f"{saved.content_hash[:12]}), but {record.base} has content {record.content_hash[:12]}"
            )
        trees = {
            "weights": like.trainable,
            "training": {"step": like.step, "optimizer": like.optimizer, "seed": like.seed},
        }
        loaded = self._checkpointer.load_checkpointables(step, jax.tree.map(_placed, trees))
        training = loaded["training"]
        return TrainState(training["step"], loaded["weights"], training["optimizer"], training["seed"])

    def weights(self, step: int) -> dict[str, np.ndarray]:
        """The trainable parameters alone, in host memory."""
        described = self._checkpointer.checkpointables_metadata(step).metadata["weights"]
        arrays = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in described.items()}
        return self._checkpointer.load_checkpointables(step, {"weights": arrays})["weights"]

    def close(self) -> None:
        """Wait for what is being written."""
        self._checkpointer.close()


def _placed(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


@dataclasses.dataclass(frozen=True)
class OpenedRun:
    """The weights of a run at one checkpoint, and what they stand on."""

    folder: Path
    step: int
    lora: LoraConfig | None
    record: RunRecord
    weights: dict[str, np.ndarray]  # trainable parameters by name


def is_run(argument: str) -> bool:
    """Whether a MODEL argument means a run: RUN, RUN@best or RUN@STEP."""
    return (_split(argument)[0] / "config.yaml").is_file()


def open_run(argument: str) -> OpenedRun:
    """Read the weights of `RUN` (its latest checkpoint), `RUN@best` or `RUN@STEP`.

    Raises:
        InputError: no such run or checkpoint.
    """
    from jaxvsr.grpo.run_folder import RunFolder

    path, which = _split(argument)
    run = RunFolder(path)
    config = run.read_config()
    if not run.checkpoints.is_dir():
        raise InputError(f"{argument}: the run has no checkpoint yet")
    checkpoints = Checkpoints(run.checkpoints)
    try:
        step = checkpoints.choose(which)
        return OpenedRun(path, step, config.lora, checkpoints.record(step), checkpoints.weights(step))
    finally:
        checkpoints.close()


def _split(argument: str) -> tuple[Path, str]:
    """`runs/a@best` → (runs/a, best); a folder whose own name has an @ is taken as it is."""
    path, at, which = argument.rpartition("@")
    if not at or Path(argument).is_dir():
        return Path(argument), "latest"
    if which not in ("best", "latest") and not which.isdecimal():
        raise InputError(f"model {argument!r}: behind @ stands best, latest or a step, found {which!r}")
    return Path(path), which
