"""What people fall over before they train or serve: one finding for each trap, each with what to do.

Of a model: its files, where its answers end, positions and prompt of the installed transformers, how it was trained.
Of a data folder: what is missing, benchmark scenes among those that are trained on, frames and features that are not
those of the model.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from jaxvsr.data.data_folder import check_folder, questions_in, some_of
from jaxvsr.data.features import stored_sets
from jaxvsr.data.frames import FRAMES_DIR, FrameStore
from jaxvsr.data.scannet.benchmark_scenes import benchmark_in
from jaxvsr.data.splits import SPLITS_FILE, read_splits
from jaxvsr.errors import InputError
from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.huggingface.installed_positions import position_differences
from jaxvsr.models.huggingface.processor_tokens import compare_prompts
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.pixel_budget import vision_tokens
from jaxvsr.runs.model_source import Model
from jaxvsr.runs.trained_as import TrainedAs
from jaxvsr.training.stored_features import set_name

# wrong: results will not be what was asked for. note: to know, or not checked here.
Level = Literal["fine", "note", "wrong"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found, and where it is not fine what to do."""

    level: Level
    about: str
    what: str

    def to_text(self) -> str:
        """One line."""
        return f"{self.level:6}{self.about:11}{self.what}"


def examine_model(model: Model, trained: TrainedAs | None) -> Iterator[Finding]:
    """Every check of a model alone; `open_model` has checked its files and weights."""
    config, folder = model.config, model.folder.path
    count = sum(leaf.size for leaf in parameter_shapes(config).values())
    merged = f", {len(model.stages)} adapter(s) on {model.base}" if model.stages else ""
    what = f"{config.family}, {count / 1e6:,.1f} M parameters{merged}; files are whole, weights are finite"
    yield Finding("fine", "model", what)
    processor = SceneProcessor.from_folder(folder)
    yield _answer_ends(processor)
    if processor.chat.opens_thought:
        what = "the chat template opens a thought: give answers thousands of tokens, and a prompt without <think>"
        yield Finding("note", "thought", what)
    yield _positions(family_of(config).title)
    yield _prompt(model)
    if trained is None:
        yield Finding("note", "asked", "nothing says how it was trained: prompt, frames and pixels are yours to choose")
    else:
        yield Finding("fine", "asked", f"as trained: {trained}")


def examine_data(data: Path, model: Model, trained: TrainedAs | None) -> Iterator[Finding]:
    """Every check of a data folder, with the model that is trained on it or asked about it.

    Raises:
        InputError: the folder is none, or a file of it is broken.
    """
    missing = check_folder(data, read_pixels=False).missing
    yield from (Finding("wrong", "data", f"missing: {line}") for line in missing)
    if not missing:
        yield Finding(
            "fine", "data", "questions, frames and splits are complete (`build_data.py check` reads all pixels)"
        )
    yield from _leaks(data)
    if (data / FRAMES_DIR).is_dir():
        yield from _frames(data, model, trained)
        yield from _features(data, model)


def _answer_ends(processor: SceneProcessor) -> Finding:
    chat = processor.chat
    named = [str(chat.tokenizer.convert_ids_to_tokens(token)) for token in chat.eos_token_ids]
    pad = str(chat.tokenizer.convert_ids_to_tokens(chat.generation.pad_token_id))
    what = f"end with {' or '.join(named)}, padded with {pad}"
    if chat.generation.pad_token_id == chat.eos_token_ids[0]:
        return Finding("note", "answers", f"{what}: a trainer that masks padding masks the end too; ours does not")
    if chat.tokenizer.eos_token_id not in chat.eos_token_ids:
        theirs = f"the tokenizer's eos_token {chat.tokenizer.eos_token}"
        return Finding("note", "answers", f"{what}; {theirs} is not among them: programs that read it run on; set it")
    return Finding("fine", "answers", what)


def _positions(title: str) -> Finding:
    import transformers

    version = f"transformers {transformers.__version__}"
    try:
        found = [one for one in position_differences() if one.words.startswith(f"{title},")]
    except (InputError, ImportError) as error:
        return Finding("note", "positions", f"{version} was not asked ({error})")
    if not found:
        return Finding("note", "positions", f"{version} is not asked about {title}")
    if all(one.as_trained for one in found):
        return Finding("fine", "positions", f"{version} computes them as in training")
    way_out = "who generates there calls jaxvsr.patch_transformers(model), or passes position_ids (docs/serving.md)"
    return Finding("note", "positions", f"{version}: {found[0].to_text()}; {way_out}")


