"""The lines of HAProxy's access log: what the plan puts in, and what is read out of them."""

from __future__ import annotations

import hashlib

import pytest

from mrkolla.kolla.httplog import CLOSE, MARK, PORT, frontend_lines, parse, token_digest

# As HAProxy 2.6 wrote them.
LINE = (
    "mrkolla1 at=1795387760142911 end=1795387760145600 src=198.19.161.11:51376 new=1 tls=0"
    " front=keystone_internal_front"
    " server=a status=200 state=-- handshake=0 idle=0 receive=2 queue=0 connect=1 service=2 bytes=166"
    " agent=foo%20%22x%22%20bar auth=7E240DE74FB1ED08 subject=81B167CFCB70825F issued=- asked=req-asked id=req-abc"
    " method=GET path=/v3/auth/tokens\n"
)
ABORTED = (
    "mrkolla1 at=- end=1795387760145600 src=198.19.161.11:51376 new=- tls=1 front=keystone_internal_front~"
    " server=<NOSRV> status=400 state=PR handshake=4 idle=-1 receive=-1 queue=-1 connect=-1 service=-1 bytes=+217"
    " agent=- auth=- subject=- issued=- asked=- id=- method=<BADREQ> path=-"
)


def test_a_line_is_read():
    one = parse(LINE)
    assert one.connection == ("198.19.161.11", 51376)
    assert (one.new, one.tls, one.status, one.method, one.path) == (True, False, 200, "GET", "/v3/auth/tokens")
    assert one.agent == 'foo "x" bar'
    assert (one.auth, one.subject, one.issued) == ("7E240DE74FB1ED08", "81B167CFCB70825F", "")
    assert (one.asked, one.id, one.service_ms, one.handshake_ms) == ("req-asked", "req-abc", 2, 0)
    # The first byte came 2 ms before the rules saw the whole request.
    assert one.start_ns == 1795387760140911 * 1000
    assert one.end_ns == 1795387760145600 * 1000
    assert one.is_keystone()


def test_what_could_not_be_read_as_a_request_is_a_line_too():
    one = parse(ABORTED)
    assert one.start_ns == one.end_ns == 1795387760145600 * 1000
    assert (one.service_ms, one.new, one.tls, one.front, one.bytes) == (
        None,
        False,
        True,
        "keystone_internal_front",
        217,
    )


@pytest.mark.parametrize("line", ["", "something else", LINE.replace(" path=/v3/auth/tokens\n", ""), LINE[:60]])
def test_other_lines_and_cut_ones_are_refused(line):
    with pytest.raises(ValueError, match="access log"):
        parse(line)


def test_a_long_path_may_be_cut():
    assert parse(LINE.rstrip()[:-4]).path == "/v3/auth/to"


def test_a_token_is_named_as_haproxy_names_it():
    assert token_digest("subj") == "81B167CFCB70825F"
    assert hashlib.sha1(b"subj").hexdigest()[:16].upper() == token_digest("subj")


def test_the_frontends_lines():
    lines = frontend_lines()
    assert "option forwardfor" in lines  # as Kolla has it
    assert CLOSE not in lines
    assert f"log 127.0.0.1:{PORT} len 2048 format raw local1 info" in lines
    assert lines[-1].startswith(f'log-format "{MARK} at=')
    # Ansible renders the value once more.
    assert not any(mark in line for line in lines for mark in ("{{", "{%", "{#"))
    assert frontend_lines(keep_alive=False) == [*lines, CLOSE]
