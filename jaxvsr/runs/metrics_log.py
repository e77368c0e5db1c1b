"""Numbers of every step: metrics.jsonl, samples.jsonl, hacking.jsonl, TensorBoard events, Weights & Biases.

A number that is not finite becomes null in JSON, so that every reader of JSON reads the rows.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import platform
import struct
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxvsr.config.train_config import LoggingSettings, TrainConfig
from jaxvsr.errors import InputError, naming
from jaxvsr.fields import to_tree
from jaxvsr.files import read_rows, write_text
from jaxvsr.runs.run_folder import RunFolder, cut_rows

Row = Mapping[str, Any]


@runtime_checkable
class Tracker(Protocol):
    """Something that takes a step's numbers and samples; samples of a step come before its numbers."""

    def write(self, step: int, row: Row) -> None: ...
    def write_samples(self, step: int, name: str, table: Sequence[Sequence[str]]) -> None: ...
    def close(self) -> None: ...


def check_trackers(settings: LoggingSettings) -> None:
    """`InputError` where a tracker that is asked for is not installed: said before anything is written."""
    if "wandb" in settings.trackers and importlib.util.find_spec("wandb") is None:
        raise InputError("logging.trackers: wandb is not installed: pip install 'jaxvsr[wandb]', or leave it out")


class MetricsLog:
    """The logs of one run, open for writing. Only the first process of several has one."""

    def __init__(self, folder: RunFolder, config: TrainConfig, *, restored_step: int = 0, run_id: str | None = None):
        self.gap = _gap(folder.metrics, restored_step, cut_rows(folder.metrics, restored_step))
        cut_rows(folder.samples, restored_step)
        cut_rows(folder.hacking, restored_step)
        self._folder = folder
        self._trackers: list[Tracker] = []
        if "wandb" in config.logging.trackers:  # first: it may refuse, and then nothing else is open
            self._trackers.append(WeightsAndBiases(folder, config, run_id))
        if "tensorboard" in config.logging.trackers:
            self._trackers.append(TensorBoard(folder.tensorboard, restored_step, config.objective))
        self._metrics, self._samples, self._hacking = map(_Rows, (folder.metrics, folder.samples, folder.hacking))

    @property
    def run_id(self) -> str | None:
        """The id under which Weights & Biases knows the run; a checkpoint keeps it."""
        return next((tracker.run_id for tracker in self._trackers if isinstance(tracker, WeightsAndBiases)), None)

    def write(self, step: int, row: Row) -> None:
        """One row of metrics.jsonl; `step` counts from 1."""
        self._metrics.write({"step": step, **row})
        for tracker in self._trackers:
            tracker.write(step, row)

    def add(self, step: int, more: Row) -> None:
        """Numbers that the row of a step lacks. Weights & Biases, which has that step by then, does not take them."""
        rows = [{**row, **finite(more)} if row["step"] == step else row for row in self.read_metrics()]
        self._metrics.close()
        write_text(self._folder.metrics, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self._metrics = _Rows(self._folder.metrics)
        self._folder.report.unlink(missing_ok=True)  # it lacks them too, and a run that is done writes none over it
        for tracker in self._trackers:
            tracker.write(step, more)

    def write_samples(self, step: int, rows: Sequence[Row], name: str = "samples") -> None:
        """Questions with their answers into samples.jsonl, and as a table of that name into the trackers."""
        for row in rows:
            self._samples.write({"step": step, **row})
        for tracker in self._trackers:
            tracker.write_samples(step, name, samples_table(rows))

    def write_hacking(self, rows: Sequence[Row]) -> None:
        """Rollouts that show a trick, one a row."""
        for row in rows:
            self._hacking.write(row)

    def read_metrics(self) -> Iterator[Row]:
        """The rows of metrics.jsonl so far."""
        return read_rows(self._folder.metrics)

    def read_samples(self) -> Iterator[Row]:
        """The rows of samples.jsonl so far."""
        return read_rows(self._folder.samples)

    def sync(self) -> None:
        """Wait until all rows are on the disk: before a checkpoint, which a run goes on from without them."""
        for rows in (self._metrics, self._samples, self._hacking):
            rows.sync()

    def close(self) -> None:
        with contextlib.ExitStack() as closing:  # all of them, also where one fails
            for rows in (self._metrics, self._samples, self._hacking):
                closing.callback(rows.close)
            for tracker in self._trackers:
                closing.callback(tracker.close)


def _gap(path: Path, last: int, there: Sequence[int]) -> str | None:
    """A line about the steps up to `last` whose rows are not in the file; None where all are."""
    missing = sorted(set(range(1, last + 1)) - set(there))
    if not missing:
        return None
    which = str(missing[0]) if len(missing) == 1 else f"{missing[0]} to {missing[-1]}"
    return (
        f"warning: {path} lacks the rows of {len(missing)} steps before the checkpoint ({which}); the run goes on "
        f"after step {last}, and its curves have a gap"
    )


def samples_table(rows: Sequence[Row]) -> list[list[str]]:
    """Samples as the cells of a table, the heads of its columns first: a line for each answer."""
    cells = [["question", "correct answer", "answer", "reward"]]
    for row in rows:
        for answer in row["answers"]:
            known = answer["reward"] if "reward" in answer else answer.get("given", "")
            shown = f"{known:.3g}" if isinstance(known, float) else known
            cells.append([row["question"], row["answer"], answer["text"], shown])
    return cells


class _Rows:
    """A JSON lines file that rows are added to. Nothing is buffered: what could not be written stays unwritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, row: Row) -> None:
        line = (json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")
        with naming(self._path):
            while line:
                line = line[self._file.write(line) or 0 :]

    def sync(self) -> None:
        with naming(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def finite(value: Any) -> Any:
    """The value with null for every number that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


_ALWAYS = {"Score of held-out questions": "eval/.*", "Loss": "loss"}
_CHARTS = {  # title of a chart: which metrics are in it, by objective
    "grpo": {"Reward": "reward/mean", "Rewards": "reward/.*", "KL": "kl", "Entropy": "entropy", **_ALWAYS},
    "dpo": {"Reward": "rewards/.*", **_ALWAYS},
    "sft": _ALWAYS,
}


class TensorBoard:
    """Events as TensorBoard reads them; steps after the restored one are purged from what it shows.

    Its page of scalars is in the order of the alphabet; its page "Custom Scalars" begins with what is learned.
    """

    def __init__(self, folder: Path, restored_step: int, objective: str):
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event = event_pb2.Event
        earlier = folder.is_dir() and any(folder.iterdir())  # also of a run that ended before its first checkpoint
        folder.mkdir(exist_ok=True)
        # TensorBoard reads the files in the order of their names: two within one second have an order too.
        self._path = folder / f"events.out.tfevents.{time.time():017.6f}.{platform.node()}.{uuid.uuid4().hex[:12]}"
        # Its own EventFileWriter has a thread, whose traceback would come with a full disk.
        self._writer = RecordWriter(self._path.open("xb", buffering=0))
        self._add(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
        if earlier:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(event_pb2.Event(wall_time=time.time(), step=restored_step + 1, session_log=start))
        else:
            self._add_charts(objective)

    def write(self, step: int, row: Row) -> None:
        event = self._event(wall_time=time.time(), step=step)
        for name, value in row.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                event.summary.value.add(tag=name, simple_value=_float32(value))
        self._add(event)

    def write_samples(self, step: int, name: str, table: Sequence[Sequence[str]]) -> None:
        from tensorboard.plugins.text.metadata import create_summary_metadata

        # A cell is Markdown there: what a model wrote stays as it is between backticks, on one line.
        heads, *lines = table
        cells = [heads, *[[_as_code(cell) for cell in line] for line in lines]]
        self._add_tensor(name, cells, create_summary_metadata(name, ""), step)

    def _add_charts(self, objective: str) -> None:
        from tensorboard.plugins.custom_scalar import layout_pb2, metadata

        charts = [
            layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=[f"^{pattern}$"]))
            for title, pattern in _CHARTS[objective].items()
        ]
        layout = layout_pb2.Layout(category=[layout_pb2.Category(title="What is learned", chart=charts)])
        summary = metadata.create_summary_metadata()
        self._add_tensor(metadata.CONFIG_SUMMARY_TAG, layout.SerializeToString(), summary, 0)

    def _add_tensor(self, tag: str, value: Any, metadata: Any, step: int) -> None:
        from tensorboard.util.tensor_util import make_tensor_proto

        event = self._event(wall_time=time.time(), step=step)
        event.summary.value.add(tag=tag, tensor=make_tensor_proto(value), metadata=metadata)
        self._add(event)

    def _add(self, event: Any) -> None:
        with naming(self._path):
            self._writer.write(event.SerializeToString())

    def close(self) -> None:
        self._writer.close()


