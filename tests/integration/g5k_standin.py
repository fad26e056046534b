#!/usr/bin/env python3
"""A stand-in for Grid'5000's REST API, which cannot exist here. Its site ``sitea`` has a real OAR behind it.

    g5k_standin.py PORT FOLDER

runs on the cluster's front end as a plain user. A job of ``sitea`` is a job of that OAR; ``rennes`` and ``nancy`` are
names alone, whose jobs run at once and whose nodes do not exist. FOLDER/requests.log gets a line a request, and
FOLDER/faults.json says what to get wrong: {"METHOD /path": status}, matched by the path's beginning.
"""

import ipaddress
import json
import re
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

DOMAIN = "grid5000.fr"
SITES = {
    "sitea": {"feas": 3},
    "rennes": {"paravance": 6, "paranoia": 3},
    "nancy": {"gros": 6},
}
REAL = "sitea"
SUBNETS = {"sitea": "198.19.212.0/22", "rennes": "10.156.0.0/22", "nancy": "10.144.0.0/22"}
STATES = {
    **{"Waiting": "waiting", "Hold": "hold", "toLaunch": "launching", "Launching": "launching", "Running": "running"},
    **{"Finishing": "running", "Terminated": "terminated", "Error": "error", "toError": "error"},
}
FOLDER = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()
NAMED: dict[int, dict] = {}
WITH_SUBNET: set[int] = set()


