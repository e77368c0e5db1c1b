"""The reference page of all config fields, from the dataclasses themselves.

python -m jaxvsr.config.config_reference > docs/config.md
"""

from __future__ import annotations

import json

from jaxvsr.config.config_file import field_table
from jaxvsr.config.known_names import KNOWN_NAMES, KNOWN_PATHS
from jaxvsr.config.train_config import CHANGEABLE, TrainConfig

INTRODUCTION = f"""# Config fields

The same names in YAML (`data: {{scenes: 8}}`), on the command line (`--set data.scenes=8`) and in Python
(`TrainConfig(data=DataSettings(scenes=8))`). When a run goes on (`--resume`), only {", ".join(CHANGEABLE)} may
change. This page is made by `python -m jaxvsr.config.config_reference > docs/config.md`.

| field | default | meaning |
|---|---|---|
"""
THEIR_NAMES = """
## Names of TRL and EasyR1

| there | here |
|---|---|
"""


def reference_page() -> str:
    """The page in Markdown."""
    rows = [
        f"| `{path}` | {_cell('`' + json.dumps(default) + '`')} | {_cell(meaning)} |\n"
        for path, _, default, meaning in field_table(TrainConfig)
    ]
    names = sorted({**KNOWN_NAMES, **KNOWN_PATHS}.items())
    return INTRODUCTION + "".join(rows) + THEIR_NAMES + "".join(f"| `{there}` | {here} |\n" for there, here in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference_page(), end="")
