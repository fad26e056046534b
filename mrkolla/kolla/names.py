"""The names that a release of Kolla expects: inventory groups, secrets and variables, as its file of names has them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from mrkolla.base import yamltext
from mrkolla.base.errors import DeployError, LackError
from mrkolla.config.releases import RELEASES


@cache
def names(release: str) -> dict:
    """``groups`` (list of {of, are}) and ``passwords`` (kind -> names) of ``release``; where it differs from others,
    ``without_groups`` (names) and ``absent`` (list of {why, names}: variables)."""
    file = RELEASES[release].names
    if file is None:
        raise LackError(
            f"release {release} has no file of names, without which nothing can be planned (docs/plugins.md)"
        )
    return yamltext.read(file.read_text())


def absent(release: str) -> dict[str, str]:
    """Variables that mrkolla sets elsewhere and that ``release`` is not given: name -> why."""
    return {name: row["why"] for row in names(release).get("absent", []) for name in row["names"]}


def defined(tree: Path) -> set[str]:
    """The variables that a tree of Kolla (the folder that holds ``ansible/``) gives a value itself."""
    ansible, variables = tree / "ansible", set()
    for pattern in ("group_vars/all.yml", "group_vars/all/*.yml", "roles/*/defaults/main.yml", "roles/*/vars/main.yml"):
        for path in ansible.glob(pattern):
            # Names alone are wanted: a line that begins with one, and a colon.
            variables |= set(re.findall(r"^([A-Za-z_]\w*)\s*:", path.read_text(), re.MULTILINE))
    return variables


def unknown(tree: Path, variables: Iterable[str]) -> list[str]:
    """Those of ``variables`` that the tree neither gives a value nor uses in an expression, sorted."""
    missing = sorted(set(variables) - defined(tree))
    if not missing:
        return []
    used = re.compile(r"(?<![\w.'\"])(" + "|".join(map(re.escape, missing)) + r")(?![\w'\"])")
    uses = set()
    for path in sorted((tree / "ansible" / "roles").rglob("*")):
        if path.suffix in (".yml", ".j2") and path.is_file():
            text = re.sub(r"(?m)^\s*#.*$", "", path.read_text(errors="replace"))
            uses |= set(used.findall(text))
    return [name for name in missing if name not in uses]


def need_known(release: str, tree: Path, variables: Iterable[str]) -> None:
    """Raise DeployError that names the variables which ``release`` does not know."""
    missing = unknown(tree, variables)
    if missing:
        raise DeployError(
            f"release {release} has no variable {', '.join(missing)}, which mrkolla sets: renamed or removed there;"
            " name it under 'absent' in its names, or use what replaced it"
        )
