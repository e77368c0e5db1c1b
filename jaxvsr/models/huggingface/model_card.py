"""The README.md of an exported model: its base, licence, training data, scores, and the commands that made it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

README = "README.md"
# The front matter's licence fields (https://huggingface.co/docs/hub/repositories-licenses).
LICENCE_FIELDS = ("license", "license_name", "license_link")
NO_SOURCE = "its card names no source; check its terms before you publish"
NO_SCORES = "None were measured."


@dataclasses.dataclass(frozen=True)
class DataSource:
    """A data folder that a run was trained on, and the sources and terms in its card, with links."""

    folder: str
    sources: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """Scores with a title: a Markdown table, or lines."""

    title: str
    text: str


def base_licence(folder: Path) -> dict[str, str]:
    """The licence fields in the front matter of a model folder's README.md; empty if it has none."""
    readme = folder / README
    if not readme.is_file():
        return {}
    lines = readme.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0] != "---":
        return {}
    front = lines[1 : lines.index("---", 1)] if "---" in lines[1:] else []
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in front)]
    return {name: value for name, value in pairs if name in LICENCE_FIELDS and value}


def model_card(
    *,
    base: str,
    on_hub: bool,
    licence: Mapping[str, str],
    what: str,
    origin: str,
    commands: Sequence[str],
    serving: str,
    data: Sequence[DataSource] = (),
    scores: Sequence[ScoreTable] = (),
    revision: str | None = None,
    config: str = "",
    adapter: bool = False,
    asked: str = "",
) -> str:
    """Markdown with the front matter that the hub reads.

    Args:
        base: hub id of the base model, or its name as the user gave it.
        on_hub: whether `base` is a hub id.
        licence: `base_licence` of the base.
        what: one sentence on what this folder holds.
        origin: the run and step.
        commands: the commands that trained the model and wrote the folder, in order.
        serving: what other software does differently (`Family.serving_note`).
        data: the folders that the run was trained on.
        scores: measured scores, if any.
        revision: the hub id's revision.
        config: the run's config as YAML.
        adapter: whether the folder is a PEFT adapter.
        asked: how the model was asked when it was trained.
    """
    library = "peft" if adapter else "transformers"
    front = [f"base_model: {base}"] if on_hub else []
    front += [f"library_name: {library}", "pipeline_tag: video-text-to-text"]
    front += [f"{name}: {licence[name]}" for name in LICENCE_FIELDS if name in licence]
    lines = ["---", *front, "---", "", f"# {origin}", "", what, ""]
    link = f"[{base}](https://huggingface.co/{base})" if on_hub else f"`{base}`"
    at = f" at revision `{revision}`" if revision else ""
    lines += ["## Base model and data", "", f"- Base model: {link}{at}; {_terms(licence)}."]
    for one in data:
        lines.append(f"- Trained on `{one.folder}`:")
        sources = one.sources or (NO_SOURCE,)
        lines += [f"  - {source}" for source in sources]
    lines += ["", "## Scores", ""]
    for table in scores:
        lines += [f"{table.title}:", "", _below_section(table.text.strip()), ""]
    if not scores:
        lines += [NO_SCORES, ""]
    lines += ["## Commands", "", *(f"    {command}" for command in commands), ""]
    if config:
        lines += ["with this `config.yaml`:", "", "```yaml", config.strip(), "```", ""]
    if asked:
        lines += ["## How to ask it", "", f"As in training: {asked}", ""]
    return "\n".join([*lines, "## Serving", "", serving, ""])


def _below_section(text: str) -> str:
    """Markdown with its headings moved down below the card's (`##`)."""
    found = re.findall(r"^(#+) ", text, re.MULTILINE)
    deeper = "#" * max(0, 3 - min(map(len, found), default=3))
    return re.sub(r"^(?=#+ )", deeper, text, flags=re.MULTILINE)


def _terms(licence: Mapping[str, str]) -> str:
    if "license" not in licence:
        return "see its licence"
    name, link = licence.get("license_name", licence["license"]), licence.get("license_link")
    return f"its licence ({name}{f', {link}' if link else ''}) applies"
