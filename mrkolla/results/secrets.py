"""No secret leaves with a result: find secret values in a run folder, or blank them in a text."""

from __future__ import annotations

import base64
import contextlib
import gzip
import html
import io
import json
import re
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mrkolla.errors import CheckError

SHORTEST = 6  # a shorter value is in any text by chance
_CHUNK = 8 * 2**20


class Scan(NamedTuple):
    """What was looked at: files read, secrets looked for, and secrets too short to be looked for."""

    files: int
    secrets: int
    too_short: int


def _pieces(secret: str) -> set[str]:
    """The secret itself; of one with several lines (a private key) also each line that tells it apart."""
    lines = [line.strip() for line in secret.splitlines()]
    return {secret.strip(), *(line for line in lines if len(line) >= 20 and not line.startswith("-----"))}


def _forms(secret: str) -> set[bytes]:
    """The secret as it may stand in a file: plain, in JSON, HTML or a URL, in base64."""
    forms: set[str] = set()
    for piece in _pieces(secret):
        forms |= {piece, json.dumps(piece)[1:-1], html.escape(piece), urllib.parse.quote(piece, safe="")}
        forms.add(base64.b64encode(piece.encode()).decode().rstrip("="))
    return {form.encode() for form in forms if len(form) >= SHORTEST}


def redact(text: str, secrets: Iterable[str | None]) -> str:
    """``text`` with each secret of :data:`SHORTEST` characters or more, in any form, as ``***``."""
    forms = {form.decode() for secret in secrets if secret for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def _parquet_text(path: Path) -> Iterator[bytes]:
    # Pages are compressed: the strings must be read as such.
    with pq.ParquetFile(path) as file:
        yield str(file.schema_arrow.metadata).encode()
        names = [f.name for f in file.schema_arrow if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        for group in range(file.num_row_groups):
            for column in file.read_row_group(group, columns=names).columns:
                yield "\n".join(str(v) for v in column.unique().to_pylist()).encode()


def _contents(path: Path) -> Iterator[bytes]:
    """What a file says, in pieces, unpacked where it is packed."""
    if path.suffix == ".parquet":
        with contextlib.suppress(pa.ArrowInvalid):  # a half-written one: its bytes are read below
            yield from _parquet_text(path)
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield from _chunks(raw)
    if packed:
        try:
            with gzip.open(path) as stream:
                yield from _chunks(stream)
        except (OSError, EOFError, zlib.error):  # not gzip after all, or cut off: its bytes were read above
            return


def _chunks(stream: io.BufferedIOBase | gzip.GzipFile | io.BufferedReader) -> Iterator[bytes]:
    tail = b""
    while chunk := stream.read(_CHUNK):
        yield tail + chunk
        tail = chunk[-4096:]  # a secret across two chunks


def assert_no_secrets(folder: Path | str, secrets: Iterable[str | None], *, only: Iterable[str] | None = None) -> Scan:
    """Read every file of a folder (or ``only`` those, by name), and its name, and refuse one that holds a secret.

    Null and empty secrets are skipped; those shorter than :data:`SHORTEST` characters are skipped and counted.

    Raises:
        CheckError: names each file (never the secret).
    """
    folder = Path(folder)
    wanted = {str(s) for s in secrets if s}
    long = {s for s in wanted if len(s.strip()) >= SHORTEST}
    forms = {form for secret in long for form in _forms(secret)}
    found, count = [], 0
    for path in sorted(folder.rglob("*") if only is None else (folder / name for name in only)):
        if not path.is_file():
            continue
        count += 1
        name = str(path.relative_to(folder))
        if any(f in name.encode() for f in forms) or any(f in data for data in _contents(path) for f in forms):
            found.append(redact(name, long))
    if found:
        raise CheckError(
            f"{folder}: a secret stands in {', '.join(found[:5])}{' and more' if len(found) > 5 else ''}: "
            "do not share this folder; delete the file or blank the value"
        )
    return Scan(count, len(long), len(wanted) - len(long))


# What looks like a secret whose value nobody told us. A password that is a template, blank or starred is none.
_SUSPECTS = (
    ("a private key", re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("a Keystone token", re.compile(rb"gAAAAA[\w-]{60,}")),
    ("a Keystone token", re.compile(rb"X-(?:Auth|Subject)-Token[\"']?\s*[:=]\s*[\"']?[\w-]{20,}", re.IGNORECASE)),
    ("a URL with a password", re.compile(rb"[a-z]{2,10}://[\w.-]+:(?![{*<$])[^\s/@\"']{3,}@[\w.\[-]")),
    (
        "a password",
        re.compile(
            rb"(?:passw(?:or)?d|passphrase|secret|secret_key|api_key|auth_key)[\"']?\s*[:=]\s*"
            rb"(?![\"']?(?:\{|\*|<|\$|null\b|none\b|true\b|false\b|~))[\"']?[^\s\"',}\]]{6,}",
            re.IGNORECASE,
        ),
    ),
)
_CODE = (".html", ".js", ".svg")  # password = something there is a program's


def suspects(path: Path) -> list[tuple[int, str]]:
    """(line, what it looks like) of what looks like a secret in a text file; lines count from 1.

    Of pages and scripts only keys and tokens are told; of Parquet files the strings (line 0).
    """
    tests = [test for test in _SUSPECTS if path.suffix not in _CODE or test[0] in ("a private key", "a Keystone token")]
    if path.suffix == ".parquet":
        return [(0, what) for data in _parquet_text(path) for what, test in tests if test.search(data)]
    found = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            found += [(number, what) for what, test in tests if test.search(line[:_CHUNK])]
    return found
