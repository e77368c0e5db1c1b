"""Whether tests of many combinations take all of them, or each value of each axis once."""

import os

ALL = bool(os.environ.get("JAXVSR_ALL"))
