"""ScanNet's official splits (`scannetv2_{train,val,test}.txt` of its repository): 1,201, 312 and 100 scans."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Literal, get_args

OfficialSplit = Literal["train", "val", "test"]


@functools.cache
def _split_of() -> dict[str, OfficialSplit]:
    folder = files("jaxvsr.data.scannet")
    lists = {name: (folder / f"scannetv2_{name}.txt").read_text(encoding="utf-8") for name in get_args(OfficialSplit)}
    return {scan: name for name, text in lists.items() for scan in text.split()}


def official_split(scan: str) -> OfficialSplit | None:
    """The split that lists a scan; None for a name that is not ScanNet's."""
    return _split_of().get(scan)
