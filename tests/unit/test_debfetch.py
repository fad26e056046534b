"""Packages fetched many at once, by a resolver that now and then does not answer."""

from __future__ import annotations

import functools
import http.server
import socket
import threading

import pytest

from mrkolla.base import debfetch


@pytest.fixture
def mirror(tmp_path):
    """The URL of a server on loopback with the file ``a.deb``."""
    there = tmp_path / "mirror"
    there.mkdir()
    (there / "a.deb").write_text("a package")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *said: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(there)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def resolver(monkeypatch):
    """A resolver whose first answer is lost; the list has a line for each question."""
    ask, asked = socket.getaddrinfo, []

    def getaddrinfo(*args, **settings):
        asked.append(args)
        if len(asked) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ask(*args, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_lost_answer_costs_one_more_try_and_a_name_is_asked_once(mirror, resolver, tmp_path, capsys):
    debfetch.ask_names_once()
    for name in ("one.deb", "two.deb", "three.deb"):
        debfetch.get(f"{mirror}/a.deb", tmp_path / name)
        assert (tmp_path / name).read_text() == "a package"
    assert len(resolver) == 2
    assert capsys.readouterr().out == ""


def test_what_is_not_to_be_had_is_left_to_apt(mirror, tmp_path, capsys):
    debfetch.get(f"{mirror}/b.deb", tmp_path / "b.deb")
    assert not list(tmp_path.glob("b.deb*"))
    assert "left to apt: b.deb: HTTP Error 404" in capsys.readouterr().out
