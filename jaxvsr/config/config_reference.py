"""The reference page of all config fields, from the dataclasses themselves.

python -m jaxvsr.config.config_reference > docs/config.md
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import textwrap
from typing import Any

from jaxvsr.config.known_names import KNOWN_NAMES, KNOWN_PATHS
from jaxvsr.config.train_config import CHANGEABLE, TrainConfig
from jaxvsr.fields import flat_fields, to_tree

INTRODUCTION = f"""# Config fields

The same names in YAML (`data: {{scenes: 8}}`), on the command line (`--set data.scenes=8`) and in Python
(`TrainConfig(data=DataSettings(scenes=8))`). In a resumed run (`--resume`), only {", ".join(CHANGEABLE)} may
change. A file with `extends: vsgrpo-2b` starts from that recipe, or from a file beside it, and holds what it changes.
This page is made by `python -m jaxvsr.config.config_reference > docs/config.md`.

| field | default | meaning |
|---|---|---|
"""
THEIR_NAMES = """
## Names of TRL and EasyR1

| there | here |
|---|---|
"""

# One or several fields in a class docstring: `name, other: text`, which may go on in indented lines.
DESCRIBED = re.compile(r"^([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*(?:\n {4,}.*)*)\n?", re.MULTILINE)


def reference_page() -> str:
    """The page in Markdown."""
    rows = [
        f"| `{path}` | {_cell('`' + json.dumps(default) + '`')} | {_cell(meaning)} |\n"
        for path, default, meaning in field_table()
    ]
    names = sorted({**KNOWN_NAMES, **KNOWN_PATHS}.items())
    return INTRODUCTION + "".join(rows) + THEIR_NAMES + "".join(f"| `{there}` | {here} |\n" for there, here in names)


def field_table() -> list[tuple[str, Any, str]]:
    """(dotted path, default, meaning with its unit) of every field."""
    rows = []
    for path, default in flat_fields(to_tree(TrainConfig())):
        group, _, name = path.rpartition(".")
        settings = functools.reduce(getattr, filter(None, group.split(".")), TrainConfig())
        rows.append((path, default, field_meanings(type(settings)).get(name, "")))
    return rows


def field_meanings(kind: type) -> dict[str, str]:
    """What the source says about each field of a dataclass."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except OSError:  # installed without sources
        source = "class _: pass"
    return meanings_in(kind.__doc__ or "", source)


def meanings_in(docstring: str, source: str) -> dict[str, str]:
    """Meaning by field: the comment after or above it in the class's source, or `name: text` in its docstring."""
    meanings: dict[str, str] = {}
    for names, text in DESCRIBED.findall(inspect.cleandoc(docstring)):
        meanings |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    lines = source.splitlines()
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            after = lines[node.end_lineno - 1][node.end_col_offset :].strip()  # type: ignore[operator]
            above = lines[node.lineno - 2].strip()
            comment = after if after.startswith("#") else above
            if comment.startswith("#"):
                meanings[node.target.id] = comment.lstrip("# ")
    return meanings


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference_page(), end="")
