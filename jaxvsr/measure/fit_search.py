"""The fastest settings that fit on chips that are not here: `train.py --dry-run --target v5e:4x4 --fit`.

Arithmetic orders all settings; the chip's own compiler has the last word on the few fastest. What it said is kept by
content (config, model, target, settings, compiler, and the code of the step), so that the next call is instant; not
where data was read, which may change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import jaxvsr
from jaxvsr.config.config_file import to_yaml
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.devices.targets import CHIPS, GIB, Target, parse_target
from jaxvsr.errors import one_line
from jaxvsr.files import user_cache, write_text
from jaxvsr.measure.target_estimate import Estimate, Settings, estimate, settings_for
from jaxvsr.measure.target_plan import assumed_workload, model_of, plan_on_target, resolved_shape
from jaxvsr.models.model_config import ModelConfig

MOST_COMPILED = 4  # settings; each takes minutes
FILLED = 0.92  # of a device's memory, by arithmetic, which is not that exact
_CODE = ("models", "grpo", "devices", "measure", "training")  # rooms that decide what is compiled
# Slices and hosts that can be had, by the number of a chip's axes.
TOPOLOGIES: Mapping[int, Sequence[str]] = {
    0: ("1", "2", "4", "8", "2x8", "4x8", "8x8"),
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Settings, and what arithmetic says of them."""

    settings: Settings
    estimate: Estimate

    def fits(self, target: Target) -> bool:
        """Whether arithmetic says so."""
        return self.estimate.most <= FILLED * target.memory


def candidates(config: TrainConfig, model: ModelConfig, target: Target) -> list[Candidate]:
    """All settings of a target with the config's number of scenes, the fastest first; where the mesh splits scenes
    into more parts than there are, with the next number that divides."""
    sizes = assumed_workload(config).sizes(model)
    whole = math.lcm(target.devices, _least_scenes(config))
    scenes = -(-config.data.scenes // whole) * whole
    found = [
        Candidate(settings, estimate(config, model, sizes, target, settings))
        for number in sorted({config.data.scenes, scenes})
        for settings in settings_for(config, model, target.devices, number)
    ]
    return sorted(found, key=lambda one: (one.estimate.seconds_per_question, one.settings.accumulation))


def fewer_scenes(config: TrainConfig) -> Iterator[TrainConfig]:
    """The config with half as many scenes a step, and so on; for chips on which no other setting helps."""
    scenes = config.data.scenes
    while scenes % (2 * _least_scenes(config)) == 0:
        scenes //= 2
        yield dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, scenes=scenes),
            update=dataclasses.replace(config.update, accumulation=1),
            intervals=dataclasses.replace(config.intervals, video_gain=0),
        )


def _least_scenes(config: TrainConfig) -> int:
    """A number that divides the scenes of a step."""
    return 2 if config.data.mirror == "pairs" else 1


def fit_on_target(config: TrainConfig, target: Target, shape: str | None, results: dict[str, Any]) -> Iterator[str]:
    """The lines of a search; the plan of the fastest settings that fit is put into `results`, with what was tried.

    Args:
        shape: as `plan_on_target` takes it.
    """
    model = model_of(config, shape)
    shape = resolved_shape(config, shape)
    kept = user_cache() / "targets" / f"{_key(config, model, target, shape)}.json"
    if shape is not None and kept.is_file():
        results |= json.loads(kept.read_text(encoding="utf-8"))
        yield f"fit         {target}: kept from an earlier call in {kept}"
    else:
        for asked in itertools.chain([config], fewer_scenes(config)):
            yield from _search(asked, config, model, target, shape, results)
            if results.get("fits"):
                break
        if shape is not None:  # data that is read may be another next time
            with contextlib.suppress(OSError):  # a cache that cannot be written is not there
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_text(kept, json.dumps(results, indent=2) + "\n")
    if results["fits"]:
        most = max(program["memory_bytes"] for program in results["programs"].values())
        yield (
            f"fastest     {results['fit']['flags']} ({most / GIB:.1f} of {target.memory / GIB:.1f} GiB a device as "
            f"compiled; estimated {results['seconds_per_question']:.3g} s a question)"
        )
    else:
        yield from _nothing(config, model, target, results["fit"]["tried"])


