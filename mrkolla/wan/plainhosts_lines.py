"""The two ways in which a plain host delays packets: NFQUEUE with delay lines in user space, and netem in the kernel.

Put on every host beside ``plainhosts_agent.py``, which uses it. Stand-alone: standard library, Python 3.8 or later.

A line is what happens to the packets between this host and one other region. Both classes have the same verbs:
``lack`` (what the host lacks), ``peers`` (which regions there are, each a list of CIDRs), ``set`` and ``get`` (one
line), ``problems`` (of the rules), ``clean`` (remove everything, whoever made it).
"""

import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
CHAIN = "MRKOLLA-WAN"
TABLE, HOOK = "mangle", "PREROUTING"
FIRST_QUEUE = 4900  # the first queue's number on this host: far from where other programs begin to count
PREFERENCES = (4900, 4910)  # two sets of tc's filters take turns: the old ones go once the new ones are there
Slow = socket.timeout


class Wrong(Exception):
    """What the host cannot do, in one line."""


def call(*argv, check=True, input=None, timeout=15):
    """Run a command; with ``check``, raises Wrong with the last line of its output when it fails."""
    try:
        process = subprocess.run(
            argv,
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=dict(os.environ, LC_ALL="C", PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"),
        )
    except subprocess.TimeoutExpired:
        raise Wrong("'{}' did not end within {:g} s".format(" ".join(argv), timeout)) from None
    except FileNotFoundError:
        raise Wrong(f"'{argv[0]}' is not installed") from None
    if check and process.returncode != 0:
        lines = (process.stderr.strip() or process.stdout.strip() or f"status {process.returncode}").splitlines()
        raise Wrong("'{}' failed: {}".format(" ".join(argv), lines[-1]))
    return process


def started(pid):
    """When a process began, in clock ticks since boot; this and its number identify it. None: there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def processes():
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    yield int(entry), file.read().decode(errors="replace").split("\0")[:-1]
            except (FileNotFoundError, ProcessLookupError):
                continue


def end_process(pid):
    for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return
        until = time.monotonic() + patience
        while started(pid) is not None and time.monotonic() < until:
            time.sleep(0.02)
    if started(pid) is not None:
        raise Wrong(f"process {pid} cannot be ended")


def remove_file(name):
    try:
        os.unlink(os.path.join(FOLDER, name))
    except FileNotFoundError:
        return


def links():
    """Every interface of the host with its IPv4 addresses, as `ip -j -d address` gives them."""
    return json.loads(call("ip", "-4", "-d", "-j", "address", "show").stdout)


def addresses():
    """The host's own addresses: [{"address", "prefix", "device", "bridge"}], without loopback and link-local."""
    rows = []
    for link in links():
        bridge = link.get("linkinfo", {}).get("info_kind") == "bridge"
        for entry in link.get("addr_info", []):
            address = ipaddress.ip_address(entry["local"])
            if not address.is_loopback and not address.is_link_local:
                rows.append({"address": entry["local"], "prefix": entry["prefixlen"], "device": link["ifname"]})
                rows[-1]["bridge"] = bridge
    return rows


def lines_of(table):
    return call("iptables", "-w", "-t", table, "-S").stdout.splitlines()


# -- the two ways to delay ------------------------------------------------------------------------------------------


class NfQueue:
    """Packets that come from another region wait in a delay line of that region (a process)."""

    def __init__(self):
        self.lines = {}  # region -> {"index", "pid", "start"}

    @staticmethod
    def lack():
        for tool, package in (("iptables-restore", "iptables"), ("unshare", "util-linux"), ("ip", "iproute2")):
            if not shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
                return f"'{tool}' is not installed: apt-get install {package}"
        try:
            trial = ["unshare", "--net", "iptables", "-t", TABLE, "-A", HOOK, "-j", "NFQUEUE"]
            call(*trial)
            call("unshare", "--net", *NfQueue.python(), "--check")
        except Wrong as error:
            return f"the kernel has no NFQUEUE ({error}): modprobe -a xt_NFQUEUE nfnetlink_queue"
        return None

    @staticmethod
    def python():
        return [sys.executable, "-ISB", os.path.join(FOLDER, "delayline.py")]

    def peers(self, peers, controllers):
        for old_region in set(self.lines) - set(peers):
            self.end(old_region)
        for region in sorted(peers):
            if region not in self.lines or not self.lives(region):
                self.end(region)
                taken = {line["index"] for line in self.lines.values()}
                self.begin(region, next(index for index in range(len(taken) + 1) if index not in taken))
        self.install(self.rules(peers, controllers))

    def rules(self, peers, controllers):
        """The chain's rules, as iptables -S prints them."""
        rules = [f"-A {CHAIN} -i lo -j RETURN"]
        for address, port in controllers:
            # To a host's sshd, and from it to a controller that is one of the hosts.
            rules.append(f"-A {CHAIN} -s {address}/32 -p tcp -m tcp --dport {port} -j RETURN")
            rules.append(f"-A {CHAIN} -d {address}/32 -p tcp -m tcp --sport {port} -j RETURN")
        for region in sorted(peers):
            number = FIRST_QUEUE + self.lines[region]["index"]
            rules += [f"-A {CHAIN} -s {source} -j NFQUEUE --queue-num {number}" for source in peers[region]]
        return rules

    def install(self, rules):
        if not self.missing(rules):
            return
        jump = f"-A {HOOK} -j {CHAIN}"
        listing = lines_of(TABLE)
        # Naming the chain empties it; the table changes in one step.
        text = [f"*{TABLE}", f":{CHAIN} - [0:0]", *([] if jump in listing else [f"-I {HOOK} 1 -j {CHAIN}"])]
        call("iptables-restore", "-w", "--noflush", input="\n".join([*text, *rules, "COMMIT"]) + "\n")
        if self.missing(rules):
            raise Wrong(f"rules are not in force though iptables took them: {self.missing(rules)}")

    @staticmethod
    def missing(rules):
        listing = lines_of(TABLE)
        wanted = [f"-A {HOOK} -j {CHAIN}", *rules]
        missing = [rule for rule in wanted if rule not in listing]
        extra = [rule for rule in listing if rule.startswith(f"-A {CHAIN} ") and rule not in wanted]
        return missing + [f"(not ours) {rule}" for rule in extra]

    def begin(self, region, index):
        output = call(*self.python(), str(FIRST_QUEUE + index), FOLDER, f"line-{index}").stdout
        self.lines[region] = dict(json.loads(output), index=index)

    def lives(self, region):
        return self.lines[region]["start"] == started(self.lines[region]["pid"])

    def end(self, region):
        line = self.lines.pop(region, None)
        if line is None:
            return
        if line["start"] == started(line["pid"]):
            end_process(line["pid"])
        remove_file(f"line-{line['index']}.sock")

    def request(self, region, request):
        """Ask a delay line; raises Wrong when it is dead or stuck."""
        line = self.lines.get(region)
        if line is None:
            raise Wrong(f"there is no line for region {region}")
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(2.0)
            data = b""
            try:
                wire.connect(os.path.join(FOLDER, f"line-{line['index']}.sock"))
                wire.sendall(json.dumps(request).encode() + b"\n")
                while not data.endswith(b"\n"):
                    piece = wire.recv(65536)
                    if not piece:
                        raise Wrong(f"the delay line for region {region} hung up")
                    data += piece
            except Slow:
                raise Wrong(f"the delay line for region {region} is stuck") from None
            except OSError as error:
                raise Wrong(f"the delay line for region {region} is dead ({error})") from None
        answer = json.loads(data)
        if not answer.get("ok"):
            raise Wrong(f"the delay line for region {region} refused: {answer.get('error')}")
        return answer

    def set(self, region, settings):
        self.request(region, dict(settings, do="set"))

    def get(self, region):
        answer = self.request(region, {"do": "get"})
        return {"settings": answer["settings"], "stats": answer["stats"]}

    def problems(self, peers, controllers):
        return [f"rule '{rule}' is gone or strange" for rule in self.missing(self.rules(peers, controllers))]

    @staticmethod
    def clean():
        if shutil.which("iptables", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            listing = lines_of(TABLE)
            if f"-N {CHAIN}" in listing:
                jumps = [rule.replace("-A", "-D", 1) for rule in listing if rule == f"-A {HOOK} -j {CHAIN}"]
                text = [f"*{TABLE}", *jumps, f"-F {CHAIN}", f"-X {CHAIN}", "COMMIT"]
                call("iptables-restore", "-w", "--noflush", input="\n".join(text) + "\n")
        mark = os.path.join(FOLDER, "delayline.py")
        for pid, argv in processes():
            if mark in argv and "--check" not in argv:
                end_process(pid)


class Netem:
    """Packets that go to another region take a detour over an intermediate device (ifb) that has netem as its queue."""

    def __init__(self):
        self.lines = {}  # region -> {"index"}
        self.turn = 0
        self.wanted = []  # (interface, network, intermediate device) of each redirection in force

    @staticmethod
    def device(index):
        return f"mrkwan{index}"

    @staticmethod
    def lack():
        trials = {
            "sch_netem": ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"],
            "ifb": ["ip", "link", "add", "mrkwan9", "type", "ifb"],
            "clsact": ["tc", "qdisc", "add", "dev", "lo", "clsact"],
        }
        for module, trial in trials.items():
            try:
                call("unshare", "--net", *trial)
            except Wrong as error:
                return f"the kernel has no {module} ({error}): modprobe {module}"
        return None

    def peers(self, peers, controllers):
        for old_region in set(self.lines) - set(peers):
            self.end(old_region)
        devices = {link["ifname"] for link in json.loads(call("ip", "-j", "link", "show").stdout)}
        for region in sorted(peers):
            if region not in self.lines:
                taken = {line["index"] for line in self.lines.values()}
                free = next(index for index in range(len(taken) + 1) if index not in taken)
                self.lines[region] = {"index": free}
            device = self.device(self.lines[region]["index"])
            if device not in devices:
                call("ip", "link", "add", device, "type", "ifb")
                call("tc", "qdisc", "add", "dev", device, "root", "netem", "limit", "16384", "delay", "0us")
            call("ip", "link", "set", device, "up")
        self.filter(peers, controllers)

    def filter(self, peers, controllers):
        """Put the new filters beside the old ones, then remove the old ones: at no time is there none."""
        old, self.turn = PREFERENCES[self.turn], 1 - self.turn
        first = PREFERENCES[self.turn]
        devices = self.ways(peers)
        redirections = []
        for device in devices:
            kinds = {row["kind"] for row in json.loads(call("tc", "-j", "qdisc", "show", "dev", device).stdout)}
            if "clsact" not in kinds:
                call("tc", "qdisc", "add", "dev", device, "clsact")
            head = ["tc", "filter", "add", "dev", device, "egress", "protocol", "ip", "prio"]
            for address, port in controllers:
                for end, side in (("dst", "sport"), ("src", "dport")):
                    match = ["match", "ip", "protocol", "6", "0xff", "match", "ip", end, f"{address}/32"]
                    match += ["match", "ip", side, str(port), "0xffff"]
                    # A match without an action ends the search: the packet goes its usual way.
                    call(*head, str(first), "u32", *match, "flowid", "1:1")
            for region in sorted(peers):
                target = self.device(self.lines[region]["index"])
                for network in peers[region]:
                    action = ["action", "mirred", "egress", "redirect", "dev", target]
                    call(*head, str(first + 1), "u32", "match", "ip", "dst", network, *action)
                    redirections.append((device, network, target))
        for device in {interface for interface, _, _ in self.wanted} | set(devices):
            for preference in (old, old + 1):
                unfilter(device, preference)
        self.wanted = redirections

    @staticmethod
    def ways(peers):
        """The interfaces over which the other regions are reached."""
        devices = set()
        for networks in peers.values():
            for network in networks:
                inside = ipaddress.ip_network(network)
                target = inside.network_address if inside.prefixlen == 32 else inside[1]
                for route in json.loads(call("ip", "-j", "route", "get", str(target)).stdout):
                    devices.add(route["dev"])
        return sorted(devices - {"lo"})

    def end(self, region):
        line = self.lines.pop(region, None)
        if line:
            call("ip", "link", "delete", self.device(line["index"]), check=False)

    def set(self, region, settings):
        if region not in self.lines:
            raise Wrong(f"there is no line for region {region}")
        device = self.device(self.lines[region]["index"])
        call("tc", "qdisc", "change", "dev", device, "root", "netem", *settings)

    def get(self, region):
        if region not in self.lines:
            raise Wrong(f"there is no line for region {region}")
        device = self.device(self.lines[region]["index"])
        rows = json.loads(call("tc", "-s", "-j", "qdisc", "show", "dev", device).stdout)
        queues = [row for row in rows if row.get("kind") == "netem" and row.get("root")]
        if not queues:
            raise Wrong(f"{device} (to region {region}) has no netem")
        return {"row": queues[0]}

    def problems(self, peers, controllers):
        problems = []
        for device in sorted({interface for interface, _, _ in self.wanted}):
            output = call("tc", "filter", "show", "dev", device, "egress").stdout
            for target in sorted({target for interface, _, target in self.wanted if interface == device}):
                # As a whole word: mrkwan1 is not in mrkwan10.
                count = len(re.findall(rf"\b{target}\b", output))
                total = len([1 for interface, _, end in self.wanted if (interface, end) == (device, target)])
                if count < total:
                    problems.append(f"{total - count} of {total} redirections from {device} to {target} are gone")
        if set(self.ways(peers)) - {interface for interface, _, _ in self.wanted}:
            problems.append("another region is now reached over another interface")
        return problems

    @staticmethod
    def clean():
        names = [link["ifname"] for link in json.loads(call("ip", "-j", "link", "show").stdout)]
        for device in names:
            if device.startswith("mrkwan"):
                call("ip", "link", "delete", device)
                continue
            rows = json.loads(call("tc", "-j", "qdisc", "show", "dev", device, check=False).stdout or "[]")
            if any(row["kind"] == "clsact" for row in rows):
                for first in PREFERENCES:
                    for preference in (first, first + 1):
                        unfilter(device, preference)


DRIVERS = {"nfqueue": NfQueue, "netem": Netem}


def unfilter(device, preference):
    output = call("tc", "filter", "show", "dev", device, "egress", check=False).stdout
    if f"pref {preference} " in output:
        call("tc", "filter", "del", "dev", device, "egress", "pref", str(preference))
