"""Time a training step, by phase.

    python launch/bench.py                                        the tiny shape, one video of 16 frames, 4 questions
    python launch/bench.py --model FOLDER --questions 1           a real model
    python launch/bench.py --shape qwen2-vl-2b --scenes 2         random weights of a published shape
    python launch/bench.py --compare separate                     also the same rollouts as separate sequences
    python launch/bench.py --shape qwen2-vl-7b --compile          compile time, and XLA's count of memory and FLOPs
    python launch/bench.py --scenes 4 --compile --target v5e:2x2  the same for chips that are not here
    python launch/bench.py --table compile                        docs/hardware.md: recipes on chips that are not here
    python launch/bench.py --run RUN                              the first scenes of a training run, both ways

Needs only jax, flax, optax and numpy. Rollouts have the full number of answer tokens; the vision tower always runs.
"""

from __future__ import annotations

from jaxvsr.devices.large_pages import take_large_pages
from jaxvsr.stop_signals import take_signals

if __name__ == "__main__":
    take_large_pages()
    take_signals()

import dataclasses
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvsr.command_line import ArgumentParser, positive_int, run
from jaxvsr.errors import InputError
from jaxvsr.files import check_can_be_written, write_text


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="bench.py", description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", type=Path, help="a Hugging Face folder")
    which.add_argument(
        "--run", type=Path, help="a GRPO run: measures what the tree saves on its questions; result in the run folder"
    )
    which.add_argument(
        "--table",
        nargs="?",
        const="arithmetic",
        choices=["arithmetic", "compile"],
        help="docs/hardware.md; compile: ask the chips' compilers, which takes hours (--target: of these chips alone)",
    )
    which.add_argument("--shape", default="tiny", help="tiny, quarter-b, or a published model's: qwen2-vl-2b, …")
    parser.add_argument("--scenes", type=positive_int, default=1, help="S, scenes per step")
    parser.add_argument("--questions", type=positive_int, default=4, help="Q, questions per scene")
    parser.add_argument("--rollouts", type=positive_int, default=14, help="G, rollouts per question")
    parser.add_argument("--frames", type=positive_int, default=16, help="frames per video (two make a temporal patch)")
    parser.add_argument(
        "--max-pixels", type=positive_int, default=224 * 224, help="pixels per frame; frames are square"
    )
    parser.add_argument("--answer-tokens", type=positive_int, default=16, help="R, tokens per rollout")
    parser.add_argument("--question-tokens", type=positive_int, default=48, help="T, tokens per question")
    parser.add_argument("--beta", type=float, default=1e-4, help="weight of the KL penalty; 0 skips the reference pass")
    parser.add_argument("--lora", type=positive_int, default=8, help="rank of the adapters on q, k, v and o")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="of activations")
    parser.add_argument(
        "--remat", choices=["none", "full", "dots"], default="none", help="what the backward pass recomputes"
    )
    parser.add_argument("--repeats", type=positive_int, default=9, help="timed runs, after warm-up")
    parser.add_argument("--compare", choices=["separate"], help="also time S·Q·G separate sequences")
    parser.add_argument("--compile", action="store_true", help="only compile, and print XLA's counts")
    parser.add_argument("--target", metavar="CHIPS", help="with --compile or --table: v5p:2x2x1, h100:2x8, …")
    parser.add_argument("--mesh", metavar="SPEC", help="with --target: fsdp=4,tensor=2; default: all on fsdp")
    parser.add_argument("--json", type=Path, help="file for all results")
    return parser


