"""Functions compiled ahead for each bucket of shapes, so that compiling is seen, timed and counted."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxvsr.devices.choose_devices import is_out_of_memory
from jaxvsr.devices.processes import meant_transfer
from jaxvsr.stop_signals import are_taken

# Without it XLA copies every key and value cache in every step of the decode loop. Other backends have no such option.
CPU_COMPILER_OPTIONS = {"xla_cpu_copy_insertion_use_region_analysis": True}
# Vector memory that one operation may take: with the compiler's own limit, 16 MiB, it cuts large products into tiles
# that are too small.
TPU_COMPILER_OPTIONS = {"xla_tpu_scoped_vmem_limit_kib": 32768}
COMPILER_OPTIONS: dict[str, dict[str, Any]] = {"cpu": CPU_COMPILER_OPTIONS, "tpu": TPU_COMPILER_OPTIONS}
SMALL_VECTOR_MEMORY = ("TPU v2", "TPU v3", "TPU v4")  # have 16 MiB in all
LOOK_SECONDS = 0.2  # while a program compiles


class CompiledFunction:
    """A jitted function compiled ahead for each new bucket of shapes, so that compiling is seen, timed and counted.

    Args:
        donate: arguments whose memory the result may take.
        mesh: over which the function splits its activations; None: as the compiler likes.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], *, donate: tuple[int, ...] = (), mesh: Mesh | None = None
    ):
        self.name, self.seconds, self._mesh = name, 0.0, mesh
        self.compiled: dict[Any, Any] = {}
        self.function, self._donate = function, donate
        self.on_compile: Callable[[str, int], Any] = lambda name, bucket: None
        # Called before a program that leaves its arguments as they are, and while one compiles; it may raise.
        self.look: Callable[[bool], None] = lambda compiling: None

    def executable(self, *args: Any) -> Any:
        """The compiled program for arguments (or abstract values) of these shapes; it takes their leaves."""
        leaves, structure = jax.tree.flatten(args)
        key = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if key not in self.compiled:
            self.on_compile(self.name, len(self.compiled) + 1)
            start = time.perf_counter()
            try:
                with meant_transfer():  # tracing makes constants
                    self.compiled[key] = self._compiled_elsewhere(self.lowered(*args))
            finally:
                self.seconds += time.perf_counter() - start
        return self.compiled[key]

    def lowered(self, *args: Any) -> Any:
        """The program before XLA compiles it."""
        leaves, structure = jax.tree.flatten(args)

        # Traced on leaves: the pytrees of abstract values that JAX would build are not what their types promise.
        def on_leaves(*leaves: Any) -> Any:
            return self.function(*jax.tree.unflatten(structure, leaves))

        on_leaves.__name__ = self.name
        ends = np.cumsum([len(jax.tree.leaves(arg)) for arg in args]).tolist()
        donated = [leaf for arg in self._donate for leaf in range(ends[arg - 1] if arg else 0, ends[arg])]
        with jax.set_mesh(self._mesh) if self._mesh else contextlib.nullcontext():
            return jax.jit(on_leaves, donate_argnums=donated).lower(*leaves)

    def _compiled_elsewhere(self, lowered: Any) -> Any:
        """Compile in another thread, so that a signal reaches this one: XLA's compiler cannot be interrupted."""
        if not are_taken():  # somebody else's program: it may not be left with such a thread
            return self._compiled(lowered)
        outcome: list[Any] = []

        def compile_here() -> None:
            try:
                outcome.append(self._compiled(lowered))
            except BaseException as error:
                outcome.append(error)

        compiling = threading.Thread(target=compile_here, name=f"compiling {self.name}", daemon=True)
        compiling.start()
        while compiling.is_alive():
            self.look(True)
            compiling.join(LOOK_SECONDS)
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _compiled(self, lowered: Any) -> Any:
        device = self._mesh.devices.flat[0] if self._mesh else jax.devices()[0]
        options = COMPILER_OPTIONS.get(device.platform)
        if options and device.device_kind not in SMALL_VECTOR_MEMORY:
            try:
                return lowered.compile(compiler_options=options)
            except jax.errors.JaxRuntimeError as error:
                if "No such compile option" not in str(error):  # another version of XLA: go without
                    raise
        return lowered.compile()

    def __call__(self, *args: Any) -> Any:
        program = self.executable(*args)
        if not self._donate:
            self.look(False)
        try:
            return program(*jax.tree.leaves(args))
        except jax.errors.JaxRuntimeError as error:
            if is_out_of_memory(error):
                bucket = list(self.compiled.values()).index(program) + 1
                gib = program_memory(program).total / 2**30
                error.add_note(f"{self.name}, bucket {bucket}, which needs {gib:.3g} GiB a device by XLA's account")
            raise


@dataclasses.dataclass(frozen=True)
class ProgramMemory:
    """Bytes on one device while a compiled function runs, as XLA plans them."""

    arguments: int
    temporary: int
    output: int  # those that do not take an argument's place

    @property
    def total(self) -> int:
        return self.arguments + self.temporary + self.output


def program_memory(executable: Any) -> ProgramMemory:
    """Of a compiled function, on one of its devices."""
    memory = executable.memory_analysis()
    output = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return ProgramMemory(memory.argument_size_in_bytes, memory.temp_size_in_bytes, max(output, 0))
