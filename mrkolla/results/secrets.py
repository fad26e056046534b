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

from mrkolla.base.errors import CheckError, InputError
from mrkolla.results import parquet

SHORTEST = 6  # a shorter value is in any text by chance
_CHUNK, _TAIL = 8 * 2**20, 4096


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
    return Blanks(secrets).known(text.encode(errors="surrogatepass")).decode(errors="surrogatepass")


def _parquet_text(path: Path) -> Iterator[bytes]:
    """The text in a Parquet file, whose pages are compressed. Raises InputError when it cannot be read."""
    file_schema = parquet.need_bounded(path)
    names = [field.name for field in file_schema if parquet.is_text(field.type)]
    yield str(file_schema.metadata).encode()
    try:
        with pq.ParquetFile(path, read_dictionary=names) as file:
            for group in range(file.num_row_groups):
                for column in file.read_row_group(group, columns=names).columns:
                    yield "\n".join(str(v) for v in column.unique().to_pylist()).encode()
    except (OSError, pa.ArrowException) as error:
        raise parquet.unreadable(path, error) from error


def _contents(path: Path) -> Iterator[bytes]:
    """What a file says, in pieces, unpacked where it is packed."""
    if path.suffix == ".parquet":
        with contextlib.suppress(InputError):  # a half-written one: its bytes are read below
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
        tail = chunk[-_TAIL:]  # a secret across two chunks


def assert_no_secrets(
    folder: Path | str,
    secrets: Iterable[str | None],
    *,
    only: Iterable[str] | None = None,
    of: Path | None = None,
    without: str | None = None,
) -> Scan:
    """Read every file of a folder (or ``only`` those, by name), and its name, and refuse one that holds a secret.

    ``of`` is the folder to name where ``folder`` is a copy of it; ``without`` is a folder in it that is left alone.
    Null and empty secrets are skipped; those shorter than :data:`SHORTEST` characters are skipped and counted.

    Raises:
        CheckError: names each file (never the secret).
    """
    folder = Path(folder)
    values = {str(s) for s in secrets if s}
    long = {s for s in values if len(s.strip()) >= SHORTEST}
    forms = {form for secret in long for form in _forms(secret)}
    leaks, count = [], 0
    for path in sorted(folder.rglob("*") if only is None else (folder / name for name in only)):
        within = path.relative_to(folder)
        if not path.is_file() or within.parts[0] == without:
            continue
        count += 1
        name = str(within)
        if any(f in name.encode() for f in forms) or any(f in data for data in _contents(path) for f in forms):
            leaks.append(redact(name, long))
    if leaks:
        raise CheckError(
            f"{of or folder}: a secret stands in {', '.join(leaks[:5])}{' and more' if len(leaks) > 5 else ''}: "
            "do not share this folder; delete the file or blank the value"
        )
    return Scan(count, len(long), len(values) - len(long))


