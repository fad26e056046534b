"""From a YAML file or a dict to an :class:`~mrkolla.config.model.Experiment`, or to one error that lists all problems.

YAML is read as Ansible reads it (YAML 1.1: ``yes`` is true), since ``kolla.globals`` goes on to Ansible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import ValidationError
from yaml.constructor import SafeConstructor

from mrkolla.base.errors import InputError
from mrkolla.base.plugins import TESTBEDS
from mrkolla.config.base import MISSING, Choice, Model, suggest
from mrkolla.config.model import Experiment
from mrkolla.config.sections import Region
from mrkolla.config.testbeds import TestbedOptions

Loc = tuple[str | int, ...]
AnyModel = TypeVar("AnyModel", bound=Model)

_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("null", "bool", "int", "float", "str", "value", "timestamp")}
# An experiment is a page. More is another kind of file, or aliases that multiply without end.
_MAX_BYTES = 1_000_000
_MAX_VALUES = 100_000


class _Document:
    """The values of one YAML file, where each of them stands, and what is wrong with the YAML itself."""

    def __init__(self, path: Path, what: str) -> None:
        self.source, self.what = str(path), what
        self.places: dict[Loc, str] = {}
        self.problems: list[str] = []
        self._count = 0
        self._scalars = SafeConstructor()
        node = self._compose(self._read(path))
        if node is None:
            raise InputError(f"{self.source}: the file is empty; {what} is a map of keys")
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise InputError(f"{self._at(node)}: {what} is a map of keys, not {kind}")
        self.places[()] = self._at(node)
        try:
            self.values: dict[str, Any] = self._value(node, ())
        except RecursionError:
            raise InputError(f"{self.source}: nested too deeply, or an alias that contains itself") from None
        if self.problems:
            raise InputError("\n".join(self.problems))

    def _read(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            raise InputError(f"{self.source}: no such file; give the path of {self.what}") from None
        except IsADirectoryError:
            raise InputError(f"{self.source}: is a folder; give the path of {self.what}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self.source}: cannot be read: {reason}; give the path of {self.what}") from None
        if len(data) > _MAX_BYTES:
            raise InputError(f"{self.source}: is larger than {_MAX_BYTES // 1000} kB; give the path of {self.what}")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise InputError(f"{self.source}:{line}: not text in UTF-8; give the path of {self.what}") from None

    def _compose(self, text: str) -> yaml.Node | None:
        try:
            return yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise InputError(f"{self.source}:{line}: not YAML: {error.reason}") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{self.source}:{mark.line + 1}" if mark else self.source
            reason = " ".join(filter(None, (error.context, error.problem)))
            raise InputError(f"{where}: not YAML: {reason}; look at this line and the one before") from None
        except RecursionError:
            raise InputError(f"{self.source}: nested too deeply") from None

    def _at(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}"

    def _value(self, node: yaml.Node, loc: Loc) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES:
            raise InputError(f"{self.source}: more than {_MAX_VALUES} values, or an alias that contains itself")
        if isinstance(node, yaml.MappingNode):
            return self._map(node, loc)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            for index, inner in enumerate(node.value):
                self.places[(*loc, index)] = self._at(inner)
            return [self._value(inner, (*loc, index)) for index, inner in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
            self._problem(node, loc, f"the tag {node.tag.replace(_TAG, '!!')} is not allowed; write a plain value")
            return None
        # A date stays text, as it does in globals.yml's templates.
        if node.tag == _TAG + "timestamp":
            return node.value
        try:
            return self._scalars.construct_object(node)
        except (KeyError, IndexError):  # of a tag that was written out, as !!bool before a word
            self._problem(node, loc, f"{node.value!r} is no {node.tag.replace(_TAG, '!!')}; write a plain value")
        except ValueError:
            pass
        return node.value

    def _map(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        if node.tag != _TAG + "map":
            self._problem(node, loc, f"the tag {node.tag.replace(_TAG, '!!')} is not allowed; write a plain map")
            return {}
        merged: dict[str, Any] = {}
        values: dict[str, Any] = {}
        for key, inner in node.value:
            if key.tag != _TAG + "merge":
                continue
            # The first of several merged maps wins, and the map's own keys (below) win over all.
            for map_node in inner.value if isinstance(inner, yaml.SequenceNode) else [inner]:
                content = self._value(map_node, loc)
                if not isinstance(content, dict):
                    self._problem(map_node, loc, "'<<' must be followed by an alias of a map, or a list of them")
                    continue
                merged = content | merged
        for key, inner in node.value:
            place = (*loc, str(key.value))
            if key.tag == _TAG + "merge":
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
                name = f" {key.value}" if isinstance(key, yaml.ScalarNode) else ""
                self._problem(key, loc, f"the key{name} is read as something else than text; put it in quotes")
            elif key.value in values:
                first = self.places[place].rpartition(":")[2]
                self._problem(key, place, f"key is given twice, first in line {first}; remove one")
            else:
                values[key.value] = self._value(inner, place)
                self.places[place] = self._at(key)
        return merged | values

    def _problem(self, node: yaml.Node, loc: Loc, text: str) -> None:
        self.problems.append(_line(self._at(node), loc, text))


def _line(place: str, loc: Loc, text: str) -> str:
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc).removeprefix(".")
    line = f"{place}: {path}: {text}" if path else f"{place}: {text}"
    # A value may hold newlines; a problem is one line.
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


def _in_file(loc: Loc, values: Any, missing: bool) -> Loc:
    """``loc`` without the names that pydantic adds for the alternative it tried."""
    place: list[str | int] = []
    for index, key in enumerate(loc):
        has_key = key in values if isinstance(values, Mapping) else False
        if isinstance(values, (list, tuple)) and isinstance(key, int):
            has_key = key < len(values)
        if has_key:
            place.append(key)
            values = values[key]
        elif missing and index == len(loc) - 1:
            place.append(key)
    return tuple(place)


def _place(loc: Loc, places: Mapping[Loc, str], source: str) -> str:
    for end in range(len(loc), -1, -1):
        if loc[:end] in places:
            return places[loc[:end]]
    return source


def _validated(
    values: Mapping[str, Any], places: Mapping[Loc, str], source: str, folder: Path, files: bool
) -> Experiment:
    with _told(values, places, source):
        return Experiment.model_validate(values, context={"folder": folder, "files": files})


@contextmanager
def _told(values: Mapping[str, Any], places: Mapping[Loc, str], source: str) -> Iterator[None]:
    """Raise what pydantic refuses in ``values`` meanwhile as an InputError with a line for each problem."""
    try:
        yield
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            loc = _in_file(item["loc"], values, item["type"] == MISSING)
            lines.append(_line(_place(loc, places, source), loc, item["msg"]))
        raise InputError("\n".join(sorted(lines, key=_line_number))) from None


def _line_number(line: str) -> int:
    """For sorting: problems in the file's order; those without a line stay as they came."""
    number = line.split(": ", maxsplit=1)[0].rpartition(":")[2]
    return int(number) if number.isdecimal() else 0


