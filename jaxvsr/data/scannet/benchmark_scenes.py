"""Scenes of benchmarks, which are left out of training sets unless `--include` names the benchmark.

`scannetv2_val.txt` is ScanNet's official validation split, `vsi_bench_scenes.tsv` the source and scene of VSI-Bench's
288 videos (from the thinking-in-space repository). Every ScanNet scene of VSI-Bench is a validation scene.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from importlib.resources import files
from typing import Literal, get_args

Benchmark = Literal["vsi-bench", "scannet-val"]
BENCHMARKS: tuple[Benchmark, ...] = get_args(Benchmark)
_SCANNET_NAME = re.compile(r"scene\d{4}_\d{2}(?!\d)")


@functools.cache
def _scenes() -> dict[str, Benchmark]:
    folder = files("jaxvsr.data.scannet")
    validation = (folder / "scannetv2_val.txt").read_text(encoding="utf-8").split()
    rows = (folder / "vsi_bench_scenes.tsv").read_text(encoding="utf-8").splitlines()
    owner: dict[str, Benchmark] = dict.fromkeys(validation, "scannet-val")
    owner.update(dict.fromkeys((row.split("\t")[1] for row in rows), "vsi-bench"))
    return owner


def benchmark_of(scene: str) -> Benchmark | None:
    """The benchmark that a real scene belongs to; VSI-Bench for a validation scene that is in both."""
    return _scenes().get(scene)


def benchmark_in(name: str) -> Benchmark | None:
    """The benchmark of a scene whose name is part of a file's or row's name: `nas/scene0568_00_vh_clean.mp4`,
    `scannetpp-0d2ee665be.mp4`, `arkitscenes/41069021`."""
    # scene0568_00 as a whole first, then every run of letters and digits.
    for part in (*_SCANNET_NAME.findall(name.lower()), *re.findall(r"[a-z0-9]+", name.lower())):
        if (owner := benchmark_of(part)) is not None:
            return owner
    return None


def excluded_by(scene: str, included: Collection[str]) -> Benchmark | None:
    """The benchmark of `scene`, unless it is in `included`: such scenes are left out of training sets."""
    owner = benchmark_of(scene)
    return None if owner in included else owner
