"""What is in a folder of scans: files, official splits, alignment, labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxvsr.buckets.scans_in_buckets import brought
from jaxvsr.data.scannet import read_scan
from jaxvsr.data.scannet.categories import category_of
from jaxvsr.data.scannet.instance_masks import InstanceMasks
from jaxvsr.data.scannet.label_map import (
    LabelMasks,
    find_label_map,
    label_masks_path,
    labels_path,
    read_label_map,
    read_nyu40_labels,
)
from jaxvsr.data.scannet.official_splits import official_split
from jaxvsr.data.scannet.sens import SensReader
from jaxvsr.data.video.video_sources import color_folder
from jaxvsr.errors import InputError

# In the order of a download.
_FILES = {
    ".sens": read_scan.sens_path,
    "_vh_clean_2.ply": read_scan.mesh_path,
    "….segs.json": read_scan.segments_path,
    ".aggregation.json": read_scan.aggregation_path,
    ".txt": read_scan.info_path,
    "_2d-instance-filt.zip": read_scan.instance_masks_path,
    "_2d-label-filt.zip": label_masks_path,
    "_vh_clean_2.labels.ply": labels_path,
}
_FOR_QUESTIONS = ("_vh_clean_2.ply", "….segs.json", ".aggregation.json", ".txt")
_NOT_OF_TEST_SCANS = ("….segs.json", ".aggregation.json")
_SCAN_NAME = re.compile(r"scene\d{4}_\d{2}")
_START_BYTES = 512


def looks_like_scans(root: Path) -> bool:
    """Whether there are scans in a folder or in its `scans/`."""
    try:
        return bool(read_scan.list_scans(root))
    except InputError:
        return False


def check_scans(root: Path, label_map: Path | None = None) -> tuple[list[str], list[str]]:
    """Lines about the scans, and a line for each file that is missing or cannot be used.

    Every file that is there is read as the commands read it, of a `.sens` the headers, of masks the first one. A file
    for questions is missing where a scan lacks it (ScanNet's test scans have no annotation); a `.sens` or colour folder
    where other scans have one, since they may all be deleted when frames are stored. Labels are compared with ScanNet's
    label map if it is given or found beside the scans.

    Raises:
        InputError: no scans, or there is no such label map.
    """
    scans = read_scan.list_scans(root)
    present: Counter[str] = Counter()
    split: Counter[str] = Counter()
    without_frames, without_geometry, unaligned = [], [], []
    labels: Counter[str] = Counter()
    missing = [f"{path.name}: none of a scan's files is in it" for path in _folders_without_scan(scans)]
    for scan in _one_at_a_time(scans):
        official = official_split(scan.name)
        split["procedural" if read_scan.is_procedural(scan) else official or "in no official list"] += 1
        here = {name for name, path_of in _FILES.items() if path_of(scan).is_file()}
        present.update(here)
        present["colour folder"] += (colors := color_folder(scan)) is not None
        if ".sens" not in here and colors is None:
            without_frames.append(scan.name)
        if not here.issuperset(_FOR_QUESTIONS):
            without_geometry.append(scan.name)
        wanted = [name for name in _FOR_QUESTIONS if official != "test" or name not in _NOT_OF_TEST_SCANS]
        missing += [f"{scan.name}: no {_FILES[name](scan).name}" for name in wanted if name not in here]
        missing += [f"{scan.name}: {reason}" for reason in _unusable(scan, here, colors)]
        try:
            if ".txt" in here and read_scan.read_axis_alignment(read_scan.info_path(scan)) is None:
                unaligned.append(scan.name)
            if ".aggregation.json" in here:
                labels.update(read_scan.read_raw_labels(read_scan.aggregation_path(scan)))
        except InputError:
            continue  # named already
    if len(without_frames) < len(scans):
        missing += [f"{name}: neither a .sens nor a colour folder, as other scans have" for name in without_frames]
    lines = [
        f"scans: {len(scans):,} ({', '.join(f'{count:,} {name}' for name, count in sorted(split.items()))})",
        "  files: " + ", ".join(f"{present[name]:,} {name}" for name in (*_FILES, "colour folder") if present[name]),
        f"  without axisAlignment: {len(unaligned):,}{_first(unaligned)}",
        f"  without .sens or colour folder: {len(without_frames):,}{_first(without_frames)}",
        f"  without mesh, segments, aggregation or .txt: {len(without_geometry):,}{_first(without_geometry)}",
    ]
    joined = {label for label in labels if label and category_of(label) != " ".join(label.lower().split())}
    lines.append(f"  raw labels: {len(labels):,} of {labels.total():,} objects, {len(joined):,} joined as synonyms")
    path = find_label_map(root, label_map)
    if path is not None:
        try:
            known = set(read_label_map(path).nyu40_ids)
        except InputError as error:
            return lines, [*missing, _web_page(path) or str(error)]
        unknown = sorted(label for label in labels if label.strip() and label.strip() not in known)
        lines.append(f"  labels that {path.name} does not have: {len(unknown):,}{_first(unknown)}")
    return lines, missing


def _one_at_a_time(scans: list[Path]) -> Iterator[Path]:
    """Where each scan is: of those in a bucket, while it is looked at."""
    for scan in scans:
        with brought(scan.rglob("*")) as here:
            yield here(scan)


def _folders_without_scan(scans: list[Path]) -> list[Path]:
    """Folders beside the scans that are named like ScanNet's and hold none."""
    beside = sorted(path for path in scans[0].parent.iterdir() if path.is_dir() and _SCAN_NAME.fullmatch(path.name))
    return [path for path in beside if path not in scans]


def _unusable(scan: Path, here: set[str], colors: Path | None) -> Iterator[str]:
    """Why files of a scan cannot be used, each file once."""
    whole = set()
    for name in _FILES:
        if name in here:
            path = _FILES[name](scan)
            if path.stat().st_size == 0:
                yield f"{path.name} is empty"
            elif reason := _web_page(path):
                yield reason
            else:
                whole.add(name)
    if colors is not None and (
        empty := sorted(p.name for p in colors.iterdir() if p.is_file() and not p.stat().st_size)
    ):
        yield f"{len(empty):,} files in {colors.name}/ are empty{_first(empty)}"
    readers: dict[str, Callable[[], object]] = {
        ".sens": lambda: SensReader(read_scan.sens_path(scan)),
        "_2d-instance-filt.zip": lambda: _first_mask(InstanceMasks(read_scan.instance_masks_path(scan))),
        "_2d-label-filt.zip": lambda: _first_mask(LabelMasks(label_masks_path(scan))),
        "_vh_clean_2.labels.ply": lambda: read_nyu40_labels(scan),
    }
    if whole.issuperset(_FOR_QUESTIONS):
        readers[""] = lambda: read_scan.read_scene(scan)
    else:
        readers[".txt"] = lambda: read_scan.read_axis_alignment(read_scan.info_path(scan))
        readers[".aggregation.json"] = lambda: read_scan.read_raw_labels(read_scan.aggregation_path(scan))
    for name, read in readers.items():
        if not name or name in whole:
            try:
                read()
            except InputError as error:
                yield str(error)


def _first_mask(masks: InstanceMasks) -> object:
    if not masks.frames:
        raise InputError(f"{masks.path}: no masks in it; expected {masks.expected}")
    return (
        LabelMasks.read_labels(masks, masks.frames[0]) if isinstance(masks, LabelMasks) else masks.read(masks.frames[0])
    )


def _web_page(path: Path) -> str | None:
    """What to say of a file that is a page of a web server instead of what was to be downloaded."""
    with path.open("rb") as file:
        start = file.read(_START_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<") and (b"<html" in start or b"<!doctype" in start or b"<?xml" in start):
        return f"{path.name} is a web page instead of the file; download it again"
    return None


def _first(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
