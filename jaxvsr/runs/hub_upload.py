"""Upload a model folder to the hub: what would be uploaded, what its card and config lack, and the upload."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object
from jaxvsr.models.huggingface.file_contents import check_sums
from jaxvsr.models.huggingface.model_card import NO_SCORES, NO_SOURCE, README, base_licence
from jaxvsr.models.huggingface.peft_adapter import ADAPTER_CONFIG

CONFIG = "config.json"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclasses.dataclass(frozen=True)
class Upload:
    """What a push would do."""

    folder: Path
    repository: str
    files: tuple[tuple[str, int], ...]  # name and bytes
    concerns: tuple[str, ...]  # what to look at before it is public

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(size for _, size in self.files)


def plan_upload(folder: Path, repository: str) -> Upload:
    """Read the folder; nothing is sent.

    Raises:
        InputError: no such repository name, no model folder, a file that is not as it was written, no card, or an
            adapter that names a base model of this machine.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"{repository!r}: not a repository of the hub; expected NAME/MODEL, such as you/rooms-2b")
    if not any((folder / name).is_file() for name in (CONFIG, ADAPTER_CONFIG)):
        raise InputError(f"{folder}: no {CONFIG} and no {ADAPTER_CONFIG}; push takes a folder that to-hf wrote")
    if not (folder / README).is_file():
        raise InputError(f"{folder}: no {README}; to-hf writes one, and the hub shows it as the model's card")
    check_sums(folder, in_full=True)
    if (folder / ADAPTER_CONFIG).is_file():
        base = str(read_json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path"))
        if not _REPOSITORY.fullmatch(base) or Path(base).exists():
            raise InputError(
                f"{folder / ADAPTER_CONFIG}: base_model_name_or_path {base!r} is on this machine alone; name the "
                "base's hub id there, or push merged weights (to-hf without --adapter)"
            )
    files = tuple(
        (path.name, path.stat().st_size)
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    )
    return Upload(folder, repository, files, tuple(_concerns(folder)))


def _concerns(folder: Path) -> list[str]:
    card = (folder / README).read_text(encoding="utf-8", errors="replace")
    front = card.split("---", 2)[1] if card.startswith("---") and card.count("---") > 1 else ""
    found = []
    if "license" not in base_licence(folder):
        found.append("names no licence: add `license:` to its first lines, after the base model's and the data's terms")
    if "base_model:" not in front:
        found.append("names no base model of the hub: add `base_model:` to its first lines")
    if NO_SOURCE in card:
        found.append("says of a data folder that its source is not known: write what it is, and its terms")
    if NO_SCORES in card:
        found.append("has no scores: evaluate.py measures some, to-hf --scores puts them in")
    if re.search(r"(?<![\w/.:])/(?:home|root|Users|tmp|mnt|data)/", card):
        found.append("has paths of this machine (in its commands or config)")
    return found


def upload(planned: Upload, *, public: bool) -> str:
    """Create the repository where it is missing (private unless `public`), send the files in one commit; its address.

    HF_TOKEN or `hf auth login` say who; HF_ENDPOINT another hub.

    Raises:
        InputError: the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="jaxvsr")
    try:
        address = api.create_repo(planned.repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=planned.repository,
            folder_path=planned.folder,
            allow_patterns=[name for name, _ in planned.files],
            commit_message="Upload by jaxvsr",
        )
    except Exception as error:  # network, authorisation, a full quota: the library raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{planned.repository}: the hub does not take it ({reason})") from None
    return str(address)