def from_dict(values: Mapping[str, Any], source: str = "<dict>", *, folder: Path | str = ".") -> Experiment:
    """The experiment that ``values`` (the file's keys) describes.

    ``source`` names it in errors; ``kolla.config`` is relative to ``folder``. Raises
    InputError with a line for each problem: ``SOURCE: KEY PATH: problem``.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{source}: an experiment is a map of keys, not {type(values).__name__}")
    return _validated(values, {}, source, Path(folder), files=True)


def load(path: Path | str, overlay: Path | str | None = None, *, files: bool = True) -> Experiment:
    """Read the experiment file ``path``; the file ``overlay`` replaces its section ``testbed`` and nothing else.

    With ``files`` false the folders of ``kolla.config`` need not exist any more: for reading a run folder's
    ``experiment.yaml``. Raises InputError with a line for each problem:
    ``FILE:LINE: KEY PATH: problem; what to do``.
    """
    document = _Document(Path(path), "an experiment file")
    values, places = dict(document.values), dict(document.places)
    if overlay is not None:
        testbed_file = _Document(Path(overlay), "a testbed file")
        _only_testbed(testbed_file)
        values["testbed"] = testbed_file.values["testbed"]
        places = {loc: place for loc, place in places.items() if loc[:1] != ("testbed",)}
        places |= {loc: place for loc, place in testbed_file.places.items() if loc}
    return _validated(values, places, str(path), Path(path).parent, files)


def load_as(path: Path | str, model: type[AnyModel], what: str) -> AnyModel:
    """Read a file that is a ``model``; ``what`` names it in errors. Raises InputError with a line for each problem."""
    document = _Document(Path(path), what)
    with _told(document.values, document.places, str(path)):
        return model.model_validate(document.values)


def load_testbed(path: Path | str) -> TestbedOptions:
    """The section ``testbed`` of a testbed file, or of an experiment file.

    Raises InputError with a line for each problem.
    """
    document = _Document(Path(path), "a testbed file")
    if "testbed" not in document.values:
        _only_testbed(document)
    values = {"testbed": document.values["testbed"]}
    with _told(values, document.places, str(path)):
        return _TestbedFile.model_validate(values).testbed


def load_region(path: Path | str, name: str) -> dict[str, Any]:
    """The keys of one region, as an entry of ``regions`` has them, from a file of its own; ``name`` may be left out.

    What is left out of the file is not in the result. Raises InputError with a line for
    each problem, one of them a name other than ``name``.
    """
    document = _Document(Path(path), "a region's file")
    values = {"name": name, **document.values}
    if values["name"] != name:
        place = _place(("name",), document.places, str(path))
        raise InputError(_line(place, ("name",), f"is {values['name']!r}, but the region is {name}; leave the key out"))
    with _told(values, document.places, str(path)):
        region = Region.model_validate(values, context={"folder": Path(path).parent})
    return {key: value for key, value in region.model_dump(mode="json").items() if key in values}


class _TestbedFile(Model):
    testbed: Annotated[TestbedOptions, Choice("kind", TESTBEDS)]


def _only_testbed(document: _Document) -> None:
    lines = [
        _line(document.places[(key,)], (key,), "a testbed file has the section 'testbed' alone; remove this key")
        for key in document.values
        if key != "testbed"
    ]
    if "testbed" not in document.values:
        names = [key for key in document.values if "did you" in suggest(key, ["testbed"])]
        hint = f"; did you mean that by '{names[0]}'?" if names else ""
        lines.append(_line(document.places[()], ("testbed",), f"key is missing{hint}"))
    if lines:
        raise InputError("\n".join(lines))
