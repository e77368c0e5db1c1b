"""A step's programs compiled for chips that are not here: what they need of memory, what the chips send each other, and
how long they take by estimate.

Nothing is run. Memory and collectives are the compiler's own account. Seconds are estimates: on a TPU the compiler's
count of cycles at the chip's clock, on a card the roofline, which no program is faster than.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from jaxvsr.devices.choose_devices import is_out_of_memory
from jaxvsr.devices.compiled import CompiledFunction, ProgramMemory, program_memory
from jaxvsr.devices.mesh import make_mesh, scene_shards
from jaxvsr.devices.mesh_shape import MeshShape, parse_mesh
from jaxvsr.devices.targets import GIB, USABLE_OF_CARD, Chip, Target, target_devices
from jaxvsr.errors import InputError
from jaxvsr.measure.abstract_step import Programs
from jaxvsr.measure.compiled_text import CompiledText
from jaxvsr.measure.flops import StepSizes, cache_bytes, decode_bytes, needed_flops
from jaxvsr.models.fused_attention import block_size, computed_blocks
from jaxvsr.models.layers import LANES
from jaxvsr.models.model_config import ModelConfig, TextConfig
from jaxvsr.models.tree_sizes import TreeSizes

PREALLOCATED = (
    0.75  # of a card's memory that JAX takes, where nothing else is said (docs.jax.dev, GPU memory allocation)
)
PHASES = {
    "sample": ("vision", "prefill", "decode"), "vision": ("vision",), "reference": ("reference",),
    "update": ("update",),
}  # fmt: skip

# Of attention's kernel the compiler says nothing in a compiled program, but it schedules it, and can be told to write
# the schedule down (`--xla_jf_dump_llo_text`). These are its instructions for a block of 512 × 512 or 640 × 640 tokens
# of one head of width 128, transfers and a row's start and end with them, waiting for memory not: forward, gradient of
# queries, gradient of keys and values. By libtpu 0.0.42.1 and JAX 0.10.2, with the options of `devices/compiled.py`.
# Of a v4 and a v5p these are the half: two cores share the blocks, where there are several scenes or key heads. A
# smaller block, of a tree of few tokens, counts as its share of one of 512, which is too little.
BLOCK_CYCLES = {
    "v4": {512: {"fwd": 1664, "dq": 1357, "dkv": 1837}, 640: {"fwd": 2610, "dq": 2073, "dkv": 2407}},
    "v5e": {512: {"fwd": 2064, "dq": 1840, "dkv": 2393}, 640: {"fwd": 3204, "dq": 2721, "dkv": 3603}},
    "v5p": {512: {"fwd": 1069, "dq": 1041, "dkv": 1406}, 640: {"fwd": 1641, "dq": 1460, "dkv": 1969}},
    "v6e": {512: {"fwd": 1655, "dq": 1462, "dkv": 1765}, 640: {"fwd": 2977, "dq": 2190, "dkv": 2514}},
    "TPU7x": {512: {"fwd": 1759, "dq": 1517, "dkv": 1795}, 640: {"fwd": 3142, "dq": 2179, "dkv": 2567}},
}
# The same of the tower's kernel, for one head of width 80 and 256 patches: it grows with the square of a row's patches,
# below 256 with their number (of a v4, which has room for 128, it was read at 64 and halved). Other widths count as 80.
ROW_PATCHES = 256
ROW_CYCLES = {"v4": 650, "v5e": 793, "v5p": 409, "v6e": 494, "TPU7x": 563}
_KERNEL = re.compile(r"splash_mqa_(fwd|dq|dkv)_|row_attention")


@dataclasses.dataclass(frozen=True)
class StepOnTarget:
    """What is known of a step before it is compiled."""

    target: Target
    mesh: Mesh
    model: ModelConfig
    sizes: StepSizes  # of the whole step
    item_size: int  # bytes of an activation
    weights: int  # bytes a device, those of the reference policy too
    state: int  # bytes a device: what is trained, and the optimizer's moments
    remat: str
    accumulation: int

    @property
    def device_sizes(self) -> StepSizes:
        """The scenes of one device."""
        return dataclasses.replace(self.sizes, scenes=max(self.sizes.scenes // scene_shards(self.mesh), 1))

    @property
    def caches(self) -> float:
        """Bytes a device of all keys and values while sampling, with those of whole rollouts."""
        heads = math.gcd(self.model.text.num_key_value_heads, self.mesh.shape["tensor"])
        return cache_bytes(self.model, self.device_sizes, self.item_size, filled=1.0) / heads

    def tree(self, program: str) -> TreeSizes:
        """Of one scene as the program's attention has it."""
        sizes = self.sizes
        prompt = TreeSizes(sizes.scene_tokens, sizes.questions, sizes.question_tokens)
        if program == "sample":
            return prompt
        return dataclasses.replace(prompt, group=sizes.rollouts, fed=sizes.answer_tokens - 1)

    def flops(self, program: str) -> float:
        """Of matrix products that the program needs, on all devices."""
        needed = needed_flops(self.model, self.sizes)
        return sum(needed[phase] for phase in PHASES[program])

    def roofline(self, program: str) -> float:
        """Seconds that no program is faster than: products at the chip's peak, decoding also at its bandwidth."""
        chip, needed = self.target.chip, needed_flops(self.model, self.sizes)
        peak = chip.peak / chip.devices * self.mesh.devices.size
        seconds = {phase: needed[phase] / peak for phase in PHASES[program]}
        if "decode" in seconds:
            read = decode_bytes(self.model, self.device_sizes, self.item_size) / self.mesh.shape["tensor"]
            seconds["decode"] = max(seconds["decode"], read / chip.bandwidth * chip.devices)
        return sum(seconds.values())


