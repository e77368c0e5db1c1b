"""The documentation says of the code what is so: rooms, modules, config fields, a number."""

import ast
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvsr.config.config_reference import field_table
from jaxvsr.demo_stages import demo_stages

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_picture_names_exactly_the_folders_of_the_package():
    picture = (ROOT / "docs" / "house.svg").read_text(encoding="utf-8")
    named = dict(re.findall(r'<text[^>]* id="([^"]+)">([^<]+)</text>', picture))
    code = {path.parent for path in (ROOT / "jaxvsr").rglob("*.py")}
    folders = {str(path.relative_to(ROOT)) for path in code} - {"jaxvsr"} | {"jaxvsr/shipped", "launch", "configs"}
    assert set(named) - {"title"} == folders
    for folder, text in named.items():
        assert folder == "title" or folder.endswith(text)


def test_every_module_of_the_api_reference_exists():
    named = [name for page in DOCUMENTS for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)]
    assert len(named) > 20
    assert [name for name in named if importlib.util.find_spec(name) is None] == []


def top_level_names(module: str) -> set[str]:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, f"no module {module}"
    names = set()
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        names |= {getattr(target, "name", getattr(target, "id", "")) for target in targets}
    return names


def test_every_moved_import_of_the_changelog_works():
    table = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("### Moved imports")[2]
    rows = re.findall(r"^\| `([\w.]+)`(?:: ([^|]*))? \| `([\w.]+)`(?:: `(\w+)`)? \|$", table, re.MULTILINE)
    assert len(rows) == table.count("\n| `") > 150
    for _, names, module, new_name in rows:
        expected = {new_name} if new_name else set(re.findall(r"`(\w+)`", names))
        assert expected <= top_level_names(module), f"{module}: {expected}"


def test_the_guided_reading_points_at_existing_code():
    page = (ROOT / "docs" / "algorithm.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`[\w.]+`\]\(\.\./(jaxvsr/[\w/.]+)\) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) == 7
    for path, text in rows:
        for name in re.findall(r"`(\w+)`", text):
            assert re.search(rf"^(def|class) {name}\b", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name


def test_every_config_field_in_the_documents_exists():
    fields = {path for path, *_ in field_table()}
    rooms = {path.partition(".")[0] for path in fields}
    named = {
        (page.name, name)
        for page in DOCUMENTS
        for name in re.findall(r"\b([a-z_]+\.[a-z_]+)=", page.read_text(encoding="utf-8"))
        if name.partition(".")[0] in rooms
    }
    assert len(named) > 20
    assert [(page, name) for page, name in sorted(named) if name not in fields] == []


def test_the_first_example_of_the_algorithm_page_gives_the_advantages_that_it_shows():
    page = (ROOT / "docs" / "algorithm.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict = {}
    exec(code, names)
    shown = [float(number) for number in re.findall(r"-?[\d.]+", code.rpartition("#")[2])]
    np.testing.assert_allclose(names["advantages"].ravel(), shown, atol=0.005)


def test_the_rooms_of_the_data_page_have_the_frames_that_its_lines_ask_for():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (held,) = re.findall(r" rooms scannet .*--frames-per-scan (\d+)", page)
    asked = [
        int(number) for line in re.findall(r" frames scannet .*--frames ([\d,]+)", page) for number in line.split(",")
    ]
    assert len(asked) >= 4 and max(asked) <= int(held)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/api/jaxvsr.md"])
def test_the_python_code_of_the_page_trains_and_saves(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With two steps instead of twenty, on a video of eight pictures."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path("videos/kitchen.mp4").mkdir(parents=True)
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (84, 112, 3), np.uint8)
        Image.fromarray(pixels).save(f"videos/kitchen.mp4/{number}.png")
    shorter = code.replace("range(20)", "range(2)").replace("steps=20", "steps=2")
    assert shorter != code
    exec(shorter, {})
    assert Path("out/model.safetensors").is_file()


def test_every_file_and_folder_in_the_documents_exists():
    named = {
        (page.name, path)
        for page in DOCUMENTS
        for path in re.findall(r"`((?:jaxvsr|tests|docs|examples|configs|launch|setup)/[\w./-]*)", page.read_text())
    }
    assert len(named) > 20
    assert [(page, path) for page, path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_demo_page_shows_the_commands_of_all_stages():
    page = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
    stages = demo_stages(Path("runs/demo"), 0)
    shown = re.findall(r"^    \[(\d+)/(\d+)\] (.*)\n    \$ (.*)$", page, re.MULTILINE)
    assert len(shown) >= 8
    for number, total, title, command in shown:
        assert int(total) == len(stages)
        assert (title, command) == (stages[int(number) - 1].title, stages[int(number) - 1].command)
