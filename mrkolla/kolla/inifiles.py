"""A person's INI files of node_custom_config beside those that mrkolla writes: merged by section and key.

Kolla reads a service's file from several places, the later over the earlier, key by key (its ``merge_configs``). Where
mrkolla and a person set one key to two values, in the same file or in two files of that service, one of the two would
have no effect: that is refused, with both values.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path, PurePath

from mrkolla.base.errors import InputError

_SUFFIXES = (".conf", ".ini", ".cnf")
_EVERY = "global"  # Kolla's global.conf is read for each service


class Parser(configparser.RawConfigParser):
    """A parser to which '-' and '_' are one in a key, as they are to oslo.config and MySQL."""

    def optionxform(self, optionstr: str) -> str:
        """The key as it is known by."""
        return optionstr.strip().replace("-", "_")


def merged(ours: Mapping[str, str], theirs: Mapping[str, tuple[Path, bytes]], plan: str) -> dict[str, str]:
    """The files of ``ours`` (name -> text) with those that ``theirs`` (name -> file, content) has too merged into them.

    ``plan`` is the folder that the names are in, for messages. Raises InputError for a key
    with two values, and for a file that cannot be merged.
    """
    files = dict(ours)
    for name, (source, content) in theirs.items():
        if PurePath(name).suffix not in _SUFFIXES:
            if name in ours:
                raise InputError(f"kolla.config: {source} clashes with {plan}/{name}, which mrkolla writes; remove it")
            continue
        peers = [other for other in ours if other == name or _meet(name, other)]
        if not peers:
            continue
        text = _text(source, content)
        keys = _keys(text, f"kolla.config: {source}", needed=name in ours)
        for other in peers:
            _refuse_clash(source, keys, f"{plan}/{other}", _keys(ours[other], other))
        if name in ours:
            files[name] = _joined(text, keys, ours[name])
    return files


def _meet(one: str, other: str) -> bool:
    """Whether two files are read for one service, as ``nova.conf`` and ``nova/nova-compute.conf`` are."""
    services = [{PurePath(part).stem for part in PurePath(name).parts} for name in (one, other)]
    return bool(services[0] & services[1]) or any(_EVERY in words for words in services)


def _text(source: Path, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as unread:
        raise InputError(f"kolla.config: {source} cannot be read: {unread}") from unread


def _keys(text: str, where: str, needed: bool = True) -> dict[tuple[str, str], str]:
    """(section, key) -> value of an INI file, which may be one of Jinja's templates; MySQL's keys may have no value."""
    # No section is the default for others, and '%' and '-' mean what Kolla's services take them for.
    parser = Parser(strict=False, allow_no_value=True, default_section="", empty_lines_in_values=False)
    try:
        parser.read_string(text)
    except (configparser.Error, AttributeError) as broken:
        if not needed:
            return {}  # Kolla says what is wrong with it; mrkolla sets nothing in this one
        # Python's parser falls over an indented line below a key that has no value.
        why = broken.message if isinstance(broken, configparser.Error) else "an indented line is below no value"
        raise InputError(f"{where}: cannot be merged with what mrkolla writes: {why.splitlines()[0]}") from None
    return {(name, key): value or "" for name in parser.sections() for key, value in parser.items(name)}


def _refuse_clash(
    source: Path, theirs: Mapping[tuple[str, str], str], name: str, ours: Mapping[tuple[str, str], str]
) -> None:
    for (section, key), value in ours.items():
        choice = theirs.get((section, key), value)
        if choice != value:
            raise InputError(
                f"kolla.config: {source}: [{section}] {key} = {choice} clashes with {value}, which mrkolla writes to"
                f" {name}; remove it"
            )


def _joined(text: str, there: Mapping[tuple[str, str], str], ours: str) -> str:
    """A person's text as it is, and after it what it lacks of ``ours``: a section may come twice."""
    lacking: dict[str, list[str]] = {}
    for (section, key), value in _keys(ours, "").items():
        if (section, key) not in there:
            lacking.setdefault(section, []).append(f"{key} = {value}\n")
    added = [f"\n[{section}]\n{''.join(lines)}" for section, lines in lacking.items()]
    return text.rstrip("\n") + "\n" + ("\n# Added by mrkolla plan" + "".join(added) if added else "")
