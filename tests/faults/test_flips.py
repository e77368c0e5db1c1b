"""One flipped bit in a checkpoint: export and --resume refuse it in one line, or give what they give without it."""

import random
import shutil
from pathlib import Path
from typing import Any

from jaxvsr.files import read_rows
from tests.support.faults import Tally
from tests.support.files import contents
from tests.support.forked_commands import fork
from tests.support.runs import without_times

FLIPS = 60


def exported(place: Path, run: Path, out: Path) -> tuple[int, str, Any]:
    """Exit code, stderr, and the weights of an export."""
    code, error = fork("convert.py", "to-hf", run, out, cwd=place).finish()
    weights = {name: data for name, data in contents(out).items() if name.endswith(".safetensors")} if not code else {}
    return code, error, weights


def resumed(place: Path, run: Path) -> tuple[int, str, Any]:
    """Exit code, stderr, and the rows of a run that goes on for a step."""
    code, error = fork("train.py", "--run-dir", run, "--resume", "--steps", "7", cwd=place).finish()
    return code, error, [] if code else without_times(read_rows(run / "metrics.jsonl"))


def test_flipped_bits(place: Path, tmp_path: Path):
    draw, run, out = random.Random(0), tmp_path / "run", tmp_path / "out"
    shutil.copytree(place / "run", run)
    right = exported(place, run, out)[2], resumed(place, run)[2]
    assert all(right)
    tallies = Tally("one flipped bit in a checkpoint: to-hf"), Tally("one flipped bit in a checkpoint: train --resume")
    files = sorted(path.relative_to(run) for path in (place / "run" / "checkpoints" / "6").rglob("*") if path.is_file())
    refused: dict[str, int] = {}
    for number in range(FLIPS):
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(run)
        shutil.copytree(place / "run", run)
        file = files[number % len(files)]
        data = bytearray((run / file).read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        (run / file).write_bytes(data)
        for tally, found, wanted in zip(tallies, (exported(place, run, out), resumed(place, run)), right, strict=True):
            code, error, result = found
            assert code in (0, 2) and error.count("\n") == bool(code), (file, found)
            tally.add(error, silent=code == 0 and result != wanted)
            refused[file.parts[-2] if "d" in file.parts[-2:] else file.name] = refused.get(file.name, 0) + bool(code)
    print(refused)
    for tally in tallies:
        tally.check()
