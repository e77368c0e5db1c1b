"""Scenes that belong to benchmarks, and so to no training set that did not ask for them by name.

`scannetv2_val.txt` is ScanNet's official validation split, `vsi_bench_scenes.tsv` the source and scene of VSI-Bench's
288 videos (from the thinking-in-space repository). Every ScanNet scene of VSI-Bench is a validation scene.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from importlib.resources import files
from typing import Literal, get_args

Benchmark = Literal["vsi-bench", "scannet-val"]
BENCHMARKS: tuple[Benchmark, ...] = get_args(Benchmark)


@functools.cache
def _scenes() -> dict[str, Benchmark]:
    folder = files("jaxvsr.data")
    validation = (folder / "scannetv2_val.txt").read_text(encoding="utf-8").split()
    rows = (folder / "vsi_bench_scenes.tsv").read_text(encoding="utf-8").splitlines()
    owner: dict[str, Benchmark] = dict.fromkeys(validation, "scannet-val")
    owner.update(dict.fromkeys((row.split("\t")[1] for row in rows), "vsi-bench"))
    return owner


def benchmark_of(scene: str) -> Benchmark | None:
    """The benchmark that a real scene belongs to; VSI-Bench's own validation scenes count as VSI-Bench's."""
    return _scenes().get(scene)


def excluded_by(scene: str, included: Collection[str]) -> Benchmark | None:
    """The benchmark that keeps `scene` out of a training set, unless its name is in `included`."""
    owner = benchmark_of(scene)
    return None if owner in included else owner
