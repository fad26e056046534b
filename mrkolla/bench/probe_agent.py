"""The probe's far end: times single OpenStack operations on a region's control host.

This one file is sent over standard input to a Python that has keystoneauth1, so it imports nothing of mrkolla. It
prints a JSON line for each operation at once, so that a run that is killed keeps what it had, and one line at its end.
It ends when its standard input does: a dead parent leaves no load behind.

One round does each operation of OPERATIONS once, in a seeded random order in which a token is issued before it is
used. The Glance call and the Neutron call of a round use different tokens: both services share one token cache (same
memcached, same key), so a token that one of them has seen is not fresh for the other.
"""

import atexit
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time

ISSUE_NEW = "token_issue_new_connection"
ISSUE_KEPT = "token_issue_kept_connection"
VALIDATE = "token_validate"
GLANCE_FRESH = "glance_fresh_token"
GLANCE_CACHED = "glance_cached_token"
NEUTRON_FRESH = "neutron_fresh_token"
NEUTRON_CACHED = "neutron_cached_token"
OPERATIONS = (ISSUE_NEW, ISSUE_KEPT, VALIDATE, GLANCE_FRESH, GLANCE_CACHED, NEUTRON_FRESH, NEUTRON_CACHED)
KEYSTONE_OPERATIONS = (ISSUE_NEW, ISSUE_KEPT, VALIDATE)


def plan_round(rng, wanted=OPERATIONS):
    """One round: (operations in order, the issue operation whose token Glance gets, the one Neutron gets).

    The order holds ``wanted`` and what those need.
    """
    sources = [ISSUE_NEW, ISSUE_KEPT]
    rng.shuffle(sources)
    needs = {
        GLANCE_FRESH: sources[0],
        GLANCE_CACHED: GLANCE_FRESH,
        NEUTRON_FRESH: sources[1],
        NEUTRON_CACHED: NEUTRON_FRESH,
    }
    taking = set()
    for name in wanted:
        needed = name
        while needed is not None:
            taking.add(needed)
            needed = needs.get(needed)
    waiting, order = [name for name in OPERATIONS if name in taking], []
    while waiting:
        ready = [name for name in waiting if needs.get(name) not in waiting]
        name = rng.choice(ready)
        waiting.remove(name)
        order.append(name)
    return order, sources[0], sources[1]


class Counter:
    """Connections opened and requests sent by this process, counted where urllib3 does both."""

    def __init__(self):
        self.connections = 0
        self.requests = 0

    def install(self):
        """Count from now on, for http and https alike."""
        from urllib3.connection import HTTPConnection, HTTPSConnection

        for cls in (HTTPConnection, HTTPSConnection):
            for method, field in (("_new_conn", "connections"), ("request", "requests")):
                # What HTTPSConnection inherits is counted already.
                if method in vars(cls):
                    setattr(cls, method, self._counting(getattr(cls, method), field))

    def _counting(self, original, field):
        def counted(*arguments, **keywords):
            setattr(self, field, getattr(self, field) + 1)
            return original(*arguments, **keywords)

        return counted


def trusted(ca):
    """What keystoneauth verifies https by: the certificates ``ca`` (PEM), or with None those of the host."""
    if ca is None:
        return True
    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
        file.write(ca)
    atexit.register(os.unlink, file.name)
    return file.name


