"""Recipes on chips: `launch/bench.py --table`, kept as docs/hardware.json and written as docs/hardware.md.

A cell is arithmetic until the chip's own compiler was asked for it, which `train.py --dry-run --target … --fit` does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from jaxvsr.config.config_file import find_config, read_config
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.devices.targets import GIB, parse_target
from jaxvsr.errors import prefixed
from jaxvsr.fields import read_value
from jaxvsr.files import read_json, write_text
from jaxvsr.measure.fit_search import candidates, smallest_that_fits
from jaxvsr.measure.named_shapes import shape_named, shape_of_model
from jaxvsr.models.model_config import ModelConfig

RECIPES = (
    "vsgrpo-2b", "vsgrpo-7b", "spatial-qwen3-vl-2b", "spatial-qwen3-vl-8b", "svqa-r1-3b", "spatial-qwen3-vl-4b",
    "spatial-r1-7b",
)  # fmt: skip
TARGETS = ("v5e:2x2", "v5e:4x4", "v5p:2x2x1", "v6e:2x2", "TPU7x:2x2x1", "h100:1", "h100:8", "h200:1")
QUESTIONS = 100_000


@dataclasses.dataclass(frozen=True)
class Cell:
    """A recipe on a target."""

    recipe: str
    target: str
    how: Literal["arithmetic", "compiled"]
    fits: bool
    memory_bytes: int  # a device, of the program that needs most; where nothing fits, the least of all settings
    device_bytes: int  # that a device has
    settings: str = ""  # flags of the fastest that fit
    seconds_per_question: float | None = None
    by: str = ""  # compiler and its version
    larger: str = ""  # where nothing fits: the smallest target of this chip that arithmetic lets it fit on
    note: str = ""  # by hand: what its figures lack

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to compile."""
        return self.how == "compiled" and not self.note


def by_arithmetic(recipe: str, name: str) -> Cell:
    """A cell without a compiler."""
    config, target = read_config(find_config(recipe)), parse_target(name)
    model = _model(config)
    every = candidates(config, model, target)
    best = next((one for one in every if one.fits(target)), None)
    if best is None:
        least = min(one.estimate.most for one in every)
        larger = smallest_that_fits(config, model, target)
        return Cell(recipe, name, "arithmetic", False, least, target.memory, larger=str(larger or ""))
    flags, needed = best.settings.flags(config), best.estimate
    return Cell(recipe, name, "arithmetic", True, needed.most, target.memory, flags, needed.seconds_per_question)


def as_compiled(recipe: str, name: str, results: Mapping[str, Any]) -> Cell:
    """A cell from what `--fit --json` kept. Where arithmetic left nothing to compile, it stays arithmetic."""
    target, tried = parse_target(name), results["fit"]["tried"]
    if not tried:
        return by_arithmetic(recipe, name)
    if not results["fits"]:
        least = min(row["memory_bytes"] for row in tried)
        config = read_config(find_config(recipe))
        larger = smallest_that_fits(config, _model(config), target)
        return Cell(recipe, name, "compiled", False, least, target.memory, larger=str(larger or ""))
    most = max(program["memory_bytes"] for program in results["programs"].values())
    return Cell(
        recipe, name, "compiled", True, most, target.memory, results["fit"]["flags"], results["seconds_per_question"],
        results["compiler"],
    )  # fmt: skip


def _model(config: TrainConfig) -> ModelConfig:
    return shape_named(shape_of_model(config.model.path) or config.model.path)


def read_cells(path: Path) -> dict[tuple[str, str], Cell]:
    """Those of docs/hardware.json, by recipe and target."""
    rows = read_json(path) if path.is_file() else []
    with prefixed(str(path)):
        cells: tuple[Cell, ...] = read_value(tuple[Cell, ...], rows)
    return {(cell.recipe, cell.target): cell for cell in cells}


