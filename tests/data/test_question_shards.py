"""`questions` in parts: a stopped run goes on, shards of several machines give the bytes of one, mirrors and masks."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from jaxvsr.data.questions import read_questions
from jaxvsr.data.recipes import generate_questions
from jaxvsr.data.recipes.unfinished_questions import scan_digest
from jaxvsr.data.rooms.room_scans import write_rooms
from jaxvsr.data.scannet import read_scan
from launch.build_data import main
from tests.support.faults import start
from tests.support.files import contents

SCENES = 5
# The wide camera of procedural rooms sees a little of nearly everything in its first frame.
ORDERS = ("--set", "order_margin_s=0", "--set", "order_minimum_share=0.01")
COUNTED = ("--set", "count_minimum=1", "--set", "count_absent=true", "--set", "per_task=4")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_rooms(root, scenes=SCENES, seed=4, frames=30, size=(48, 36))
    return root


def ask(scans: Path, out: Path, *flags: str, recipe: str = "vsi100k") -> int:
    return main(["questions", str(scans), str(out), "--recipe", recipe, "--workers", "1", *flags])


@pytest.mark.slow
def test_shards_on_several_machines_give_the_bytes_of_one_run(rooms, tmp_path, capsys):
    whole, machines, together = tmp_path / "data", [tmp_path / str(i) for i in (1, 2, 3)], tmp_path / "x" / "data"
    assert ask(rooms, whole, *COUNTED, "--mirror") == 0
    for number, out in enumerate(machines, start=1):
        assert ask(rooms, out, *COUNTED, "--mirror", "--shard", f"{number}/3") == 0
        assert not (out / "questions.jsonl").exists()
        assert (
            f"shard {number}/3: {len(range(number - 1, SCENES, 3))} of {SCENES} scans asked" in capsys.readouterr().out
        )
        shutil.copytree(out, together, dirs_exist_ok=True)
    parts = together / "questions.partial" / "vsi100k"
    assert len(list(parts.iterdir())) == SCENES
    assert ask(rooms, together, *COUNTED, "--mirror") == 0
    assert contents(together) == contents(whole) and not (together / "questions.partial").exists()
    assert any(row.answer == "0" for row in read_questions(whole / "questions.jsonl")), "the census is over all scans"


@pytest.mark.slow
def test_finished_scenes_are_not_asked_again_unless_scan_or_settings_changed(rooms, tmp_path, monkeypatch):
    asked: list[str] = []
    real = generate_questions.ask_scene
    monkeypatch.setattr(
        generate_questions, "ask_scene", lambda r, t, scene, seed: asked.append(scene.name) or real(r, t, scene, seed)
    )
    scans = tmp_path / "rooms"
    shutil.copytree(rooms, scans)
    once = tmp_path / "once" / "out"
    assert ask(scans, once) == 0
    names = [scan.name for scan in read_scan.list_scans(scans)]
    assert asked == names

    asked.clear()
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(generate_questions, "ask_scene", _stop_at(names[2], generate_questions.ask_scene))
        assert ask(scans, out) == 130  # Ctrl-C
    assert asked == names[:2] and not (out / "questions.jsonl").exists()
    assert ask(scans, out) == 0
    assert asked == names and contents(out) == contents(once)

    # Other options, another seed, and a scan that has changed are asked anew.
    assert ask(scans, out, "--shard", "1/1") == 0
    asked.clear()
    info = read_scan.info_path(scans / "scans" / names[1])
    info.write_text(info.read_text() + "note = 1\n")
    assert ask(scans, out, "--shard", "1/1") == 0 and asked == [names[1]]
    asked.clear()
    assert ask(scans, out, "--seed", "1", "--shard", "1/1") == 0 and asked == names
    asked.clear()
    assert ask(scans, out, "--seed", "1", "--set", "size_minimum=0.3") == 0 and asked == names
    # A part that is broken is as good as none.
    assert ask(scans, out, "--shard", "1/1") == 0
    asked.clear()
    (out / "questions.partial" / "vsi100k" / f"{names[0]}.json").write_text('{"key": ')
    assert ask(scans, out) == 0 and asked == [names[0]]


def _stop_at(name, ask_scene):
    def asking(recipe, tasks, scene, seed):
        if scene.name == name:
            raise KeyboardInterrupt
        return ask_scene(recipe, tasks, scene, seed)

    return asking


def test_other_masks_of_the_same_size_are_another_scan(tmp_path):
    scan = tmp_path / "scene0000_00"
    scan.mkdir()
    digests = set()
    for value in (1, 2):
        with zipfile.ZipFile(scan / "scene0000_00_2d-instance-filt.zip", "w") as masks:
            masks.writestr(
                zipfile.ZipInfo("instance-filt/0.png"), bytes([value]) * 3_000_000
            )  # longer than what is read
        digests.add(scan_digest(scan))
    assert len(digests) == 2


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b"])
def test_impossible_shards_are_refused(rooms, tmp_path, capsys, shard):
    assert ask(rooms, tmp_path / "out", "--shard", shard) == 2
    assert "2/8" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["spatial-r1", "vsi-bench"])
def test_mirrored_rows_follow_their_originals_and_appearance_order_uses_the_masks(rooms, tmp_path, capsys, recipe):
    assert ask(rooms, tmp_path, "--mirror", *ORDERS, recipe=recipe) == 0
    printed = capsys.readouterr().out
    rows = {row.id: row for row in read_questions(tmp_path / "questions.jsonl")}
    twins = [row for row in rows.values() if row.mirror_of is not None]
    assert len(twins) == len(rows) / 2 and {row.mirror_of for row in twins} | {row.id for row in twins} == set(rows)
    assert f"{len(twins):,} questions and {len(twins):,} mirrored ones" in printed
    assert all(row.scene == rows[row.mirror_of].scene for row in twins)
    for row in twins:
        original = rows[row.mirror_of]
        side = "direction" in row.question_type
        if row.answer_kind == "choice":
            assert row.answer == original.answer and (row.options != original.options) == side
        else:
            assert (row.answer != original.answer) == side
    order = [row for row in rows.values() if row.question_type == "obj_appearance_order"]
    assert order and all(len(row.options) == 4 for row in order)
    assert sorted(path.name for path in (tmp_path / "appearances").iterdir()) == [
        f"{scan.name}.npz" for scan in read_scan.list_scans(rooms)
    ]
    card = (tmp_path / "card.md").read_text()
    assert "- mirrored: True" in card and "| obj_appearance_order" in card and "- order_margin_s: 0" in card
    # The table is about what the paper counts: its questions, not their mirror images.
    asked = int(re.search(r"obj_appearance_order\s*\|\s*(\d+)", printed)[1])
    assert asked == len(order) / 2


@pytest.mark.slow
def test_scans_without_masks_are_counted_and_named(rooms, tmp_path, capsys):
    scans = tmp_path / "rooms"
    shutil.copytree(rooms, scans)
    first, second, *_ = read_scan.list_scans(scans)
    read_scan.instance_masks_path(first).unlink()
    assert ask(scans, tmp_path / "out", *ORDERS, recipe="spatial-r1") == 0
    printed = capsys.readouterr().out
    assert "1 of 5 scans have no _2d-instance-filt.zip: no question about the order of appearance" in printed
    rows = read_questions(tmp_path / "out" / "questions.jsonl")
    assert first.name not in {row.scene for row in rows if row.question_type == "obj_appearance_order"}
    assert first.name in {row.scene for row in rows}
    only = ("--set", "tasks=object_counting,room_size_estimation")
    read_scan.instance_masks_path(second).write_bytes(b"no zip")
    assert ask(scans, tmp_path / "counts", *only, recipe="spatial-r1") == 0  # no task looks at the masks
    assert "2d-instance" not in capsys.readouterr().out
    assert ask(scans, tmp_path / "out", recipe="vsi-bench") == 2
    error = capsys.readouterr().err
    assert f"the first is {second.name}" in error and "not a readable zip" in error and error.count("\n") == 1


@pytest.mark.slow
def test_all_recipes_can_share_one_folder_and_one_pass_over_the_masks(rooms, tmp_path, monkeypatch):
    from jaxvsr.data.scannet.instance_masks import InstanceMasks

    passes = []
    count = InstanceMasks.count_pixels
    monkeypatch.setattr(InstanceMasks, "count_pixels", lambda self: passes.append(self.path) or count(self))
    for recipe in ("spatial-r1", "vsi-bench", "vsi100k", "vsi-bench"):
        assert ask(rooms, tmp_path, recipe=recipe) == 0
    assert len(passes) == SCENES
    prefixes = {row.id.split("-")[0] for row in read_questions(tmp_path / "questions.jsonl")}
    assert prefixes == {"spatial_r1", "vsi_bench", "vsi100k"}
    splits = json.loads((tmp_path / "splits.json").read_text())
    assert sorted(splits["train"] + splits["heldout"]) == [scan.name for scan in read_scan.list_scans(rooms)]


ARRAY = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "2", "SLURM_ARRAY_TASK_COUNT": "3"}


@pytest.mark.slow
def test_the_last_task_of_an_array_puts_all_together_and_lost_ones_are_named(rooms, tmp_path, monkeypatch, capsys):
    whole, out, asked = tmp_path / "whole" / "data", tmp_path / "array" / "data", list[str]()
    assert ask(rooms, whole, *COUNTED) == 0
    capsys.readouterr()
    for name, value in ARRAY.items():
        monkeypatch.setenv(name, value)
    real = generate_questions.ask_scene
    monkeypatch.setattr(
        generate_questions, "ask_scene", lambda r, t, scene, seed: asked.append(scene.name) or real(r, t, scene, seed)
    )

    def task(number: int, *flags: str) -> str:
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        asked.clear()
        assert ask(rooms, out, *COUNTED, "--shard", "auto", *flags) == 0
        return capsys.readouterr().out

    assert "shard 1/3: 2 of 5 scans asked; not done yet: shards 2, 3 of 3 (3 scans)" in task(0)
    assert "not done yet: shard 2 of 3 (2 scans)" in task(2) and not (out / "questions.jsonl").exists()
    assert "not done yet: shard 2 of 3" in task(0) and not asked
    assert "shard 2/3: 2 of 5 scans asked, the last: put together" in task(1) and len(asked) == 2
    record = out / "questions.partial" / "vsi100k.asked.json"
    assert contents(out) == {**contents(whole), str(record.relative_to(out)): record.read_bytes()}

    # Started again after that, in an array of any size, none asks anything; other settings are asked.
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    assert "shard 2/2: all are in" in task(2) and not asked
    assert "not done yet" in task(2, "--seed", "1") and len(asked) == 2
    (out / "questions.jsonl").unlink()
    assert "not done yet: shard 2 of 2" in task(0) and len(asked) == 3, "the rows are not there any more"


@pytest.mark.slow
def test_a_broken_scan_keeps_nobody_waiting(rooms, tmp_path, monkeypatch, capsys):
    scans = tmp_path / "rooms"
    shutil.copytree(rooms, scans)
    broken = read_scan.list_scans(scans)[0]
    read_scan.mesh_path(broken).write_bytes(b"ply")
    for name, value in ARRAY.items():
        monkeypatch.setenv(name, value)
    for number, says in ((0, "not done yet: shards 2, 3"), (1, "not done yet: shard 3"), (2, "the last: put together")):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        assert ask(scans, tmp_path / "out", "--shard", "auto", "--skip-broken") == 0
        assert says in capsys.readouterr().out
    assert "- scans left out as broken: 1" in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.slow
def test_tasks_of_several_arrays_write_into_one_folder_at_once(rooms, tmp_path):
    whole, out = tmp_path / "whole" / "data", tmp_path / "arrays" / "data"
    for recipe in ("vsi100k", "spatial-r1"):
        assert ask(rooms, whole, recipe=recipe) == 0
    frames = ("--frames", "4", "--max-pixels", "4000", "--workers", "1")
    assert main(["frames", str(rooms), str(whole), *frames]) == 0
    commands = [("questions", "--recipe", recipe, "--workers", "1") for recipe in ("vsi100k", "spatial-r1")]
    tasks = [
        start("build_data.py", name, rooms, out, *flags, "--shard", "auto", cwd=tmp_path, environment=variables)
        for name, *flags in [*commands, ("frames", *frames)]
        for number in range(2)
        for variables in [{**ARRAY, "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_ID": str(2 * number)}]
    ]
    ends = [(task, *task.communicate(timeout=300)) for task in tasks]
    assert [(task.returncode, error) for task, _, error in ends] == [(0, "")] * len(tasks)
    said = [out for _, out, _ in ends]
    assert [sum("put together" in text for text in said[i : i + 2]) for i in (0, 2)] == [1, 1]
    assert any("the others are done too" in text for text in said[4:])
    assert {row.id: row for row in read_questions(out / "questions.jsonl")} == {
        row.id: row for row in read_questions(whole / "questions.jsonl")
    }
    in_array, in_whole = (
        sorted(part.strip() for part in re.split(r"^## ", (folder / "card.md").read_text(), flags=re.MULTILINE))
        for folder in (out, whole)
    )
    assert in_array == in_whole
    for name, data in contents(whole).items():
        if name.startswith("frames/") or name == "splits.json":
            assert contents(out)[name] == data, name
