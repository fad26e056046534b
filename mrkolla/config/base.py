"""What all models of the experiment file share: unknown keys refused, errors in words that say what to do.

A :class:`pydantic.ValidationError` that leaves a :class:`Model` holds only errors whose text is meant for a person
and whose location is a path in the file; :mod:`mrkolla.config.load` adds the file and the line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic.annotated_handlers import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError, core_schema

from mrkolla.base.plugins import Registry

# Strict: neither "1" nor true nor 1.0 is a count, since each of them is more likely a slip than a wish.
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Bool = Annotated[bool, Strict()]
Text = Annotated[str, Strict()]

#: Types of the errors that already are in words. "missing" stays apart: its last key is not in the file.
BAD = "bad"
MISSING = "missing_key"


def suggest(word: Any, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the nearest of ``known``, else the list of them (empty text when there is none)."""
    names = list(known)
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(word).lower(), list(lower), n=1, cutoff=0.6)
    if close:
        return f"did you mean '{lower[close[0]]}'?"
    return f"known: {', '.join(names)}" if names else ""


def problem(text: str, loc: tuple[str | int, ...] = (), value: Any = None, kind: str = BAD) -> InitErrorDetails:
    """One error at ``loc`` (a path below the model that raises it), to be given to :func:`refuse`."""
    return InitErrorDetails(type=PydanticCustomError(kind, "{text}", {"text": text}), loc=loc, input=value)


def refuse(problems: list[InitErrorDetails], title: str = "experiment") -> None:
    """Raise all of ``problems`` as one :class:`pydantic.ValidationError`; do nothing when there is none."""
    if problems:
        raise ValidationError.from_exception_data(title, problems)


def bad(text: str) -> PydanticCustomError:
    """An error about the very value that a validator was given."""
    return PydanticCustomError(BAD, "{text}", {"text": text})


def matching(pattern: str, rule: str) -> AfterValidator:
    """Holds a text to ``pattern``; ``rule`` ("must be ...") says that to a person."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise bad(f"{rule}, not '{text}'")
        return text

    return AfterValidator(check)


def ipv4(kind: type[IPv4Address] | type[IPv4Network], what: str) -> AfterValidator:
    """Holds a text to being an IPv4 address or network; ``what`` names it to a person."""

    def check(text: str) -> str:
        try:
            return str(kind(text))
        except ValueError:
            raise bad(f"must be an IPv4 {what}, not '{text}'") from None

    return AfterValidator(check)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_TYPES = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a map of keys and values",
    "model_type": "must be a map of keys and values",
    "finite_number": "must be a finite number",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "must be {} or more"),
    "less_than_equal": ("le", "must be {} or less"),
    "greater_than": ("gt", "must be more than {}"),
    "less_than": ("lt", "must be less than {}"),
}


def _words(error: Mapping[str, Any]) -> str:
    """What is wrong, in words, for an error of pydantic's own."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind in _BOUNDS:
        key, text = _BOUNDS[kind]
        return f"{text.format(f'{context[key]:g}')}, not {_shown(value)}"
    if kind in ("too_short", "too_long"):
        end, count = ("least", "min_length") if kind == "too_short" else ("most", "max_length")
        return f"must have at {end} {context[count]} {'entry' if context[count] == 1 else 'entries'}"
    if kind == "string_too_short":
        count = context["min_length"]
        return f"must have at least {count} {'character' if count == 1 else 'characters'}, not {_shown(value)}"
    if kind == "literal_error":
        valid = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        return f"must be one of {', '.join(valid)}, not {_shown(value)}; {suggest(value, valid)}".split("; known")[0]
    if kind in _TYPES:
        text = f"{_TYPES[kind]}, not {'empty' if value is None else _shown(value)}"
        quote = kind == "string_type" and isinstance(value, (bool, int, float))
        return text + ("; put it in quotes" if quote else "")
    return str(error["msg"])


def _counts_good_ones(error: Mapping[str, Any]) -> bool:
    if error["type"] != "too_short" or not isinstance(error["input"], (list, tuple)):
        return False
    return bool(len(error["input"]) >= error["ctx"]["min_length"])


class Model(BaseModel):
    """A map of the experiment file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            # A list with a bad entry is also called too short by pydantic, which counts the good ones.
            errors = [item for item in error.errors(include_url=False) if not _counts_good_ones(item)]
            details = [cls._reworded(item) for item in errors]
        raise ValidationError.from_exception_data(cls.__name__, details)

    @classmethod
    def _reworded(cls, error: Mapping[str, Any]) -> InitErrorDetails:
        loc = tuple(error["loc"])
        if error["type"] in (BAD, MISSING):
            return problem(error["msg"], loc, error["input"], error["type"])
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        field = fields.get(str(loc[0])) if loc else None
        about = f" ({field.description})" if field is not None and field.description else ""
        if error["type"] == "missing":
            return problem(f"key is missing{about}", loc, error["input"], MISSING)
        if error["type"] == "extra_forbidden":
            hint = suggest(loc[-1], fields)
            return problem(f"unknown key '{loc[-1]}'; {hint}", loc, error["input"])
        return problem(_words(error) + about, loc, error["input"])


class Choice:
    """Annotates a field whose model is chosen by one of its keys: the options of the plug-in that the key names."""

    def __init__(self, key: str, registry: Registry) -> None:
        self.key, self.registry = key, registry

    def _validate(self, value: Any, info: core_schema.ValidationInfo) -> Model:
        if not isinstance(value, Mapping):
            raise bad(f"must be a map with the key '{self.key}' ({', '.join(self.registry)}), not {_shown(value)}")
        if self.key not in value:
            refuse([problem(f"key is missing; one of: {', '.join(self.registry)}", (self.key,), value, MISSING)])
        kind = value[self.key]
        if not isinstance(kind, str) or kind not in self.registry:
            what = f"unknown {self.key} {_shown(kind)}; {suggest(kind, self.registry)}"
            refuse([problem(what, (self.key,), kind)])
        options: type[Model] = self.registry[kind].options
        with self.registry.blamed(kind, "cannot read its keys"):
            return options.model_validate(value, context=info.context)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def validate(value: Any, info: core_schema.ValidationInfo) -> Model:
            return value if isinstance(value, source) else self._validate(value, info)

        return core_schema.with_info_plain_validator_function(
            validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda options: options.model_dump(mode="json")
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        kinds = [handler(plugin.options.__pydantic_core_schema__) for plugin in self.registry.values()]
        return {"type": "object", "required": [self.key], "oneOf": kinds}


class OneOf:
    """Annotates a text that is the name of a plug-in, or one of ``more`` words."""

    def __init__(self, registry: Registry, *more: str) -> None:
        self.registry, self.more = registry, more

    def _validate(self, value: Any) -> str:
        choices = [*self.registry, *self.more]
        if isinstance(value, str) and value in choices:
            return value
        # In the form that pydantic has for a Literal, which _words puts in ours.
        expected = " or ".join(repr(name) for name in choices)
        raise PydanticKnownError("literal_error", {"expected": expected})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate, serialization=core_schema.to_string_ser_schema()
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "enum": [*self.registry, *self.more]}
