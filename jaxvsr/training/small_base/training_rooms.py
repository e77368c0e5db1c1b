"""The rooms of a data folder as both lessons read them: frames and texts to the arrays of a tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxvsr.data.frames import Frames, FrameStore
from jaxvsr.data.splits import read_splits
from jaxvsr.errors import InputError
from jaxvsr.models.inputs.collate import EncodedScene
from jaxvsr.models.inputs.processor import SceneProcessor, ScenePrompt, Video
from jaxvsr.models.tree_batch import TreePrompt


class Rooms:
    """The training split of a data folder of procedural rooms."""

    def __init__(self, data: Path, processor: SceneProcessor, frames: int):
        self.data, self.processor, self._frames = data, processor, frames
        self._store = FrameStore(data)
        self.names: list[str] = sorted(read_splits(data)["train"])
        if not self.names:
            raise InputError(f"{data}: no rooms to train on; make them with a smaller --heldout")

    def frames(self, name: str) -> Frames:
        return self._store.read(name, self._frames)

    def encode(self, frames: Frames, texts: Sequence[str]) -> EncodedScene:
        """A room with texts behind its video."""
        return self.processor.encode(ScenePrompt((Video(frames.pixels, frames.timestamps),), tuple(texts)))

    def collate(self, scenes: Sequence[EncodedScene]) -> TreePrompt:
        """The arrays of rooms that are equal in number and size of frames; no padding behind their videos."""
        if len({(len(scene.tokens), scene.rows) for scene in scenes}) > 1:
            raise InputError(f"{self.data}: frames differ in size or number; store all with one --max-pixels")
        shape = dataclasses.replace(self.processor.shape(scenes), scene=len(scenes[0].tokens))
        return self.processor.collate(scenes, shape)
