"""The text of a compiled program, as the TPU's compiler and XLA on other machines write it."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest

from jaxvsr.measure.compiled_text import Collective, CompiledText
from jaxvsr.measure.target_costs import out_of_memory

# A loop of 16 - 1 rounds that gathers, draws and copies what it drew; one gather is spread over two fusions.
TPU = """HloModule jit_sample

%start.1 (p: bf16[28,384]) -> (bf16[28,384], bf16[28,1536]) {
  %p = bf16[28,384]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[28,1536]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=21, dimensions={1}
  ROOT %t = (bf16[28,384]{1,0}, bf16[28,1536]{1,0}) custom-call(%all-gather.1), custom_call_target="Start"
}

%done.1 (q: bf16[28,384]) -> bf16[28,1536] {
  %q = bf16[28,384]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[28,1536]{1,0:T(8,128)(2,1)} all-gather(%q), channel_id=21, dimensions={1}
}

%body (state: (s32[], f32[4])) -> (s32[], f32[4]) {
  %state = (s32[]{:T(128)}, f32[4]{0:T(128)S(1)}) parameter(0)
  %x = f32[4]{0:T(128)S(1)} get-tuple-element(%state), index=1
  %head = f32[4]{0:T(128)} fusion(%x), calls=%done.0, metadata={op_name="jit(sample)/body/dot"}, CYCLES(600)
  %reduce.1 = f32[4]{0:T(128)} fusion(%head), calls=%done.0, metadata={op_name="jit(sample)/draw/reduce"}, CYCLES(300)
  %copy.1 = f32[4]{0:T(128)} copy(%reduce.1), CYCLES(100)
  %unknown = f32[4]{0:T(128)} copy(%copy.1), CYCLES(9223372036854775807)
  %sum.1 = (f32[4]{0}, f32[]) all-reduce(%copy.1, %copy.1), channel_id=3, to_apply=%add
  ROOT %out = (s32[]{:T(128)}, f32[4]{0}) tuple(%state, %copy.1)
}

