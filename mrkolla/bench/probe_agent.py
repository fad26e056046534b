"""The probe's far end: times single OpenStack operations on a region's control host.

This one file is sent over standard input to a Python that has keystoneauth1, so it imports nothing of mrkolla. It
prints a JSON line for each operation at once, so that a run that is killed keeps what it had, and one line at its end.
It ends when its standard input does: a dead parent leaves no load behind. When its rounds are done it says so. Where
``others`` run beside it, it then goes on, unrecorded, until its standard input ends: so each has the same load beside
it throughout.

One round does each operation of OPERATIONS once, in a seeded random order in which a token is issued before it is
used. The Glance call and the Neutron call of a round use different tokens: both services share one token cache (same
memcached, same key), so a token that one of them has seen is not fresh for the other.

With a ``rate`` the loop is open: each operation is started so many times a second, at a random moment of its turn,
whether earlier ones were answered or not, in a thread of its own and with its own deadline. It ends as "done",
"refused" (with the HTTP status, where it has one) or "hung" at its deadline. Tokens for the calls with a fresh one are
issued before the load begins, so that there are some while Keystone cannot be reached.
"""

import contextlib
import heapq
import itertools
import json
import os
import queue
import random
import signal
import sys
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
NOVA_FRESH = "nova_fresh_token"
NOVA_CACHED = "nova_cached_token"
#: What a service is asked in the open loop: operation -> (service, whether with a token that it has not seen).
READS = {
    GLANCE_FRESH: ("image", True),
    GLANCE_CACHED: ("image", False),
    NEUTRON_FRESH: ("network", True),
    NEUTRON_CACHED: ("network", False),
    NOVA_FRESH: ("compute", True),
    NOVA_CACHED: ("compute", False),
}
OPEN_OPERATIONS = (*OPERATIONS, NOVA_FRESH, NOVA_CACHED)
DONE, REFUSED, HUNG = "done", "refused", "hung"
#: Tokens that are made beforehand at most, and operations that may be under way at most.
MOST_TOKENS, MOST_AT_ONCE = 5000, 1000


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
    operations = set()
    for name in wanted:
        operation = name
        while operation is not None:
            operations.add(operation)
            operation = needs.get(operation)
    waiting, order = [name for name in OPERATIONS if name in operations], []
    while waiting:
        ready = [name for name in waiting if needs.get(name) not in waiting]
        name = rng.choice(ready)
        waiting.remove(name)
        order.append(name)
    return order, sources[0], sources[1]


class Counter(threading.local):
    """Connections opened and requests sent by the thread that asks, counted where urllib3 does both."""

    def __init__(self):
        super().__init__()
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
    descriptor = os.memfd_create("ca")  # a file that goes with this process, however that ends
    with open(descriptor, "w", closefd=False) as file:
        file.write(ca)
    return f"/proc/{os.getpid()}/fd/{descriptor}"


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
            session = self._session(self._password())
            return lambda: self._issued(ISSUE_NEW, session)
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


def outcome_of(error):
    """(how an operation ended, its HTTP status or None), of the exception that it raised, or None."""
    if error is None:
        return DONE, None
    status = getattr(error, "http_status", None)
    if isinstance(status, int):
        return REFUSED, status
    # For a connection that was not made in time and for an answer that did not come, keystoneauth has these classes.
    hung = type(error).__name__ in ("ConnectTimeout", "ReadTimeout", "Timeout", "RequestTimeout")
    return (HUNG if hung else REFUSED), None


def describe(error, secrets):
    """An exception in one short line: its class and message, without a token or the password."""
    text = " ".join(str(error).split())
    for secret in secrets:
        text = text.replace(secret, "***")
    return f"{type(error).__name__}: {text[:160]}"


def measure(client, counter, name, call):
    """Run ``call`` and return its sample; an exception is the sample's error, and its duration counts too."""
    if call is None:
        description = "NoToken: the token that this operation needs was not issued"
        base = {"op": name, "start_ns": time.time_ns(), "duration_s": None, "error": description, "req": 0, "conn": 0}
        return dict(base, outcome=REFUSED, status=None)
    description, failure = None, None
    connections, requests = counter.connections, counter.requests
    start = time.time_ns()
    before = time.perf_counter()
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in an operation is what is measured here
        duration = time.perf_counter() - before
        description, failure = describe(error, client.secrets()), error
    else:
        duration = time.perf_counter() - before
    sample = {"op": name, "start_ns": start, "duration_s": duration, "error": description}
    sample["outcome"], sample["status"] = outcome_of(failure)
    sample["req"] = counter.requests - requests
    sample["conn"] = counter.connections - connections
    return sample


