"""Plug-ins: testbeds, tools, WAN drivers, releases, faults. mrkolla's own come in the same way as other people's.

A distribution declares an entry point in one of the groups below; it names an object that is made by, or is a subclass
of, the base class of its kind. Names are read from the metadata of what is installed; an object is loaded when it is
first used, so that a plug-in that cannot be loaded is in the way of nobody who does not use it.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError

from mrkolla.base.errors import InputError, LackError, MrkollaError


@dataclass(frozen=True)
class Finding:
    """One thing looked at by ``mrkolla doctor``: ``ok`` None means that it is worth knowing, but stops nothing."""

    what: str
    ok: bool | None
    seen: str
    mend: str = ""


class Plugin:
    """What every plug-in carries. Its kind's base class says what it does."""

    #: testbed, tool, WAN driver, release or fault: given by the kind's base class.
    plugin_kind: ClassVar[str] = ""
    #: What the experiment file and the entry point call it.
    name: str
    #: Its keys in the experiment file, for kinds that have keys of their own; they join the file's JSON schema.
    options: type[BaseModel] | None = None

    @classmethod
    def needs(cls) -> list[Finding]:
        """What it needs of this machine, for ``mrkolla doctor``: looks, changes nothing, raises nothing."""
        return []


@dataclass(frozen=True)
class Origin:
    """Where an entry point comes from, and why it cannot be used (empty: it can)."""

    kind: str
    name: str
    version: str
    distribution: str
    object: str
    problem: str = ""


