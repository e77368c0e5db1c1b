"""Files that people write in YAML: configs, studies, prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from jaxvsr.errors import InputError, one_line


def read_yaml(path: Path, *, what: str = "config", fields: str = "`steps: 100`") -> dict[str, Any]:
    """The mapping in a file; an empty file is an empty one.

    Raises:
        InputError: not UTF-8, not YAML, not a mapping, or a name that is there twice. It names the file as `what`
            and says which `fields` belong there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{what} {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{what} {path}: not a text file in UTF-8") from None
    try:
        tree = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{what} {path}{line}: not YAML ({problem}); expected fields ({fields})") from None
    except RecursionError:
        raise InputError(f"{what} {path}: nested too deep to be YAML of ours; expected fields ({fields})") from None
    except (ValueError, OverflowError) as error:  # a number of thousands of digits, a date in month 13
        raise InputError(
            f"{what} {path}: a value that YAML cannot read ({one_line(error)}); expected fields ({fields})"
        ) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{what} {path}: expected fields ({fields}), found {type(tree).__name__}")
    return tree


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    problem="a list or mapping cannot be the name of a field", problem_mark=key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