def _command(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    given = parser.given_flags(arguments)
    for first, beside in (("--run", "--scenes"), ("--table", "--target")):
        if first in given and (unused := sorted(given - {first, beside})):
            raise InputError(f"{', '.join(unused)}: not with {first}, beside which there is only {beside}")
    if arguments.run is not None:
        return _savings_of_run(arguments.run, arguments.scenes)
    if arguments.table is not None:
        return _hardware_table(arguments.table == "compile", arguments.target)
    if arguments.compile and (unused := sorted(given & {"--compare", "--repeats"})):
        raise InputError(f"{', '.join(unused)}: nothing is run with --compile; leave one of them out")
    if ("--target" in given and not arguments.compile) or ("--mesh" in given and "--target" not in given):
        raise InputError("--target goes with --compile, and --mesh with --target")
    if arguments.json is not None:
        check_can_be_written(arguments.json, "--json")
    if arguments.target is not None:
        from jaxvsr.devices.targets import parse_target, prepare_compiler

        prepare_compiler(parse_target(arguments.target))
    import jax

    from jaxvsr.measure.step_bench import ATTENTION_LORA, Workload
    from jaxvsr.models.tree import ForwardOptions

    on_cpu = jax.default_backend() == "cpu" and arguments.target is None
    dtype = ("float32" if on_cpu else "bfloat16") if arguments.dtype == "auto" else arguments.dtype
    if dtype == "float32":
        jax.config.update("jax_default_matmul_precision", "highest")
    work = Workload(
        scenes=arguments.scenes,
        questions=arguments.questions,
        rollouts=arguments.rollouts,
        frames=arguments.frames,
        max_pixels=arguments.max_pixels,
        question_tokens=arguments.question_tokens,
        answer_tokens=arguments.answer_tokens,
        beta=arguments.beta,
    )
    lora = dataclasses.replace(ATTENTION_LORA, rank=arguments.lora, alpha=2.0 * arguments.lora)
    work = dataclasses.replace(work, lora=lora)
    forward = ForwardOptions(dtype=dtype, remat=arguments.remat)
    if arguments.target is not None:
        return _compiled_for_target(arguments, work, forward)
    if arguments.compile:
        return _compiled(arguments, work, forward)
    config, parameters = _model(arguments, work)
    result = _measure(config, parameters, work, forward, arguments.repeats)
    result["versions"] = _versions()
    result["model"] = str(arguments.model or arguments.shape)
    print(_table(result))
    if arguments.compare:
        other = _measure(config, parameters, work.separate(), forward, arguments.repeats)
        asked = work.scenes * work.questions
        other["seconds_per_question"] = other["step"]["step"]["median"] / asked
        result["separate"] = other
        result["times_faster_than_separate"] = other["seconds_per_question"] / result["seconds_per_question"]
        print(
            f"separate sequences: {other['seconds_per_question']:.4f} s per question, "
            f"the tree is {result['times_faster_than_separate']:.1f} times faster"
        )
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(result, indent=2) + "\n")
    return 0