def _as_code(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    line = " ".join(text.split()).replace("`", "'")
    return f"`{line}`" if line else ""


def _float32(value: float) -> float:
    """Protobuf refuses what float32 cannot hold."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


class WeightsAndBiases:
    """The same run goes on where `run_id` is given, and has every step once, whatever it was told before a kill:

        rows there     1 2 3 4       4 was made after the checkpoint that the run goes on from: it stays as it is
        metrics.jsonl  1 2 3         the rows up to that checkpoint; those that a kill kept from being sent are sent now
        made from now        4 5     4 is not sent again: Weights & Biases takes no step a second time

    WANDB_MODE=offline works as everywhere. Each part of a run then leaves a folder of its own, which cannot know what
    the others hold: it gets all rows, so that the newest folder alone is the run.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig, run_id: str | None):
        import wandb

        self._table = wandb.Table
        self._samples: dict[str, Any] = {}  # sent with the numbers of their step
        settings: LoggingSettings = config.logging
        try:
            self._run = wandb.init(
                project=settings.project,
                name=settings.name or folder.path.name,
                group=settings.group,
                tags=list(settings.tags),
                id=run_id,
                resume="must" if run_id and os.environ.get("WANDB_MODE") != "offline" else None,
                dir=str(folder.path),
                config=to_tree(config),
            )
        except Exception as error:  # no login, no network, no such run: wandb has its own kinds
            said = " ".join(str(error).split())[:200]
            raise InputError(
                f"logging.trackers: wandb cannot start ({said}); WANDB_MODE=offline goes without a server, and the run "
                f"in {folder.path} goes on with --resume"
            ) from error
        self.run_id: str = self._run.id
        self._next = int(self._run.starting_step)  # the first step that is not there; 0 in a new run and offline
        for row in read_rows(folder.metrics):
            known = {name: value for name, value in row.items() if name != "step" and value is not None}
            self.write(row["step"], known)

    def write(self, step: int, row: Row) -> None:
        if step >= self._next:
            self._run.log({**row, **self._samples}, step=step, commit=True)  # not held back until the next step
            self._next = step + 1
        self._samples = {}

    def write_samples(self, step: int, name: str, table: Sequence[Sequence[str]]) -> None:
        heads, *lines = table
        self._samples[name] = self._table(columns=list(heads), data=[list(line) for line in lines])

    def close(self) -> None:
        self._run.finish()
