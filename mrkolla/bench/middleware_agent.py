"""The middleware probe's far end: API calls to a region's services with their token cache in a known state.

This one file is sent over standard input to a Python that has keystoneauth1, on the region's control host, so it
imports nothing of mrkolla. It prints a JSON line for each call at once, and ends when its standard input does.

One round makes each call in each state once, in a seeded random order:

- ``cold``: the cache (memcached) is emptied, and the call made with a token that the service saw in the round before;
- ``warm``: the call is made twice with that token, and the second is the sample;
- ``fresh``: the call is made with a token that was issued just before and that no service has seen.

What prepares a call (emptying, the first of two calls, issuing) is not timed, and not in its sample's time.
"""

import hashlib
import json
import os
import random
import signal
import socket
import sys
import threading
import time

CALLS = {
    "nova_list": ("compute", "/v2.1", "/servers?limit=1"),
    "neutron_list": ("network", "/v2.0", "/networks?limit=1"),
    "glance_list": ("image", "/v2", "/images?limit=1"),
}
STATES = ("cold", "warm", "fresh")
AGENT = "mrkolla-middleware"


class Trouble(Exception):
    """Something that ends the run, in one line."""


def empty_cache(addresses, timeout):
    """Empty the memcached servers at ``addresses`` (a list of [address, port]); Trouble when one does not."""
    for address, port in addresses:
        try:
            with socket.create_connection((address, port), timeout=timeout) as connection:
                connection.sendall(b"flush_all\r\n")
                answer = connection.recv(100)
        except OSError as error:
            raise Trouble(f"memcached at {address}:{port} cannot be emptied: {error}") from error
        if answer.strip() != b"OK":
            raise Trouble(f"memcached at {address}:{port} was not emptied: {answer[:60]!r}")


def trusted(ca):
    """What keystoneauth verifies https by: the certificates ``ca`` (PEM), or with None those of the host."""
    if ca is None:
        return True
    descriptor = os.memfd_create("ca")  # a file that goes with this process, however that ends
    with open(descriptor, "w", closefd=False) as file:
        file.write(ca)
    return f"/proc/{os.getpid()}/fd/{descriptor}"


class Client:
    """Tokens and calls, each service on a kept connection of its own, as a client of its API has it."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.auth = parameters["auth"]
        self.trusted = trusted(parameters.get("ca"))
        identity = parameters["urls"]["identity"].rstrip("/")
        self.identity = identity if identity.endswith("/v3") else identity + "/v3"
        self.urls = {}
        for name in parameters["operations"]:
            service, version, path = CALLS[name]
            url = parameters["urls"][service].rstrip("/")
            self.urls[name] = (url if url.endswith(version) else url + version) + path
        self.sessions = {name: self._session() for name in self.urls}
        self.known = {}
        self.used = []

    def _session(self, auth=None):
        import requests
        from keystoneauth1 import session

        http = requests.Session()
        # A proxy or a .netrc of the host would put something else in the way than the link.
        http.trust_env = False
        return session.Session(
            auth=auth, session=http, timeout=self.parameters["timeout_s"], app_name=AGENT, verify=self.trusted
        )

    def new_token(self):
        """A token that no service has seen."""
        from keystoneauth1.identity import v3

        names = ("username", "password", "project_name", "user_domain_name", "project_domain_name")
        token = self._session(
            v3.Password(auth_url=self.identity, **{name: self.auth[name] for name in names})
        ).get_token()
        self.used = [*self.used[-20:], token]
        return token

    def token(self, name, state):
        """The token that the call ``name`` is made with in ``state``."""
        if state == "fresh":
            return self.new_token()
        # Each service has a token of its own: they share one cache.
        if name not in self.known:
            self.known[name] = self.new_token()
        return self.known[name]

    def call(self, name, token):
        """Make the call ``name`` with ``token``; raises what keystoneauth1 raises."""
        self.sessions[name].get(self.urls[name], headers={"X-Auth-Token": token}, authenticated=False, log=False)

    def secrets(self):
        """What must never be printed."""
        return [self.auth["password"], *self.used, *self.known.values()]


def say(line):
    """Print one JSON line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def describe(error, secrets):
    """An exception in one short line: its class and message, without a token or the password."""
    text = " ".join(str(error).split())
    for secret in secrets:
        text = text.replace(secret, "***")
    return f"{type(error).__name__}: {text[:160]}"


def sample(client, name, state):
    """Bring the cache into ``state``, make the call, and return its line."""
    line = {"op": name, "state": state, "start_ns": time.time_ns(), "duration_s": None, "token": None, "error": None}
    try:
        token = client.token(name, state)
        line["token"] = hashlib.sha1(token.encode(), usedforsecurity=False).hexdigest()
        if state == "cold":
            empty_cache(client.parameters["memcached"], client.parameters["timeout_s"])
        elif state == "warm":
            client.call(name, token)
    except Trouble:
        raise
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is the sample's error
        line["error"] = "before the call: " + describe(error, client.secrets())
        return line
    line["start_ns"] = time.time_ns()
    before = time.perf_counter()
    try:
        client.call(name, token)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in an operation is what is measured here
        line["error"] = describe(error, client.secrets())
    line["duration_s"] = time.perf_counter() - before
    return line


def versions():
    """Versions of what takes part here."""
    from importlib import metadata

    numbers = {"python": sys.version.split()[0]}
    for name in ("keystoneauth1", "requests", "urllib3"):
        numbers[name] = metadata.version(name)
    return numbers


def watch_parent(stop):
    """Stop when standard input ends: after the request that is under way, or in the midst of it 10 s later."""
    while os.read(0, 4096):
        pass
    stop.set()
    time.sleep(10)
    os._exit(3)  # a request that hangs is in another thread, which does not end


def main(parameters):
    """Run the rounds that ``parameters`` ask for; returns the exit status."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    threading.Thread(target=watch_parent, args=(stop,), daemon=True).start()
    say({"hello": versions()})
    client = Client(parameters)
    deadline = time.monotonic() + parameters["deadline_s"]
    try:
        if "cold" in parameters["states"]:
            empty_cache(parameters["memcached"], parameters["timeout_s"])
        for name in parameters["operations"]:
            client.token(name, "warm")
    except Exception as error:  # noqa: BLE001 - told to the caller, who ends the point
        say({"fatal": describe(error, client.secrets())})
        return 1
    idle = time.time_ns()
    stop.wait(parameters["idle_s"])
    say({"idle": [idle, time.time_ns()]})
    rng = random.Random(parameters["seed"])
    total = parameters["warmup"] + parameters["samples"]
    for iteration in range(total):
        order = [(name, state) for name in parameters["operations"] for state in parameters["states"]]
        rng.shuffle(order)
        for name, state in order:
            if stop.is_set() or time.monotonic() > deadline:
                say({"end": "stopped" if stop.is_set() else "deadline", "rounds": iteration})
                return 2
            try:
                line = sample(client, name, state)
            except Trouble as trouble:
                say({"fatal": str(trouble)})
                return 1
            say({**line, "iteration": iteration, "warmup": iteration < parameters["warmup"]})
        say({"round": iteration + 1})
    say({"end": "complete", "rounds": total})
    return 0
