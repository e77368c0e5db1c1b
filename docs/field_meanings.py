"""mkdocstrings extension: a dataclass's fields are listed with the meanings that its source gives them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import griffe

from jaxvsr.config.config_reference import DESCRIBED, meanings_in


class FieldMeanings(griffe.Extension):
    """Field comments, and `name: text` in a class docstring, become a section of attributes."""

    def on_class_instance(self, *, node: ast.AST | griffe.ObjectNode, cls: griffe.Class, **rest: Any) -> None:
        if cls.docstring is None or not any("dataclass" in str(part.value) for part in cls.decorators):
            return
        docstring = inspect.cleandoc(cls.docstring.value)
        meanings = meanings_in(docstring, textwrap.dedent(cls.source))
        if meanings:
            rows = "\n".join(f"    {name}: {meaning}" for name, meaning in meanings.items())
            cls.docstring.value = f"{DESCRIBED.sub('', docstring).rstrip()}\n\nAttributes:\n{rows}"
