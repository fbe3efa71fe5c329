"""The pages of the site that are not under docs/: the README and its neighbours, and the reference made of docstrings.

A link to a file of the repository becomes a link between pages where that file is a page; otherwise the name stays
without its link, since the site has the pages alone. One that leads nowhere ends the build.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import rlhf

ROOT = Path(__file__).parents[1]
PAGES = {
    "index.md": "README.md",
    "architecture.md": "ARCHITECTURE.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "benchmarks.md": "benchmarks/README.md",
}
"""Files of the repository that are pages, by the pages' names."""
FUNCTIONS = ("advantages", "groups", "losses", "kl", "logprobs", "masking")
"""Modules of `rlhf.functional`, in the order of the page."""
_LINK = re.compile(r"(?<!!)\[([^]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")

_IMAGE = re.compile(r"(!\[[^]]*\])\(docs/([^)\s]+)\)")
"""An image of a page beside docs/: on the site it lies where the pages of docs/ do."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference.md", content=_reference()))
    files.append(File.generated(config, "functions.md", content=_functions()))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead the links of a page to pages."""
    source = PurePosixPath(PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    return _LINK.sub(lambda link: _led(link, source), _IMAGE.sub(r"\1(\2)", markdown))


def _led(link: re.Match[str], source: PurePosixPath) -> str:
    text, target, anchor = link[1], link[2], link[3] or ""
    path = (ROOT / source.parent / target).resolve()
    if not path.exists():
        raise PluginError(f"{source}: a link leads to {target}, which does not exist")
    if path.is_relative_to(ROOT / "docs"):
        return f"[{text}]({path.relative_to(ROOT / 'docs').as_posix()}{anchor})"
    page = next((name for name, file in PAGES.items() if path in (ROOT / file, (ROOT / file).parent)), None)
    return f"[{text}]({page}{anchor})" if page and path != ROOT else text


def _reference() -> str:
    """Return the page of the public names."""
    classes = [name for name in rlhf.__all__ if name[0].isupper()]
    functions = [name for name in rlhf.__all__ if name not in classes]
    parts = ["# Python API", "[From Python](python.md) shows how these fit together."]
    parts += [f"::: rlhf.{name}" for name in (*functions, *classes)]
    return "\n\n".join(parts) + "\n"


def _functions() -> str:
    """Return the page of the mathematics."""
    parts = ["# Functions", "Pure functions on tensors, with torch alone. B: sequences, T: response tokens."]
    parts += [
        f"## {name}\n\n::: rlhf.functional.{name}\n    options:\n      show_root_heading: false" for name in FUNCTIONS
    ]
    return "\n\n".join(parts) + "\n"
