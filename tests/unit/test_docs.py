"""The documentation: links lead somewhere, drawings and references are what the code says."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from mrkolla import config
from mrkolla.cli import main as cli
from mrkolla.config import schema

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "docs/tools"))

import reference  # noqa: E402 (in docs/tools)
import rooms  # noqa: E402

PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", TOP / "results/README.md", *sorted((TOP / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere_as_they_stand_in_the_repository(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_is_short_and_explains_k_before_its_first_table():
    text = (TOP / "README.md").read_text()
    assert text.count("\n") <= 150
    assert text.index("**k is") < text.index("\n|")


def test_the_drawing_of_the_rooms_is_what_the_code_imports():
    assert rooms.DRAWING.read_text() == rooms.svg(), "python docs/tools/rooms.py"


def test_of_the_imports_those_are_drawn_that_no_other_way_implies():
    direct = {"a": {"b", "c"}, "b": {"c"}, "c": {"a"}}
    assert rooms.needed(direct, ["a", "b", "c"]) == {"a": {"b"}, "b": {"c"}, "c": {"a"}}


def keys(part: object) -> set[str]:
    """All keys that a schema lets a file have."""
    if isinstance(part, list):
        return set().union(*map(keys, part))
    if not isinstance(part, dict):
        return set()
    return set(part.get("properties", ())).union(*map(keys, part.values()))


def test_the_reference_of_the_file_has_every_key_and_every_description():
    whole = schema()
    text = reference.FileReference(whole).text()
    assert keys(whole) == set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert len(heads) == len(set(heads)) and "`regions[]`" in heads and "`bench[] (tool: rally)`" in heads
    for line in text.splitlines():
        assert not line.startswith("|") or line.replace("\\|", "").count("|") == 5, line
        assert not line.endswith("|  |"), f"no description: {line}"


def test_the_reference_of_the_command_line_has_every_verb_and_option():
    text = reference.command_reference(cli.parser())
    for verb in cli.VERBS:
        assert f"## `mrkolla {verb}`" in text
    assert "### `mrkolla region join`" in text and "`--deploy-rtt MS`" in text
    assert "SUPPRESS" not in text and "| |\n" not in text.replace("| | |", "")
    assert not [line for line in text.splitlines() if line.endswith("|  |")]


def test_every_verb_is_in_the_table_of_commands():
    table = (TOP / "docs/commands.md").read_text()
    named = set(re.findall(r"`(?:mrkolla )?([a-z0-9]+)", table))
    assert set(cli.VERBS) <= named


def test_a_link_to_what_is_not_there_ends_the_build():
    import hooks
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.exceptions import PluginError
    from mkdocs.structure.files import Files

    config = MkDocsConfig()
    config.load_dict({"site_name": "x", "docs_dir": str(TOP / "docs"), "site_dir": str(TOP / "site")})
    config.validate()
    config.plugins._current_plugin = "hooks"
    files = Files([])
    site = hooks.Site(config, files)
    page = TOP / "docs/local.md"
    assert site.linked("[a](../configs/static.yaml) [b](static.md#x)", page, "local.md") == (
        "[a](repository/configs/static.yaml.md) [b](static.md#x)"
    )
    assert [file.src_uri for file in files] == ["repository/configs/static.yaml.md"]
    with pytest.raises(PluginError, match=r"docs/local.md: ../configs/nothing.yaml is not there"):
        site.linked("[a](../configs/nothing.yaml)", page, "local.md")


def test_the_tutorials_file_is_the_one_that_is_shipped():
    text = (TOP / "docs/tutorial.md").read_text()
    block = re.search(r"\n\n((?:    .*\n)+)", text[text.index("## 1.") :])[1]
    assert config.from_dict(yaml.safe_load(block)) == config.load(TOP / "configs/two_regions.yaml")


def commands() -> list[tuple[str, str]]:
    """What the pages tell people to type: (page, command line); a verb that is only named is none."""
    found = []
    for page in PAGES:
        text = page.read_text()
        typed = re.findall(r"^    (?:\S*bin/)?mrkolla (.*)$", text, re.MULTILINE)
        named = re.findall(r"`(?:\.venv/bin/)?mrkolla ([^`\n]+ [^`\n]+)`", text)
        lines = [re.split(r"\s{2,}#|\s{3,}|;| > ", line)[0] for line in (*typed, *named)]
        found += [(page.name, line) for line in lines if not re.search(r"[\[|…]", line)]
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_of_the_pages_is_one_that_the_parser_takes(page, line):
    cli.parser().parse_args(shlex.split(line))