@dataclasses.dataclass(frozen=True)
class TargetProgram:
    """One program of a step, on one device of the target."""

    compile_seconds: float
    memory: ProgramMemory | None  # None: the compiler stopped, because it does not fit
    memory_bytes: int  # with the weights and state beside it; of one that does not compile what it would take
    fits: bool
    largest: tuple[str, ...]  # buffers, where it does not fit and the compiler names them
    collectives: Mapping[str, tuple[int, int]]  # by kind: number and bytes, loops counted
    cycles: int  # 0: the compiler counts none
    kernel_cycles: int  # those of them that are attention's kernels'
    estimated_seconds: float | None  # without what the chips send each other
    collective_seconds: float  # at the bandwidth of the interconnect or network, where nothing hides it
    share_of_peak: float | None  # needed FLOP in the estimated time
    draw_share: float | None  # of a decode step, by cycles

    @property
    def collective_bytes(self) -> int:
        return sum(size for _, size in self.collectives.values())


def target_mesh(target: Target, spec: str | None) -> Mesh:
    """The mesh over a target's devices: `fsdp=4,tensor=2`, or None for all on fsdp."""
    shape = parse_mesh(spec) if spec else MeshShape(fsdp=target.devices)
    if shape.devices != target.devices:
        raise InputError(
            f"mesh {shape}: {shape.devices} devices, and {target} has {target.devices}: take --mesh {target.devices}, "
            f"or axes whose product is {target.devices}"
        )
    return make_mesh(shape, target_devices(target))


def compiled_programs(step: StepOnTarget, programs: Programs) -> Iterator[tuple[str, TargetProgram]]:
    """Compile each program, one after the other."""
    for name, (function, given) in programs.items():
        yield name, _compiled(step, name, function, given)


