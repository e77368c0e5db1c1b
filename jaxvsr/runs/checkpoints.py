"""Checkpoints of a run: the train state, how far the data got, and which base model the weights belong to.

Orbax writes each one to a temporary name and renames it, so an interrupted save leaves nothing that looks whole. A
checkpoint holds two trees, so that export and evaluation read the weights alone:

    weights     the trainable parameters by name
    training    step, optimizer state, seed
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jaxvsr.buckets.fetching import fetched
from jaxvsr.errors import InputError, hits_all_files, one_line, system_fault
from jaxvsr.files import json_sha256, write_text
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.models.huggingface.safetensors_io import is_finite
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import DtypeSetting, VideoPrompt
from jaxvsr.runs.array_digest import changed_leaf, tree_digests
from jaxvsr.runs.checkpoint_arrays import described, read_tree
from jaxvsr.runs.checkpoint_damage import check_scores, damaged, quiet, quiet_threads, score_file

if TYPE_CHECKING:
    from jaxvsr.config.train_config import TrainConfig

SCORE = "score"  # what @best goes by, higher is better
FORMAT = 2
DIGESTS = "digests"  # of every array, in a checkpoint's metadata
SEAL = "sha256"  # of the rest of a checkpoint's metadata
_METADATA_FILE = "_CHECKPOINT_METADATA"  # Orbax's, which holds ours
_Read = TypeVar("_Read")


@dataclasses.dataclass(frozen=True)
class StageFile:
    """A stage that was merged into the base before this run began, as a file of the run that started from it."""

    file: str  # safetensors with trainable parameters, relative to the run folder
    lora: LoraConfig | None  # None: full weights, which replace the base's
    digest: str | None = None  # of its weights; None: nothing is compared


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a checkpoint says about itself besides its arrays."""

    base: str  # as the user named it: folder or hub id
    base_folder: str  # absolute path of the folder that it was read from
    revision: str | None
    content_hash: str  # of its files, one of all
    stages: tuple[StageFile, ...] = ()
    run_id: str | None = None  # of Weights & Biases
    lora: LoraConfig | None = None  # of the weights; None: full weights, or a run that did not record it
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)  # SHA-256 of each file of the base folder
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the config, those that may not change
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)  # what the run reads: part → SHA-256

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, raw: Any, where: str) -> RunRecord:
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise InputError(f"{where}: not a checkpoint of this version of jaxvsr (format {FORMAT})")
        fields = {field.name: raw[field.name] for field in dataclasses.fields(cls) if field.name != "lora"}
        fields["lora"] = _lora_from_json(raw.get("lora"))
        fields["stages"] = tuple(
            StageFile(stage["file"], _lora_from_json(stage["lora"]), stage["digest"]) for stage in raw["stages"]
        )
        return cls(**fields)


