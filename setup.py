"""The one thing that pyproject.toml cannot say: a package index shows README.md without the repository around it.

Its links to files here become the files' names, and its pictures go.
"""

import re
from pathlib import Path

from setuptools import setup

_HERE = r"\((?![a-z]+:)([^)\s]*)\)"  # the target of a link, unless it is an address


def _link(match: re.Match[str]) -> str:
    text, target = match.groups()
    return text if text == target else f"{text} ({target})"


readme = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
readme = re.sub(rf"!\[[^]]*\]{_HERE}\n*", "", readme)
setup(
    long_description=re.sub(rf"\[([^]]*)\]{_HERE}", _link, readme),
    long_description_content_type="text/markdown",
)
