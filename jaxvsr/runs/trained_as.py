"""How a model was asked when it was trained: with which prompt, and how it saw a video.

A run's folder holds it in one file, which its exports carry on. `ask.py`, `evaluate.py` and `jaxvsr.load` ask a model
as it was trained unless they are told otherwise.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.frames import FRAMES_DIR, FrameStore
from jaxvsr.data.video.frame_sampling import SamplingRule
from jaxvsr.errors import prefixed
from jaxvsr.fields import read_fields
from jaxvsr.files import read_json_object, write_text
from jaxvsr.models.huggingface.hf_config import GENERATION_FILE, read_generation_config
from jaxvsr.models.huggingface.model_folder import TRAINED_AS_FILE, ModelFolder
from jaxvsr.models.inputs.processor_config import video_file
from jaxvsr.prompts import Prompt, prompt_from
from jaxvsr.runs.checkpoints import config_of_run, folder_of_run, is_run
from jaxvsr.runs.named_models import named_folder


@dataclasses.dataclass(frozen=True)
class TrainedAs:
    """A prompt, and how many frames of a video were shown in which size."""

    prompt: Prompt
    frames: int | None = None  # of a video; None: scenes in memory, of any number of frames
    max_pixels: int | None = None  # most pixels per frame; None: the limits of the model folder
    rule: SamplingRule = "linspace"  # by which the frames were taken

    def __str__(self) -> str:
        said = [f"prompt {self.prompt.name}"]
        if self.frames is not None:
            said.append(f"{self.frames} frames" + ("" if self.rule == "linspace" else f" by the rule {self.rule}"))
        if self.max_pixels is not None:
            said.append(f"at most {self.max_pixels:,} pixels per frame")
        return ", ".join(said)

    def in_words(self) -> str:
        """For a model card: the same with the prompt's words."""
        template = "\n".join(f"    {line}" for line in self.prompt.template.splitlines())
        system = "" if self.prompt.system is None else f", with the system prompt `{self.prompt.system}`"
        return f"{self}{system}; answers have at most {self.prompt.max_answer_tokens} tokens.\n\n{template}"

    def file(self) -> dict[str, str]:
        """The file of a run's folder: its name and its text."""
        return {TRAINED_AS_FILE: json.dumps(dataclasses.asdict(self), indent=1) + "\n"}

    def export_files(self, base: ModelFolder, *, adapter: bool = False) -> dict[str, str]:
        """Those of an export, by name: this file, and what tells Hugging Face's clients the same in files of its own,
        which are the base's otherwise: frames and pixels of a video, and the most tokens of an answer (not of an
        adapter, with which the base model's file is used)."""
        content: dict[str, dict[str, Any]] = {}
        if self.frames is not None:
            name, video = video_file(base.path, base.config, self.frames, self.max_pixels)
            content[name] = video
        if not adapter:
            given, generation = base.path / GENERATION_FILE, read_generation_config(base.path)
            tokens = {"eos_token_id": list(generation.eos_token_ids), "pad_token_id": generation.pad_token_id}
            before = read_json_object(given) if given.is_file() else tokens
            content[GENERATION_FILE] = {**before, "max_new_tokens": self.prompt.max_answer_tokens}
        return {**self.file(), **{name: json.dumps(one, indent=2) + "\n" for name, one in content.items()}}

    def write(self, folder: Path) -> None:
        """Into the folder of a run."""
        for name, text in self.file().items():
            write_text(folder / name, text)


def prompt_of(trained: TrainedAs | None, named: str | None, untrained: str) -> Prompt:
    """The prompt that is named, else the one that a model was trained with, else `untrained`."""
    return trained.prompt if trained is not None and not named else prompt_from(named or untrained)


def of_config(config: TrainConfig, folders: tuple[Path, ...] = ()) -> TrainedAs:
    """What a config says, with the pixels and the rule that its data folders' frames are stored with."""
    stored = [attributes for folder in folders if (attributes := _stored(folder)) is not None]
    budgets = [config.data.max_pixels, *(attributes["max_pixels"] for attributes in stored)]
    rules: set[SamplingRule] = {attributes["rule"] for attributes in stored}
    return TrainedAs(
        prompt_from(config.data.prompt),
        config.data.frames if config.data.folders else None,
        min((budget for budget in budgets if budget is not None), default=None),
        rules.pop() if len(rules) == 1 else "linspace",
    )


def trained_as(model: str, revision: str | None = None) -> TrainedAs | None:
    """How the model that an argument (a hub id: at `revision`) means was asked in training; None where nobody has
    written it down.

    Raises:
        InputError: the file cannot be read, or the hub does not give the model.
    """
    folder = folder_of_run(model) if is_run(model) else named_folder(model, revision)
    if (folder / TRAINED_AS_FILE).is_file():
        with prefixed(f"{folder / TRAINED_AS_FILE}"):
            return read_fields(TrainedAs, read_json_object(folder / TRAINED_AS_FILE))
    return of_config(config_of_run(model)) if is_run(model) else None


def _stored(folder: Path) -> Mapping[str, Any] | None:
    """What the frames of a data folder are stored with, by its first scene that has any."""
    if not (folder / FRAMES_DIR).is_dir():
        return None
    store = FrameStore(folder)
    videos = (scene for scene in store.scenes() if not store.is_image_set(scene))
    return next((store.attributes(scene) for scene in videos), None)