def _hardware_table(compiles: bool, only: str | None) -> int:
    """Fill docs/hardware.json cell by cell, and write the page. A cell that was compiled is not compiled again, unless
    its note says what its figures lack."""
    from jaxvsr.devices.targets import parse_target
    from jaxvsr.measure.hardware_table import RECIPES, TARGETS, as_compiled, by_arithmetic, read_cells, write_cells

    if only is not None and (only := str(parse_target(only))) not in TARGETS:
        raise InputError(f"--target {only}: not in the table, which has {', '.join(TARGETS)}")
    docs = Path(__file__).resolve().parents[1] / "docs"
    cells = read_cells(docs / "hardware.json")
    every = [(recipe, target) for target in TARGETS if only in (None, target) for recipe in RECIPES]
    for recipe, target in every:
        if cells.get((recipe, target)) is None or cells[recipe, target].how == "arithmetic":
            cells[recipe, target] = by_arithmetic(recipe, target)
    write_cells(docs, cells.values())
    for recipe, target in every if compiles else ():
        if cells[recipe, target].complete:
            continue
        print(f"{recipe} on {target}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "fit.json"
            words = ["--config", recipe, "--dry-run", "--target", target, "--fit", "--json", str(kept)]
            code = subprocess.run([sys.executable, str(Path(__file__).with_name("train.py")), *words]).returncode
            if code:
                return code
            cells[recipe, target] = as_compiled(recipe, target, json.loads(kept.read_text()))
        write_cells(docs, cells.values())
    return 0


def _savings_of_run(run: Path, scenes: int) -> int:
    """Print what the tree saves on the first scenes of a run's first step, and keep it for the run's page."""
    from jaxvsr.measure.tree_savings import savings_of_run

    savings = savings_of_run(run, scenes)
    print(savings.line)
    text = json.dumps({"line": savings.line, **dataclasses.asdict(savings)}, indent=2)
    write_text(run / "tree_savings.json", text + "\n")
    return 0


def _compiled(arguments: Any, work: Any, forward: Any) -> int:
    """Print XLA's counts for each program of the step, and write them to --json."""
    from jaxvsr.measure.compiled_costs import program_costs, program_flops
    from jaxvsr.measure.flops import needed_flops

    config = _config(arguments)
    costs, flops = program_costs(config, work, forward), program_flops(config, work, forward)
    needed = needed_flops(config, work.sizes(config))
    needed["sample"] = needed["vision"] + needed["prefill"] + needed["decode"]
    model = arguments.model or arguments.shape
    print(f"{model}, {forward.dtype}, remat {forward.remat}: compiled for one device, not run")
    print(f"{'program':<12}{'compile':>9}{'arguments':>12}{'temporary':>12}{'TFLOP by XLA':>15}{'needed':>10}")
    for name, cost in costs.items():
        print(
            f"{name:<12}{cost.compile_seconds:>7.1f} s{cost.need.arguments / 2**20:>8,.0f} MiB"
            f"{cost.need.temporary / 2**20:>8,.0f} MiB{flops[name] / 1e12:>15.3f}{needed[name] / 1e12:>10.3f}"
        )
    if arguments.json is not None:
        programs = {name: {**dataclasses.asdict(cost), "flops": flops[name]} for name, cost in costs.items()}
        result = {"workload": dataclasses.asdict(work), "programs": programs, "needed_flops": needed}
        write_text(arguments.json, json.dumps({**result, "versions": _versions()}, indent=2) + "\n")
    return 0


def _compiled_for_target(arguments: Any, work: Any, forward: Any) -> int:
    """Print what the programs of the step need on chips that are not here, and write it to --json."""
    from jaxvsr.devices.mesh import scene_shards
    from jaxvsr.devices.targets import parse_target
    from jaxvsr.measure.compiled_costs import abstract_bench
    from jaxvsr.measure.target_costs import target_mesh
    from jaxvsr.measure.target_plan import on_target, step_lines, target_lines

    target = parse_target(arguments.target)
    mesh = target_mesh(target, arguments.mesh)
    if work.scenes % scene_shards(mesh):
        raise InputError(
            f"--scenes {work.scenes}: must be a multiple of {scene_shards(mesh)}, over which {target} splits them"
        )
    config = _config(arguments)
    results: dict[str, Any] = {"workload": dataclasses.asdict(work), "model": str(arguments.model or arguments.shape)}
    for line in target_lines(target, mesh, results):
        print(line, flush=True)
    abstract, programs = abstract_bench(config, work, forward, mesh)
    for line in step_lines(on_target(target, mesh, config, abstract, work.sizes(config)), programs, results):
        print(line, flush=True)
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(results, indent=2) + "\n")
    return 0


def _config(arguments: Any) -> Any:
    """The model config: of a folder, of a published model, or one of two small ones."""
    from jaxvsr.measure.named_shapes import shape_named

    if arguments.model:
        from jaxvsr.models.huggingface.hf_config import read_config

        return read_config(arguments.model)
    return shape_named(arguments.shape)


def _model(arguments: Any, work: Any) -> tuple[Any, dict[str, Any]]:
    """The model config, and its parameters with an adapter: those of a folder, or random ones."""
    import jax
    import jax.numpy as jnp

    from jaxvsr.models.qwen_vl import QwenVL, flat_parameters

    config = _config(arguments)
    if arguments.model:
        from jaxvsr.models.huggingface.model_folder import load_parameters

        adapters = jax.jit(lambda: _adapters(QwenVL(config, lora=work.lora)))()
        return config, {**jax.tree.map(jnp.asarray, load_parameters(arguments.model)), **adapters}
    return config, jax.jit(lambda: flat_parameters(QwenVL(config, lora=work.lora)))()


def _adapters(model: Any) -> dict[str, Any]:
    from jaxvsr.models.qwen_vl import flat_parameters

    return {name: leaf for name, leaf in flat_parameters(model).items() if "lora_" in name}