def first_token(client, stop):
    """Connect the kept session, with two more tries; returns None, or the last error's description."""
    description = None
    for _ in range(3):
        try:
            client.connect()
            return None
        except Exception as error:  # noqa: BLE001 - told to the caller, who decides
            description = describe(error, client.secrets())
        if stop.wait(1):
            break
    return description


def versions():
    """Versions of what takes part in each operation."""
    from importlib import metadata

    numbers = {"python": sys.version.split()[0]}
    for name in ("keystoneauth1", "requests", "urllib3", "openstacksdk"):
        try:
            numbers[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            numbers[name] = None
    return numbers


def watch_parent(stop, done, go):
    """Set ``go`` at the first word on standard input, and ``stop`` when that ends.

    What still runs 10 s later is ended in the midst of its request.

    Once ``done`` is set (all that was asked for is done), the process ends at once.
    """
    # Not sys.stdin: a thread that waits in its lock makes Python abort at its end.
    while os.read(0, 4096):
        go.set()
    if done.is_set():
        os._exit(0)
    stop.set()
    time.sleep(10)
    os._exit(0 if done.is_set() else 3)


class OpenClient:
    """The operations of the open loop; any number of them may be under way at once, each in its own thread."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.auth = parameters["auth"]
        self.trusted = trusted(parameters.get("ca"))
        # The deadline comes first, and says what is hung; a moment later the connection is given up.
        self.timeout = parameters["timeout_s"] + 0.5
        identity = parameters["urls"]["identity"].rstrip("/")
        self.identity = identity if identity.endswith("/v3") else identity + "/v3"
        versions = {"image": ("/v2", "/images?limit=1"), "network": ("/v2.0", "/networks?limit=1")}
        self.urls = {
            service: _versioned(parameters["urls"][service], version) + path
            for service, (version, path) in versions.items()
            if service in parameters["urls"]
        }
        if "compute" in parameters["urls"]:
            self.urls["compute"] = parameters["urls"]["compute"].rstrip("/") + "/servers?limit=1"
        self.kept = {name: self._http() for name in ("identity", *self.urls)}
        self.stock, self.token = [], None
        self.made = set()

    def _http(self):
        import requests
        from requests.adapters import HTTPAdapter

        http = requests.Session()
        http.trust_env = False
        for scheme in ("http://", "https://"):
            http.mount(scheme, HTTPAdapter(pool_maxsize=64))
        return http

    def _session(self, http, auth=None):
        from keystoneauth1 import session

        return session.Session(
            auth=auth, session=http, timeout=self.timeout, app_name="mrkolla-probe", verify=self.trusted
        )

    def _issue(self, http):
        """A token by password. Keystoneauth's plug-in has a lock: one for all would make operations wait in line."""
        from keystoneauth1.identity import v3

        names = ("username", "password", "project_name", "user_domain_name", "project_domain_name")
        auth = v3.Password(auth_url=self.identity, **{name: self.auth[name] for name in names})
        return self._session(http, auth).get_token()

    def _another(self):
        """One more token, from the first: that takes no password's hash."""
        from keystoneauth1.identity import v3

        auth = v3.Token(
            auth_url=self.identity,
            token=self.token,
            project_name=self.auth["project_name"],
            project_domain_name=self.auth["project_domain_name"],
        )
        return self._session(self.kept["identity"], auth).get_token()

    def connect(self):
        """Get the token that all but the fresh ones use; raises keystoneauth1's exceptions."""
        self.token = self._issue(self.kept["identity"])

    def prepare(self, operations, count):
        """Make the tokens of ``count`` operations of each kind, and have the services know the one that they cache."""
        fresh_count = sum(READS.get(name, ("", False))[1] for name in operations) * count
        while len(self.stock) < min(fresh_count, MOST_TOKENS):
            self.stock.append(self._another())
        self.made = {self.token, *self.stock}
        for service in sorted({READS[name][0] for name in operations if name in READS}):
            # A service that does not answer now is what will be measured.
            with contextlib.suppress(Exception):
                self._read(service, self.token)

    def _read(self, service, token):
        session = self._session(self.kept[service])
        session.get(self.urls[service], headers={"X-Auth-Token": token}, authenticated=False, log=False)

    def operation(self, name):
        """The call to time for ``name``, or None when no token is left for it."""
        if name == ISSUE_NEW:
            return lambda: self._issue(self._http())
        if name == ISSUE_KEPT:
            return lambda: self._issue(self.kept["identity"])
        if name == VALIDATE:
            headers = {"X-Auth-Token": self.token, "X-Subject-Token": self.token}
            url, session = self.identity + "/auth/tokens", self._session(self.kept["identity"])
            return lambda: session.get(url, headers=headers, authenticated=False, log=False)
        service, fresh = READS[name]
        token = (self.stock.pop() if self.stock else None) if fresh else self.token
        return None if token is None else lambda: self._read(service, token)

    def secrets(self):
        """What must never be printed."""
        return [self.auth["password"], *(token for token in self.made if token)]


def open_loop(client, counter, parameters, stop, go):
    """Start the operations at their times, and say what became of each; returns the exit status.

    The load waits for ``go``, so that it begins in all regions at once, however long each made its tokens.
    """
    operations, rate = parameters["operations"], parameters["rate"]
    count, deadline = parameters["warmup"] + parameters["samples"], parameters["timeout_s"]
    try:
        client.prepare(operations, count)
    except Exception as error:  # noqa: BLE001 - told to the caller, who decides
        say({"fatal": "no tokens for the load: " + describe(error, client.secrets())})
        return 1
    say({"ready": True})
    while not go.wait(0.1):
        if stop.is_set():
            say({"end": "stopped", "rounds": 0})
            return 2
    rng, starts = random.Random(parameters["seed"]), []
    for number, name in enumerate(operations):
        # A random moment of each turn, in seconds from the beginning: operations coincide only by chance.
        starts += [((turn + rng.random()) / rate, number, turn, name) for turn in range(count)]
    heapq.heapify(starts)
    results, pending, begin, rounds = queue.Queue(), {}, time.monotonic(), 0
    say({"begun": time.time_ns()})

    def work(key, name, call):
        results.put((key, measure(client, counter, name, call)))

    while starts or pending:
        if stop.is_set():
            say({"end": "stopped", "rounds": rounds})
            return 2
        now = time.monotonic()
        while starts and begin + starts[0][0] <= now:
            _, number, turn, name = heapq.heappop(starts)
            key, rounds = (number, turn), max(rounds, turn)
            if len(pending) >= MOST_AT_ONCE:
                say({"fatal": f"more than {MOST_AT_ONCE} operations are under way: a lower rate, or deadline_s"})
                return 1
            base = {"iteration": turn, "warmup": turn < parameters["warmup"]}
            pending[key] = dict(base, op=name, start_ns=time.time_ns(), until=time.monotonic() + deadline)
            threading.Thread(target=work, args=(key, name, client.operation(name)), daemon=True).start()
        for key in [key for key, record in pending.items() if record["until"] <= time.monotonic()]:
            record = pending.pop(key)
            record.pop("until")
            description = f"Hung: no answer within {deadline:g} s"
            say(dict(record, duration_s=deadline, error=description, outcome=HUNG, status=None, req=None, conn=None))
        until = min([begin + starts[0][0]] if starts else [now + 1.0])
        until = min([until, now + 1.0, *(record["until"] for record in pending.values())])
        try:
            key, sample = results.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            continue
        record = pending.pop(key, None)
        if record is not None:  # else it was told already that it hung
            record.pop("until")
            say(dict(record, **sample))
    say({"end": "complete", "rounds": count})
    return 0


def main(parameters):
    """Run the rounds that ``parameters`` ask for; returns the exit status."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    complete, go = threading.Event(), threading.Event()
    threading.Thread(target=watch_parent, args=(stop, complete, go), daemon=True).start()
    counter = Counter()
    counter.install()
    client = OpenClient(parameters) if parameters.get("rate") else Client(parameters)
    deadline = time.monotonic() + parameters["deadline_s"]
    say({"hello": versions()})
    error = first_token(client, stop)
    if error:
        say({"fatal": "no first token: " + error})
        return 1
    if parameters.get("rate"):
        return open_loop(client, counter, parameters, stop, go)
    rng = random.Random(parameters["seed"])
    total, operations = parameters["warmup"] + parameters["samples"], parameters["operations"]
    for iteration in itertools.count():
        if iteration == total:
            say({"end": "complete", "rounds": total})
            complete.set()
        if complete.is_set() and not parameters["others"]:
            return 0
        client.start_round()
        order, glance_source, neutron_source = plan_round(rng, operations)
        for name in order:
            if stop.is_set() or time.monotonic() > deadline:
                if complete.is_set():
                    return 0
                say({"end": "stopped" if stop.is_set() else "deadline", "rounds": iteration})
                return 2
            sample = measure(client, counter, name, client.operation(name, glance_source, neutron_source))
            sample["iteration"] = iteration
            sample["warmup"] = iteration < parameters["warmup"]
            if name in operations and not complete.is_set():
                say(sample)
    return 0
