"""One flipped bit in a checkpoint: export and --resume refuse it in one line, or give what they give without it."""

import random
import shutil
from pathlib import Path
from typing import Any

from jaxvsr.files import read_rows
from tests.support.faults import Tally
from tests.support.files import contents
from tests.support.forks import fork
from tests.support.runs import without_times

FLIPS = 60  # half of them before an export, half before --resume


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
    reads = (lambda: exported(place, run, out)), (lambda: resumed(place, run))
    right = [read()[2] for read in reads]
    assert all(right)
    tallies = Tally("one flipped bit in a checkpoint: to-hf"), Tally("one flipped bit in a checkpoint: train --resume")
    files = sorted(path.relative_to(run) for path in (run / "checkpoints" / "6").rglob("*") if path.is_file())
    refused = dict.fromkeys((str(file) for file in files), 0)
    for number in range(FLIPS):
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(run)
        shutil.copytree(place / "run", run)
        which, file = number % 2, files[number // 2 % len(files)]
        data = bytearray((run / file).read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        (run / file).write_bytes(data)
        code, error, result = reads[which]()
        assert code in (0, 2) and error.count("\n") == bool(code), (file, code, error)
        tallies[which].add(error, silent=code == 0 and result != right[which])
        refused[str(file)] += bool(code)
    print("refused:", *(f"{count} {name}" for name, count in refused.items() if count), sep="\n  ")
    for tally in tallies:
        tally.check()
