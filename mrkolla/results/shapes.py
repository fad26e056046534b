"""What the small files of a run folder must look like before anything is made of them.

A run folder may be a stranger's: a file of another shape is one clear line, with its place, and no traceback. Only what
is read later is declared here; other keys pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mrkolla.base.errors import InputError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True, ge=0, le=10**9)]
Text = Annotated[str, Field(strict=True)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Link(_Shape):
    tolerance_ms: Number | None = None
    before_median_ms: Number | None = None
    before_p99_ms: Number | None = None
    after_median_ms: Number | None = None
    after_p99_ms: Number | None = None
    during_median_ms: Number | None = None
    during_p99_ms: Number | None = None
    during_drift_ms: Number | None = None


class _Point(_Shape):
    point: Text
    status: Text | None = None
    repetition: Whole | None = None
    repeats: Text | None = None
    warnings: list[Any] | None = None
    rtt_asked_ms: dict[Text, Number | None] | None = None
    links: dict[Text, _Link | None] | None = None


class _Host(_Shape):
    roles: list[Text] | None = None


class _Placed(_Shape):
    hosts: list[_Host] | None = None


class _Revision(_Shape):
    commit: Text | None = None


class _Provenance(_Shape):
    regions: list[_Placed] | None = None
    packages: dict[Text, Any] | None = None
    tools: dict[Text, Any] | None = None
    machine: dict[Text, Any] | None = None
    revision: _Revision | None = None


class _Region(_Shape):
    control: Whole | None = None
    network: Whole | None = None
    compute: Whole | None = None


class _Sweep(_Shape):
    rtt_ms: list[Number | dict[Text, Number]] | None = None
    precision: Number | None = None
    precision_total: Number | None = None


class _Experiment(_Shape):
    name: Text | None = None
    keystone: dict[Text, Any] | None = None
    testbed: dict[Text, Any] | None = None
    wan: dict[Text, Any] | None = None
    sweep: _Sweep | None = None
    bench: list[dict[Text, Any]] | None = None
    admin_region: _Region | None = None
    regions: list[_Region] | None = None


class _Phase(_Shape):
    point: Text
    of: Text
    phase: Text
    region: Text
    rtt_ms: Number
    repetition: Whole
    begin: Number
    end: Number


class _Join(_Shape):
    what: Text
    region: Text
    seconds: Number
    deploy_rtt_ms: Number = 0.0
    parts_s: dict[Text, Number]


class _Fault(_Shape):
    do: Text
    told: Text
    asked: dict[Text, Any] | None = None
    region: Text
    point: Text | None
    begin: Number | None
    end: Number | None
    seen_begin: Number | None
    seen_end: Number | None
    why: Text | None
    refused: Text | None


class _Span(_Shape):
    waited_from_ms: Number
    waited_ms: Number
    start_ms: Number
    end_ms: Number
    region: Text
    method: Text
    path: Text
    status: Any
    new_connection: Any


class _Trace(_Shape):
    tool: Text
    scenario: Text
    origin_region: Text
    token_cache: Text | None
    concurrency: Whole | None = None
    rtt_ms: Number | None
    duration_ms: Number
    keystone_ms: Number
    spans: list[_Span]


TRACES = "tools/tracing/*.json"
_SHAPES: dict[str, TypeAdapter[Any]] = {
    "points.json": TypeAdapter(list[_Point]),
    "provenance.json": TypeAdapter(_Provenance),
    "endpoints.json": TypeAdapter(list[dict[Text, Any]]),
    "experiment.yaml": TypeAdapter(_Experiment | None),
    "phases.json": TypeAdapter(list[_Phase]),
    "joins.json": TypeAdapter(list[_Join]),
    "faults.json": TypeAdapter(list[_Fault]),
    TRACES: TypeAdapter(list[_Trace]),
}
#: Bytes that one of these files may have: in memory each becomes twenty, or more.
_MOST_BYTES = 100 * 10**6
#: Values that an experiment file may have, its aliases written out: few bytes of them can be without end.
_MOST = 100_000


#: The files of a run folder that must have a shape.
NAMES = tuple(name for name in _SHAPES if name != TRACES)


def text(path: Path) -> str:
    """What a small file says.

    Raises:
        InputError: it is a large one.
        OSError, ValueError: it cannot be read, or is no text.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path}: larger than {_MOST_BYTES // 10**6} MB: not as mrkolla wrote it")
    return path.read_text()


def checked(name: str, value: Any, path: Path) -> Any:
    """``value`` as it is, when it has the shape of the file ``name`` (others have none).

    Raises:
        InputError: it has not; names the file ``path`` and the place in it.
    """
    try:
        if path.suffix == ".yaml" and _more_than(value, _MOST) < 0:
            raise InputError(f"{path}: more than {_MOST:,} values: not a file of a run")
        _need_characters(value)
        if name in _SHAPES:
            _SHAPES[name].validate_python(value)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        raise InputError(
            f"{path}: {ascii(place)[1:-1] or 'the whole'}: {first['msg']}: not as mrkolla wrote it"
        ) from None
    except UnicodeEncodeError as none:
        odd = ascii(none.object[none.start])
        raise InputError(f"{path}: {odd} in it is no character: not as mrkolla wrote it") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply: not as mrkolla wrote it") from None
    return value


def _need_characters(value: Any) -> None:
    """Raise UnicodeEncodeError for a text that could not be written again: JSON and YAML can spell half of a pair."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        for inner in value:
            _need_characters(inner)
            if isinstance(value, dict):
                _need_characters(value[inner])


def _more_than(value: Any, left: int) -> int:
    """What is left of ``left`` values after those of ``value``; negative when it has more."""
    left -= 1
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if left < 0:
            break
        left = _more_than(inner, left)
    return left
