"""Experiments with counts for docs/reliability.md; they take minutes each and run only with JAXVSR_FAULTS=1."""

import os

collect_ignore_glob = [] if os.environ.get("JAXVSR_FAULTS") else ["test_*.py"]
