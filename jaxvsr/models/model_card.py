"""The README.md of an exported model: where it comes from, under which terms, and how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

# How the rest of the world computes positions behind a video; see `positions.py`.
SERVING_NOTE = (
    "Positions: text behind a video starts one past the maximum over time, height and width, as in Qwen's own release, "
    "transformers up to 5.2, and vLLM. transformers 5.3 to 5.23 start it earlier where a video is longer than wide; "
    "pass `position_ids` there."
)


def base_licence(folder: Path) -> str | None:
    """The licence that a model folder's README.md names in its front matter, if it has one."""
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    lines = readme.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0] != "---":
        return None
    front = lines[1 : lines.index("---", 1)] if "---" in lines[1:] else []
    return next((line.partition(":")[2].strip() for line in front if line.startswith("license:")), None)


def model_card(
    *,
    base: str,
    licence: str | None,
    what: str,
    origin: str,
    command: str,
    data: Sequence[str] = (),
    adapter: bool = False,
) -> str:
    """Markdown with the front matter that the hub reads.

    Args:
        base: hub id or folder of the base model.
        licence: the base's licence as its own card names it.
        what: one sentence on what this folder holds.
        origin: the run and step.
        command: the command that wrote the folder.
        data: the data folders that the run was trained on; each has its sources and terms in its `card.md`.
    """
    library = "peft" if adapter else "transformers"
    front = [f"base_model: {base}", f"library_name: {library}", "pipeline_tag: video-text-to-text"]
    if licence:
        front.append(f"license: {licence}")
    terms = f"its licence ({licence}) applies" if licence else "see its own licence"
    lines = ["---", *front, "---", "", f"# {origin}", "", what, "", f"- Base model: `{base}`; {terms}."]
    lines += [f"- Trained on: `{folder}` (sources and terms: `{folder}/card.md`)." for folder in data]
    return "\n".join([*lines, f"- Written by: `{command}`", "", SERVING_NOTE, ""])
