"""What the text of a compiled program says: how often each part of it runs, what devices send each other, and on TPUs
the compiler's own count of cycles.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_OPERATION = re.compile(
    r"^\s+(ROOT )?%?(?P<name>[\w.\-]+) = (?P<result>.*?) (?P<kind>[a-z][a-z0-9\-]*)\((?P<given>[^)]*)\)(?P<rest>.*)$"
)
_ARRAY = re.compile(r"(?P<dtype>[a-z]+\d*[a-z0-9]*)\[(?P<shape>[\d,]*)\]")
_COLLECTIVE = re.compile(r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?")
_ITEM_BITS = {"pred": 8, "bf16": 16}
_NO_CYCLES = 2**60  # some operations have a mark of "unknown" near 2^63 instead of cycles
_PASSED_ON = ("copy", "copy-start", "copy-done", "bitcast", "convert", "reshape")  # the same values under another name


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a compiled program."""

    name: str
    result: str  # its type, as XLA writes it
    kind: str  # XLA's name: fusion, while, all-gather, …
    given: tuple[str, ...]  # names of its operands; of a constant the text of its value
    scope: str  # the path of JAX's names it came from, "" where XLA made it
    cycles: int  # by the TPU compiler's cost model, 0 elsewhere
    channel: str  # of a collective; its parts share it
    calls: tuple[str, ...]  # computations that it runs once
    index: int = 0  # of the element that it takes from a tuple
    body: str = ""  # of a loop
    condition: str = ""
    rounds: int | None = None  # of a loop, where XLA says them

    @property
    def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
        """(dtype, shape) of each array of the result."""
        return [
            (array["dtype"], tuple(int(size) for size in array["shape"].split(",") if size))
            for array in _ARRAY.finditer(self.result)
        ]


