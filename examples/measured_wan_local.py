"""What a new TCP connection costs over a WAN of 0, 20 and 50 ms, between two hosts that are made on this machine.

    python examples/measured_wan_local.py        # as root, half a minute once the hosts' root file system is built

The hosts are gone at the end. Every round trip is measured before, during and after, or the point is refused.
"""

import statistics

import enoslib as en

from mrkolla import MeasuredWan
from mrkolla.providers.local import Local, LocalConf

CONNECT = """
import socket, time
for _ in range(20):
    began = time.perf_counter()
    socket.create_connection(("{address}", 22)).close()
    print((time.perf_counter() - began) * 1000)
"""


def main() -> None:
    en.set_config(ansible_stdout="noop")
    conf = LocalConf.from_settings(name="measured-wan", network="198.19.168.0/22")
    conf.add_network(id="paris", roles=["paris"]).add_network(id="lyon", roles=["lyon"])
    conf.add_machine(name="client1", roles=["client"], network="paris")
    conf.add_machine(name="server1", roles=["server"], network="lyon")
    with Local(conf.finalize()) as (roles, _), MeasuredWan(roles["client"], roles["server"]) as wan:
        script = CONNECT.format(address=roles["server"][0].address)
        for rtt_ms in (0, 20, 50):
            with wan.round_trip(rtt_ms, tolerance_ms=5) as link:  # others use these cores, too
                results = en.run_command(f"python3 -c '{script}'", roles=roles["client"])
            connect_ms = statistics.median(map(float, results[0].stdout.split()))
            print(f"asked {rtt_ms} ms, measured {link.median_ms:.2f} ms: connecting took {connect_ms:.2f} ms")


if __name__ == "__main__":
    main()
