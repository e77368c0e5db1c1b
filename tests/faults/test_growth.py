"""Memory and time a scan as scans become more, for docs/data.md: neither grows with their number."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.faults import ROOT, finish, start

COUNTS = (20, 100, 200)
COMMANDS = {
    "questions": ("questions", "rooms", "out", "--recipe", "vsi-bench", "--mirror", "--workers", "1"),
    "frames": ("frames", "rooms", "out", "--frames", "8,16", "--max-pixels", "12544", "--workers", "1"),
    "features": ("features", "out", "--model", "tiny", "--frames", "8"),
}


# From a small process: one that is large itself would pass its memory on to the count of its children.
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss / 1024, used.ru_utime + used.ru_stime)
sys.exit(code)
"""


def cost(arguments: tuple[str, ...], cwd: Path) -> tuple[float, float]:
    """The most MB that a command has in memory, and its seconds of processor time."""
    quiet = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURED, sys.executable, str(ROOT / "launch" / "build_data.py"), *arguments]
    said = subprocess.run(command, cwd=cwd, env={**os.environ, **quiet}, check=True, capture_output=True, text=True)
    memory, seconds = map(float, said.stdout.split())
    return memory, seconds


def test_memory_and_time_of_scans_are_flat(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(tiny_model(), tmp_path / "tiny")
    assert finish(start("build_data.py", "rooms", "all", "--scenes", max(COUNTS), cwd=tmp_path), 3600) == (0, "")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for count in (COUNTS[0], *COUNTS):  # the first time programs are compiled
        scans = tmp_path / "rooms" / "scans"
        scans.mkdir(parents=True)
        for scan in sorted((tmp_path / "all" / "scans").iterdir())[:count]:
            (scans / scan.name).symlink_to(scan)
        for name, arguments in COMMANDS.items():
            found[name].append(cost(arguments, tmp_path))
        shutil.rmtree(tmp_path / "rooms")
        shutil.rmtree(tmp_path / "out")
    print()
    for name, (_, *costs) in found.items():
        memory = [megabytes for megabytes, _ in costs]
        between = [
            (after[1] - before[1]) / (more - fewer)
            for before, after, fewer, more in zip(costs, costs[1:], COUNTS, COUNTS[1:], strict=False)
        ]
        print(f"| {name} | {' | '.join(f'{m:.0f}' for m in memory)} | {' | '.join(f'{s:.3f}' for s in between)} |")
        assert memory[-1] < 1.1 * memory[0] + 10
        assert between[1] < 1.5 * between[0] + 0.02
