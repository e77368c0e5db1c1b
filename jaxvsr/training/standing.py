"""Where a run stands: the phase that it is in, said on SIGUSR1 and where nothing moves; and a trace of some steps."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from jaxvsr import stop_signals
from jaxvsr.grpo.step_context import PhaseClock
from jaxvsr.training.console import duration

LOOK_SECONDS = 5.0  # between two looks at a run that may be stuck


@dataclasses.dataclass
class Standing:
    """The step that is running, and the clock that knows its phase."""

    clock: PhaseClock
    step: int = 0

    def line(self) -> str:
        """`step 7: in sample for 12 s, compiling sample`."""
        phase, since = self.clock.stands
        compiling = [thread.name for thread in threading.enumerate() if thread.name.startswith("compiling ")]
        return ", ".join([f"step {self.step}: in {phase} for {duration(time.monotonic() - since)}", *compiling])

    @contextlib.contextmanager
    def watched(self, minutes: float) -> Iterator[None]:
        """Inside, SIGUSR1 is answered with the line, and a phase of `minutes` (0: any) is said on stderr, once for each
        time as long, by every process for itself.
        """
        ended = threading.Event()
        stop_signals.standing.append(self.line)
        if minutes:
            threading.Thread(target=self._watch, args=(60 * minutes, ended), name="standing", daemon=True).start()
        try:
            yield
        finally:
            stop_signals.standing.remove(self.line)
            ended.set()

    def _watch(self, seconds: float, ended: threading.Event) -> None:
        said = (0.0, 0)  # since when, and how often
        while not ended.wait(min(LOOK_SECONDS, seconds / 2)):
            since = self.clock.stands[1]
            times = int((time.monotonic() - since) / seconds)
            if times and (since, times) != said:
                said = (since, times)
                stop_signals.say_where()


class Profile:
    """A trace of some steps, for XProf and TensorBoard.

    Args:
        steps: FIRST:LAST, as `logging.profile` has it; None: none.
    """

    def __init__(self, steps: str | None, folder: Path, say: Callable[[str], None]):
        self._first, self._last = map(int, steps.split(":")) if steps else (0, 0)
        self._steps, self._folder, self._say, self._runs = steps, folder, say, False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around a step."""
        if self._first <= number <= self._last and not self._runs:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every Python call would hide the phases
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._runs = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if number == self._last:
            self.close()

    def close(self) -> None:
        """Write what was traced; also where the run ends within these steps."""
        if self._runs:
            self._runs = False
            jax.profiler.stop_trace()
            self._say(
                f"trace of steps {self._steps} in {self._folder}; pip install xprof; xprof --logdir {self._folder}"
            )


def memory_per_device() -> dict[str, float]:
    """The most GiB that any device of this process has had in use so far; nothing where JAX does not tell."""
    peaks = [
        stats["peak_bytes_in_use"]
        for device in jax.local_devices()
        if (stats := device.memory_stats()) and "peak_bytes_in_use" in stats
    ]
    return {"memory_gib_per_device": max(peaks) / 2**30} if peaks else {}
