"""MkDocs hook: the site has the repository's own layout, so a relative link means the same on GitHub and in the site.

Pages of docs/ get the path that they have in the repository, README.md becomes the home page, and each source file or
notebook that a page links to becomes a page too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'>\s]*)")


class SourcePage(File):
    """A page that shows one source file or notebook."""

    def is_documentation_page(self) -> bool:
        return True


def source_page(path: str, config: MkDocsConfig) -> File:
    """The source file or notebook at `path` of the repository as a page; search leaves source files out."""
    text = (ROOT / path).read_text(encoding="utf-8").rstrip()
    page = SourcePage(path, None, config.site_dir, config.use_directory_urls, inclusion=InclusionLevel.NOT_IN_NAV)
    if path.endswith(".ipynb"):
        page.content_string = notebook_page(json.loads(text)["cells"])
    else:
        language = {".py": "python", ".yaml": "yaml", ".jsonl": "json"}.get(Path(path).suffix, "text")
        heading = f"---\nsearch: {{exclude: true}}\n---\n# {path}\n"
        page.content_string = f'{heading}\n````{language} linenums="1"\n{text}\n````\n'
    return page


def notebook_page(cells: list[dict]) -> str:
    """A notebook's cells and the outputs that it holds in Markdown; nothing is executed."""
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            shown = output.get("data", {})
            if "image/png" in shown:
                parts.append(f'<img src="data:image/png;base64,{"".join(shown["image/png"]).strip()}" alt="">')
            elif text := "".join(output.get("text", shown.get("text/plain", ()))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def linked_files(path: str) -> set[str]:
    """Paths in the repository of the files that the page at `path` links to."""
    targets = LINK.findall((ROOT / path).read_text(encoding="utf-8"))
    resolved = [((ROOT / path).parent / target).resolve() for target in targets if "://" not in target]
    return {str(target.relative_to(ROOT)) for target in resolved if target.is_file()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """All files of the site under their paths in the repository."""
    docs = Path(config.docs_dir).name
    at_home = [
        File.generated(config, f"{docs}/{file.src_uri}", abs_src_path=file.abs_src_path, inclusion=file.inclusion)
        if file.generated_by is None and file.abs_src_path and Path(file.abs_src_path).is_relative_to(config.docs_dir)
        else file
        for file in files
    ]
    at_home += [File.generated(config, page, abs_src_path=str(ROOT / page)) for page in PAGES]
    pages = [file.src_uri for file in at_home if file.src_uri.endswith(".md")]
    known = {file.src_uri for file in at_home}
    sources = sorted(set().union(*map(linked_files, pages)) - known)
    return Files([*at_home, *(source_page(path, config) for path in sources)])


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that loads anything from a network."""
    if loaded := LOADED.findall(output):
        raise PluginError(f"{page.file.src_uri}: loads {loaded[0]}; pages must work without a network")
    return output
