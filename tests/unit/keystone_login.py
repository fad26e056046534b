"""A stand-in for Keystone on the loopback: its version and logins with one catalog, nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVICES = {"image": ["OSR1", "OSR2"], "volumev3": ["OSR1"], "identity": ["AR"]}


def entry(kind: str, regions: list[str]) -> dict:
    ends = [
        {"id": f"{kind}{region}{side}", "interface": side, "region": region, "region_id": region, "url": url}
        for region in regions
        for side, url in (("public", f"http://{region}/{kind}"), ("internal", f"http://inside/{kind}"))
    ]
    return {"type": kind, "name": kind, "id": kind, "endpoints": ends}


class Keystone(BaseHTTPRequestHandler):
    """Stands in for Keystone, as far as a login goes."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = asked["auth"]["identity"]["password"]["user"]["password"] == "secret"
        there = [entry(*one) for one in SERVICES.items()]
        token = {"expires_at": "2100-01-01T00:00:00Z", "issued_at": "2020-01-01T00:00:00Z", "methods": ["password"]}
        token |= {"user": {"id": "u", "name": "u", "domain": {"id": "d", "name": "D"}}, "catalog": there}
        self._say(
            *((201, {"token": token}) if good else (401, {"error": {"code": 401, "message": "no", "title": "no"}}))
        )

    def _say(self, status: int, content: dict) -> None:
        body = json.dumps(content)
        self.send_response(status)
        for name, value in (("X-Subject-Token", "t"), ("Content-Type", "application/json")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self) -> None:
        link = {"rel": "self", "href": f"http://{self.headers['Host']}/v3/"}
        self._say(200, {"version": {"id": "v3.14", "status": "stable", "links": [link], "media-types": []}})

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def keystone() -> Iterator[str]:
    """Its URL, without the version; the password is "secret"."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Keystone)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