class Client:
    """The operations, each one call of keystoneauth1 on a connection that is new or kept as its name says."""

    def __init__(self, parameters):
        self.auth = parameters["auth"]
        self.trusted = trusted(parameters.get("ca"))
        self.timeout = parameters["timeout_s"]
        identity = parameters["urls"]["identity"].rstrip("/")
        self.identity = identity if identity.endswith("/v3") else identity + "/v3"
        self.glance_url = _versioned(parameters["urls"]["image"], "/v2") + "/images?limit=1"
        self.neutron_url = _versioned(parameters["urls"]["network"], "/v2.0") + "/networks?limit=1"
        self.kept = self._session(self._password())
        self.glance = self._session()
        self.neutron = self._session()
        self.kept_token = None
        self.tokens = {}

    def _password(self):
        from keystoneauth1.identity import v3

        names = ("username", "password", "project_name", "user_domain_name", "project_domain_name")
        return v3.Password(auth_url=self.identity, **{name: self.auth[name] for name in names})

    def _session(self, auth=None):
        import requests
        from keystoneauth1 import session

        http = requests.Session()
        # A proxy or a .netrc of the host would put something else in the way than the link.
        http.trust_env = False
        return session.Session(
            auth=auth, session=http, timeout=self.timeout, app_name="mrkolla-probe", verify=self.trusted
        )

    def connect(self):
        """Get the kept session its first token; raises keystoneauth1's exceptions."""
        self.kept_token = self.kept.get_token()

    def start_round(self):
        """Forget the tokens of the round before."""
        self.tokens = {}

    def operation(self, name, glance_source, neutron_source):
        """The call to time for ``name``, or None when the token that it needs was not issued."""
        if name == ISSUE_NEW:
            fresh = self._session(self._password())
            return lambda: self._issued(ISSUE_NEW, fresh)
        if name == ISSUE_KEPT:
            self.kept.invalidate()
            return lambda: self._issued(ISSUE_KEPT, self.kept)
        if name == VALIDATE:
            return self._validation()
        if name in (GLANCE_FRESH, GLANCE_CACHED):
            return self._read(self.glance, self.glance_url, self.tokens.get(glance_source))
        return self._read(self.neutron, self.neutron_url, self.tokens.get(neutron_source))

    def _issued(self, name, session):
        token = session.get_token()
        self.tokens[name] = token
        if name == ISSUE_KEPT:
            self.kept_token = token

    def _validation(self):
        token = self.kept_token
        if token is None:
            return None
        headers = {"X-Auth-Token": token, "X-Subject-Token": token}
        url = self.identity + "/auth/tokens"
        return lambda: self.kept.get(url, headers=headers, authenticated=False, log=False)

    def _read(self, session, url, token):
        if token is None:
            return None
        return lambda: session.get(url, headers={"X-Auth-Token": token}, authenticated=False, log=False)

    def secrets(self):
        """What must never be printed."""
        return [value for value in (self.auth["password"], self.kept_token, *self.tokens.values()) if value]


def _versioned(url, version):
    url = url.rstrip("/")
    return url if url.endswith(version) else url + version


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


def measure(client, counter, name, call):
    """Run ``call`` and return its sample; an exception is the sample's error, and its duration counts too."""
    if call is None:
        error = "NoToken: the token that this operation needs was not issued"
        return {"op": name, "start_ns": time.time_ns(), "duration_s": None, "error": error, "req": 0, "conn": 0}
    error = None
    connections, requests = counter.connections, counter.requests
    start = time.time_ns()
    before = time.perf_counter()
    try:
        call()
    except Exception as failed:  # noqa: BLE001 - whatever goes wrong in an operation is what is measured here
        duration = time.perf_counter() - before
        error = describe(failed, client.secrets())
    else:
        duration = time.perf_counter() - before
    sample = {"op": name, "start_ns": start, "duration_s": duration, "error": error}
    sample["req"] = counter.requests - requests
    sample["conn"] = counter.connections - connections
    return sample


def first_token(client, stop):
    """Connect the kept session, with two more tries; returns None, or the last error's description."""
    error = None
    for _ in range(3):
        try:
            client.connect()
            return None
        except Exception as failed:  # noqa: BLE001 - told to the caller, who decides
            error = describe(failed, client.secrets())
        if stop.wait(1):
            break
    return error


def versions():
    """Versions of what takes part in each operation."""
    from importlib import metadata

    found = {"python": sys.version.split()[0]}
    for name in ("keystoneauth1", "requests", "urllib3", "openstacksdk"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def watch_parent(stop):
    """Stop when standard input ends, at the latest 10 s after the request that is under way could be left."""
    # Not sys.stdin: a thread that waits in its lock makes Python abort at its end.
    while os.read(0, 4096):
        pass
    stop.set()
    time.sleep(10)
    os._exit(3)


def main(parameters):
    """Run the rounds that ``parameters`` ask for; returns the exit status."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    threading.Thread(target=watch_parent, args=(stop,), daemon=True).start()
    counter = Counter()
    counter.install()
    client = Client(parameters)
    deadline = time.monotonic() + parameters["deadline_s"]
    say({"hello": versions()})
    error = first_token(client, stop)
    if error:
        say({"fatal": "no first token: " + error})
        return 1
    rng = random.Random(parameters["seed"])
    total, done, wanted = parameters["warmup"] + parameters["samples"], 0, parameters["operations"]
    for iteration in range(total):
        client.start_round()
        order, glance_source, neutron_source = plan_round(rng, wanted)
        for name in order:
            if stop.is_set() or time.monotonic() > deadline:
                say({"end": "stopped" if stop.is_set() else "deadline", "rounds": done})
                return 2
            sample = measure(client, counter, name, client.operation(name, glance_source, neutron_source))
            sample["iteration"] = iteration
            sample["warmup"] = iteration < parameters["warmup"]
            if name in wanted:
                say(sample)
        done += 1
    say({"end": "complete", "rounds": done})
    return 0