def _prompt(model: Model) -> Finding:
    folder, asked = model.folder.path, model.video_prompt
    try:
        compared = compare_prompts(folder, asked)
        if compared.first_difference is None:
            what = f"{len(compared.ours)} tokens of a video and a question, as transformers' own"
            return Finding("fine", "prompt", what)
        for other in set(family_of(model.config).video_prompts) - {asked}:
            if compare_prompts(folder, other).first_difference is None:
                what = f"the installed transformers writes a video as {other!r}, this model is asked with {asked!r}"
                return Finding("note", "prompt", f"{what} (docs/serving.md): who generates there passes input_ids")
    except InputError as error:
        return Finding("note", "prompt", f"not compared: {error}")
    counts = f"token {compared.first_difference} on ({len(compared.ours)} and {len(compared.theirs)} tokens)"
    way_out = "chat template, tokenizer and processor of the folder must be those of one model"
    return Finding("wrong", "prompt", f"differs from transformers' processor from {counts}; {way_out}")


def _leaks(data: Path) -> Iterator[Finding]:
    splits = read_splits(data) if (data / SPLITS_FILE).is_file() else None
    trained = splits["train"] if splits else sorted({row.scene for row in questions_in(data)})
    owners = {scene: owner for scene in trained if (owner := benchmark_in(scene)) is not None}
    for benchmark, count in sorted(Counter(owners.values()).items()):
        scenes = some_of([scene for scene, owner in owners.items() if owner == benchmark])
        where = "in the train split" if splits else "with questions, and there is no split"
        what = f"{count:,} scenes {where} are {benchmark}'s ({scenes}): scores there would mean nothing; make"
        yield Finding("wrong", "leak", f"{what} the questions again without --include {benchmark}")
    if not owners:
        yield Finding(
            "fine", "leak", f"none of {len(trained):,} scenes to train on is of VSI-Bench or ScanNet's validation"
        )


def _frames(data: Path, model: Model, trained: TrainedAs | None) -> Iterator[Finding]:
    """Frames as the model sees them, and as it saw them in training."""
    store = FrameStore(data)
    videos = [scene for scene in store.scenes() if not store.is_image_set(scene)]
    if not videos:
        return
    attributes = {scene: store.attributes(scene) for scene in videos}
    processor = SceneProcessor.from_folder(model.folder.path, max_pixels=trained.max_pixels if trained else None)
    tokens, resized, unit = set(), [], model.config.vision.merged_patch
    for scene in videos:
        height, width = attributes[scene]["height_width"]
        for count in store.counts(scene):
            high, wide = processor.frame_size(count, height, width, is_video=True)
            tokens.add(vision_tokens(count, high, wide, unit))
        resized += [scene] * ((high, wide) != (height, width))
    context = model.config.text.max_position_embeddings
    span = f"{min(tokens):,} to {max(tokens):,} tokens a video, context window {context:,}"
    yield Finding("fine" if max(tokens) < context else "wrong", "frames", span)
    if resized:
        what = f"{len(resized):,} videos ({some_of(resized)}) are stored in a size that this model resizes again"
        yield Finding(
            "note", "frames", f"{what}: its sides are multiples of {unit}; store them with `build_data.py frames`"
        )
    if trained is None or trained.frames is None:
        return
    without = [scene for scene in videos if trained.frames not in store.counts(scene)]
    if without:
        what = f"{len(without):,} videos ({some_of(without)}) have no {trained.frames} frames, as in training"
        yield Finding("wrong", "frames", f"{what}; add them with `build_data.py frames … --frames {trained.frames}`")
    others = [scene for scene in videos if attributes[scene]["rule"] != trained.rule]
    if others:
        what = f"{len(others):,} videos ({some_of(others)}) were sampled by {attributes[others[0]]['rule']}"
        yield Finding("wrong", "frames", f"{what}, in training by {trained.rule}")
    smaller = [scene for scene in videos if (attributes[scene]["max_pixels"] or 0) < (trained.max_pixels or 0)]
    if smaller:
        what = f"{len(smaller):,} videos ({some_of(smaller)}) are stored with fewer pixels than in training"
        yield Finding("wrong", "frames", f"{what}, {trained.max_pixels:,} per frame; write them again")


def _features(data: Path, model: Model) -> Iterator[Finding]:
    sets = stored_sets(data)
    if not sets:
        return
    own = set_name(model, "float32").rpartition("-")[0]  # a set's name ends with the dtype of its computation
    if own in {name.rpartition("-")[0] for name in sets}:
        yield Finding("fine", "features", f"{len(sets)} set(s), one of this model's tower")
    else:
        what = f"{len(sets)} set(s), of {', '.join(sorted(set(sets.values())))}: none of this model's tower"
        yield Finding("note", "features", f"{what}, so it runs in training; `build_data.py features` stores its own")