def oar(*argv: str) -> tuple[int, str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def oar_jobs(*argv: str) -> dict[str, dict]:
    said = oar("oarstat", "-J", "-f", *argv)[1]
    try:
        return json.loads(said[said.index("{") :])
    except ValueError:
        return {}


def shown(job: dict) -> dict:
    """A job of OAR as the API shows it."""
    number = int(job["Job_Id"])
    nodes = sorted(job.get("assigned_network_address", []))
    started = job.get("startTime") or None
    return {
        **{"uid": number, "site": REAL, "name": job["name"], "user": job["owner"], "types": job.get("types", [])},
        **{"state": STATES.get(job["state"], job["state"].lower()), "assigned_nodes": nodes, "mode": "PASSIVE"},
        **{"started_at": started, "scheduled_at": job.get("scheduledStart") or started, "walltime": job["walltime"]},
        "resources_by_type": {"cores": nodes, "subnets": [SUBNETS[REAL]] if number in WITH_SUBNET else []},
    }


def submit_real(spec: dict) -> tuple[int, dict]:
    # Plain OAR knows no subnets: the stand-in gives the one that it has.
    resources = re.sub(r"\+?slash_22=1(?=[+,])\+?", "", spec["resources"])
    argv = ["oarsub", "-l", resources, "-n", spec["name"], "-q", spec.get("queue", "default")]
    for kind in spec["types"]:
        argv += ["-t", kind]
    if spec.get("reservation"):
        argv += ["-r", spec["reservation"]]
    status, said = oar(*argv, spec["command"])
    number = re.search(r"(?m)^OAR_JOB_ID=(\d+)\s*$", said)
    if status or not number:
        return 400, {"message": f"Oarsub failed: please verify your request syntax or ask for support.\n{said}"}
    if "slash_22" in spec["resources"]:
        WITH_SUBNET.add(int(number[1]))
    return 201, shown(oar_jobs("-j", number[1])[number[1]])


def submit_named(site: str, spec: dict) -> tuple[int, dict]:
    taken = {node for job in NAMED.values() if job["state"] == "running" for node in job["assigned_nodes"]}
    nodes: list[str] = []
    for cluster, count in re.findall(r"cluster='(\w+)'\}/nodes=(\d+)", spec["resources"]):
        names = [f"{cluster}-{number}.{site}.{DOMAIN}" for number in range(1, SITES[site][cluster] + 1)]
        free = [name for name in names if name not in taken and name not in nodes]
        if len(free) < int(count):
            return 400, {"message": "There are not enough resources for your request"}
        nodes += free[: int(count)]
    number, now = 1001 + len(NAMED), int(time.time())
    NAMED[number] = {
        **{"uid": number, "site": site, "state": "running", "name": spec["name"], "types": spec["types"]},
        **{"assigned_nodes": nodes, "user": "exp", "mode": "RESERVATION" if spec.get("reservation") else "PASSIVE"},
        **{"started_at": now, "scheduled_at": now, "walltime": 3600, "spec": spec},
        "resources_by_type": {"subnets": [SUBNETS[site]] if "slash_22" in spec["resources"] else []},
    }
    return 201, NAMED[number]


def site_of(name: str) -> dict:
    index = list(SITES).index(name)
    network = ipaddress.IPv4Network(f"172.16.{16 * index}.0/20")
    return {
        **{"uid": name, "type": "site", "ipv6": {"site_index": index + 1}},
        "servers": {"dns": {"network_adapters": {"default": {"ip": str(network[2])}}}},
        "g5ksubnet": {"gateway": "198.19.223.254", "network": SUBNETS[name]},
        "kavlans": {"default": {"network": str(network), "gateway": str(network[-2])}},
    }


def node_of(name: str) -> dict:
    card = {"mountable": True, "mounted": True, "interface": "Ethernet", "management": False}
    return {"uid": name, "network_adapters": [{"device": "eth0", "name": "host0", **card}]}


def status_of(site: str, cluster: str) -> dict:
    names = [f"{cluster}-{number}.{site}.{DOMAIN}" for number in range(1, SITES[site][cluster] + 1)]
    return {"uid": 1, "nodes": {name: {"hard": "alive", "soft": "free", "reservations": []} for name in names}}


def answer(method: str, parts: list[str], query: dict, body: dict) -> tuple[int, object]:  # noqa: PLR0911 (one for each kind of request)
    """The status and the content for a request below ``/stable``."""
    match method, parts:
        case "GET", ["sites"]:
            return 200, {"items": [site_of(name) for name in SITES]}
        case _, ["sites", site, *_] if site not in SITES:
            return 404, {"message": f"no site {site}"}
        case "GET", ["sites", site]:
            return 200, site_of(site)
        case "GET", ["sites", site, "servers", name]:
            return 200, {"uid": name, **site_of(site)["servers"]["dns"]}
        case "GET", ["sites", site, "clusters"]:
            return 200, {"items": [{"uid": name, "exotic": False, "type": "cluster"} for name in SITES[site]]}
        case "GET", ["sites", site, "clusters", cluster] if cluster in SITES[site]:
            return 200, {"uid": cluster, "exotic": False, "type": "cluster"}
        case "GET", ["sites", site, "clusters", cluster, "status"]:
            return 200, status_of(site, cluster)
        case "GET", ["sites", site, "clusters", cluster, "nodes", node]:
            return 200, node_of(node)
        case _, ["sites", site, "jobs", *rest]:
            return jobs(method, site, rest, query, body)
    return 404, {"message": f"not in the stand-in: {method} {'/'.join(parts)}"}


def jobs(method: str, site: str, rest: list[str], query: dict, body: dict) -> tuple[int, object]:  # noqa: PLR0911
    if method == "POST":
        return submit_real(body) if site == REAL else submit_named(site, body)
    if not rest:
        found = [shown(job) for job in oar_jobs("-u").values()] if site == REAL else list(NAMED.values())
        wanted = query.get("state", "waiting,launching,running").split(",")
        fits = [job for job in found if job["site"] == site and job["state"] in wanted]
        return 200, {"items": [job for job in fits if query.get("name", job["name"]) == job["name"]]}
    number = int(rest[0])
    if site != REAL:
        if number not in NAMED:
            return 404, {"message": "no such job"}
        if method == "DELETE":
            NAMED[number]["state"] = "error"
            return 202, None
        return 200, NAMED[number]
    if method == "DELETE":
        oar("oardel", str(number))
        return 202, None
    found = oar_jobs("-j", str(number))
    return (200, shown(found[str(number)])) if str(number) in found else (404, {"message": "no such job"})


class Api(BaseHTTPRequestHandler):
    """One request: a fault that is asked for, or the answer."""

    def log_message(self, *_: object) -> None:
        return

    def _serve(self) -> None:
        url = urlparse(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with (FOLDER / "requests.log").open("a") as out:
            out.write(f"{self.command} {self.path} {raw.decode()}\n")
        parts = [part for part in url.path.split("/") if part and part != "stable"]
        faults = FOLDER / "faults.json"
        asked = json.loads(faults.read_text()) if faults.exists() else {}
        line = f"{self.command} /{'/'.join(parts)}"
        if status := next((status for fault, status in asked.items() if line.startswith(fault)), None):
            self._say(status, {"message": "Internal Server Error (asked for by a test)"})
            return
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self._say(*answer(self.command, parts, query, json.loads(raw) if raw.strip() else {}))

    def _say(self, status: int, content: object) -> None:
        data = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _serve


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api)
    print("ready", flush=True)
    server.serve_forever()
