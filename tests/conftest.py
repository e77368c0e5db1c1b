"""Shape types are checked while the tests run; JAX sees the CPU alone."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("jaxvsr", "shape_types.checker")

# Random inputs are the same in every run, and how long one takes is nobody's promise.
settings.register_profile("jaxvsr", deadline=None, derandomize=True)
settings.load_profile("jaxvsr")