def _compiled(step: StepOnTarget, name: str, function: CompiledFunction, given: tuple[Any, ...]) -> TargetProgram:
    before = function.seconds
    target = step.target
    # Weights and moments that this program does not take lie beside it.
    beside = max(step.weights + step.state - sum(_parameter_bytes(part) for part in given), 0)
    try:
        program = function.executable(*given)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        wanted, largest = out_of_memory(str(error))
        return TargetProgram(
            function.seconds - before, None, wanted + beside, False, largest, {}, 0, 0, None, 0.0, None, None
        )
    text = CompiledText.parse(program.as_text())
    counts, sizes = Counter[str](), Counter[str]()
    for collective in text.collectives:
        counts[collective.kind] += collective.times
        sizes[collective.kind] += collective.bytes
    memory = program_memory(program)
    needed = memory.total + beside
    roofline = step.roofline(name)
    cycles, kernel = text.cycles, 0
    if cycles:
        kernel = kernel_cycles(text, target.chip, step.model, step.tree(name))
        cycles += kernel
    seconds = cycles / target.chip.clock if cycles else roofline
    sent = sum(size * (2 if kind == "all-reduce" else 1) for kind, size in sizes.items())
    peak = target.chip.peak / target.chip.devices * step.mesh.devices.size
    return TargetProgram(
        compile_seconds=function.seconds - before,
        memory=memory,
        memory_bytes=needed,
        fits=needed <= target.usable,
        largest=(),
        collectives={kind: (counts[kind], sizes[kind]) for kind in sorted(counts)},
        cycles=cycles,
        kernel_cycles=kernel,
        estimated_seconds=seconds,
        collective_seconds=sent / target.interconnect,
        share_of_peak=step.flops(name) / seconds / peak if cycles else None,
        draw_share=text.share("draw") if name == "sample" and text.cycles else None,
    )


def kernel_cycles(text: CompiledText, chip: Chip, model: ModelConfig, tree: TreeSizes) -> int:
    """Of all runs of attention's kernels in a program for one device, whose trees have these sizes; 0 where it has
    none."""
    cycles = 0.0
    for name, operations in text.computations.items():
        for operation in operations:
            kernel = _KERNEL.match(operation.name) if operation.kind == "custom-call" else None
            if kernel is None:
                continue
            largest = max((shape for _, shape in operation.arrays), key=math.prod)
            if kernel[1] is None:
                rows, length, _ = largest
                size = length / ROW_PATCHES
                once = rows * model.vision.num_heads * max(size, size**2) * ROW_CYCLES[chip.name]
            else:
                once = _tree_cycles(kernel[1], math.prod(largest), chip, model.text, tree)
            cycles += text.times.get(name, 0) * once
    return round(cycles)