@dataclasses.dataclass(frozen=True)
class Collective:
    """What the devices send each other in one operation: one array of it."""

    kind: str  # all-reduce, all-gather, reduce-scatter, all-to-all, collective-permute
    dtype: str  # XLA's name: bf16, f32, …
    shape: tuple[int, ...]  # of the result on one device; of a reduce-scatter, of what is summed there
    times: int = 1  # that it runs, loops counted

    @property
    def bytes(self) -> int:
        """Of that array, all times together."""
        bits = _ITEM_BITS.get(self.dtype) or int(re.sub(r"^[a-z]+(\d+).*", r"\1", self.dtype))
        return math.prod(self.shape) * bits // 8 * self.times


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledText:
    """A compiled program's computations, each a sequence of operations in the order in which they run."""

    computations: Mapping[str, tuple[Operation, ...]]
    entry: str

    @classmethod
    def parse(cls, text: str) -> CompiledText:
        computations: dict[str, tuple[Operation, ...]] = {}
        name, entry, operations = "", "", list[Operation]()
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                name, operations = header["name"], []
                entry = name if header["entry"] else entry
            elif line == "}" and name:
                computations[name], name = tuple(operations), ""
            elif name and (found := _OPERATION.match(line)):
                operations.append(_operation(found))
        return cls(computations, entry)

    @functools.cached_property
    def times(self) -> Mapping[str, int]:
        """How often each computation runs. A loop that may end early (decoding) counts with all its rounds; of branches
        each counts."""
        times: dict[str, int] = {}

        def run(name: str, count: int) -> None:
            times[name] = times.get(name, 0) + count
            for operation in self.computations.get(name, ()):
                for called in operation.calls:
                    run(called, count)
                if operation.kind == "while":
                    run(operation.body, count * self.rounds(name, operation))

        run(self.entry, 1)
        return times

    def rounds(self, inside: str, loop: Operation) -> int:
        """Of a loop in the computation `inside`: XLA's own number, or the bound in its condition less the start."""
        if loop.rounds is not None:
            return loop.rounds
        bounds, starts = list[int](), list[int]()
        counters = set[int]()
        for operation in self._reached(loop.condition):
            if operation.kind == "constant" and operation.result.startswith(("s32[]", "u32[]")):
                bounds.append(int(operation.given[0]))
            if operation.kind == "get-tuple-element" and operation.result.startswith(("s32[]", "u32[]")):
                counters.add(operation.index)
        by_name = {operation.name: operation for operation in self.computations[inside]}
        start = by_name.get(loop.given[0])
        for counter in counters:
            value = start and by_name.get(start.given[counter])
            while value and value.kind in _PASSED_ON:
                value = by_name.get(value.given[0])
            if value and value.kind == "constant":
                starts.append(int(value.given[0]))
        return max(bounds, default=1) - min(starts, default=0)

    def _reached(self, name: str) -> Iterator[Operation]:
        """The operations of a computation and of all that it calls."""
        for operation in self.computations.get(name, ()):
            yield operation
            for called in operation.calls:
                yield from self._reached(called)

    @functools.cached_property
    def collectives(self) -> tuple[Collective, ...]:
        """Every collective, one for each array that it carries.

        The TPU's compiler spreads one over several fusions, which share its channel: it counts once. All those of
        `jax.shard_map` have one channel. A sum of which each device keeps a part is an all-reduce inside of a
        computation that is called all-reduce-scatter: it is a reduce-scatter.
        """
        found, channels = list[Collective](), set[str]()
        for name, operations in self.computations.items():
            for operation in operations:
                kind = _COLLECTIVE.fullmatch(operation.kind)
                if kind is None or self.times.get(name, 0) == 0 or operation.channel in channels:
                    continue
                if "shard_map" not in operation.scope:
                    channels |= {operation.channel} - {""}
                arrays = operation.arrays
                if kind[2] and kind[1] in ("all-gather", "collective-permute"):  # operands, results, context
                    arrays = [array for array in arrays if array[1] or array[0] not in ("u32", "s32")]
                    arrays = arrays[len(arrays) // 2 :]
                called = "reduce-scatter" if name.startswith("all-reduce-scatter") else kind[1]
                if kind[1] == "reduce-scatter":
                    by_name = {one.name: one for one in operations}
                    arrays = [array for given in operation.given for array in by_name[given].arrays]
                found += [Collective(called, dtype, shape, self.times[name]) for dtype, shape in arrays]
        return tuple(found)

    @functools.cached_property
    def cycles(self) -> int:
        """Of the whole program on one device, loops counted; 0 where the compiler says none. Waiting for other devices
        is not among them."""
        return sum(self.times.get(name, 0) * self._cycles(name) for name in self.computations)

    def share(self, scope: str) -> float | None:
        """The share of cycles that operations of a `jax.named_scope` have in the loop in which they are, the loops
        inside of it with all their rounds; None: there are none."""
        for name, operations in self.computations.items():
            if name == self.entry or not (total := self._with_loops(name)):
                continue
            by_name = {operation.name: operation for operation in operations}
            inside = sum(operation.cycles for operation in operations if scope in _scope(operation, by_name).split("/"))
            if inside:
                return inside / total
        return None

    def _with_loops(self, name: str) -> int:
        """Cycles of a computation with all that it calls and its loops."""
        total = self._cycles(name)
        for operation in self.computations[name]:
            total += sum(self._with_loops(called) for called in operation.calls if called in self.computations)
            if operation.kind == "while":
                total += self.rounds(name, operation) * self._with_loops(operation.body)
        return total

    def _cycles(self, name: str) -> int:
        return sum(operation.cycles for operation in self.computations[name])


def _operation(found: re.Match[str]) -> Operation:
    rest, kind = found["rest"], found["kind"]
    given = (found["given"],) if kind == "constant" else tuple(re.findall(r"%([\w.\-]+)", found["given"]))

    def named(pattern: str) -> str:
        match = re.search(pattern, rest)
        return match[1] if match else ""

    calls = re.findall(r"(?:calls|true_computation|false_computation)=%?([\w.\-]+)", rest)
    calls += re.findall(r"%?([\w.\-]+)", named(r"branch_computations=\{([^}]*)\}"))
    if kind == "call":
        calls.append(named(r"to_apply=%?([\w.\-]+)"))
    cycles, rounds = int(named(r'"estimated_cycles":"(\d+)"') or 0), named(r'"known_trip_count":\{"n":"(\d+)"')
    return Operation(
        found["name"], found["result"], kind, given,
        scope=named(r'op_name="([^"]*)"'),
        cycles=cycles if cycles < _NO_CYCLES else 0,
        channel=named(r"channel_id=(\d+)"),
        calls=tuple(calls),
        index=int(named(r"\bindex=(\d+)") or 0),
        body=named(r"body=%?([\w.\-]+)"),
        condition=named(r"condition=%?([\w.\-]+)"),
        rounds=int(rounds) if rounds else None,
    )  # fmt: skip


def _scope(operation: Operation, by_name: Mapping[str, Operation]) -> str:
    """Of an operation that XLA made (a copy into another layout): that of the operation whose result it takes."""
    seen = set[str]()
    while not operation.scope and operation.given and operation.name not in seen:
        seen.add(operation.name)
        if operation.given[0] not in by_name:
            break
        operation = by_name[operation.given[0]]
    return operation.scope