@cache
def _points(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of ``group`` by name, in order of names."""
    points: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        points[point.name] = (*points.get(point.name, ()), point)
    return points


class Registry:
    """The plug-ins of one kind by name. ``len``, ``in`` and iteration load none of them.

    ``registry[name]`` raises InputError for an unknown name, LackError for a plug-in that cannot be used. ``values()``
    and ``items()`` leave those out that cannot be used, and say so once, in a line on standard error.
    """

    def __init__(self, kind: str, group: str, base: str, objects: bool) -> None:
        """``base`` (``module:class``) is the kind's base class, loaded with the first plug-in; ``objects``: whether a
        plug-in is an object of it, else it is a subclass."""
        self.kind, self.group, self.base, self.objects = kind, group, base, objects
        self._told: set[str] = set()

    def _known(self) -> Mapping[str, tuple[EntryPoint, ...]]:
        if not (points := _points(self.group)):
            raise LackError(
                f"no {self.kind} is registered, not even mrkolla's own: it is not installed, or its installation is"
                " older than its code; 'pip install -e .' in its folder (or 'make setup') mends that"
            )
        return points

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def __getitem__(self, name: str) -> Any:
        points = self._known().get(name)
        if points is None:
            raise InputError(f"unknown {self.kind} '{name}'; known: {', '.join(self)}")
        if len(points) > 1:
            origins = " and ".join(_where(point) for point in points)
            raise LackError(f"{len(points)} plug-ins are called {self.kind} '{name}', {origins}: uninstall all but one")
        return self._loaded(points[0])

    def items(self) -> list[tuple[str, Any]]:
        """Name and plug-in of all that can be used."""
        return [(name, plugin) for name in self if (plugin := self._usable(name)) is not None]

    def values(self) -> list[Any]:
        """All plug-ins that can be used."""
        return [plugin for _, plugin in self.items()]

    def origins(self) -> list[Origin]:
        """Where each comes from and whether it can be used; those of one name are all there."""
        rows = []
        for name, points in self._known().items():
            try:
                self[name]
                problem = ""
            except LackError as lack:
                problem = str(lack)
            for point in points:
                made_by = point.dist
                version, distribution = (made_by.version, made_by.name) if made_by else ("", "")
                rows.append(Origin(self.kind, name, version, distribution, point.value, problem))
        return rows

    def needs(self, name: str) -> list[Finding]:
        """What the plug-in ``name`` needs of this machine; where it fails to say, one finding with the reason."""
        plugin = self[name]
        try:
            findings = list(plugin.needs())
            if wrong := [finding for finding in findings if not isinstance(finding, Finding)]:
                raise TypeError(f"needs() gives {wrong[0]!r}, which is no Finding")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - somebody else's code: the other plug-ins are still asked
            reason = f"what it needs cannot be told: {_in_line(error)}"
            return [Finding(self._what(self._known()[name][0]), False, reason, "mend or uninstall it")]
        return findings

    @contextmanager
    def spared(self, name: str, method: str) -> Iterator[None]:
        """Make of what somebody else's plug-in ``name`` raises in ``method`` a line on standard error, printed once.

        A MrkollaError is raised on, as it is an answer; so is what one of mrkolla's own plug-ins raises.
        """
        point = self._known()[name][0]
        try:
            yield
        except (MrkollaError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if _is_own(point):
                raise
            self._tell(f"{name}.{method}", f"{self._what(point)}, in {method}: {_in_line(error)}; mend or uninstall it")

    @contextmanager
    def blamed(self, name: str, what: str) -> Iterator[None]:
        """Make of what somebody else's plug-in ``name`` raises a LackError: ``what`` ("cannot ...") and why.

        A MrkollaError is raised on, and so is what a model says of values: they are answers. So is what one of
        mrkolla's own plug-ins raises.
        """
        try:
            yield
        except (MrkollaError, ValidationError, KeyboardInterrupt):
            raise
        except BaseException as error:
            point = self._known()[name][0]
            if _is_own(point):
                raise
            raise LackError(f"{self._what(point)} {what}: {_in_line(error)}; mend or uninstall it") from error

    def _usable(self, name: str) -> Any:
        try:
            return self[name]
        except LackError as lack:
            self._tell(name, str(lack))
            return None

    def _tell(self, key: str, line: str) -> None:
        if key not in self._told:
            self._told.add(key)
            print(f"mrkolla: left out: {line}", file=sys.stderr)

    def _what(self, point: EntryPoint) -> str:
        return f"{self.kind} '{point.name}' of {_where(point)}"

    def _loaded(self, point: EntryPoint) -> Any:
        if not point.pattern.match(point.value):
            raise LackError(f"{self._what(point)} names no object: its entry point must be MODULE:OBJECT")
        try:
            plugin = point.load()
            wrong = self._wrong(plugin, point.name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a module that calls sys.exit() would end mrkolla with it
            raise LackError(f"{self._what(point)} cannot be loaded: {_in_line(error)}; mend or uninstall it") from error
        if wrong:
            raise LackError(f"{self._what(point)} {wrong} (docs/plugins.md)")
        return plugin

    def _wrong(self, plugin: Any, name: str) -> str:
        """Why the object of the entry point ``name`` is no plug-in of this kind; empty when it is one."""
        base = pkgutil.resolve_name(self.base)
        if wrong := self._wrong_kind(plugin, base):
            return wrong
        if (called := getattr(plugin, "name", "")) != name:
            return f"calls itself '{called}': both must be the same"
        return (
            _wrong_methods(plugin, base)
            or _wrong_fields(plugin, base)
            or _wrong_options(plugin.options, base.options, name)
        )

    def _wrong_kind(self, plugin: Any, base: type) -> str:
        is_class = isinstance(plugin, type)
        if not (issubclass(plugin, base) if is_class else isinstance(plugin, base)):
            return f"is no {self.kind}: it must come from the base class of that kind"
        if is_class and self.objects:
            return f"is a class: a {self.kind} is an object, made from it"
        if not is_class and not self.objects:
            return f"is an object: a {self.kind} is the class that it is made from"
        return ""


def _in_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].removesuffix(":")


def _wrong_methods(plugin: Any, base: type) -> str:
    # A method may also be hidden by something that cannot be called.
    methods = getattr(base, "__abstractmethods__", ())
    hidden = {method for method in methods if not callable(getattr(plugin, method, None))}
    missing = hidden | set(getattr(plugin, "__abstractmethods__", ()))
    return f"has no {', '.join(sorted(missing))}" if missing else ""


def _wrong_fields(plugin: Any, base: type) -> str:
    """What ``plugin`` lacks, or has of another type, where its base class is data alone."""
    if not is_dataclass(base):
        return ""
    types: dict[str, type | tuple[type, ...]] = {"str": str, "tuple": (tuple, list)}
    for field in fields(base):
        if not hasattr(plugin, field.name):
            return f"has no {field.name}"
        word = str(field.type).partition("[")[0]
        if not isinstance(getattr(plugin, field.name), types.get(word, object)):
            return f"has a {field.name} that is no {word}"
    return ""


def _wrong_options(options: Any, base: type[BaseModel] | None, name: str) -> str:
    if base is None:  # a kind without keys of its own
        return ""
    if not (isinstance(options, type) and issubclass(options, base)):
        return f"has no options: they must be a model that is made from {base.__name__}"
    return _wrong_keys(options, base, name)


def _wrong_keys(options: type[BaseModel], base: type[BaseModel], name: str) -> str:
    """What is wrong with the keys of a model; mrkolla itself uses those of ``base``, the first of which is the name."""
    if hidden := [key for key in options.model_fields if key not in base.model_fields and key in vars(base)]:
        return f"has options whose key '{hidden[0]}' hides what {base.__name__} has under this name"
    keys, base_keys = _properties(options), _properties(base)
    for key, base_schema in base_keys.items():
        if key not in keys or not _types(keys[key]) <= _types(base_schema):
            return f"has options without the key '{key}' of {base.__name__}, in its type"
    named = next(iter(base_keys))
    if keys[named].get("const", name) != name:
        return f"has options whose '{named}' is '{keys[named]['const']}', not its name"
    for key, schema in keys.items():
        if "default" in schema and (types := _types(schema)) and _JSON[type(schema["default"])] not in types:
            which = " or ".join(sorted(types))
            return f"has options whose '{key}' is {schema['default']!r} by default, which is no {which}"
    return ""


#: What JSON calls a type of Python.
_JSON = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
_JSON |= {dict: "object"}


@cache
def _properties(options: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """The keys of a model with their JSON schemas; raises what pydantic raises where there can be none."""
    properties: dict[str, dict[str, Any]] = options.model_json_schema()["properties"]
    return properties


def _types(schema: Mapping[str, Any]) -> set[str]:
    """The types that JSON has for the values of a schema; none: it does not say."""
    if "anyOf" in schema:
        each = [_types(alternative) for alternative in schema["anyOf"]]
        return set().union(*each) if all(each) else set()
    return {"number", "integer"} if schema.get("type") == "number" else {schema["type"]} if "type" in schema else set()


def _is_own(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == "mrkolla"


def _where(point: EntryPoint) -> str:
    made_by = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
    return f"{made_by} ({point.value})"


#: ``testbed.kind`` -> :class:`mrkolla.providers.Testbed`.
TESTBEDS = Registry("testbed", "mrkolla.testbeds", "mrkolla.providers.contract:Testbed", objects=True)
#: ``bench[].tool`` -> a subclass of :class:`mrkolla.bench.Tool`.
TOOLS = Registry("tool", "mrkolla.tools", "mrkolla.bench.base:Tool", objects=False)
#: ``wan.driver`` -> a subclass of :class:`mrkolla.wan.driver.Driver`.
WAN_DRIVERS = Registry("WAN driver", "mrkolla.wan_drivers", "mrkolla.wan.driver:Driver", objects=False)
#: ``release`` -> :class:`mrkolla.config.releases.Release`.
RELEASES = Registry("release", "mrkolla.releases", "mrkolla.config.releases:Release", objects=True)
#: ``faults[].do`` -> a subclass of :class:`mrkolla.faults.Fault`.
FAULTS = Registry("fault", "mrkolla.faults", "mrkolla.faults.kind:Fault", objects=False)
REGISTRIES = (TESTBEDS, TOOLS, WAN_DRIVERS, RELEASES, FAULTS)
