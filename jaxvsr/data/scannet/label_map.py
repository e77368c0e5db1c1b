"""ScanNet's label map, and the files that use its ids: 2D label masks and the labelled mesh.

`scannetv2-labels.combined.tsv` comes with ScanNet and is read from the user's copy. Pixels of 2D label masks are its
`id`, the `label` of a vertex in `_vh_clean_2.labels.ply` is its `nyu40id`.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16

from jaxvsr.data.scannet.instance_masks import InstanceMasks
from jaxvsr.data.scannet.ply import read_ply
from jaxvsr.errors import InputError

LABEL_MAP_FILE = "scannetv2-labels.combined.tsv"
_LIMIT_BYTES = 1 << 24  # the real one has 80 kB
_NYU40_LABELS = 40


@dataclasses.dataclass(frozen=True, eq=False)
class LabelMap:
    """id → its raw labels in the order of the file (the real map has 51 ids with several), and raw label → nyu40 id
    (0: none)."""

    raw_labels: dict[int, tuple[str, ...]]
    nyu40_ids: dict[str, int]


def find_label_map(scans: Path, given: Path | None = None) -> Path | None:
    """The given file, or else the one beside the scans or above them, or None.

    Raises:
        InputError: the given file does not exist.
    """
    if given is not None:
        if not given.is_file():
            raise InputError(f"{given}: no such label map; expected ScanNet's {LABEL_MAP_FILE}")
        return given
    places = (scans, scans / "scans", scans.resolve().parent)
    return next((place / LABEL_MAP_FILE for place in places if (place / LABEL_MAP_FILE).is_file()), None)


def read_label_map(path: Path) -> LabelMap:
    """Read the tsv; columns may have any order.

    Raises:
        InputError: it is not such a table, or a row is broken or repeats a label.
    """
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes; expected a label map of some 80 kB")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected ScanNet's {LABEL_MAP_FILE}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; expected ScanNet's {LABEL_MAP_FILE}") from None
    names = [name.strip() for name in lines[0].split("\t")]
    for name in ("id", "raw_category", "nyu40id"):
        if names.count(name) != 1:
            found = "no column" if name not in names else f"{names.count(name)} columns"
            raise InputError(f"{path} line 1: {found} {name!r}; expected one, as in ScanNet's {LABEL_MAP_FILE}")
    columns = [names.index(name) for name in ("id", "raw_category", "nyu40id")]
    raw_labels: dict[int, tuple[str, ...]] = {}
    nyu40_ids: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        if len(cells) <= max(columns):
            raise InputError(f"{path} line {number}: {len(cells)} columns, the header has {len(names)}")
        identity, label, nyu40 = (cells[column].strip() for column in columns)
        if not re.fullmatch(r"[0-9]{1,5}", identity) or not re.fullmatch(r"[0-9]{0,3}", nyu40) or not label:
            raise InputError(f"{path} line {number}: expected id, raw category, nyu40id, found {line[:60]!r}")
        if label in nyu40_ids:
            raise InputError(f"{path} line {number}: {label!r} is in an earlier line, too")
        raw_labels[int(identity)] = (*raw_labels.get(int(identity), ()), label)
        nyu40_ids[label] = int(nyu40 or 0)
    if not raw_labels:
        raise InputError(f"{path}: no labels in it; expected ScanNet's {LABEL_MAP_FILE}")
    return LabelMap(raw_labels, nyu40_ids)


class LabelMasks(InstanceMasks):
    """`_2d-label-filt.zip` or `_2d-label.zip`: a 16-bit PNG per frame whose pixels are ids of the label map."""

    entry = re.compile(r"label(?:-filt)?/(\d{1,9})\.png")
    modes = ("I;16", "I;16B", "I")
    expected = "label-filt/{frame}.png, a 16-bit PNG"

    def read_labels(self, frame: int) -> UInt16[np.ndarray, "H W"]:
        """The ids of one frame; `InputError` if there is no mask or it is not a 16-bit PNG."""
        with self._open() as archive:
            return np.asarray(self._image(archive, frame)).astype(np.uint16)


def label_masks_path(scan_dir: Path) -> Path:
    """Filtered 2D labels, one 16-bit PNG per frame."""
    return scan_dir / f"{scan_dir.name}_2d-label-filt.zip"


def labels_path(scan_dir: Path) -> Path:
    """The mesh with an nyu40 id per vertex."""
    return scan_dir / f"{scan_dir.name}_vh_clean_2.labels.ply"


def read_nyu40_labels(scan_dir: Path) -> tuple[UInt8[np.ndarray, " V"], int]:
    """nyu40 ids of the mesh's vertices, 0 for none; and how many unknown ids were set to 0.

    Real scans have 50 and 149 at some vertices, which are no nyu40 ids.

    Raises:
        InputError: the file is missing or broken, or has no labels.
    """
    path = labels_path(scan_dir)
    labels = read_ply(path).labels
    if labels is None:
        raise InputError(f"{path}: its vertices have no property 'label'")
    unknown = labels > _NYU40_LABELS
    return np.where(unknown, 0, labels).astype(np.uint8), int(unknown.sum())