def write_cells(folder: Path, cells: Iterable[Cell]) -> None:
    """docs/hardware.json and docs/hardware.md, in the order of recipes and targets."""
    order = {(recipe, target): n for n, (recipe, target) in enumerate((r, t) for r in RECIPES for t in TARGETS)}
    rows = sorted(cells, key=lambda cell: order.get((cell.recipe, cell.target), len(order)))
    write_text(folder / "hardware.json", json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    write_text(folder / "hardware.md", page(rows))


def page(cells: Iterable[Cell]) -> str:
    """docs/hardware.md."""
    return _HEAD + "\n".join(map(_row, cells)) + "\n" + _PAPERS


_HEAD = """# What fits on which chip, and how long it takes

Made by `python launch/bench.py --table` from `docs/hardware.json`. Nobody has run these recipes on these chips. Each
row says where its figures are from:

- **compiled**: the chip's own compiler has compiled the step (`train.py --dry-run --target … --fit`). Memory is its
  account. Seconds are an estimate: on TPUs the compiler's own count of cycles at the chip's clock, and of attention's
  kernel those of its schedule, without waiting for other chips.
- **compiled, seconds at least**: the same for cards, whose compiler counts nothing. Seconds are the roofline of the
  data sheet, which no program is faster than: not to be compared with the other rows'.
- **compiled, earlier form**: before decoding took less time on TPUs; some also before an update took less time and
  memory (`CHANGELOG.md`).
- **arithmetic**: nothing was compiled. Weights, state and caches are counted, the largest temporaries are estimated.
  Seconds are needed products at half of the chip's peak, decoding at half of its bandwidth, and what chips send each
  other at half of the interconnect's.

Settings are the flags of `train.py` beside `--config`: the fastest that fit, where a recipe's own have no flag. GiB are
those of one device while the program runs that needs most; of rows where nothing fits, the least of all settings.
`train.py --config RECIPE --dry-run --target CHIPS --fit` makes one row, for any chips and any config.

| recipe | chips | fits | GiB a device | settings | s a question | hours for 100,000 questions | figures |
|---|---|---|---|---|---|---|---|
"""

_PAPERS = """
## What the papers say of their own trainings

| paper | chips | hours |
|---|---|---|
| vsGRPO, 2B, VSI-100k, 14 answers a question | not named | "120 GPU hours" |
| Spatial-R1, 7B, 4 answers a question | 4 GPUs (its released script), not named | not given |
| SVQA-R1, 3B, 8 answers a question | 8 A6000 | not given |

Epochs, frames and batch of the 120 hours are not given either. The table above counts each of 100,000 questions once,
and nothing in it was measured: it says what to expect of a chip, not how we compare.

## What others have measured on such chips

| what | measured | published in |
|---|---|---|
| LoRA of Qwen2.5-7B, one H100, 4,096 tokens | 423 TFLOP/s of needed work, 43 % of peak | [NeMo AutoModel][nemo] |
| LoRA of Llama 3 8B, the same | 402 TFLOP/s, 41 % | [NeMo AutoModel][nemo] |
| all weights of Llama 2 70B, 512 v5p, 4,096 tokens | 65 % of peak | [MaxText][maxtext] |
| all weights of Llama 3.1 8B and 70B, 256 v6e, 8,192 tokens | 45 and 50 % of peak | [MaxText][maxtext] |
| decoding of Llama 3.1 70B in JAX, 16 v5e; 8, 16, 32, 64 sequences | 85, 72, 58, 37 % of bandwidth | [JAX][llama] |

Beside them, by the TPU compiler's count and not measured ([benchmarks.md](benchmarks.md#on-tpus-by-their-compiler)):
an update with LoRA of 7B takes 65 % of a v5p's peak and 38 % of a v6e's, and a decode step of 2B on a v5e, 56 rollouts
at once, 67 % of the bandwidth.

[nemo]: https://docs.nvidia.com/nemo/automodel/performance/performance-summary.md
[maxtext]: https://maxtext.readthedocs.io/en/maxtext-v0.2.2/reference/models/tiering.html
[llama]: https://github.com/jax-ml/jax-llm-examples/tree/main/llama3
"""


def _row(cell: Cell) -> str:
    memory = f"{cell.memory_bytes / GIB:.1f} of {cell.device_bytes / GIB:.1f}"
    fits = "yes" if cell.fits else f"no; {cell.larger} does by arithmetic" if cell.larger else "no"
    seconds = cell.seconds_per_question
    time = f"{seconds:.3g} | {seconds * QUESTIONS / 3600:.3g}" if seconds else " | "
    settings = f"`{cell.settings}`" if cell.settings else ""
    by_roofline = cell.how == "compiled" and seconds and parse_target(cell.target).chip.card
    how = ", ".join(filter(None, [cell.how, "seconds at least" if by_roofline else "", cell.note]))
    return f"| {cell.recipe} | {cell.target} | {fits} | {memory} | {settings} | {time} | {how} |"
