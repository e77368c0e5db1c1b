"""Scans and videos that are read from buckets, one after the other as they are needed."""

from pathlib import Path

import pytest

from jaxvsr.buckets import fetching, scans_in_buckets
from jaxvsr.buckets.objects import objects
from jaxvsr.buckets.places import places_root
from jaxvsr.buckets.scans_in_buckets import brought, has_size, listed
from jaxvsr.data.recipes import generate_questions
from jaxvsr.data.rooms.room_scans import write_rooms
from jaxvsr.data.scannet.read_scan import info_path, list_scans, mesh_path
from jaxvsr.errors import InputError
from launch.build_data import main
from tests.support.files import contents
from tests.support.scans import write_sens_scan

FRAMES = ("--frames", "3", "--max-pixels", "4000", "--workers", "2")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_rooms(root, scenes=3, seed=4, frames=30, size=(48, 36))
    return root


def asked(bucket, method: str = "GET") -> list[str]:
    """Names of the objects whose values were read, in order."""
    return [path.partition("?")[0].rpartition("/")[2] for verb, path in bucket.requests if verb == method]


def test_a_listed_folder_has_names_and_a_brought_file_what_it_holds(bucket, rooms, monkeypatch):
    monkeypatch.setattr(fetching, "PART_BYTES", 1000)
    url = bucket.put_folder(rooms, "scans/a")
    with listed(Path(url), (".txt",)) as root:
        scan, *_ = list_scans(root)
        whole = rooms / "scans" / scan.name
        assert set(contents(root)) == set(contents(rooms))
        assert mesh_path(scan).stat().st_size == 0 and info_path(scan).read_bytes() == info_path(whole).read_bytes()
        with brought(scan.iterdir()) as here:
            assert contents(here(scan)) == contents(whole)
            inside = here(scan)
        assert not inside.exists() and here(Path("elsewhere")) == Path("elsewhere")
    assert not places_root().exists() or not any((places_root() / "own").iterdir())


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2000, 2500])
def test_a_large_object_is_brought_in_parts(bucket, tmp_path, monkeypatch, size):
    monkeypatch.setattr(fetching, "PART_BYTES", 1000)
    value = bytes(i % 251 for i in range(size))
    objects(f"{bucket.url}/parts").write("a.sens", value).result()
    fetching.bring_names(f"{bucket.url}/parts", tmp_path, ["a.sens"])
    assert (tmp_path / "a.sens").read_bytes() == value


def test_an_object_that_is_written_again_between_its_parts_is_a_line(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "PART_BYTES", 1000)
    bucket.put("parts/b.sens", bytes(5000))
    count = iter(range(100))

    def fault(method, path):
        if "b.sens" in path and next(count) == 3:
            bucket.put("parts/b.sens", bytes([1]) * 5000)

    bucket.fault = fault
    with pytest.raises(InputError, match=r"b\.sens: went or was written again while it was read"):
        fetching.bring_names(f"{bucket.url}/parts", tmp_path, ["b.sens"])
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_does_not_say_how_large_an_object_is_is_a_line(bucket, monkeypatch):
    bucket.put("sizes/a.mp4", bytes(5000))
    with listed(Path(f"{bucket.url}/sizes")) as videos:
        assert [has_size(videos / "a.mp4", size) for size in (0, 4999, 5000, 5001)] == [False, False, True, False]

        def broken(url):
            raise RuntimeError("UNAVAILABLE: no answer")

        monkeypatch.setattr(scans_in_buckets, "objects", broken)
        with pytest.raises(InputError, match=r"sizes/a\.mp4: .*no answer"):
            has_size(videos / "a.mp4", 5000)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["vsi100k", "vsi-bench"])
