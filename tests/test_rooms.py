"""Which room may know which, checked on the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def imported_by(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it; `from a import b` counts as a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_configs_runs_and_reports_are_read_without_jax():
    script = (
        "import sys; sys.modules['jax'] = None\n"
        "import jaxvsr.config.train_config, jaxvsr.config.config_reference, jaxvsr.runs.run_folder, jaxvsr.report.build"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_no_test_file_imports_another():
    """What several need is in tests/support."""
    files = sorted(TESTS.rglob("*.py"))
    assert len(files) > 80
    for path in files:
        strangers = {
            name for name in imported_by(path) if name.startswith("tests.") and not name.startswith("tests.support")
        }
        assert not strangers, f"{path.relative_to(TESTS)} imports {', '.join(sorted(strangers))}"


def test_rewards_know_neither_files_nor_yaml_nor_the_command_line():
    script = (
        "import sys; before = set(sys.modules)\n"
        "import jaxvsr.rewards.registry, jaxvsr.rewards.scoring, jaxvsr.rewards.hacking\n"
        "loaded = set(sys.modules) - before\n"
        "ours = {name for name in loaded if name.startswith('jaxvsr.') and not name.startswith('jaxvsr.rewards')}\n"
        "print(sorted(ours | loaded & {'yaml', 'jax', 'torch'}))"
    )
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert printed.stdout.strip() == "['jaxvsr.errors']"
