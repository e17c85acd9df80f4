"""MkDocs hook: pages that lie outside docs/ (README, examples, records ...), links between files as between pages."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "src/cdm4mi/models/weights/README.md": "model-card.md",
    **{f"examples/{page.name}": f"examples/{page.stem}.md" for page in sorted((ROOT / "examples").glob("*.py"))},
    **{f"records/{page.name}": f"records/{page.name}" for page in sorted((ROOT / "records").glob("*.md"))},
}
"""File of the repository -> page of the site."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
CELL = re.compile(r"^# %%(.*)\n", flags=re.MULTILINE)


def notebook(script: str) -> str:
    """A script in the percent format as Markdown: its text as text, its code between fences."""
    _, *parts = CELL.split(script)
    cells = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        body = body.strip("\n")
        text = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        cells.append(text if "[markdown]" in kind else f"```python\n{body}\n```")
    return "\n\n".join(cells) + "\n"


def on_files(files: Files, config: Any) -> Files:
    for source, page in PAGES.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=notebook(content) if source.endswith(".py") else content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    here = page.file.src_uri
    source = next((file for file, its in PAGES.items() if its == here), f"docs/{here}")
    folder = posixpath.dirname(source)

    def linked(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        target = posixpath.normpath(posixpath.join(folder, target))
        if not os.path.exists(ROOT / target):
            return found[0]  # MkDocs reports it
        to = PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        # source files and folders are no pages: their name stays, as text
        return text if to is None else f"[{text}]({relative(to)}{anchor})"

    def image(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[2]))
        return f"![{found[1]}]({relative(target.removeprefix('docs/'))})" if "://" not in found[2] else found[0]

    def relative(page: str) -> str:
        return posixpath.relpath(page, posixpath.dirname(here) or ".")

    return IMAGE.sub(image, LINK.sub(linked, markdown))
