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
