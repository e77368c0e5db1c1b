"""`python -m jaxvsr train …` is `jaxvsr train …`."""

import sys

from jaxvsr.cli import main

sys.exit(main())
