"""MkDocs hook: pages that lie outside docs/ (README, records ...), and links between files as links between pages."""

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
    **{f"records/{page.name}": f"records/{page.name}" for page in sorted((ROOT / "records").glob("*.md"))},
}
"""File of the repository -> page of the site."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(docs/([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
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
        return text if to is None else f"[{text}]({posixpath.relpath(to, posixpath.dirname(here) or '.')}{anchor})"

    return IMAGE.sub(r"![\1](\2)", LINK.sub(linked, markdown))
