"""The files in examples/cluster are whole: they parse, and what they run exists."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from launch import build_data, train

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "examples" / "cluster"


def jobset() -> dict[str, dict]:
    """The documents of jobset.yaml by kind."""
    return {document["kind"]: document for document in yaml.safe_load_all((FILES / "jobset.yaml").read_text())}


def command(name: str) -> list[str]:
    """The training that a file starts, from the script on."""
    if name == "jobset.yaml":
        (job,) = jobset()["JobSet"]["spec"]["replicatedJobs"]
        (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
        return container["command"][1:]
    text = re.sub(r"\\\n\s*", "", (FILES / name).read_text())
    (line,) = re.findall(r"^[^#\n]*python (launch/train\.py [^\"\n]+)", text, flags=re.MULTILINE)
    return shlex.split(line)


@pytest.mark.parametrize("name", ["slurm.sbatch", "jobset.yaml", "tpu_vm.sh"])
def test_a_clusters_file_starts_a_training_that_goes_on_when_it_is_started_again(name: str) -> None:
    script, *flags = command(name)
    arguments = train._parse(flags)
    assert (ROOT / script).is_file() and (ROOT / "configs" / f"{arguments.config}.yaml").is_file()
    assert arguments.resume and arguments.run_dir is not None
    assert arguments.coordinator is arguments.process_id is arguments.process_count is None


def test_the_tasks_that_make_data_take_their_share() -> None:
    job = yaml.safe_load((FILES / "data_job.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    text = re.sub(r"\\\n\s*", "", (FILES / "slurm_data.sbatch").read_text()).replace('"$SLURM_CPUS_PER_TASK"', "8")
    lines = [shlex.split(line) for line in re.findall(r"^python launch/build_data.py (.+)$", text, flags=re.MULTILINE)]
    shards = [build_data._parser().parse_args(line).shard for line in (container["command"][2:], *lines)]
    assert shards == [(None, job["completions"]), (None, None), (None, None)] and job["completionMode"] == "Indexed"


@pytest.mark.parametrize("name", ["slurm.sbatch", "slurm_data.sbatch", "tpu_vm.sh"])
def test_a_clusters_script_is_one(name: str) -> None:
    subprocess.run(["bash", "-n", FILES / name], check=True)


def test_the_pods_of_the_jobset_are_one_indexed_job_that_may_ask_kubernetes() -> None:
    found = jobset()
    (job,) = found["JobSet"]["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert job["replicas"] == 1 and spec["completionMode"] == "Indexed" and spec["parallelism"] == spec["completions"]
    account = found["ServiceAccount"]["metadata"]["name"]
    assert spec["template"]["spec"]["serviceAccountName"] == account == found["RoleBinding"]["subjects"][0]["name"]
    assert found["RoleBinding"]["roleRef"]["name"] == found["Role"]["metadata"]["name"]
    allowed = {resource for rule in found["Role"]["rules"] for resource in rule["resources"]}
    assert {"pods", "jobs", "services"} <= allowed


def test_the_image_is_made_of_what_there_is() -> None:
    text = (FILES / "Containerfile").read_text()
    copied = [source for line in re.findall(r"^COPY (.+) \S+$", text, flags=re.MULTILINE) for source in line.split()]
    assert {"pyproject.toml", "setup.py", "README.md"} <= set(copied), "without these pip builds nothing"
    for source in copied:
        assert (ROOT / source).exists(), source
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    used = [
        *re.findall(r"EXTRAS=([a-z0-9,]+)", text),
        *re.findall(r"\.\[([a-z0-9]+)\]", (FILES / "tpu_vm.sh").read_text()),
    ]
    assert len(used) == 3 and {extra for one in used for extra in one.split(",")} <= set(extras)
