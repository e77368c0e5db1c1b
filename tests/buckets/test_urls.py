"""Folders in buckets."""

from pathlib import Path

import pytest

from jaxvsr import locks
from jaxvsr.buckets.urls import url_in
from jaxvsr.cli import main
from jaxvsr.config.config_file import config_from
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.errors import InputError
from jaxvsr.files import write_text
from jaxvsr.runs.run_folder import check_run_folder

# Flags and places of every command that take a file or folder; what else the command must have stands before them.
TAKES = {
    "train": (("--run-dir",), ("--config",), ("--dry-run", "--target", "v5e:2x2", "--json"), ("--set", "model.base")),
    "data": (("rooms", "--scenes", "1"), ("import", "rows.jsonl"), ("tag", "--tag", "think", "data"), ("check",)),
    "evaluate": (("--benchmark", "vsi-bench", "--out", "scores", "--score"),),
    "convert": (("tiny",), ("to-hf", "runs/demo")),
    "report": ((), ("--out",), ("runs/demo", "--compare", "after")),
    "study": (("run", "a.yaml", "--out"),),
    "bench": (("--json",),),
    "ask": (("--question", "How many?", "--model", "rooms-base", "--video"),),
    "doctor": ((),),
    "demo": (("--run-dir",),),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", TAKES)
def test_no_command_makes_a_folder_of_a_url(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for *before, last in ((*given, "") if given in ((), TAKES["data"][0]) else given for given in TAKES[command]):
        url = "https://bucket/folder"
        given = [url] if not last else [f"{last}={url}"] if last in ("after", "model.base") else [last, url]
        assert main([command, *before, *given]) == 2, before
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and url in line, line
    assert list(tmp_path.iterdir()) == []


def test_a_url_is_told_from_the_names_of_files_here():
    for url in ("gs://b/s", "s3://b", "https://a.b/c", "r2+x://b/s"):
        assert {url_in(given) for given in (url, Path(url), ["a", url], f"after={url}", f"0.5*{url}")} == {url}
    for here in ("runs/a", "C:/runs", "a:2,b:1", "gs:", "a b://c", 3, None, Path("gs:"), "fsdp=4,tensor=2"):
        assert url_in(here) is None


def test_what_python_calls_writes_no_folder_of_a_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = Path("s3://bucket/run")
    writers = (
        lambda: write_text(url / "a.json", "{}"),
        lambda: locks.only_writer(url).__enter__(),
        lambda: locks.only_maker(url).__enter__(),
        lambda: check_run_folder(url, TrainConfig(), resume=False),
    )
    for write in writers:
        with pytest.raises(InputError, match=r"s3://bucket/run"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_field_of_a_config_takes_no_url():
    with pytest.raises(InputError, match=r"data\.prompt s3://bucket/prompt: takes a file or folder of this machine"):
        config_from({"data": {"prompt": "s3://bucket/prompt"}})
    for tree in ({"model": {"base": "https://bucket/folder"}}, {"data": {"folders": ["a", "https://bucket/folder"]}}):
        with pytest.raises(InputError, match=r"https://bucket/folder: expected a folder, or gs://BUCKET/FOLDER"):
            config_from(tree)
