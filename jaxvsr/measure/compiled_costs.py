"""What a step of a given size costs by XLA's own count, on abstract values: without weights and without running.

The counterpart of the formulas in `flops`; also how long a published shape takes to compile.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.sharding import Mesh

from jaxvsr.devices.compiled import ProgramMemory, program_memory
from jaxvsr.measure.abstract_step import AbstractStep, Programs, parameters_on, state_on
from jaxvsr.measure.compiled_text import Collective, CompiledText
from jaxvsr.measure.step_bench import Workload, bench_step, random_prompt
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tree import ForwardOptions


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """One compiled function of a step on one device."""

    compile_seconds: float  # tracing and lowering included
    need: ProgramMemory
    collectives: tuple[Collective, ...]


def program_costs(
    config: ModelConfig, work: Workload, forward: ForwardOptions, mesh: Mesh | None = None
) -> dict[str, ProgramCost]:
    """`sample`, `reference` (unless beta is 0) and `update`, each compiled as in training."""
    costs = {}
    for name, (function, given) in abstract_bench(config, work, forward, mesh)[1].items():
        program = function.executable(*given)
        sent = CompiledText.parse(program.as_text()).collectives
        costs[name] = ProgramCost(function.seconds, program_memory(program), sent)
    return costs


def program_flops(config: ModelConfig, work: Workload, forward: ForwardOptions) -> dict[str, float]:
    """XLA's count for each program before fusion, on all devices. XLA counts the body of a loop once, so layers are
    unrolled here and the decode loop is multiplied by its number of tokens.
    """
    forward = dataclasses.replace(forward, unroll=True)
    flops = _flops(abstract_bench(config, work, forward)[1])
    first = dataclasses.replace(work, answer_tokens=1)
    unlooped = abstract_bench(config, first, forward)[1]
    prefill = _flops({"sample": unlooped["sample"]})["sample"]
    flops["sample"] = prefill + max(work.answer_tokens - 1, 0) * (flops["sample"] - prefill)
    return flops


def abstract_bench(
    config: ModelConfig, work: Workload, forward: ForwardOptions, mesh: Mesh | None = None
) -> tuple[AbstractStep, Programs]:
    """The step of a workload on abstract values, and its programs."""
    parameters = parameters_on(mesh, parameter_shapes(config, work.lora, forward.compute_dtype), config)
    exact = parameters_on(mesh, parameter_shapes(config, work.lora), config)  # what is trained is float32
    step = bench_step(config, parameters, work, forward, mesh)
    trained = {name: leaf for name, leaf in exact.items() if work.lora is None or "lora_" in name}
    state = state_on(mesh, trained, step.optimizer, config)
    keys = np.zeros((work.scenes, work.questions), np.uint32)
    abstract = AbstractStep(
        step, state, work.scenes, work.rollouts, work.answer_tokens, "grpo", reference=work.beta > 0
    )
    return abstract, abstract.programs(random_prompt(config, work), keys)


def _flops(programs: Programs) -> dict[str, float]:
    return {name: function.lowered(*given).cost_analysis()["flops"] for name, (function, given) in programs.items()}
