"""Reference pages made from the code: the experiment file from its JSON schema, the command line from its parsers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]


class FileReference:
    """The keys of the experiment file, a table for each map in it; ``schema`` is what `mrkolla schema` prints."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        #: Maps that are used more than once -> the keys that have the first of them.
        self._told: dict[str, str] = {}

    def text(self) -> str:
        """The reference, as Markdown."""
        return "\n".join(self._map("", self._schema))

    def _map(self, path: str, schema: Schema) -> Iterator[str]:
        """The table of ``schema``, a map at ``path``, and then those of the maps in it."""
        required = schema.get("required", [])
        yield from ["| key | what it takes | default | what it is |", "|---|---|---|---|"]
        below: list[tuple[str, Schema]] = []
        for key, value in schema.get("properties", {}).items():
            key_path = f"{path}.{key}" if path else key
            # pydantic leaves keys with a default out of `required`, those of kinds with one value among them.
            default = "required" if key in required else _default(value)
            takes = " or ".join(dict.fromkeys(self._takes(value)))
            yield f"| `{key}` | {_cell(takes)} | {default} | {_cell(value.get('description', ''))} |"
            below += self._maps(key_path, value)
        for title, inner in below:
            yield from ["", f"## `{title}`", "", _sentence(inner.get("description", "")), ""]
            yield from self._map(title, inner)

    def _maps(self, path: str, value: Schema) -> Iterator[tuple[str, Schema]]:
        """The maps with keys of their own that ``value`` may be or hold, with the titles of their sections."""
        reference = value.get("$ref")
        if reference:
            if reference in self._told:
                return
            self._told[reference] = path
            value = self._resolved(value)
        if value.get("properties"):
            kind = next((f" ({key}: {p['const']})" for key, p in value["properties"].items() if "const" in p), "")
            yield path + kind, value
        for inner in (*value.get("oneOf", ()), *value.get("anyOf", ())):
            yield from self._maps(path, inner)
        if isinstance(value.get("items"), dict):
            yield from self._maps(f"{path}[]", value["items"])
        if isinstance(value.get("additionalProperties"), dict):
            yield from self._maps(f"{path}.NAME", value["additionalProperties"])

    def _resolved(self, value: Schema) -> Schema:
        return self._schema["$defs"][value["$ref"].rpartition("/")[2]]

    def _takes(self, value: Schema) -> Iterator[str]:
        """What ``value`` may be, each in a few words."""
        if "$ref" in value:
            yield f"a map, as `{self._told[value['$ref']]}`" if value["$ref"] in self._told else "a map"
        elif "const" in value:
            yield f"`{value['const']}`"
        elif "enum" in value:
            yield ", ".join(f"`{choice}`" for choice in value["enum"])
        elif "oneOf" in value or "anyOf" in value:
            for inner in value.get("oneOf", value.get("anyOf")):
                yield from self._takes(inner)
        elif value.get("type") == "array":
            yield f"a list of: {' or '.join(dict.fromkeys(self._takes(value.get('items', {}))))}"
        elif value.get("type") == "object":
            yield "a map"
        else:
            yield _plain(value)


def _plain(value: Schema) -> str:
    names = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
    name = names.get(value.get("type", ""), "`null`" if value.get("type") == "null" else "anything")
    bounds = [f"{word} {value[key]}" for key, word in (("minimum", "≥"), ("exclusiveMinimum", ">")) if key in value]
    bounds += [f"{word} {value[key]}" for key, word in (("maximum", "≤"), ("exclusiveMaximum", "<")) if key in value]
    return f"{name} {' and '.join(bounds)}" if bounds else name


def _default(value: Schema) -> str:
    if "default" not in value:
        return ""
    text = json.dumps(value["default"], ensure_ascii=False)
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    """``text`` in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _sentence(text: str) -> str:
    return text and f"{text[0].upper()}{text[1:]}"


def command_reference(parser: argparse.ArgumentParser) -> str:
    """All verbs of ``parser`` with their options, as Markdown."""
    return "\n".join(line for name, verb, _ in _verbs(parser) for line in _verb(f"mrkolla {name}", verb, "##"))


def _verbs(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """The verbs of ``parser``, or the actions of a verb: name, parser, what it does."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            yield from ((name, verb, helps.get(name, "")) for name, verb in action.choices.items())


def _verb(name: str, parser: argparse.ArgumentParser, level: str) -> Iterator[str]:
    actions = list(_verbs(parser))
    yield from ["", f"{level} `{name}`", "", _sentence(parser.description or "").rstrip(".") + ".", ""]
    parser.prog = name
    formatter = argparse.HelpFormatter(name, width=110)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, "")
    yield from ["    " + line for line in formatter.format_help().strip().splitlines()]
    rows = [row for action in parser._actions if (row := _row(action, formatter))]
    if rows:
        yield from ["", "| | |", "|---|---|", *rows]
    if parser.epilog and (example := parser.epilog.removeprefix("example: ")):
        yield from ["", f"For example: `{example}`"]
    for action, subparser, does in actions:
        subparser.description = subparser.description or does
        yield from _verb(f"{name} {action}", subparser, level + "#")


def _row(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    if isinstance(action, (argparse._SubParsersAction, argparse._HelpAction)):
        return ""
    names = formatter._format_action_invocation(action)
    text = formatter._expand_help(action) if action.help else ""
    return f"| `{_cell(names)}` | {_cell(text)} |"
