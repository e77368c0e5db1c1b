"""The installed package: nothing heavy on import, every command there, every mistake one line, no promise in the
documents that the scripts do not keep."""

import ast
import fnmatch
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

import jaxvsr
from jaxvsr import cli

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SCRIPTS = sorted(path for path in (ROOT / "launch").glob("*.py") if path.stem != "__init__")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, timeout=120
    )


def test_import_jaxvsr_imports_nothing_but_the_standard_library():
    listing = "import sys, jaxvsr, jaxvsr.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(python("-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {listing}").stdout.split())
    assert "jaxvsr" in loaded
    assert loaded - set(sys.stdlib_module_names) <= {"jaxvsr", "__main__", "__mp_main__"}


def test_every_package_and_data_file_is_in_the_wheel():
    tool = PROJECT["tool"]["setuptools"]
    packages = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in (ROOT / "jaxvsr").rglob("*.py")}
    assert packages <= set(tool["packages"])
    assert set(tool["packages"]) - packages == set(tool["package-dir"])
    patterns = tool["package-data"]
    tracked = subprocess.run(
        ["git", "ls-files", "jaxvsr", "configs"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split()
    folders = {name.replace(".", "/"): name for name in packages} | {
        folder: name for name, folder in tool["package-dir"].items()
    }

    def is_included(name: str) -> bool:
        """By a pattern of its own package; `*` does not go into folders below."""
        folder = next(str(parent) for parent in Path(name).parents if str(parent) in folders)
        inside = Path(name).relative_to(folder)
        own = [*patterns["*"], *patterns.get(folders[folder], [])]
        return any(len(Path(one).parts) == len(inside.parts) and fnmatch.fnmatch(str(inside), one) for one in own)

    assert [name for name in tracked if not name.endswith(".py") and not is_included(name)] == []


def test_every_command_has_its_script_and_every_script_its_command():
    assert {module for module, _ in cli.COMMANDS.values()} == {path.stem for path in SCRIPTS}
    for path in SCRIPTS:
        functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert "main" in functions, f"{path.name} has no main(argv)"


@pytest.mark.slow
def test_python_m_jaxvsr_is_the_command(tmp_path: Path):
    listed = python("-m", "jaxvsr", cwd=tmp_path)
    assert listed.returncode == 2 and listed.stdout.strip() == cli.usage()
    helped = python("-m", "jaxvsr", "demo", "--help", cwd=tmp_path)
    assert helped.returncode == 0 and helped.stdout.startswith("usage: jaxvsr demo"), helped.stderr
    wrong = python("-m", "jaxvsr", "convert", "to-hf", cwd=tmp_path)
    assert wrong.returncode == 2 and "(see jaxvsr convert to-hf --help)" in wrong.stderr


@pytest.mark.slow
def test_the_source_distribution_has_every_tracked_file(tmp_path: Path):
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True).stdout.split()
    names = [name for name in listed if not name.startswith(".")]  # of the repository alone
    for name in names:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / "source" / name)
    build = "from setuptools import build_meta; print(build_meta.build_sdist('.'))"
    built = python("-W", "ignore", "-c", build, cwd=tmp_path / "source")
    assert built.returncode == 0, built.stderr
    with tarfile.open(tmp_path / "source" / built.stdout.split()[-1]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
        archive.extract(f"jaxvsr-{jaxvsr.__version__}/PKG-INFO", tmp_path, filter="data")
    assert [name for name in names if name not in held] == []
    assert "jaxvsr/py.typed" in held
    metadata = (tmp_path / f"jaxvsr-{jaxvsr.__version__}" / "PKG-INFO").read_text(encoding="utf-8")
    _, _, description = metadata.partition("\n\n")
    assert description.startswith("# jaxvsr") and "docs/train.md" in description
    addresses = [*links(MarkdownIt("commonmark").enable("table").parse(description))]
    assert [one for one in addresses if "://" not in one] == []


def links(tokens: Sequence[Token]) -> Iterator[str]:
    """Where the links and pictures of a text in Markdown lead."""
    for token in tokens:
        yield from (str(token.attrs[name]) for name in ("href", "src") if name in token.attrs)
        yield from links(token.children or ())


def test_an_unknown_command_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["trian"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "'trian'" in error and "train" in error


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_works_and_an_unknown_flag_is_refused_in_one_line(script: Path, tmp_path: Path):
    helped = python(str(script), "--help", cwd=tmp_path)
    assert helped.returncode == 0 and "usage" in helped.stdout, helped.stderr
    wrong = python(str(script), "--no-such-flag", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.strip().count("\n") == 0 and wrong.stderr.startswith("error: "), wrong.stderr
    assert list(tmp_path.iterdir()) == []


def shown_commands(script: str) -> list[tuple[str, str]]:
    """(document, arguments) of each command in the documents that calls this script."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(rf"python launch/{script}\.py([^\n`]*)", text):
            found.append((document.name, re.split(r"\s{3,}|\s#|\s\|", line)[0]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_documents_use_no_flag_that_a_script_does_not_have(
    script: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    commands = shown_commands(script.stem)
    if not commands:
        pytest.skip("no document shows it")
    subcommands = {line.split()[0] for _, line in commands if line.split() and script.stem in ("build_data", "convert")}
    monkeypatch.setenv("COLUMNS", "200")
    main = importlib.import_module(f"launch.{script.stem}").main
    for subcommand in ([], *([name] for name in sorted(subcommands) if name.islower())):
        with pytest.raises(SystemExit):
            main([*subcommand, "--help"])
    text = capsys.readouterr().out
    for document, line in commands:
        for flag in re.findall(r"(?<=\s)--[a-z-]+", line):
            assert re.search(rf"{flag}\b", text), f"{document}: launch/{script.name} has no {flag}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_link_to_files_that_exist(document: Path):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
    for script in re.findall(r"\blaunch/\w+\.py\b|\bconfigs/[\w-]+\.yaml\b", text):
        assert (ROOT / script).exists(), f"{document.name} names {script}"


def test_make_has_the_targets_that_the_documents_name():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {name for document in DOCUMENTS for name in re.findall(r"\bmake ([a-z-]+)", document.read_text())}
    known = {"setup", "demo", "test", "test-fast", "lint", "format", "docs"}
    assert known <= targets and known <= named
