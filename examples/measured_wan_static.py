"""How long 5 MB take over a WAN of 0 and 40 ms, 50 Mbit/s, between hosts of your own.

    python examples/measured_wan_static.py HOSTS.yaml

HOSTS.yaml is what enoslib's provider Static reads; its roles are client and server (docs/enoslib.md has one).
"""

import sys
from pathlib import Path

import enoslib as en
import yaml

from mrkolla import MeasuredWan

FILL = "mkdir -p /run/wan-example && head -c 5M /dev/zero > /run/wan-example/data"
SERVE = "systemd-run --unit=wan-example --working-directory=/run/wan-example python3 -m http.server 8099"
FETCH = "curl -so /dev/null -w %{time_total} --retry 5 --retry-connrefused"


def main(hosts: str) -> None:
    en.set_config(ansible_stdout="noop")
    roles, _ = en.Static(en.StaticConf.from_dictionary(yaml.safe_load(Path(hosts).read_text()))).init()
    with en.actions(roles=roles) as todo:
        todo.apt(name=["curl", "iptables"], update_cache=True)
    en.run_command(f"{FILL} && {SERVE}", roles=roles["server"])
    url = f"http://{roles['server'][0].address}:8099/data"
    try:
        with MeasuredWan(roles["client"], roles["server"]) as wan:
            for rtt_ms in (0, 40):
                with wan.round_trip(rtt_ms, bandwidth_mbit=50) as link:
                    results = en.run_command(f"{FETCH} {url}", roles=roles["client"])
                for result in results:
                    print(f"{result.host}: {link.median_ms:.2f} ms measured, 5 MB in {float(result.stdout):.2f} s")
    finally:
        en.run_command("systemctl stop wan-example; rm -r /run/wan-example", roles=roles["server"])


if __name__ == "__main__":
    main(sys.argv[1])