def _search(
    config: TrainConfig, own: TrainConfig, model: ModelConfig, target: Target, shape: str | None,
    results: dict[str, Any],
) -> Iterator[str]:  # fmt: skip
    """Compile the fastest settings that arithmetic lets fit, which is set right by each that was compiled, until none
    that is left is faster. Flags are those beside the config `own`, of which `config` may have fewer scenes."""
    also = "" if config.intervals == own.intervals else f" --set intervals.video_gain={config.intervals.video_gain}"
    every = candidates(config, model, target)
    right = dict.fromkeys(every[0].estimate.memory, 1.0) if every else {}  # memory as compiled, of what arithmetic says

    def fits(one: Candidate) -> bool:
        return all(size * right[name] <= FILLED * target.memory for name, size in one.estimate.memory.items())

    tried: list[dict[str, Any]] = results.get("fit", {}).get("tried", [])
    results |= {"target": str(target), "fits": False, "fit": {"flags": None, "tried": tried}}
    hopeful = sum(map(fits, every))
    yield f"fit         {target}, {config.data.scenes} scenes: {len(every)} settings, {hopeful} fit by arithmetic"
    left, best = every, None
    refused: jax.errors.JaxRuntimeError | None = None
    for number in range(1, MOST_COMPILED + 1):
        one = next(filter(fits, left), None)
        if one is None or (best and one.estimate.seconds_per_question >= best.estimate.seconds_per_question):
            break
        left = [other for other in left if other is not one]
        flags = one.settings.flags(own) + also
        yield (
            f"try {number}       {flags}: by arithmetic {one.estimate.most / GIB:.1f} GiB a device, "
            f"{one.estimate.seconds:.3g} s a step"
        )
        plan: dict[str, Any] = {}
        try:
            for line in plan_on_target(one.settings.applied(config), target, shape, plan):
                if line.startswith((*plan.get("programs", ()), "sample ", "reference ", "update ", "step ")):
                    yield line
        except jax.errors.JaxRuntimeError as error:
            refused = error
            yield f"            its compiler refuses: {one_line(error, 200)}"
            continue
        needed = {name: program["memory_bytes"] for name, program in plan["programs"].items()}
        right = {name: needed[name] / one.estimate.memory[name] for name in right}
        seconds = plan["seconds_per_question"]
        tried.append({"flags": flags, "fits": plan["fits"], "memory_bytes": max(needed.values()), "seconds": seconds})
        if plan["fits"] and (best is None or seconds < results["seconds_per_question"]):
            best = one
            results |= {**plan, "fit": {"flags": flags, "tried": tried}}
    if refused is not None and not tried:
        raise refused


def _nothing(config: TrainConfig, model: ModelConfig, target: Target, tried: list[dict[str, Any]]) -> Iterator[str]:
    """By how much nothing fits, and the smallest slice or host on which arithmetic says that something does."""
    if tried:
        least, how = min(row["memory_bytes"] for row in tried), "as compiled"
    else:
        smallest = [config, *fewer_scenes(config)][-1]
        least, how = min(one.estimate.most for one in candidates(smallest, model, target)), "by arithmetic"
    yield (
        f"nothing     fits on {target}: at the least {(least - target.usable) / GIB:.1f} GiB a device too much, of "
        f"{target.usable / GIB:.1f} ({how})"
    )
    larger = smallest_that_fits(config, model, target)
    yield f"            the smallest that does, by arithmetic: {larger or 'none that can be had of this chip'}"


def smallest_that_fits(config: TrainConfig, model: ModelConfig, target: Target) -> Target | None:
    """The smallest slice or host of the target's chip on which a setting fits, by arithmetic."""
    for topology in TOPOLOGIES[CHIPS[target.chip.name].axes]:
        larger = parse_target(f"{target.chip.name}:{topology}")
        if larger.devices <= target.devices:
            continue
        if any(one.fits(larger) for one in candidates(config, model, larger)):
            return larger
    return None


def _key(config: TrainConfig, model: ModelConfig, target: Target, shape: str | None) -> str:
    """Of all that the result follows from."""
    digest = hashlib.sha256()
    package = "libtpu" if target.chip.kind == "tpu" else "jax-cuda12-pjrt"
    versions = [metadata.version(name) for name in ("jax", "jaxlib", package)]
    digest.update(repr((to_yaml(config), model, str(target), shape, versions)).encode())
    root = Path(jaxvsr.__file__).parent
    for path in sorted(path for room in _CODE for path in (root / room).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]
