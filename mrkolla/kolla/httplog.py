"""HAProxy's access log: one line for each HTTP request, sent to a receiver on HAProxy's own host.

Kolla's variable ``haproxy_frontend_http_extra`` puts :func:`frontend_lines` into every HTTP frontend of a region. The
lines add a log target on the loopback address (with no receiver there, HAProxy sends into nothing) and a format that
one can read by name. Tokens are never logged: their SHA-1, cut to 64 bits, tells them apart, so that a validation can
be led back to the request that brought the token. What Kolla itself collects with fluentd gets the same format.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from urllib.parse import unquote

PORT = 5149
MARK = "mrkolla1"
_DIGITS = 16
_TOKEN = f"sha1,hex,bytes(0,{_DIGITS})"

#: What is kept of a request until its line is written: variable -> (rule, sample, condition).
_KEPT = {
    "at": ("http-request", "date(0,us)", ""),
    "new": ("http-request", "int(1)", " if { http_first_req }"),
    "agent": ("http-request", "req.hdr(user-agent),bytes(0,96),url_enc", ""),
    "asked": ("http-request", "req.hdr(x-openstack-request-id),bytes(0,48),url_enc", ""),
    "auth": ("http-request", f"req.hdr(x-auth-token),{_TOKEN}", " if { req.hdr(x-auth-token) -m found }"),
    "subject": ("http-request", f"req.hdr(x-subject-token),{_TOKEN}", " if { req.hdr(x-subject-token) -m found }"),
    "issued": ("http-response", f"res.hdr(x-subject-token),{_TOKEN}", " if { res.hdr(x-subject-token) -m found }"),
    "id": ("http-response", "res.hdr(x-openstack-request-id),bytes(0,48),url_enc", ""),
}

#: The line: name -> what HAProxy writes. The path comes last: it alone may be long, and may be cut.
_FIELDS = {
    "at": "%[var(txn.mrk_at)]",
    "end": "%[date(0,us)]",
    "src": "%ci:%cp",
    "new": "%[var(txn.mrk_new)]",
    "tls": "%[ssl_fc]",
    "front": "%f",
    "server": "%s",
    "status": "%ST",
    "state": "%ts",
    "handshake": "%Th",
    "idle": "%Ti",
    "receive": "%TR",
    "queue": "%Tw",
    "connect": "%Tc",
    "service": "%Tr",
    "bytes": "%B",
    **{name: f"%[var(txn.mrk_{name})]" for name in ("agent", "auth", "subject", "issued", "asked", "id")},
    "method": "%HM",
    "path": "%HP",
}


def frontend_lines(*, keep_alive: bool = True) -> list[str]:
    """The lines of each HTTP frontend. Without ``keep_alive`` HAProxy closes a connection after each response."""
    lines = [
        # A value of the variable replaces Kolla's own two lines. One is kept; its log line gives way to the one below.
        "option forwardfor",
        f"log 127.0.0.1:{PORT} len 2048 format raw local1 info",
    ]
    for name, (rule, sample, condition) in _KEPT.items():
        lines.append(f"{rule} set-var(txn.mrk_{name}) {sample}{condition}")
    fields = " ".join(f"{name}={expression}" for name, expression in _FIELDS.items())
    lines.append(f'log-format "{MARK} {fields}"')
    if not keep_alive:
        lines.append(CLOSE)
    return lines


#: HAProxy's option that ends a connection with its first response.
CLOSE = "option httpclose"


def token_digest(token: str) -> str:
    """How ``token`` is named in the log."""
    return hashlib.sha1(token.encode(), usedforsecurity=False).hexdigest()[:_DIGITS].upper()


@dataclass(frozen=True, slots=True)
class Request:
    """One request as HAProxy saw it.

    Times are of HAProxy's host, in ns since 1970 (UTC): ``start_ns`` when its first byte came, ``end_ns`` when the last
    of its response was sent on. In whole ms (None: not so far): ``service_ms`` is what the server behind took,
    ``handshake_ms`` what TLS and the like took on a new connection, ``queue_ms`` and ``connect_ms`` what the request
    waited for a free server and for a connection to it. ``auth``, ``subject`` and ``issued`` are :func:`token_digest`
    of the token that the request came with, that it asks about, and that its response brought.
    ``asked`` is the request id that came with the request, ``id`` the one in the response. "" means: none. ``sent_ns``
    and ``got_ns`` are of the host that asked, where that was seen: when the request's first byte left it (on a new
    connection: when it began to connect), and when the last of the response was there.
    """

    start_ns: int
    end_ns: int
    source: str
    port: int
    new: bool
    tls: bool
    front: str
    server: str
    status: int
    state: str
    handshake_ms: int | None
    service_ms: int | None
    bytes: int
    agent: str
    auth: str
    subject: str
    issued: str
    asked: str
    id: str
    method: str
    path: str
    queue_ms: int | None = None
    connect_ms: int | None = None
    sent_ns: int | None = None
    got_ns: int | None = None

    @property
    def connection(self) -> tuple[str, int]:
        """The client's end of the connection: address and port."""
        return self.source, self.port

    def is_keystone(self) -> bool:
        """Whether a frontend of Keystone took it."""
        return self.front.startswith("keystone")


def parse(line: str) -> Request:
    """The request that ``line`` is about; raises ValueError for a line that is not (wholly) one of ours."""
    words = line.strip().split(" ")
    if words[0] != MARK:
        raise ValueError(f"not a line of the access log: {line[:80]!r}")
    values = dict(word.partition("=")[::2] for word in words[1:])
    if missing := [name for name in _FIELDS if name not in values]:
        raise ValueError(f"a line of the access log without {', '.join(missing)}: {line[:80]!r}")
    fields = {name: "" if value == "-" else value for name, value in values.items()}
    source, _, port = fields["src"].rpartition(":")
    # Before its rules are reached (a request that cannot be read) there is no time but that of the end.
    end = int(fields["end"]) * 1000
    at = int(fields["at"] or fields["end"]) * 1000
    return Request(
        start_ns=at - 1_000_000 * max(0, int(fields["receive"] or 0)),
        end_ns=end,
        source=source,
        port=int(port or 0),
        new=fields["new"] == "1",
        tls=fields["tls"] == "1",
        front=fields["front"].rstrip("~"),
        server=fields["server"],
        status=int(fields["status"]),
        state=fields["state"],
        handshake_ms=_ms(fields["handshake"]),
        service_ms=_ms(fields["service"]),
        bytes=int(fields["bytes"].lstrip("+") or 0),
        agent=unquote(fields["agent"]),
        auth=fields["auth"],
        subject=fields["subject"],
        issued=fields["issued"],
        asked=unquote(fields["asked"]),
        id=unquote(fields["id"]),
        method=fields["method"],
        path=fields["path"],
        queue_ms=_ms(fields["queue"]),
        connect_ms=_ms(fields["connect"]),
    )


def _ms(text: str) -> int | None:
    number = int(text or -1)
    return None if number < 0 else number


__all__ = ["CLOSE", "PORT", "Request", "frontend_lines", "parse", "token_digest"]
