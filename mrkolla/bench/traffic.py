"""What a real OSR asked of the AR's Keystone, as a file that synthetic regions replay.

    traffic = record(RunFolder.open("results/two_regions-..."), region="OSR1")
    write(traffic, Path("two_regions.parquet"))
    read(Path("two_regions.parquet")).requests

It is made from the access log that a run keeps of each point. What is in it: when a request came, over which
connection, whether it issued a token, validated one or asked for Keystone's versions, and which of the file's tokens
that was about. Times are relative, tokens are numbers: nothing of it lets anybody in anywhere.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mrkolla.base import files
from mrkolla.base.errors import InputError
from mrkolla.bench.accesslog import comes_from
from mrkolla.bench.observe import LOGS
from mrkolla.results import RunFolder

VERSION = 1
ISSUE, VALIDATE, VERSIONS = "issue", "validate", "versions"
KINDS = (ISSUE, VALIDATE, VERSIONS)
_KEY = b"mrkolla.traffic"
_TOKENS = "/v3/auth/tokens"
_LOG = ["region", "start_ns", "end_ns", "source", "port", "new", "front", "status", "method", "path"]
_LOG += ["auth", "subject", "issued", "bytes", "service_ms"]
_COLUMNS = pa.schema(
    [
        ("at_us", pa.int64()),
        ("connection", pa.int32()),
        ("before", pa.bool_()),
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("auth", pa.int32()),
        ("subject", pa.int32()),
        ("issued", pa.int32()),
        ("bytes", pa.int64()),
        ("service_ms", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Request:
    """A request: ``at_us`` after the first, on the connection of that number (``before``: it was open already).

    ``auth``, ``subject`` and ``issued`` are numbers of tokens (None: there is none): what it came with, what it asked
    about, what it got. ``bytes`` and ``service_ms`` are what it took when it was logged.
    """

    at_us: int
    connection: int
    before: bool
    kind: str
    auth: int | None
    subject: int | None
    issued: int | None
    bytes: int
    service_ms: int | None


@dataclass(frozen=True)
class Traffic:
    """The requests of ``region`` at ``point`` of ``run``, over a link of ``rtt_ms``, in order.

    ``seconds``: until the last answer. ``left_out``: requests of the log that cannot be replayed (other calls, and
    those that Keystone refused).
    """

    run: str
    release: str
    region: str
    point: str
    rtt_ms: float
    seconds: float
    left_out: int
    requests: tuple[Request, ...]

    def about(self) -> dict[str, Any]:
        """All but the requests."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "requests"}

    def counts(self) -> dict[str, float]:
        """In a period: requests of each kind, connections opened, tokens; and requests a second."""
        kinds = Counter(request.kind for request in self.requests)
        opened = {request.connection for request in self.requests if not request.before}
        return {
            **{kind: kinds[kind] for kind in KINDS},
            "connections": len(opened),
            "a second": round(len(self.requests) / self.seconds, 2),
        }


def record(run: RunFolder, region: str | None = None, point: str | None = None) -> Traffic:
    """What ``region`` (the first OSR) asked at ``point`` (the one with most requests) of a run that is done.

    Raises:
        InputError: the run has no such region or point, kept no access log, or has no request of the region in it.
    """
    provenance = run.read_json("provenance.json", {})
    regions = [
        SimpleNamespace(name=entry["name"], kind=entry["kind"], vip=entry["vip"], subnet=entry["subnet"], control=(),
                        hosts=[SimpleNamespace(host=SimpleNamespace(address=host["address"]))
                               for host in entry["hosts"]])
        for entry in provenance.get("regions", [])
    ]  # fmt: skip
    osrs = [entry for entry in regions if entry.kind == "OSR"]
    admin = next((entry.name for entry in regions if entry.kind == "AR"), None)
    if admin is None or not osrs:
        raise InputError(f"{run.path}: provenance.json names no regions: there is nothing to record")
    osr = next((osr for osr in osrs if osr.name == (region or osrs[0].name)), None)
    if osr is None:
        raise InputError(f"{run.path}: no OSR '{region}'; there are {', '.join(osr.name for osr in osrs)}")
    rtts = {
        entry["point"]: entry["rtt_asked_ms"].get(osr.name, 0.0) for entry in run.points() if entry["status"] == "done"
    }
    if point is not None and point not in rtts:
        raise InputError(f"{run.path}: no point '{point}' that is done; there are {', '.join(rtts) or 'none'}")
    comes = comes_from(osr, regions)
    best: list[dict[str, Any]] = []
    for name in [point] if point else rtts:
        rows = _rows(run, name, admin)
        own_rows = [row for row in rows if comes(row["source"])]
        if len(own_rows) > len(best):
            best, chosen = own_rows, name
    requests = _requests(best)
    if not requests:
        raise InputError(f"{run.path}: its access logs have no request of {osr.name} to the Keystone of {admin}")
    first, last = min(row["start_ns"] for row in best), max(row["end_ns"] for row in best)
    release = str(provenance.get("release", ""))
    seconds = max(1.0, round((last - first) / 1e9, 3))
    left_out = len(best) - len(requests)
    return Traffic(run.name, release, osr.name, chosen, float(rtts[chosen]), seconds, left_out, tuple(requests))


