"""Which room may know which, checked on the imports themselves; docs/architecture.md says why."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND = "errors buckets files locks parent_process fields yaml_file pixel_budget progress outside_text"

# Room, or module of the ground floor, and what it may import besides itself.
MAY_IMPORT = {
    "errors": "",
    "buckets": "errors files locks",
    "files": "errors buckets.urls",
    "locks": "errors buckets.urls files",
    "parent_process": "",
    "fields": "errors",
    "yaml_file": "errors",
    "pixel_budget": "errors",
    "progress": "",
    "stop_signals": "",
    "user_functions": "errors",
    "outside_text": "errors buckets.places",
    "command_line": "errors buckets.urls outside_text parent_process stop_signals",
    "__main__": "cli",
    "cli": "errors command_line devices.large_pages stop_signals",
    "demo_stages": "data.questions data.splits errors files command_line",
    "prompts": "errors fields yaml_file rewards",
    "rewards": "errors",
    "devices": "errors stop_signals",
    "models": f"{GROUND}",
    "data": f"{GROUND}",
    "config": f"{GROUND} user_functions prompts rewards devices models",
    "grpo": f"{GROUND} prompts rewards devices models data config",
    "runs": f"{GROUND} prompts models data config grpo.compiled_step",
    "evaluation": f"{GROUND} prompts rewards devices models data runs grpo.sampler",
    "training": f"{GROUND} stop_signals prompts rewards devices models data config grpo runs evaluation",
    "api": f"{GROUND} prompts rewards devices models data config grpo runs training evaluation",
    "measure": f"{GROUND} prompts rewards devices models data config grpo runs training",
    "report": f"{GROUND} data config evaluation runs",
    "study": f"{GROUND} config evaluation runs report",
}
WITHOUT_JAX = ("config", "rewards", "data", "report", "study", "evaluation/metrics")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in (ROOT / "jaxvsr").rglob("*.py")}


def imports_of(module: str, *, for_types: bool = True) -> set[str]:
    """The modules of jaxvsr that a module imports, also inside of functions; with those that only types need."""
    tree, found = ast.parse(MODULES[module].read_text(encoding="utf-8")), set()
    if not for_types:
        tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node))]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxvsr"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("jaxvsr")}
    return found - {"jaxvsr", module}


def room_of(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("room", sorted({room_of(module) for module in MODULES if module != "jaxvsr"}))
def test_a_room_imports_only_those_below_it(room: str):
    assert room in MAY_IMPORT, "a new room: say in MAY_IMPORT what it may know"
    allowed = {f"jaxvsr.{name}" for name in [room, *MAY_IMPORT[room].split()]}
    for module in MODULES:
        if module != "jaxvsr" and room_of(module) == room:
            beyond = [name for name in imports_of(module) if not any(f"{name}.".startswith(f"{a}.") for a in allowed)]
            assert beyond == [], f"{module} imports {beyond}"


def test_every_room_in_the_table_exists():
    named = {name for allowed in MAY_IMPORT.values() for name in allowed.split()} | set(MAY_IMPORT)
    assert {name for name in named if f"jaxvsr.{name}" not in MODULES} == set()


def test_no_modules_import_each_other_in_a_circle():
    order = list(TopologicalSorter({module: imports_of(module, for_types=False) for module in MODULES}).static_order())
    assert set(MODULES) <= set(order)


@pytest.mark.slow
@pytest.mark.parametrize("room", WITHOUT_JAX)
def test_a_room_without_jax(room: str):
    names = sorted(module for module in MODULES if f"{module}.".startswith(f"jaxvsr.{room.replace('/', '.')}."))
    assert len(names) > 3
    script = f"import sys; sys.modules['jax'] = None; import {', '.join(names)}"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_run_is_read_without_jax():
    script = "import sys; import jaxvsr.runs.run_folder, jaxvsr.runs.metrics_log; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_importing_jaxvsr_is_light():
    script = "import sys; before = set(sys.modules); import jaxvsr; print(*sorted(set(sys.modules) - before))"
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    heavy = {"numpy", "jax", "flax", "yaml", "transformers", "torch", "orbax", "grain", "tensorstore"}
    assert {name.partition(".")[0] for name in printed.stdout.split()}.isdisjoint(heavy)


@pytest.mark.slow
def test_no_test_file_imports_another():
    """What tests share is in `tests/support`."""
    beyond = {}
    for path in (ROOT / "tests").rglob("*.py"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        found = {name for name in names if re.search(r"(^\.|\btest_|\bconftest\b)", name)}
        if found:
            beyond[path.relative_to(ROOT)] = found
    assert beyond == {}


def test_folders_are_small_and_no_two_modules_have_one_name():
    code = [path for folder in ("jaxvsr", "launch") for path in (ROOT / folder).rglob("*.py")]
    modules = [path for path in code if path.name != "__init__.py"]
    assert {folder: count for folder, count in Counter(path.parent for path in modules).items() if count > 16} == {}
    assert {name: count for name, count in Counter(path.stem for path in modules).items() if count > 1} == {}
