"""The pixel limits in a model folder's processor files.

Hugging Face looks in three places, in this order: `processor_config.json` (transformers 5, nested),
`video_preprocessor_config.json` for video, `preprocessor_config.json` for images and, without the others, for video.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from jaxvsr.errors import InputError, prefixed
from jaxvsr.files import read_json_object
from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.pixel_budget import PixelLimits

PROCESSOR_FILE = "processor_config.json"
IMAGE_FILE = "preprocessor_config.json"
VIDEO_FILE = "video_preprocessor_config.json"
_NOT_OF_VIDEOS = ("image_processor_type", "min_pixels", "max_pixels")  # the last two become `size`


@dataclasses.dataclass(frozen=True)
class ProcessorConfig:
    """Pixel limits per image, and those of a video as its family counts them (`Family.video_size`).

    `max_video_tokens` is set if the folder also has the second limit on videos (`cap_pixels_per_frame`).
    """

    image: PixelLimits
    video: PixelLimits
    max_video_tokens: int | None = None


def read_processor_config(folder: Path, config: ModelConfig) -> ProcessorConfig:
    """Read the limits, and check that patches and normalisation are those of the model."""
    nested = _read(folder / PROCESSOR_FILE)
    image_path, video_path = folder / IMAGE_FILE, folder / VIDEO_FILE
    image = nested.get("image_processor") or _read(image_path)
    video = nested.get("video_processor") or (_read(video_path) if video_path.is_file() else _read(image_path))
    for raw, what in ((image, "image"), (video, "video")):
        if not isinstance(raw, dict) or not isinstance(raw.get("size") or {}, dict):
            raise InputError(f"{folder}: {what} processor: it and its size must be JSON objects")
    if not image and not video:
        raise InputError(f"{folder}: no {IMAGE_FILE} or {PROCESSOR_FILE}; copy it from this model's base")
    for raw, what in ((image, "image"), (video, "video")):
        _check_constants(raw, config, f"{folder}: {what} processor")
    family = family_of(config)
    cap = video.get("max_video_tokens", family.max_video_tokens) if video.get("cap_pixels_per_frame") else None
    if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
        raise InputError(f"{folder}: video processor: max_video_tokens {cap!r} must be an integer of at least 1")
    return ProcessorConfig(
        _limits(image, family.image_limits, f"{folder}: image processor"),
        _limits(video, family.video_limits, f"{folder}: video processor"),
        cap,
    )


def video_file(folder: Path, config: ModelConfig, frames: int, max_pixels: int | None) -> tuple[str, dict[str, Any]]:
    """Name and content of the file by which Hugging Face's processor shows `frames` frames of a video, each of at most
    `max_pixels` pixels (None: as the folder says): the folder's own with that in it, or one that it lacks."""
    nested, family = _read(folder / PROCESSOR_FILE), family_of(config)
    given = nested.get("video_processor")
    video = given or _read(folder / (VIDEO_FILE if (folder / VIDEO_FILE).is_file() else IMAGE_FILE))
    video = {name: value for name, value in video.items() if name not in _NOT_OF_VIDEOS}
    limits = read_processor_config(folder, config).video
    if max_pixels is not None:
        limits = family.limits_for(max_pixels, frames, limits)
    video |= {
        "video_processor_type": family.video_processor_type,
        "size": {"shortest_edge": limits.minimum, "longest_edge": limits.maximum},
        # Of a frame rate: a number of frames without one would end in an error where others give a rate too.
        "min_frames": frames,
        "max_frames": frames,
    }
    return (PROCESSOR_FILE, {**nested, "video_processor": video}) if given else (VIDEO_FILE, video)


def _limits(raw: dict[str, Any], default: PixelLimits, where: str) -> PixelLimits:
    """`min_pixels` and `max_pixels` come before `size`, whose keys once had these names too."""
    size = raw.get("size") or {}
    found = []
    for name, edge, fallback in (
        ("min_pixels", "shortest_edge", default.minimum),
        ("max_pixels", "longest_edge", default.maximum),
    ):
        values = {name: raw.get(name), f"size.{edge}": size.get(edge), f"size.{name}": size.get(name), "": fallback}
        key, value = next((key, value) for key, value in values.items() if value is not None)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"{where}: {key} {value!r} must be an integer")
        found.append(value)
    with prefixed(where):
        return PixelLimits(*found)


def _check_constants(raw: dict[str, Any], config: ModelConfig, where: str) -> None:
    vision = config.vision
    expected = {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
    }
    for name, value in expected.items():
        if raw.get(name, value) != value:
            raise InputError(f"{where}: {name} is {raw[name]!r}, but {value} in config.json")
    for name, constant in (("image_mean", vision.pixel_mean), ("image_std", vision.pixel_std)):
        values = raw.get(name, constant)
        numbers = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
        if not numbers or len(values) != 3 or not all(map(math.isclose, values, constant)):
            raise InputError(f"{where}: {name} {values!r} is not supported; it must be {list(constant)}")


def _read(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}