def test_questions_about_scans_in_a_bucket_are_those_about_scans_on_disk(bucket, rooms, tmp_path, monkeypatch, recipe):
    url, flags = (
        bucket.put_folder(rooms, "scans/b"),
        ("--recipe", recipe, "--workers", "1", "--set", "order_margin_s=0"),
    )
    flags = flags if recipe == "vsi-bench" else flags[:4]
    assert main(["questions", str(rooms), str(tmp_path / "disk" / "data"), *flags]) == 0
    bucket.requests.clear()
    real, here = generate_questions.read_scene, list[int]()

    def read_scene(scan):
        here.append(sum(path.stat().st_size > 0 for path in (places_root() / "own").rglob("*.ply")))
        return real(scan)

    monkeypatch.setattr(generate_questions, "read_scene", read_scene)
    assert main(["questions", url, str(tmp_path / "bucket" / "data"), *flags]) == 0
    assert here == [1, 1, 1], "one scan is here at a time"
    assert contents(tmp_path / "bucket") == contents(tmp_path / "disk")
    meshes = [name for name in asked(bucket) if name.endswith("clean_2.ply")]
    assert len(set(meshes)) == 3 and any(name.endswith(".sens") for name in asked(bucket)) == (recipe == "vsi-bench")
    assert not any((places_root() / "own").rglob("*"))


@pytest.mark.slow
def test_frames_of_scans_in_a_bucket_are_those_of_scans_on_disk_and_are_not_brought_twice(bucket, tmp_path):
    for name in ("scene0000_00", "scene0001_00"):
        write_sens_scan(tmp_path / "all", name, frames=6, height=56, width=56, seed=1)
    url = bucket.put_folder(tmp_path / "all", "scans/c")
    disk, here = tmp_path / "disk" / "data", tmp_path / "bucket" / "data"
    for scans, out in ((tmp_path / "all", disk), (url, here)):
        assert main(["frames", str(scans), str(out), *FRAMES]) == 0
    assert contents(here) == contents(disk)
    bucket.requests.clear()
    assert main(["frames", url, str(here), *FRAMES]) == 0
    assert len(asked(bucket)) <= 4, "a listing, and the size of each"
    bucket.put("scans/c/scans/scene0001_00/scene0001_00.sens", b"another one")
    assert main(["frames", url, str(here), *FRAMES]) == 2


@pytest.mark.slow
def test_a_folder_of_images_in_a_bucket_is_a_video(bucket, tmp_path):
    from PIL import Image

    for number in range(4):
        path = tmp_path / "all" / "kitchen" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (56, 56), (number, 0, 0)).save(path)
    url = bucket.put_folder(tmp_path / "all", "videos")
    for scans, out in ((tmp_path / "all", "disk"), (url, "bucket")):
        assert main(["frames", str(scans), str(tmp_path / out / "data"), *FRAMES]) == 0
    assert contents(tmp_path / "bucket") == contents(tmp_path / "disk")


def test_a_bucket_that_refuses_a_scan_is_one_line_and_one_that_lacks_a_file_a_broken_scan(
    bucket, rooms, tmp_path, capsys
):
    url = bucket.put_folder(rooms, "scans/d")
    flags = ("--recipe", "vsi100k", "--workers", "1")
    bucket.fault = lambda method, path: "403" if path.partition("?")[0].endswith("clean_2.ply") else None
    assert main(["questions", url, str(tmp_path / "out"), *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{url}/scans/" in error and "no permission" in error
    bucket.fault = lambda method, path: None
    name = list_scans(rooms)[1].name
    bucket.remove(f"scans/d/scans/{name}/{name}_vh_clean_2.ply")
    assert main(["questions", url, str(tmp_path / "out"), *flags]) == 2
    said = capsys.readouterr()
    assert f"1 of 3 scans cannot be read, the first is {name} ({url}/scans/{name}/" in said.err
    for missing in (f"{bucket.url}/nothing", f"{url[:5]}no-such-bucket/scans"):
        assert main(["questions", missing, str(tmp_path / "out"), *flags]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {missing}: ") and error.count("\n") == 1, error


@pytest.mark.slow
def test_scans_in_a_bucket_are_checked_one_after_the_other(bucket, rooms, tmp_path, capsys):
    url = bucket.put_folder(rooms, "scans/e")
    assert main(["check", str(rooms)]) == 0
    wanted = capsys.readouterr().out
    assert main(["check", url]) == 0 and capsys.readouterr().out == wanted
    name = list_scans(rooms)[1].name
    bucket.put(f"scans/e/scans/{name}/{name}_vh_clean_2.ply", b"ply")
    assert main(["check", f"{url}/scans"]) == 1
    assert f"missing: {name}: " in capsys.readouterr().out
    assert not (places_root() / "read").exists() or not any((places_root() / "read").rglob("*.ply"))
