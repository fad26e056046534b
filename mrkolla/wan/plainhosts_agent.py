"""What delays packets at a plain host, and takes it all away when nobody asks for it any more.

Put on every host by :mod:`mrkolla.wan.plainhosts`, beside ``delayline.py``, and run as root. Stand-alone: standard
library, Python 3.8 or later.

    agent.py lack DRIVER   prints {"lack": null or what the host lacks for the driver}
    agent.py begin         starts the service (a transient unit of systemd); its settings as JSON on standard input
    agent.py ask           sends the service the JSON request on standard input and prints its answer
    agent.py serve         the service itself
    agent.py stop          ends the service of the owner on standard input and removes everything, this program too
    agent.py clean         removes rules, devices and processes; systemd calls it too, however the service ends

The service holds a lease: each request renews it, and when it runs out the service removes everything and ends. So a
host is as it was soon after its controller died. Requests (each may carry ``lease_s``):

    {"do": "peers", "peers": {REGION: [CIDR, ...]}, "controllers": [[ADDRESS, PORT], ...]}
    {"do": "set", "lines": {REGION: SETTINGS}}     nfqueue: those of delayline.py; netem: the words after "netem"
    {"do": "get"}                                  -> addresses, lines with settings and counters, what is wrong
    {"do": "end"}

A line is what happens to the packets between this host and one other region: nfqueue delays those that come from it
(PREROUTING, by source address, so whatever they are for: a virtual address, a container's network), netem those that
go to it. SSH between a controller and this host is left alone.
"""

import json
import os
import socket
import sys
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, FOLDER)  # run isolated (-I), Python does not look there by itself

from plainhosts_lines import DRIVERS, Slow, Wrong, addresses, call, remove_file  # noqa: E402

SOCKET = "agent.sock"
UNIT = "mrkolla-wan"
MOST_ANSWER = 8 << 20


class Service:
    """One at a host. ``owner`` says whose links these are: another owner's requests are refused."""

    def __init__(self, owner, driver, lease_s):
        self.owner, self.driver = owner, driver
        self.way = DRIVERS[driver]()
        self.wanted, self.controllers = {}, []
        self.renew(lease_s)
        self.over = False

    def renew(self, lease_s):
        self.lease_s = float(lease_s)
        self.until = time.monotonic() + self.lease_s

    def answer(self, request):
        """The answer to one request, a dict."""
        try:
            if request.get("owner") != self.owner:
                raise Wrong(f"the links of this host belong to {self.owner}: stop those first")
            self.renew(request.get("lease_s") or self.lease_s)
            do = request["do"]
            if do == "peers":
                self.wanted, self.controllers = request["peers"], request["controllers"]
                self.way.peers(self.wanted, self.controllers)
            elif do == "set":
                for region, settings in request["lines"].items():
                    self.way.set(region, settings)
            elif do == "end":
                self.over = True
                return {"ok": True}
            elif do != "get":
                raise Wrong(f"there is no request {do!r}")
            return self.state()
        except (Wrong, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            return {
                "ok": False,
                "error": str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}",
            }

    def state(self):
        lines, problems = {}, []
        for region in sorted(self.wanted):
            try:
                lines[region] = self.way.get(region)
            except Wrong as error:
                problems.append(str(error))
        problems += self.way.problems(self.wanted, self.controllers) if self.wanted else []
        state = {"ok": True, "driver": self.driver, "lines": lines, "problems": problems, "addresses": addresses()}
        return dict(state, lease_s=self.lease_s)

    def run(self):
        """Serve until asked to end, or until the lease runs out."""
        remove_file(SOCKET)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.join(FOLDER, SOCKET))
            listener.listen(16)
            while not self.over:
                remaining_s = self.until - time.monotonic()
                if remaining_s <= 0:
                    print(f"nobody renewed the lease for {self.lease_s:g} s: the links go", flush=True)
                    break
                notify("WATCHDOG=1")
                listener.settimeout(min(remaining_s, 5.0))
                try:
                    wire, _ = listener.accept()
                except Slow:
                    continue
                with wire:
                    self.serve(wire)
        clean()

    def serve(self, wire):
        wire.settimeout(10.0)
        data = b""
        try:
            while not data.endswith(b"\n"):
                piece = wire.recv(1 << 20)
                if not piece:
                    return
                data += piece
            wire.sendall(json.dumps(self.answer(json.loads(data))).encode() + b"\n")
        except (OSError, ValueError) as error:
            print(f"request: {error}", flush=True)


