"""Cycles of attention's kernel, of which the TPU's compiler says nothing in a compiled program.

The compiler does schedule a kernel, and can be told to write the schedule down. Counted there is one pass of the
kernel's loop: a block of 512 × 512 tokens of one head of width 128, its transfers and the start and end of a row with
it. A block in which nobody sees anybody is left out. Waiting for memory is not in a schedule.
"""

from __future__ import annotations

import math
import re

from jaxvsr.devices.targets import Chip
from jaxvsr.measure.compiled_text import CompiledText
from jaxvsr.models.fused_attention import BLOCK, block_size, computed_blocks
from jaxvsr.models.layers import LANES
from jaxvsr.models.model_config import TextConfig
from jaxvsr.models.tree_sizes import TreeSizes

# Instructions of that loop by libtpu 0.0.42.1 and JAX 0.10.2: forward, gradient of queries, gradient of
# keys and values. A v5p has two cores, which share the blocks.
BLOCK_CYCLES = {
    "v4": {"fwd": 3282, "dq": 2669, "dkv": 3642},
    "v5e": {"fwd": 2231, "dq": 1846, "dkv": 2409},
    "v5p": {"fwd": 1187, "dq": 987, "dkv": 1347},
    "v6e": {"fwd": 1834, "dq": 1459, "dkv": 1777},
    "TPU7x": {"fwd": 1703, "dq": 1468, "dkv": 1809},
}
_KERNEL = re.compile(r"splash_mqa_(fwd|dq|dkv)_")


def kernel_cycles(text: CompiledText, chip: Chip, config: TextConfig, tree: TreeSizes) -> int:
    """Of all runs of the kernel in a program for one device, whose trees have these sizes; 0 where it has none."""
    cycles, block = 0.0, block_size(tree.tokens)
    tokens = -(-tree.tokens // block) * block
    groups = config.num_attention_heads // config.num_key_value_heads
    for name, operations in text.computations.items():
        for operation in operations:
            kernel = _KERNEL.match(operation.name) if operation.kind == "custom-call" else None
            if kernel is None:
                continue
            # Its largest result has an element for each head, token and place of a head's width.
            largest = max(math.prod(shape) for _, shape in operation.arrays)
            heads = largest / tokens / config.head_dim * (groups if kernel[1] == "dkv" else 1)
            blocks = heads * computed_blocks(tree) * (block / BLOCK) ** 2 * config.head_dim / LANES
            cycles += text.times.get(name, 0) * blocks * BLOCK_CYCLES[chip.name][kernel[1]]
    return round(cycles)
