"""From a run folder to its report.html."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from jaxvsr.buckets.fetching import fetched
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.frames import FrameStore
from jaxvsr.data.scannet.read_scan import is_procedural, list_scans, read_scene
from jaxvsr.errors import InputError
from jaxvsr.fields import flat_fields, to_tree
from jaxvsr.files import read_rows, read_text, write_text
from jaxvsr.report.drawn_answers import RoomToDraw
from jaxvsr.report.pictures import jpegs
from jaxvsr.report.run_page import BeforeAfter, Page, run_page
from jaxvsr.report.run_rows import SampledQuestion, read_hacking, read_metrics, read_samples, same_question
from jaxvsr.report.score_table import read_comparison
from jaxvsr.report.summary import Run
from jaxvsr.runs.run_folder import RunFolder

COMPARISON = "comparison.json"
SAVINGS = "tree_savings.json"

# The page shows at most
SAMPLES = 4  # questions of the last steps
HACKED = 6  # rollouts with a trick, of the last step that has any
FRAMES = 8  # frames per scene
KEPT_BACK = (
    "Frames are left out: those of real scans stay on this machine (ScanNet's terms of use). "
    "--share-frames puts them on the page."
)


def write_report(run: Path, scans: Sequence[Path] = (), *, share_frames: bool = False) -> Path:
    """Write RUN/report.html; returns its path.

    RUN/comparison.json and RUN/tree_savings.json are on the page where they exist. `scans` are folders of scans besides
    the run's data folders: a scan gives the plan of the room, and says whether the room is procedural or somebody's
    home.

    Raises:
        InputError: `run` is not a run folder, or one of its files cannot be read.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    samples = read_samples(folder.samples)
    given = [sample for sample in samples if sample.is_given][-SAMPLES:]
    answered = [sample for sample in samples if not sample.is_given]
    pair = same_question(answered)
    last = _last_answers(answered, heldout=config.objective != "grpo")
    data = [fetched(path) for path, _ in config.data.weighted_folders()]
    found = _find_scans({sample.scene for sample in [*(pair or ()), *last, *given]}, [*scans, *data])
    frames, note = _frames(config, data, found, share_frames)
    metrics = read_metrics(folder.metrics)
    page = Page(
        name=run.resolve().name,
        metrics=metrics,
        config_text=read_text(folder.config),
        facts=_facts(config) | _circumstances(folder, metrics),
        scores=read_comparison(run / COMPARISON) if (run / COMPARISON).exists() else (),
        before_after=None if pair is None else BeforeAfter(*pair, plan=_plan(pair[0], found[pair[0].scene])),
        savings=read_savings(run / SAVINGS) if (run / SAVINGS).exists() else None,
        samples=last,
        given=given,
        hacking=read_hacking(folder.hacking, HACKED),
        frames=frames,
        frames_note=note,
    )
    write_text(folder.report, run_page(page))
    return folder.report


def _last_answers(answered: Sequence[SampledQuestion], *, heldout: bool) -> list[SampledQuestion]:
    """Of SFT and DPO those of the last evaluation, which asks the same questions each time; of GRPO the last ones but
    for the questions of the first step, which have a place of their own.
    """
    if heldout:
        return [sample for sample in answered if sample.step == answered[-1].step][:SAMPLES]
    first = {sample.question_id for sample in answered if sample.step == answered[0].step}
    return [sample for sample in answered if sample.question_id not in first][-SAMPLES:]


def read_run(path: Path) -> Run:
    """A run's config and metrics, for tables over several runs."""
    folder = RunFolder(path)
    return Run(path.resolve().name, dict(flat_fields(to_tree(folder.read_config()))), read_metrics(folder.metrics))


def read_savings(path: Path) -> str:
    """What the scene tree saved, in one line: field `line` of a JSON object."""
    try:
        line = json.loads(path.read_text(encoding="utf-8"))["line"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected a JSON object with a field 'line' ({error!r})") from None
    return str(line)


def _facts(config: TrainConfig) -> dict[str, str]:
    data = config.data
    tree = {"scenes": data.scenes, "questions": data.questions}
    tree |= {"grpo": {"rollouts": config.sampling.group}, "dpo": {"answers": 2}}.get(config.objective, {})
    facts = {"objective": config.objective, "model": config.model.path, "data": ", ".join(data.folders)}
    facts |= {" × ".join(tree): " × ".join(map(str, tree.values())), "seed": str(config.seed)}
    return facts | ({"video": "blank (control run)"} if data.blank else {})


def _circumstances(folder: RunFolder, metrics: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """When, where and with what the run was done, as far as it is written down, and how long its steps took."""
    starts = list(read_rows(folder.starts))
    facts: dict[str, str] = {}
    if starts:
        first, last = starts[0], starts[-1]
        facts = {"started": str(first.get("time")), "on": str(last.get("machine"))}
        versions = last.get("versions")
        facts |= {str(name): str(value) for name, value in versions.items()} if isinstance(versions, dict) else {}
        facts |= {"times resumed": str(len(starts) - 1)} if len(starts) > 1 else {}
    seconds = sum(row["seconds/step"] for row in metrics if math.isfinite(row.get("seconds/step", math.nan)))
    return facts | ({"all steps took": in_words(seconds)} if seconds else {})


def in_words(seconds: float) -> str:
    """A duration.

    >>> in_words(8.0), in_words(754), in_words(7500)
    ('8 s', '12 min 34 s', '2 h 5 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _find_scans(scenes: Collection[str], folders: Iterable[Path]) -> dict[str, Path | None]:
    """The folder of each scene's scan; None where there is none."""
    found: dict[str, Path | None] = dict.fromkeys(sorted(scenes))
    for folder in folders:
        with contextlib.suppress(InputError):  # a data folder without scans
            found |= {scan.name: scan for scan in list_scans(folder) if scan.name in found and not found[scan.name]}
    return found


def _frames(
    config: TrainConfig, data: Sequence[Path], scans: Mapping[str, Path | None], share_frames: bool
) -> tuple[dict[str, list[bytes]], str | None]:
    """JPEG frames of each scene as the model saw them, and why some are missing."""
    frames: dict[str, list[bytes]] = {}
    if config.data.blank:
        return frames, "This control run saw mid-grey frames instead of the video."
    note = None
    for scene, scan in scans.items():
        if not share_frames and not (scan is not None and is_procedural(scan)):
            note = KEPT_BACK
            continue
        for folder in data:
            try:
                frames[scene] = jpegs(FrameStore(folder).read(scene, config.data.frames).pixels, FRAMES)
                break
            except InputError as error:
                note = f"Frames are left out: {error}"
    return frames, note


def _plan(sample: SampledQuestion, scan: Path | None) -> str | None:
    """The room from above, what the question names outlined; None where there is no scan."""
    if scan is None:
        return None
    room = RoomToDraw(read_scene(scan))
    return room.plan.svg(room.mentioned(sample.question))