def _tree_cycles(kind: str, values: int, chip: Chip, config: TextConfig, tree: TreeSizes) -> float:
    """Of one run, whose largest result has a value for each head, token and place of a head's width."""
    block = block_size(tree)
    cycles = BLOCK_CYCLES[chip.name]
    known = block if block in cycles else min(cycles)
    heads = values / (-(-tree.tokens // block) * block) / config.head_dim
    if kind == "dkv":
        heads *= config.num_attention_heads // config.num_key_value_heads
    blocks = heads * computed_blocks(tree, block) * (block / known) ** 2 * config.head_dim / LANES
    return blocks * cycles[known][kind]


def _parameter_bytes(given: Any) -> int:
    """Bytes a device of the parameters, and moments of them, among a program's arguments."""
    return sum(
        device_bytes(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(given)
        if any(isinstance(part, jax.tree_util.DictKey) for part in path)
    )


def device_bytes(leaf: Any) -> int:
    """Of an abstract value on a mesh, on one device."""
    shape = leaf.sharding.shard_shape(leaf.shape) if getattr(leaf, "sharding", None) else leaf.shape
    size = leaf.dtype.itemsize
    for length in shape:
        size *= length
    return int(size)


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def out_of_memory(message: str) -> tuple[int, tuple[str, ...]]:
    """The bytes that a program would take, and its largest buffers, from the TPU compiler's message."""
    wanted = re.search(r"(?:Used |temporaries \()([\d.]+)([KMGT]?)", message)
    size = int(float(wanted[1]) * _UNITS[wanted[2]]) if wanted else 0
    largest = []
    for part in re.split(r"\n\s*\d+\. Size: ", message)[1:]:
        amount, shape = part.split("\n")[0].strip(), re.search(r"Shape: (\S+?)\{", part)
        scope = re.search(r'op_name="([^"]*)"', part)
        largest.append(f"{amount} {shape[1] if shape else ''} of {scope[1] if scope else 'no named operation'}")
    return size, tuple(largest[:3])


def first_knob(step: StepOnTarget, program: str) -> str:
    """What to change first where a program does not fit; the run would take it as it is written."""
    shards, devices = scene_shards(step.mesh), step.mesh.devices.size
    scenes, parts = step.sizes.scenes // shards, step.accumulation  # of one device
    if program == "update":
        if step.remat != "full":
            return "--set model.remat=full"
        if parts < scenes:
            more = next(number for number in range(parts + 1, scenes + 1) if scenes % number == 0)
            return f"--set update.accumulation={more}"
    elif scenes > 1:
        if parts == 1:
            return f"--set data.scenes={scenes // 2 * shards}"
        fewer = parts // 2  # of the same size, so that the update needs no more memory
        return f"--set data.scenes={scenes // parts * fewer * shards} --set update.accumulation={fewer}"
    tensor = step.mesh.shape["tensor"] * 2
    if devices % tensor == 0 and step.model.text.num_key_value_heads % tensor == 0:
        return f"--mesh fsdp={devices // tensor},tensor={tensor} (heads and vocabulary split)"
    return f"more chips than {step.target}"


def program_lines(step: StepOnTarget, name: str, program: TargetProgram) -> Iterator[str]:
    """What a person reads of one program."""
    have, usable = step.target.memory, step.target.usable
    of_all = "" if usable == have else f" ({_gib(usable)} usable)"
    fits = "fits" if program.fits else "does not fit"
    parts = ""
    if program.memory is not None:
        parts = f" (temporary {_gib(program.memory.temporary)}"
        if name == "sample":
            parts += f", keys and values in it {_gib(step.caches)}"
        parts += ")"
    yield (
        f"{name:<12}{fits}: {_gib(program.memory_bytes)} of {_gib(have)} GiB a device{of_all}{parts}; "
        f"compiled in {program.compile_seconds:.0f} s"
    )
    if not program.fits:
        for buffer in program.largest:
            yield f"{'':<12}{buffer}"
        yield f"{'':<12}first: {first_knob(step, name)}"
        return
    if step.target.chip.kind == "cuda" and program.memory_bytes > PREALLOCATED * have:
        more = f"XLA_PYTHON_CLIENT_MEM_FRACTION={USABLE_OF_CARD}"
        yield f"{'':<12}more than the {PREALLOCATED:.0%} that JAX takes of a card: {more}"
    if program.collectives:
        each = ", ".join(f"{count:,} {kind} {_gib(size)} GiB" for kind, (count, size) in program.collectives.items())
        yield f"{'':<12}each device: {each}; {program.collective_seconds:.3g} s, where nothing hides it"
    if program.estimated_seconds is not None:
        how = "at the roofline"
        if program.cycles:
            how = f"{program.cycles:.3g} cycles by the compiler's count, {program.share_of_peak:.0%} of peak"
            if program.kernel_cycles:
                how += f"; {program.kernel_cycles:.3g} of attention's kernels, by their schedule"
        yield f"{'':<12}estimated {program.estimated_seconds:.3g} s ({how})"
    if program.draw_share is not None:
        yield f"{'':<12}drawing the token is {program.draw_share:.0%} of a decode step"


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f}" if size >= 10 * GIB else f"{size / GIB:.3g}"


def step_seconds(programs: Mapping[str, TargetProgram], updates: int = 1) -> float | None:
    """Estimated seconds of a step, collectives hidden; None where a program has no estimate.

    Args:
        updates: on the same rollouts.
    """
    seconds = 0.0
    for name, program in programs.items():
        if program.estimated_seconds is None:
            return None
        seconds += program.estimated_seconds * times_run(name, updates)
    return seconds


def times_run(program: str, updates: int) -> int:
    """How often a step runs it, with so many updates on the same rollouts."""
    return updates if program == "update" else 1


def as_json(programs: Mapping[str, TargetProgram]) -> dict[str, Any]:
    """`programs` and `decode` of the results that `--json` keeps."""
    rows = {
        name: {
            **dataclasses.asdict(program),
            "collectives": {kind: {"number": n, "bytes": size} for kind, (n, size) in program.collectives.items()},
            "collective_bytes": program.collective_bytes,
        }
        for name, program in programs.items()
    }
    for row in rows.values():
        row.pop("draw_share")
    draw = programs["sample"].draw_share if "sample" in programs else None
    return {"programs": rows, "decode": {"draw_share": draw}}