def notify(text):
    """Tell systemd, which ends a service that is stuck (and has it cleaned up)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
            wire.connect("\0" + address[1:] if address.startswith("@") else address)
            wire.send(text.encode())


def clean():
    """Remove everything that any of the drivers made. Raises Wrong for what remains."""
    remains = []
    for driver in DRIVERS.values():
        try:
            driver.clean()
        except Wrong as error:
            remains.append(str(error))
    for name in os.listdir(FOLDER):
        if name.endswith((".sock", ".log")):
            remove_file(name)
    if remains:
        raise Wrong("; ".join(remains))


def ask(request, timeout=30.0):
    """The service's answer to ``request``; None when no service runs."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(timeout)
        try:
            wire.connect(os.path.join(FOLDER, SOCKET))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        data = b""
        try:
            wire.sendall(json.dumps(request).encode() + b"\n")
            while not data.endswith(b"\n"):
                piece = wire.recv(1 << 20)
                if not piece or len(data) > MOST_ANSWER:
                    raise Wrong("the links' service hung up")
                data += piece
        except Slow:
            raise Wrong(f"the links' service does not answer within {timeout:g} s") from None
    return json.loads(data)


def begin(settings):
    """Start the service unless it runs; it runs apart from this command, and systemd cleans up after it."""
    hello = {"do": "get", "owner": settings["owner"], "lease_s": settings["lease_s"]}
    answer = ask(hello)
    if answer is not None and (not answer["ok"] or answer["driver"] == settings["driver"]):
        return answer
    if answer is not None:
        ask({"do": "end", "owner": settings["owner"]})
    call("systemctl", "stop", f"{UNIT}-*", check=False, timeout=60)
    python = f"{sys.executable} -ISB {os.path.abspath(__file__)}"
    # A name of its own: systemd may remember a service that has ended, and then refuses its name.
    unit = f"{UNIT}-{int(time.time() * 1000):x}"
    line = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "--property=KillMode=control-group"]
    line += ["--property=NotifyAccess=main", "--property=WatchdogSec=120", "--property=TimeoutStopSec=20"]
    call(*line, f"--property=ExecStopPost={python} clean", *python.split(), "serve", json.dumps(settings))
    until = time.monotonic() + 15
    while time.monotonic() < until:
        answer = ask(hello)
        if answer is not None:
            return answer
        time.sleep(0.05)
    log = call("journalctl", "-n", "3", "-o", "cat", "-u", unit, check=False).stdout.strip().splitlines()
    raise Wrong("the links' service did not start: {}".format(log[-1] if log else "it left no word"))


def stop(settings):
    """End the service and see that nothing of it is left; another owner's is left alone."""
    answer = ask({"do": "get", "owner": settings["owner"]})
    if answer is not None and not answer["ok"]:
        return {"ok": True, "not_ours": answer["error"]}
    call("systemctl", "stop", f"{UNIT}-*", check=False, timeout=60)
    clean()
    for name in os.listdir(FOLDER):
        if os.path.isfile(os.path.join(FOLDER, name)):
            remove_file(name)
    return {"ok": True}


def main(argv):
    verb = argv[1] if len(argv) > 1 else ""
    try:
        if verb == "lack":
            answer = {"ok": True, "lack": DRIVERS[argv[2]].lack()}
        elif verb == "begin":
            answer = begin(json.load(sys.stdin))
        elif verb == "stop":
            answer = stop(json.load(sys.stdin))
        elif verb == "ask":
            answer = ask(json.load(sys.stdin)) or {"ok": False, "gone": True, "error": "the links' service is gone"}
        elif verb == "serve":
            os.umask(0o077)
            Service(**json.loads(argv[2])).run()
            return 0
        elif verb == "clean":
            clean()
            answer = {"ok": True}
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except Wrong as error:
        answer = {"ok": False, "error": str(error)}
    # The other end of the very connection that this command came by.
    answer["controller"] = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
    print(json.dumps(answer))
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
