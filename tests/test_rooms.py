"""Which room may know which, checked on the imports themselves."""

from __future__ import annotations

import subprocess
import sys


def test_configs_runs_and_reports_are_read_without_jax():
    script = (
        "import sys; sys.modules['jax'] = None\n"
        "import jaxvsr.config.train_config, jaxvsr.config.config_reference, jaxvsr.runs.run_folder, jaxvsr.report.build"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


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
