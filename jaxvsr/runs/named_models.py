"""The folder that a model's name means: one that is here, that of the model that comes with jaxvsr, or of a hub id."""

from __future__ import annotations

import re
from pathlib import Path

import jaxvsr
from jaxvsr.buckets.fetching import fetched
from jaxvsr.buckets.urls import bucket_url
from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.file_contents import SUMS_FILE
from jaxvsr.models.huggingface.model_folder import COMPANIONS

ROOMS_BASE = "rooms-base"  # the demo's small base model, which comes with jaxvsr (docs/base-model.md)
# What a model folder is made of; never Python files or pickled weights.
_WANTED_FILES = [*COMPANIONS, SUMS_FILE, "*.safetensors"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Whether a model's name means one on the hub: ORGANISATION/NAME, and no such folder here."""
    is_id = _HUB_ID.fullmatch(name) is not None and not name.startswith(".")
    return is_id and not Path(name).is_dir()


def named_folder(name: str, revision: str | None = None) -> Path:
    """The folder that a name means; a hub id (at `revision`) is downloaded, a folder in a bucket brought.

    Raises:
        InputError: the hub or the bucket does not give it.
    """
    if bucket_url(name):
        return fetched(name)
    if name == ROOMS_BASE and not Path(name).is_dir():
        return Path(jaxvsr.__file__).parent / "shipped" / ROOMS_BASE
    return _download(name, revision) if is_hub_id(name) else Path(name)


def _download(name: str, revision: str | None) -> Path:
    """Into Hugging Face's cache (HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE as everywhere)."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED_FILES))
    except Exception as error:  # network, authorisation, unknown name: the library raises many kinds
        reason = " ".join(str(error).split())[:200]
        at = f" at revision {revision!r}" if revision is not None else ""
        raise InputError(f"model {name!r}: no such folder, and the hub does not give it{at} ({reason})") from None
