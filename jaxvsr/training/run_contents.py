"""What a run reads, as hashes: a run that goes on is one run only where these have stayed the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxvsr.buckets.places import named
from jaxvsr.data.features import FeatureStore
from jaxvsr.data.frames import FrameStore
from jaxvsr.data.scene_pools import ScenePool
from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.file_contents import plain_sha256
from jaxvsr.runs.checkpoints import Checkpoints, RunRecord
from jaxvsr.runs.run_folder import RunFolder, check_same_settings
from jaxvsr.training.run_inputs import RunInputs

_REWARD_FILE = re.compile(r"[^*(),]+\.py(?=:)")


def run_contents(inputs: RunInputs) -> dict[str, str]:
    """Part of what a run reads, in words → SHA-256: questions, frames and features of each folder, prompt, rewards."""
    config, prompt = inputs.config, dataclasses.asdict(inputs.prompt)
    found = {"the prompt": _sha256({name: prompt[name] for name in prompt if name not in ("name", "source")})}
    for term in config.rewards:
        if (file := _REWARD_FILE.search(term)) is not None:
            found[f"the reward file {file[0]}"] = plain_sha256(Path(file[0]))
    for held_out, pools in (("", inputs.pools), ("held-out ", inputs.heldout_pools)):
        for pool in pools:
            folder = named(str(pool.folder))
            found[f"the {held_out}questions of {folder}"] = _questions(pool)
            found[f"the {held_out}frames of {folder}"] = _frames(pool, config.data.frames)
            if inputs.features is not None:
                of_pairs = (False, True) if config.data.mirror == "pairs" and not held_out else (False,)
                found[f"the {held_out}vision features of {folder}"] = _features(
                    pool, inputs.features, config.data.frames, of_pairs
                )
    return found


def check_contents(run: RunFolder, record: RunRecord, *, changed_data: bool) -> None:
    """Compare what a run would go on with to what its last checkpoint was made with.

    Args:
        changed_data: go on with other data, prompts or rewards.

    Raises:
        InputError: something is another, or a setting that may not change has changed.
    """
    if not run.checkpoints.is_dir():
        return
    checkpoints = Checkpoints(run.checkpoints)
    try:
        step = checkpoints.latest
        saved = None if step is None else checkpoints.record(step)
    finally:
        checkpoints.close()
    if saved is None:
        return
    check_same_settings(saved.settings, record.settings, run.path)
    changed = [part for part in saved.data if record.data.get(part, saved.data[part]) != saved.data[part]]
    if changed and not changed_data:
        raise InputError(
            f"--resume: {' and '.join(changed)} are not those that {run.path} was trained on up to step {step}; put "
            "them back, or go on with them by --changed-data"
        )


def _questions(pool: ScenePool) -> str:
    rows = ([scene.name, *(q.to_json() for q in (*scene.questions, *scene.mirrored))] for scene in pool.scenes)
    return _sha256(rows)


def _frames(pool: ScenePool, count: int) -> str:
    store = FrameStore(pool.folder)
    return _sha256([scene.name, *store.identity(scene.name, count)] for scene in pool.scenes)


def _features(pool: ScenePool, name: str, count: int, views: Iterable[bool]) -> str:
    store = FeatureStore(pool.folder, name)
    return _sha256(
        [scene.name, dict(store.attributes(scene.name, count, mirrored=view))]
        for view in views
        for scene in pool.scenes
    )


def _sha256(rows: Iterable[Any] | Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for row in rows.items() if isinstance(rows, Mapping) else rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()
