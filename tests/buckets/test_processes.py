"""A training of two processes whose run is in a bucket."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from jaxvsr.buckets.fetching import CHECKPOINT_MARK, fetched
from jaxvsr.buckets.objects import names_below
from tests.support.faults import start
from tests.support.runs import TINY_RECIPE, result_of

STEPS = 60
RECIPE = (
    TINY_RECIPE
    + f"steps: {STEPS}\nintervals: {{checkpoint: 20, samples: 10, keep: 1}}\noptimizer: {{schedule: constant}}\n"
)


def begin(place: Path, run: object, caches: list[Path], *more: str) -> list[subprocess.Popen[str]]:
    """Two processes of a training, on machines with a cache each."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--config", "recipe.yaml", "--run-dir", run, "--resume", "--set", "logging.trackers=", "--mesh", "fsdp=2"]
    flags += ["--coordinator", f"127.0.0.1:{port}", "--process-count", 2, *more]
    return [
        start("train.py", *flags, "--process-id", index, cwd=place, environment={"XDG_CACHE_HOME": str(cache)})
        for index, cache in enumerate(caches)
    ]


def end(processes: list[subprocess.Popen[str]], code: int, line: str = "") -> None:
    """They end with this code, and say nothing, or one of them this line."""
    ends = [(process.communicate(timeout=400)[1], process.returncode) for process in processes]
    said = [line for error, _ in ends for line in error.splitlines() if "GOOGLE_AUTH_TOKEN" not in line]
    assert ([ended for _, ended in ends], said) == (
        [code] * 2,
        said if line and len(said) == 1 and line in said[0] else [],
    )


@pytest.fixture
def place(tmp_path: Path, tiny_model, data_folder: Path) -> Path:
    for name, folder in (("tiny", tiny_model()), ("data", data_folder)):
        (tmp_path / name).symlink_to(folder)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "score.py").write_text(
        "def vowels(completions, **c):\n    return [float(len(t)) for t in completions]\n"
    )
    return tmp_path


@pytest.mark.slow
def test_two_processes_train_into_a_bucket_as_onto_a_disk_and_go_on_with_empty_caches(bucket, place, tmp_path):
    url, disk = f"{bucket.url}/several/run", tmp_path / "disk"
    end(begin(place, disk, [tmp_path / "all"] * 2), 0)
    first, second = ([tmp_path / f"{when}{index}" for index in (0, 1)] for when in ("first", "second"))
    processes = begin(place, url, first)
    while all(process.poll() is None for process in processes):
        if any(path.stat().st_size for path in first[0].rglob("metrics.jsonl")):
            break
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    end(processes, 143)
    saved = {int(name.split("/")[1]) for name in names_below(url) if name.endswith(CHECKPOINT_MARK)}
    assert saved and max(saved) < STEPS
    end(begin(place, url, second), 0)
    left = [path for cache in (*first, *second) for path in (cache / "jaxvsr" / "buckets").rglob("*") if path.is_file()]
    assert left == [], "all is sent"
    assert result_of(fetched(url)) == result_of(disk)
    assert {name.split("/")[1] for name in names_below(url) if name.startswith("checkpoints/")} == {str(STEPS)}


@pytest.mark.slow
def test_two_processes_end_together_with_one_line_where_a_number_is_not_finite(bucket, place, tmp_path):
    url = f"{bucket.url}/several/infinite"
    more = ("--set", "optimizer.learning_rate=1e38", "--set", "update.skip_not_finite=0")
    end(begin(place, url, [tmp_path / "one", tmp_path / "two"], *more), 3, "not finite")
    assert {"config.yaml", "metrics.jsonl"} <= {name.split("/")[-1] for name in names_below(url)}, (
        "what there is is sent"
    )
