"""What is in a folder of scans: files, official splits, alignment, labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from jaxvsr.data.scannet import read_scan
from jaxvsr.data.scannet.categories import category_of
from jaxvsr.data.scannet.label_map import find_label_map, label_masks_path, labels_path, read_label_map
from jaxvsr.data.scannet.official_splits import official_split
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


def looks_like_scans(root: Path) -> bool:
    """Whether there are scans in a folder or in its `scans/`."""
    try:
        return bool(read_scan.list_scans(root))
    except InputError:
        return False


def check_scans(root: Path, label_map: Path | None = None) -> tuple[list[str], list[str]]:
    """Lines about the scans, and lines about broken scans; reads no meshes and no images.

    Labels are compared with ScanNet's label map if it is given or found beside the scans.

    Raises:
        InputError: no scans, or a label map that cannot be read.
    """
    scans = read_scan.list_scans(root)
    present: Counter[str] = Counter()
    split: Counter[str] = Counter()
    without_frames, without_geometry, unaligned = [], [], []
    labels: Counter[str] = Counter()
    broken: dict[str, str] = {}
    for scan in scans:
        split[
            "procedural" if read_scan.is_procedural(scan) else official_split(scan.name) or "in no official list"
        ] += 1
        here = {name for name, path_of in _FILES.items() if path_of(scan).is_file()}
        present.update(here)
        present["colour folder"] += (colors := color_folder(scan) is not None)
        if ".sens" not in here and not colors:
            without_frames.append(scan.name)
        if not here.issuperset(_FOR_QUESTIONS):
            without_geometry.append(scan.name)
        try:
            if ".txt" in here and read_scan.read_axis_alignment(read_scan.info_path(scan)) is None:
                unaligned.append(scan.name)
            if ".aggregation.json" in here:
                labels.update(read_scan.read_raw_labels(read_scan.aggregation_path(scan)))
        except InputError as error:
            broken[scan.name] = str(error)
    lines = [
        f"scans: {len(scans):,} ({', '.join(f'{count:,} {name}' for name, count in sorted(split.items()))})",
        "  files: " + ", ".join(f"{present[name]:,} {name}" for name in (*_FILES, "colour folder") if present[name]),
        f"  without axisAlignment: {len(unaligned):,}{_first(unaligned)}",
        f"  without .sens or colour folder: {len(without_frames):,}{_first(without_frames)}",
        f"  without mesh, segments, aggregation or .txt: {len(without_geometry):,}{_first(without_geometry)}",
    ]
    joined = {label for label in labels if label and category_of(label) != " ".join(label.lower().split())}
    lines.append(f"  raw labels: {len(labels):,} of {labels.total():,} objects, {len(joined):,} joined as synonyms")
    missing = [f"{scan}: {reason}" for scan, reason in broken.items()]
    path = find_label_map(root, label_map)
    if path is not None:
        known = set(read_label_map(path).nyu40_ids)
        unknown = sorted(label for label in labels if label.strip() and label.strip() not in known)
        lines.append(f"  labels that {path.name} does not have: {len(unknown):,}{_first(unknown)}")
    return lines, missing


def _first(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