def _measure(config: Any, parameters: Any, work: Any, forward: Any, repeats: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from jaxvsr.measure.flops import decode_bytes, needed_flops
    from jaxvsr.measure.machine import matmul_peak, memory_bandwidth
    from jaxvsr.measure.step_bench import StepBench, median_and_spread, peak_memory_bytes, random_prompt, repeat

    bench = StepBench(config, parameters, work, forward)
    prompt = jax.device_put(random_prompt(config, work))
    steps = median_and_spread(repeat(lambda seed: bench.run_step(prompt, seed), repeats))
    compile_count, compile_seconds = bench.compiled
    phases = median_and_spread(repeat(lambda seed: bench.run_phases(prompt, seed), repeats))
    peak, bandwidth = matmul_peak(forward.dtype), memory_bandwidth()
    flops = needed_flops(config, work.sizes(config))
    read = decode_bytes(config, work.sizes(config), jnp.dtype(forward.dtype).itemsize)
    step = steps["step"]["median"]
    asked, answered = work.scenes * work.questions, work.scenes * work.questions * work.rollouts
    return {
        "workload": dataclasses.asdict(work),
        "seconds_per_question": step / asked,
        "rollouts_per_second": answered / step,
        "answer_tokens_per_second": answered * work.answer_tokens / step,
        "phases": {phase: spread["median"] for phase, spread in phases.items()},
        "phase_spread": phases,
        "step": steps,
        "flops": flops,
        "flops_formula": needed_flops.__doc__,
        "matmul_peak_flops_per_second": peak,
        "fraction_of_matmul_peak": {
            phase: flops[phase] / phases[phase]["median"] / peak for phase in flops if phase in phases
        },
        "step_fraction_of_matmul_peak": sum(flops.values()) / step / peak,
        "decode_bytes": read,
        "decode_bytes_formula": decode_bytes.__doc__,
        "memory_bandwidth_bytes_per_second": bandwidth,
        "decode_fraction_of_bandwidth": read / phases["decode"]["median"] / bandwidth,
        "compile_count": compile_count,
        "compile_seconds": compile_seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "video_tokens": int((prompt.vision_index[0] >= 0).sum()),
        "answer_tokens": work.answer_tokens,
        "beta": work.beta,
        "lora": work.lora and work.lora.rank,
        "padding_share": 0.0,  # of tokens: each length is its bucket's
        "vision_padding_share": 1 - float(jnp.mean(prompt.vision.valid)),  # of patches: windows that are not full
        "parameters": sum(leaf.size for name, leaf in parameters.items() if "lora_" not in name),
        "dtype": forward.dtype,
        "remat": forward.remat,
    }


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    import jax

    device = jax.devices()[0]
    names = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processor": platform.processor() or platform.machine(),
    }


def _table(result: dict[str, Any]) -> str:
    work = result["workload"]
    lines = [
        f"{result['model']}, {result['parameters'] / 1e6:.1f}M parameters, {result['dtype']}, "
        f"{result['versions']['device']}, jax {result['versions']['jax']}",
        f"S {work['scenes']}  Q {work['questions']}  G {work['rollouts']}  video tokens {result['video_tokens']}  "
        f"answer tokens {work['answer_tokens']}  β {work['beta']:g}  LoRA r {result['lora']}",
        "",
        f"{'phase':12}{'median':>10}{'minimum':>10}{'maximum':>10}{'GFLOP':>10}{'of peak':>9}",
    ]
    for phase, spread in result["phase_spread"].items():
        flops, share = result["flops"].get(phase), result["fraction_of_matmul_peak"].get(phase)
        lines.append(
            f"{phase:12}"
            + "".join(f"{spread[name] * 1e3:8.1f}ms" for name in ("median", "minimum", "maximum"))
            + (f"{flops / 1e9:10.1f}{share:9.0%}" if flops and share else "")
        )
    lines += [
        "",
        f"step as in training {result['step']['step']['median']:.4f} s, "
        f"{result['seconds_per_question']:.4f} s per question, "
        f"{result['rollouts_per_second']:.0f} rollouts/s, {result['answer_tokens_per_second']:.0f} answer tokens/s",
        f"matmul peak {result['matmul_peak_flops_per_second'] / 1e9:.0f} GFLOP/s, "
        f"the step needs {result['step_fraction_of_matmul_peak']:.0%} of it; memory "
        f"{result['memory_bandwidth_bytes_per_second'] / 1e9:.0f} GB/s, decode reads "
        f"{result['decode_fraction_of_bandwidth']:.0%} of it; "
        f"compiled {result['compile_count']} programs in {result['compile_seconds']:.1f} s; "
        f"peak memory {result['peak_memory_bytes'] / 2**20:.0f} MiB",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