def _sealed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about itself, with a SHA-256 of all of it."""
    content = {name: value for name, value in json.loads(json.dumps(metadata)).items() if name != SEAL}
    return {**content, SEAL: json_sha256(content)}


def _lora_from_json(raw: Any) -> LoraConfig | None:
    if raw is None:
        return None
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    return LoraConfig(**fields)


class Checkpoints:
    """The checkpoints of one run. `keep` is how many stay besides the best; None only reads.

    `own_disk`: each of several processes has a folder of its own. The first gathers the whole state and writes it; what
    the others write holds no arrays, and says which steps are saved.
    """

    def __init__(self, folder: Path, keep: int | None = None, *, own_disk: bool = False):
        self._gathers = own_disk and jax.process_count() > 1
        policies = ocp.training.preservation_policies
        policy = None
        if keep is not None:
            best = policies.BestN(
                get_metric_fn=lambda scores: scores[SCORE], n=1, keep_checkpoints_without_metrics=False
            )
            policy = policies.AnyPreservationPolicy([policies.LatestN(keep), best])
        self.folder, self._keep = folder, keep
        self.before_save: Callable[[], None] = lambda: None  # what has to be on the disk before a checkpoint is
        self.after_save: Callable[[], None] | None = None  # called behind the run's back when a checkpoint is written
        self._after: threading.Thread | None = None
        self._quiet = contextlib.ExitStack()  # while a thread may write
        if keep is not None:
            self._quiet.enter_context(quiet_threads())
        check_scores(folder)  # all are read at once, whatever step is asked for
        with quiet(), self._orbax():
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
        self.before_save()
        trees = _trees(state)
        digests = {name: tree_digests(tree) for name, tree in trees.items()}
        if self._gathers:
            trees = _gathered(trees, kept=jax.process_index() == 0)
        with self._saving(), self._orbax():
            saved = self._checkpointer.save_checkpointables_async(
                step,
                trees,
                force=True,
                metrics=None if score is None else {SCORE: float(score)},
                custom_metadata=_sealed({**record.to_json(), "data_step": step, DIGESTS: digests}),
            )
            # The next step donates the state; on CPU its buffers are what is being written, elsewhere a copy of them.
            if saved is not None and jax.default_backend() == "cpu":
                saved.result()
        if saved is not None and self.after_save is not None:
            self._wait_for_after()
            self._after = threading.Thread(target=_when_done, args=(saved, self.after_save), daemon=True)
            self._after.start()

    def add_score(self, step: int, score: float) -> None:
        """Give a checkpoint that is there a score. Its arrays stay as they are, so a kill here does not cost them."""
        with self._saving(), quiet(), self._orbax():
            if self._gathers or jax.process_index() == 0:
                scores = score_file(self.folder, step)
                scores.parent.mkdir(exist_ok=True)
                write_text(scores, json.dumps({SCORE: float(score)}))
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("score")
            self._checkpointer.reload()

    def _orbax(self) -> contextlib.AbstractContextManager[Any]:
        """Orbax, told that each process writes for itself where that is so."""
        if not self._gathers:
            return contextlib.nullcontext()
        context = ocp.Context()
        context.multiprocessing.primary_host = None
        return context

    def _wait_for_after(self) -> None:
        if self._after is not None:
            self._after.join()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """What the system refuses while a checkpoint is written, as one line with the last one that is whole."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds
            fault = system_fault(error)
            if fault is None:
                raise
            reason, latest = fault.rpartition(": ")[2], self.latest
            left = "the run has none yet" if latest is None else f"--resume goes on after step {latest}"
            raise InputError(f"{self.folder}: a checkpoint cannot be written ({reason}); {left}") from None

    def record(self, step: int) -> RunRecord:
        """What a checkpoint says about itself.

        Raises:
            InputError: it cannot be read, or is of another version.
        """

        return self._readable(step, lambda: RunRecord.from_json(self._metadata(step), f"{self.folder}/{step}"))

    def restore(self, step: int, like: TrainState, record: RunRecord) -> TrainState:
        """The state of a checkpoint, laid out as `like` is, on whatever mesh that is.

        Raises:
            InputError: the checkpoint cannot be read, or belongs to another base model, LoRA or config.
        """
        saved = self.record(step)
        if saved.content_hash != record.content_hash:
            raise InputError(
                f"{self.folder}/{step}: is a checkpoint of another model: it was trained on {saved.base} (content "
                f"{saved.content_hash[:12]}), but {record.base} has content {record.content_hash[:12]}"
            )
        where = f"{self.folder.parent}/config.yaml"
        if saved.lora is not None:
            _check_recorded(where, record.lora, saved.lora, step)
        shapes = {name: leaf.shape for name, leaf in self._described(step).items()}
        for name in sorted({*shapes, *like.trainable}):
            found, wanted = shapes.get(name), tuple(like.trainable[name].shape) if name in like.trainable else None
            if found != wanted:
                raise InputError(
                    f"{where}: does not fit {self.folder}/{step}, where {name} has shape {found} and not {wanted}; put "
                    "back the config that the run was started with"
                )
        layout = jax.tree.map(_placed, _trees(like))
        loaded = self._readable(step, lambda: self._loaded(step, layout))
        training = loaded["training"]
        return TrainState(training["step"], loaded["weights"], training["optimizer"], training["seed"])

    def weights(self, step: int) -> dict[str, np.ndarray]:
        """The trainable parameters alone, in host memory.

        Raises:
            InputError: they cannot be read, or are not finite.
        """
        layout = {"weights": self._described(step)}
        weights = self._readable(step, lambda: self._loaded(step, layout))["weights"]
        broken = next((name for name in sorted(weights) if not is_finite(np.asarray(weights[name]))), None)
        if broken is not None:
            raise InputError(
                f"{self.folder}/{step}: {broken!r} holds numbers that are not finite; take an earlier step"
            )
        return weights

    def _metadata(self, step: int) -> dict[str, Any]:
        """The record of a checkpoint with the digests of its arrays, as they were saved."""
        raw = json.loads((self.folder / str(step) / _METADATA_FILE).read_bytes())["custom_metadata"]
        if not isinstance(raw, dict) or not raw:
            raise ValueError("it has no record")
        if raw.get("format") == FORMAT and raw != _sealed(raw):
            raise ValueError("its record is not what was saved")
        return raw

    def _loaded(self, step: int, layout: Mapping[str, Any]) -> dict[str, Any]:
        """The trees of a checkpoint, their bits compared with what was saved."""
        loaded = {tree: read_tree(self.folder / str(step) / tree, like) for tree, like in layout.items()}
        for tree, digests in self._metadata(step).get(DIGESTS, {}).items():
            changed = changed_leaf(loaded[tree], digests) if tree in loaded else None
            if changed is not None:
                raise ValueError(f"the bits of {tree}{changed} are not those that were saved")
        return loaded

    def _described(self, step: int) -> Mapping[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of each trainable parameter."""
        return self._readable(step, lambda: described(self.folder / str(step) / "weights"))

    def _readable(self, step: int, read: Callable[[], _Read]) -> _Read:
        """What `read` gives; what a cut, damaged or empty checkpoint makes of it, as one line."""
        try:
            return read()
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, OSError) as error:  # of JSON, of TensorStore
            if hits_all_files(error):
                raise
            reason = f"{type(error).__name__}: {one_line(error)}"
        raise damaged(self.folder, step, self.steps, reason)

    def finished(self) -> int | None:
        """The latest step, once everything that was begun is written."""
        with self._saving(), self._orbax():
            self._checkpointer.wait()
        self._wait_for_after()
        return self.latest

    def close(self) -> None:
        """Wait for what is being written; of one that writes, what a kill kept from being removed goes now."""
        with self._saving(), self._orbax(), contextlib.closing(self._checkpointer):
            self._checkpointer.wait()
            self._wait_for_after()
            for step in self.steps[: -self._keep] if self._keep else ():
                if step != self.best:
                    self._checkpointer.delete(step)
        self._quiet.close()  # not after an error: other threads may still have theirs to say


def _when_done(saved: Any, then: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):  # of writing: whoever waits for it says it
        saved.result()
        then()


def _check_recorded(where: str, lora: LoraConfig | None, recorded: LoraConfig, step: int) -> None:
    """The LoRA of a config is the one that the weights of a checkpoint were trained with.

    Raises:
        InputError: it is not.
    """
    if lora is None:
        raise InputError(f"{where}: lora is null, but step {step} was trained with LoRA; put back rank {recorded.rank}")
    for field in dataclasses.fields(LoraConfig):
        now, then = getattr(lora, field.name), getattr(recorded, field.name)
        if now != then:
            raise InputError(
                f"{where}: lora.{field.name} is {now!r}, but step {step} was trained with {then!r}; put that back"
            )


def _check_lora(where: str, lora: LoraConfig | None, record: RunRecord, step: int, weights: Mapping[str, Any]) -> None:
    """`_check_recorded`; of a run that did not record its LoRA, by the names and shapes of its weights, which do not
    tell alpha.

    Raises:
        InputError: they do not fit the config.
    """
    if record.lora is not None:
        _check_recorded(where, lora, record.lora, step)
    ranks = {name: leaf.shape[-2 if name.endswith("A") else -1] for name, leaf in weights.items() if ".lora_" in name}
    if lora is None and ranks:
        raise InputError(f"{where}: lora is null, but step {step} is an adapter of rank {next(iter(ranks.values()))}")
    if lora is not None and not ranks:
        raise InputError(f"{where}: lora has rank {lora.rank}, but step {step} holds full weights; lora was null")
    for name, rank in ranks.items():
        assert lora is not None
        if rank != lora.rank:
            raise InputError(
                f"{where}: lora.rank is {lora.rank}, but step {step} was trained with {rank}; put that back"
            )
        if not lora.adapts(name.rpartition(".")[0], weights[name].shape[0]):
            raise InputError(
                f"{where}: lora.target_modules {lora.target_modules!r} leaves out {name}, which step {step} holds"
            )


def _gathered(trees: Mapping[str, Any], *, kept: bool) -> dict[str, Any]:
    """Trees of arrays that are split over processes, whole and in host memory. All processes ask for it; those that do
    not keep it get trees without them."""

    def whole(leaf: jax.Array) -> np.ndarray:
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        found = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(found) if kept else np.zeros(0)

    gathered = jax.tree.map(whole, dict(trees))
    return gathered if kept else {name: {"elsewhere": np.zeros(1)} for name in trees}


def _trees(state: TrainState) -> dict[str, Any]:
    training = {"step": state.step, "optimizer": state.optimizer, "seed": state.seed}
    return {"weights": state.trainable, "training": training}


def _placed(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


@dataclasses.dataclass(frozen=True)
class OpenedRun:
    """The weights of a run at one checkpoint, and what they stand on."""

    folder: Path
    step: int
    lora: LoraConfig | None
    dtype_setting: DtypeSetting  # `model.dtype`
    video_prompt: VideoPrompt  # `data.video_prompt`
    record: RunRecord
    weights: dict[str, np.ndarray]  # trainable parameters by name


def is_run(argument: str) -> bool:
    """Whether a MODEL argument means a run: RUN, RUN@best or RUN@STEP."""
    return (_split(argument)[0] / "config.yaml").is_file()


def config_of_run(argument: str) -> TrainConfig:
    """The config of the run that a MODEL argument means."""
    from jaxvsr.runs.run_folder import RunFolder

    return RunFolder(folder_of_run(argument)).read_config()


def folder_of_run(argument: str) -> Path:
    """`runs/a` of RUN, RUN@best or RUN@STEP."""
    return _split(argument)[0]


def open_run(argument: str) -> OpenedRun:
    """Read the weights of `RUN` (its latest checkpoint), `RUN@best` or `RUN@STEP`.

    Raises:
        InputError: no such run or checkpoint, one that cannot be read, or a config.yaml that does not fit its weights.
    """
    from jaxvsr.runs.run_folder import RunFolder

    path, which = _split(argument)
    run, config = RunFolder(path), config_of_run(argument)
    if not run.checkpoints.is_dir():
        raise InputError(f"{argument}: the run has no checkpoint yet")
    checkpoints = Checkpoints(run.checkpoints)
    try:
        step = checkpoints.choose(which)
        record, weights = checkpoints.record(step), checkpoints.weights(step)
    finally:
        checkpoints.close()
    _check_lora(f"{run.config}", config.lora, record, step, weights)
    return OpenedRun(path, step, config.lora, config.model.dtype, config.data.video_prompt, record, weights)


def step_of_run(argument: str) -> tuple[Path, int]:
    """The folder and the step that `RUN`, `RUN@best` or `RUN@STEP` means; `InputError` where there is no such one."""
    from jaxvsr.runs.run_folder import RunFolder

    path, which = _split(argument)
    checkpoints = Checkpoints(RunFolder(path).checkpoints)
    try:
        return path, checkpoints.choose(which)
    finally:
        checkpoints.close()


def _split(argument: str) -> tuple[Path, str]:
    """`runs/a@best` → (runs/a, best); a folder whose own name has an @ is taken as it is."""
    path, at, which = argument.rpartition("@")
    if not at or Path(argument).is_dir():
        return fetched(argument), "latest"
    if which not in ("best", "latest") and not which.isdecimal():
        raise InputError(f"model {argument!r}: after @ comes best, latest or a step, found {which!r}")
    return fetched(path), which