# What looks like a secret whose value nobody told us. A password that is a template, a shell's variable, blank or
# starred is none; a literal may begin as these do.
_VARIABLE = rb"\$(?:[{(]|(?-i:[A-Z_][A-Z0-9_]*|[a-z_]+)(?!\w)|\d(?![\w$]))"
_WORD = rb"(?:null|none|true|false|yes|no|on|off|~)[\"']?\s*(?:$|[\s,)}\]#;])"
_LITERAL = rb"(?![\"']?(?:[{*<]|" + _VARIABLE + rb"|" + _WORD + rb"))[\"']?"
_END = rb"(?=[\"']?\s*(?:$|[,}\]#;&]))"
_SUSPECTS = (
    ("a private key", re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    # Fernet's version, and then a time after 2004.
    ("a Keystone token", re.compile(rb"gAAAAAB[\w-]{60,}")),
    ("a Keystone token", re.compile(rb"X-(?:Auth|Subject)-Token[\"']?\s*[:=]\s*[\"']?[\w-]{20,}", re.IGNORECASE)),
    # Words of a sentence have no digit, or are no longer than this.
    (
        "a bearer token",
        re.compile(
            rb"\b(?:bearer|basic)\s+(?=[\w.~+/-]*\d)[\w.~+/-]{16,}|\bbearer\s+[\w.~+/-]{20,}"
            rb"|\bauthorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic)\s+(?![{*<$])[\w.~+/-]{4,}",
            re.IGNORECASE,
        ),
    ),
    # Amazon's, Google's, GitHub's, GitLab's, Slack's, and anybody's JSON Web Tokens.
    (
        "a cloud's key",
        re.compile(
            rb"\b(?:A(?:KI|SI)A[0-9A-Z]{16}|AIza[\w-]{35}|gh[pousr]_\w{36,}|github_pat_\w{22,}"
            rb"|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,})\b"
        ),
    ),
    ("a token", re.compile(rb"(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")),
    (
        "a password in a command",
        re.compile(
            rb"\b(?:curl|wget|http)\b.{0,400}?[\s\"'](?:-u|--user|--proxy-user)"
            rb"[\s=\"',]*[^\s:\"'{*<$]*:" + _LITERAL + rb"[^\s\"']+"
        ),
    ),
    # -pX is MySQL's; ssh's and others' -p has a number.
    (
        "a password in a command",
        re.compile(
            rb"\b(?:mysql|mariadb|mysqldump|mariadb-\w+|mysqladmin|sshpass)\b.{0,400}?[\s\"']-p(?!\s)"
            + _LITERAL + rb"[^\s\"']+"
        ),
    ),
    (
        "a password in a command",
        re.compile(rb"\b(?:docker|podman|skopeo|buildah|crane|helm)\b.{0,400}?\blogin\b.{0,400}?[\s\"']-p[\s=\"',]*"
                   + _LITERAL + rb"[^\s\"'-][^\s\"']*"),
    ),
    (
        "a password in a command",
        re.compile(rb"\s--password(?:=|\s+(?!-)(?=[^\s\"',\]]{6,}|[^\s\d]*\d))" + _LITERAL + rb"[^\s\"',\]]+"),
    ),
    ("a URL with a password", re.compile(rb"[a-z]{2,10}://[\w.%~-]*:" + _LITERAL + rb"[^\s/@\"']+@[\w.\[-]")),
    # A short value, or one of a key that sentences have too, is one when nothing follows it.
    (
        "a password",
        re.compile(
            rb"(?:passw(?:or)?d|_pass|passphrase|secret|secret_key|secret_access_key|api_key|auth_key|account_?key"
            rb"|access_token|auth_token|private_token)[\"']?\s*[:=]\s*" + _LITERAL
            + rb"(?:[^\s\"',}\]]{6,}|[^\s\"',}\]]+" + _END + rb")",
            re.IGNORECASE,
        ),
    ),
    (
        "a password or a token",
        re.compile(
            rb"(?<![^\W_])(?:pass|token)[\"']?\s*[:=]\s*" + _LITERAL + rb"[^\s\"',}\]&]{6,}" + _END, re.IGNORECASE
        ),
    ),
)  # fmt: skip
_CODE = (".html", ".js", ".svg")  # there "password = something" is a line of a program


# A key of a configuration file (or of JSON, or Python) whose value is a secret, whatever it is, and may be quoted.
_KEPT_SECRET = re.compile(
    rb"(?P<key>^\s*[\"']?[\w.-]*(?:passw(?:or)?d|passphrase|_pass|secret|secret_key|api_key|auth_key|private_key|psk|_token"
    rb"|erlang_cookie|sst_auth)[\"']?\s*[:=]\s*)(?P<quote>[\"']?)"
    rb"(?!(?:null|none|true|false|yes|no|on|off|~)(?P=quote),?\s*$)(?=[^\s\"'])(?:.*?)(?P<rest>(?P=quote),?\s*)$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(rb"(?P<user>(?:://|,)[\w.%~-]*:)[^\s/@\"',]+(?=@[\w.\[-])")
_TOKENS = [pattern for what, pattern in _SUSPECTS if "token" in what]


class Blanks:
    """Takes secrets out of texts: those that are told, in any form, and whatever looks like one."""

    def __init__(self, secrets: Iterable[str | None]) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))

    def known(self, data: bytes) -> bytes:
        """``data`` with ``***`` for each secret that was told."""
        for form in self._forms:
            data = data.replace(form, b"***")
        return data

    def line(self, line: bytes) -> bytes:
        """A line of a configuration or a log with ``***`` for what looks like a secret.

        A line that still looks like one after that is ``***`` as a whole.
        """
        line = _KEPT_SECRET.sub(rb"\g<key>\g<quote>***\g<rest>", line)
        line = _URL_PASSWORD.sub(rb"\g<user>***", line)
        for pattern in _TOKENS:
            line = pattern.sub(b"***", line)
        return b"***\n" if self.suspicious(line) else line

    @staticmethod
    def suspicious(line: bytes) -> bool:
        """Whether a line looks as if it held a secret, also where quotes stand behind a backslash."""
        plain = line.replace(b'\\"', b'"')
        return any(pattern.search(plain) for _, pattern in _SUSPECTS)


#: A PNG in a figure: in so many characters of a code some look like anything.
_PICTURE = re.compile(rb"iVBORw0KGgo[\w+/]+")


def suspects(path: Path) -> list[tuple[int, str]]:
    """What looks like a secret in a file: (line, what it looks like). Lines count from 1.

    In pages and scripts only private keys and tokens are looked for. Of a Parquet file the texts are read (line 0).
    """
    tests = [test for test in _SUSPECTS if path.suffix not in _CODE or test[0] in ("a private key", "a Keystone token")]
    if path.suffix == ".parquet":
        return [(0, what) for data in _parquet_text(path) for what, test in tests if test.search(data)]
    findings = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = _PICTURE.sub(b"", line)
            # JSON may be one line of many MB: piece by piece, each with the end of the one before.
            pieces = [text[max(0, at - _TAIL) : at + _CHUNK] for at in range(0, len(text), _CHUNK)]
            findings += [(number, what) for what, test in tests if any(map(test.search, pieces))]
    return findings