%condition (state.1: (s32[], f32[4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(16)
  %state.1 = (s32[]{:T(128)}, f32[4]{0:T(128)S(1)}) parameter(0)
  %step = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%step, %limit), direction=LT
}

ENTRY %main (w: bf16[28,384]) -> f32[4] {
  %one = s32[]{:T(128)} constant(1)
  %w = bf16[28,384]{1,0:T(8,128)(2,1)} parameter(0)
  %started = (bf16[28,384]{1,0}, bf16[28,1536]{1,0}) fusion(%w), calls=%start.1, CYCLES(50)
  %done = bf16[28,1536]{1,0} fusion(%w), kind=kCustom, calls=%done.1
  %copy.9 = s32[]{:T(128)} copy(%one)
  %first = (s32[]{:T(128)}, f32[4]{0:T(128)S(1)}) tuple(%copy.9, %done)
  %while.1 = (s32[]{:T(128)}, f32[4]{0:T(128)S(1)}) while(%first), condition=%condition, body=%body
  ROOT %result = f32[4]{0} get-tuple-element(%while.1), index=1
}
"""
TPU = re.sub(r"CYCLES\((\d+)\)", r'backend_config={"estimated_cycles":"\1"}', TPU)


def test_cycles_and_collectives_of_a_tpu_program_count_loops_by_their_rounds() -> None:
    text = CompiledText.parse(TPU)
    assert text.times["body"] == 15
    assert text.cycles == 50 + 15 * 1000
    assert text.collectives == (
        Collective("all-gather", "bf16", (28, 1536), 1),
        Collective("all-reduce", "f32", (4,), 15),
        Collective("all-reduce", "f32", (), 15),
    )
    assert [collective.bytes for collective in text.collectives] == [28 * 1536 * 2, 4 * 4 * 15, 4 * 15]


def test_counters_of_loops_that_the_partitioner_makes_have_no_sign() -> None:
    """A product in windows: 507M cycles were counted as 111M."""
    assert CompiledText.parse(TPU.replace("s32[]", "u32[]")).times["body"] == 15


def test_the_share_of_a_scope_includes_copies_that_the_compiler_made_of_it() -> None:
    text = CompiledText.parse(TPU)
    assert text.share("draw") == pytest.approx(0.4)
    assert text.share("nowhere") is None


def test_the_share_of_a_scope_counts_the_loops_beside_it_with_their_rounds() -> None:
    layer = "%layer (l: f32[4]) -> f32[4] {\n  ROOT %mlp = f32[4] copy(%l), CYCLES(100)\n}\n\n"
    loop = '  %layers = f32[4] while(%x), condition=%c, body=%layer, "known_trip_count":{"n":"10"}\n'
    layer = layer.replace("CYCLES(100)", 'backend_config={"estimated_cycles":"100"}')
    text = TPU.replace("%body (", f"{layer}%body (").replace("  %unknown = ", f"{loop}  %unknown = ")
    assert CompiledText.parse(text).share("draw") == pytest.approx(0.2)


def test_a_gather_in_two_parts_on_other_machines_is_its_result() -> None:
    text = CompiledText.parse(
        "ENTRY %main (p: bf16[8,4]) -> bf16[32,4] {\n"
        "  %p = bf16[8,4]{1,0} parameter(0)\n"
        "  %s = (bf16[8,4]{1,0}, bf16[32,4]{1,0}) all-gather-start(%p), channel_id=1\n"
        "  ROOT %d = bf16[32,4]{1,0} all-gather-done(%s)\n"
        "}\n"
    )
    assert text.collectives == (Collective("all-gather", "bf16", (32, 4), 1),)


def test_a_sum_of_which_each_device_keeps_a_part_is_a_reduce_scatter() -> None:
    """The TPU's compiler writes it as an all-reduce in a computation of its own. Those of `jax.shard_map`
    share one channel."""
    text = CompiledText.parse(
        "%all-reduce-scatter.3.clone.1 (i: bf16[16,8]) -> bf16[4,8] {\n"
        "  %i = bf16[16,8]{1,0:T(8,128)(2,1)} parameter(0)\n"
        "  %all-reduce.1 = bf16[16,8]{1,0:T(8,128)(2,1)} all-reduce(%i), channel_id=20, to_apply=%add\n"
        "  ROOT %part = bf16[4,8]{1,0:T(8,128)(2,1)} dynamic-slice(%all-reduce.1), dynamic_slice_sizes={4,8}\n"
        "}\n\n"
        "ENTRY %main (p: bf16[16,8]) -> bf16[4,8] {\n"
        "  %p = bf16[16,8]{1,0} parameter(0)\n"
        "  %a = bf16[4,8]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.3.clone.1\n"
        '  %b = bf16[4,8]{1,0} reduce-scatter(%p), channel_id=1, metadata={op_name="f/shard_map/a"}\n'
        '  ROOT %c = bf16[2,8]{1,0} reduce-scatter(%b), channel_id=1, metadata={op_name="f/shard_map/b"}\n'
        "}\n"
    )
    assert text.collectives == tuple(Collective("reduce-scatter", "bf16", (rows, 8), 1) for rows in (16, 16, 4))


def test_rounds_are_those_that_xla_says() -> None:
    def loop(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 7, lambda i, x: jnp.sin(x) @ x, x)

    program = jax.jit(loop).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).compile().as_text()
    assert program is not None
    text = CompiledText.parse(program)
    assert max(text.times.values()) == 7


def test_a_message_about_memory_is_read() -> None:
    short = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (21.50G) exceeds"
    )
    assert out_of_memory(short) == (int(21.5 * 2**30), ())
    long = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 29.60G of "
        "15.75G hbm. Exceeded hbm capacity by 13.85G.\n\nLargest program allocations in hbm:\n\n  1. Size: 3.59G\n"
        '     Operator: op_name="jit(sample)/gather"\n     Shape: bf16[28,18944,3584]{2,1,0:T(8,128)(2,1)}\n'
        "     Unpadded size: 3.59G\n\n  2. Size: 1.02G\n     Shape: bf16[152064,3584]{1,0}\n"
    )
    assert out_of_memory(long) == (
        int(29.6 * 2**30),
        ("3.59G bf16[28,18944,3584] of jit(sample)/gather", "1.02G bf16[152064,3584] of no named operation"),
    )
