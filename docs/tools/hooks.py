"""What mkdocs is told beyond mkdocs.yml: the repository's other files as pages, and references made from the code.

Pages of docs/ link to files outside of it as they do on GitHub (``../configs/two_regions.yaml``). Here each such file
becomes a page below ``repository/``: a page of Markdown as it is, code with its colours, a folder as a list of its
files. The README is the first page. A link to what is not there ends the build.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel

sys.path.insert(0, str(Path(__file__).parent))

import reference

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
LINK = re.compile(r"(?<=\]\()([^)\s#]+)")
CODE = {".py": "python", ".yaml": "yaml"}


def _file_keys() -> str:
    from mrkolla.config import schema

    return reference.FileReference(schema()).text()


def _verbs() -> str:
    from mrkolla.cli.main import parser

    return reference.command_reference(parser())


#: A comment of this text, alone in a line of a page -> what takes its place.
MADE: dict[str, Callable[[], str]] = {"made from the JSON schema": _file_keys, "made from the parsers": _verbs}


class Site:
    """Where each file of the repository is in the site; those that pages link to are added as they are met."""

    def __init__(self, config: MkDocsConfig, files: Files) -> None:
        self._config, self._files = config, files
        self._added: set[str] = set()

    def add(self, path: Path) -> str:
        """The address in the site (as a page's source) of the repository's file or folder ``path``."""
        if path.is_relative_to(DOCS):
            return path.relative_to(DOCS).as_posix()
        name = path.relative_to(TOP).as_posix()
        is_page = path.is_dir() or path.suffix in (*CODE, ".md", ".ipynb")
        address = f"repository/{name}" if not is_page or path.suffix == ".md" else f"repository/{name}.md"
        if name == "README.md":
            address = "index.md"
        if address not in self._added:
            self._added.add(address)
            if is_page:
                content = {"content": self.linked(self._page(path, name), path, address)}
            else:
                content = {"abs_src_path": str(path)}
            hidden = InclusionLevel.NOT_IN_NAV  # no page of docs/ is: those must all be in the menu
            self._files.append(File.generated(self._config, address, inclusion=hidden, **content))
        return address

    def linked(self, text: str, path: Path, address: str) -> str:
        """``text`` of the file ``path``, which is at ``address``, with its links to files as they are in the site."""

        def link(match: re.Match) -> str:
            if ":" in match[0]:
                return match[0]
            target = Path(os.path.normpath(path.parent / match[0]))
            if not target.exists() or not target.is_relative_to(TOP):
                raise PluginError(f"{path.relative_to(TOP)}: {match[0]} is not there")
            return os.path.relpath(self.add(target), PurePosixPath(address).parent)

        return LINK.sub(link, text)

    @staticmethod
    def _page(path: Path, name: str) -> str:
        if path.is_dir():
            listed = subprocess.run(["git", "ls-files", "."], cwd=path, capture_output=True, text=True, check=True)
            files = [line for line in listed.stdout.split() if "/" not in line]
            return f"# {name}/\n\n" + "".join(f"- [{line}](./{name.rpartition('/')[2]}/{line})\n" for line in files)
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            parts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
            return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for text, kind in parts)
        text = path.read_text(encoding="utf-8")
        return text if path.suffix == ".md" else f"# {name}\n\n```{CODE[path.suffix]}\n{text}```\n"


_SITE: list[Site] = []


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README and all that pages of docs/ link to outside of it."""
    site = Site(config, files)
    _SITE[:] = [site]
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    site.add(TOP / "README.md")
    for path in pages:
        site.linked(path.read_text(encoding="utf-8"), path, path.relative_to(DOCS).as_posix())
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with its links as they are in the site, and what is made from the code."""
    if page.file.generated_by is None:
        path = DOCS / page.file.src_uri
        markdown = _SITE[0].linked(markdown, path, page.file.src_uri)
    for mark, make in MADE.items():
        if (comment := f"<!-- {mark} -->") in markdown:
            markdown = markdown.replace(comment, make())
    return markdown


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings without the roles of Sphinx (``:class:`X```), which Markdown knows nothing of."""
    return re.sub(r":(?:class|func|meth|mod|data|attr):<code>~?", "<code>", html)