def _rows(run: RunFolder, point: str, admin: str) -> list[dict[str, Any]]:
    """What was logged at the Keystone of ``admin``, by start; nothing where no log was kept."""
    path = run.path / "tools" / LOGS / f"{point}.parquet"
    if not path.exists():
        return []
    try:
        rows = pq.read_table(path, columns=_LOG).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}; name another --point") from None
    keystone_rows = [row for row in rows if row["region"] == admin and row["front"].startswith("keystone")]
    return sorted(keystone_rows, key=lambda one: one["start_ns"])


def _kind(row: dict[str, Any]) -> str | None:
    """What can be replayed of a row of the log; None: nothing."""
    if row["status"] >= 400:
        return None
    if row["path"].rstrip("/") == _TOKENS:
        if row["method"] == "POST":
            return ISSUE if row["issued"] else None
        return VALIDATE if row["method"] == "GET" and row["auth"] and row["subject"] else None
    return VERSIONS if row["method"] == "GET" and row["path"].rstrip("/") in ("", "/v3") else None


def _requests(rows: Iterable[dict[str, Any]]) -> list[Request]:
    """The requests of one region, by start, with numbers for connections and tokens."""
    tokens: dict[str, int] = {}
    connections: dict[tuple[str, int], tuple[int, bool]] = {}
    number, requests, first = 0, [], None
    for row in rows:
        first = row["start_ns"] if first is None else first
        end = (row["source"], row["port"])
        if row["new"] or end not in connections:
            connections[end] = (number, not row["new"])
            number += 1
        kind = _kind(row)
        if kind is None:
            continue

        def known(token: str) -> int | None:
            return tokens.setdefault(token, len(tokens)) if token else None

        issued = known(row["issued"]) if kind == ISSUE else None
        auth, subject = (known(row["auth"]), known(row["subject"])) if kind == VALIDATE else (None, None)
        at_us = (row["start_ns"] - first) // 1000
        requests.append(Request(at_us, *connections[end], kind, auth, subject, issued, row["bytes"], row["service_ms"]))
    return requests


def write(traffic: Traffic, path: Path) -> None:
    """Write ``traffic`` as a Parquet file, whose metadata says all else of it; one that is there stays until then."""
    table = pa.Table.from_pylist([asdict(request) for request in traffic.requests], _COLUMNS)
    about = json.dumps({"version": VERSION, **traffic.about()}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replaced(path) as new:
        pq.write_table(table.replace_schema_metadata({_KEY: about}), new)


def read(path: Path) -> Traffic:
    """The file at ``path``. Raises InputError for one that is missing, no such file, or of another version."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; 'mrkolla traffic record RUN -o {path}' makes one") from None
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: no traffic file: {str(error).splitlines()[0]}") from None
    try:
        about = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    except ValueError:
        about = {}
    if "version" not in about:
        raise InputError(f"{path}: no traffic file: 'mrkolla traffic record RUN -o FILE' makes one")
    if (version := about.pop("version")) != VERSION:
        raise InputError(f"{path}: a traffic file of version {version}, and this is of {VERSION}: record it anew")
    try:
        return Traffic(**about, requests=tuple(Request(**row) for row in table.to_pylist()))
    except TypeError:
        raise InputError(f"{path}: has not what a traffic file of version {VERSION} has: record it anew") from None


__all__ = ["ISSUE", "KINDS", "VALIDATE", "VERSIONS", "Request", "Traffic", "read", "record", "write"]
