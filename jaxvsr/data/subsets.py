"""`subsets.json`: named parts of a data folder's questions, such as VSI-Bench's debiased subset.

{"debiased": ["vsi-bench-0", "vsi-bench-7", …]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxvsr.errors import InputError
from jaxvsr.files import write_text

SUBSETS_FILE = "subsets.json"
# VSI-Bench without the questions that its authors' iterative bias pruning removed.
DEBIASED = "debiased"


def write_subsets(folder: Path, subsets: Mapping[str, Iterable[str]], *, owner: str = "") -> None:
    """Write the ids of subsets; subsets with other names stay.

    In a subset that exists, only the ids that begin with `owner` are replaced; an empty subset is removed.
    """
    path = folder / SUBSETS_FILE
    written = _read(path) if path.is_file() else {}
    for name, ids in subsets.items():
        others = [id for id in written.pop(name, []) if not id.startswith(owner)]
        if together := [*others, *ids]:
            written[name] = together
    if not written:
        path.unlink(missing_ok=True)
        return
    text = json.dumps(written, indent=1) + "\n"
    write_text(path, text)


def read_subset(folder: Path, name: str) -> frozenset[str]:
    """Ids of the questions in a subset.

    Raises:
        InputError: the folder has no such subset.
    """
    path = folder / SUBSETS_FILE
    subsets = _read(path) if path.is_file() else {}
    if name not in subsets:
        raise InputError(f"{folder}: no subset {name!r}; it has {', '.join(subsets) or 'none'}")
    return frozenset(subsets[name])


def _read(path: Path) -> dict[str, list[str]]:
    try:
        subsets = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        subsets = None
    if not isinstance(subsets, dict) or not all(isinstance(ids, list) for ids in subsets.values()):
        raise InputError(f"{path}: expected a JSON object of lists of question ids")
    return subsets
