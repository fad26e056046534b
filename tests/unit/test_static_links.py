"""Links between plain hosts, without hosts: which packets, what adds up, what is asked of whom."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mrkolla.base.errors import WanError
from mrkolla.base.remote import Host
from mrkolla.wan import Asked, OneWay, PlainLink, PlainRegion, PlainWan, Wan, open_links, plainhosts_fleet
from mrkolla.wan.link import BACK, OUT
from mrkolla.wan.plainhosts import stars_of
from mrkolla.wan.plainhosts_driver import NetemHosts, NfQueueHosts, _without, added, addresses_of

HERE = Path(plainhosts_fleet.__file__).parent
REGIONS = tuple(
    PlainRegion(name, tuple(Host(host, address) for host, address in hosts), networks)
    for name, hosts, networks in (
        ("AR", [("a1", "192.0.2.1")], ("192.0.2.100/32",)),
        ("OSR1", [("b1", "192.0.2.2"), ("b2", "192.0.2.3")], ()),
        ("OSR2", [("c1", "198.51.100.1")], ("198.51.100.0/24",)),
    )
)
LINKS = [PlainLink(name, "AR", REGIONS) for name in ("OSR1", "OSR2")]
NET = stars_of(LINKS)


def at(address: str, prefix: int = 24, device: str = "eth0", bridge: bool = False) -> dict:
    return {"address": address, "prefix": prefix, "device": device, "bridge": bridge}


def reported(**more: list[dict]) -> dict[str, list[dict]]:
    docker = at("172.17.0.1", 16, "docker0", True)
    found = {"a1": "192.0.2.1", "b1": "192.0.2.2", "b2": "192.0.2.3", "c1": "198.51.100.1"}
    return {name: [at(address), docker, *more.get(name, [])] for name, address in found.items()}


def test_regions_are_known_by_their_hosts_addresses_and_networks():
    assert addresses_of(NET[0], reported()) == {
        "AR": ["192.0.2.1/32", "192.0.2.100/32"],
        "OSR1": ["192.0.2.2/31"],
        "OSR2": ["198.51.100.0/24"],
    }


def test_a_vip_and_a_network_of_containers_belong_to_the_host_that_has_them():
    found = addresses_of(NET[0], reported(b1=[at("192.0.2.50", 32), at("10.8.0.1", 24, "br-x", True)]))
    assert found["OSR1"] == ["10.8.0.0/24", "192.0.2.2/31", "192.0.2.50/32"]


def test_the_network_of_a_bridge_that_hosts_share_is_nobodys():
    bridged = {name: [at(one["address"], 24, "br0", True) for one in rows[:1]] for name, rows in reported().items()}
    assert addresses_of(NET[0], bridged)["OSR1"] == ["192.0.2.2/31"]


def test_a_host_without_an_address_is_named():
    with pytest.raises(WanError, match="b2: it reports no IPv4 address"):
        addresses_of(NET[0], {**reported(), "b2": []})


def test_a_network_that_holds_hosts_of_another_region_is_cut():
    assert _without(["192.0.2.0/30"], ["192.0.2.2/32"]) == ["192.0.2.0/31", "192.0.2.3/32"]
    assert _without(["192.0.2.2/32"], ["192.0.2.2/32"]) == []
    assert _without(["10.0.0.0/8"], ["192.0.2.2/32"]) == ["10.0.0.0/8"]


def test_two_links_one_after_the_other_add_up():
    one = Asked(50, jitter_ms=4, loss_percent=10, bandwidth_mbit=100).one_way()
    other = Asked(100, loss_percent=10).one_way()
    both = added([one, other])
    assert (both.delay_ms, both.jitter_ms, both.bandwidth_mbit) == (75, 2, 100)
    assert both.loss_percent == pytest.approx(19)
    assert both.queue_packets >= max(one.queue_packets, other.queue_packets)
    assert added([one]) == one and added([]) == OneWay()


@pytest.mark.parametrize(
    ("driver", "out_at", "back_at"),
    [(NfQueueHosts, {"a1", "c1"}, {"b1", "b2"}), (NetemHosts, {"b1", "b2"}, {"a1", "c1"})],
)
def test_who_delays_what(driver, out_at, back_at, tmp_path, monkeypatch):
    """nfqueue delays at the host that receives, netem at the one that sends."""
    asked: list[dict] = []
    monkeypatch.setattr(plainhosts_fleet.Fleet, "ask", lambda self, requests: asked.append(requests) or {})
    store = {"owner": "o", "net": NET, "settings": {}}
    made = driver(tmp_path)
    made.apply(LINKS[0], OUT, OneWay(25), store)
    made.apply(LINKS[0], BACK, OneWay(25), store)
    made.apply(LINKS[1], OUT, OneWay(10), store)
    assert (set(asked[0]), set(asked[1])) == (out_at, back_at)
    text = json.dumps(asked[2])
    assert "35" in text  # between two OSRs both links count
    assert '"do": "set"' in text


def test_netems_words_hold_a_queue_and_are_the_kernels(tmp_path):
    words = NetemHosts(tmp_path).words(Asked(100, bandwidth_mbit=100).one_way())
    assert words[:4] == ["limit", words[1], "delay", "50000us"]
    assert int(words[1]) * 1500 >= 100e6 / 8 * 0.15
    assert words[-2:] == ["rate", "100000000bit"]


def test_open_links_gives_the_kind_that_the_links_are(tmp_path):
    assert type(open_links(LINKS, tmp_path / "a")) is PlainWan
    assert type(open_links([], tmp_path / "b")) is Wan
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "wan.json").write_text(json.dumps({"version": 2, "driver": "nfqueue", "store": {"net": NET}}))
    assert type(open_links([], tmp_path / "c")) is PlainWan


def test_a_host_that_was_left_already_can_be_left_again(tmp_path, monkeypatch):
    """Its programs went with the links: that there is nobody to ask is no error."""
    monkeypatch.setattr(plainhosts_fleet, "FOLDER", str(tmp_path / "gone"))
    monkeypatch.setattr(Host, "ssh", lambda self, *argv: list(argv))
    (tmp_path / "lease").write_text("99999999999\n")
    store = {"owner": "o", "net": NET}
    NfQueueHosts(tmp_path).stop([], store)
    assert store == {}


def test_a_host_out_of_reach_is_no_error_once_its_lease_has_run_out(tmp_path, monkeypatch):
    gone = ({}, {"b1": "cannot be reached by SSH"})
    monkeypatch.setattr(plainhosts_fleet.Fleet, "try_ask", lambda self, requests, verb="ask": gone)
    made = NfQueueHosts(tmp_path)
    (tmp_path / "lease").write_text("99999999999\n")
    with pytest.raises(WanError, match=r"could not be removed whole: b1: cannot be reached.*goes by itself within"):
        made.stop([], {"owner": "o", "net": NET})
    (tmp_path / "lease").write_text("1\n")
    store = {"owner": "o", "net": NET}
    made.stop([], store)
    assert store == {}


@pytest.mark.parametrize("name", plainhosts_fleet.PROGRAMS)
def test_programs_for_hosts_use_the_standard_library_alone(name, tmp_path):
    """Isolated, without site packages: as hosts run them."""
    for program in plainhosts_fleet.PROGRAMS:
        (tmp_path / program).write_text((HERE / program).read_text())
    done = subprocess.run(
        [sys.executable, "-ISB", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {name[:-3]}"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr


def test_rules_spare_ssh_between_the_controller_and_the_hosts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import plainhosts_lines

    way = plainhosts_lines.NfQueue()
    way.lines = {"AR": {"index": 0}, "OSR2": {"index": 1}}
    rules = way.rules({"AR": ["192.0.2.1/32"], "OSR2": ["198.51.100.0/24"]}, [["192.0.2.9", 22]])
    assert rules == [
        "-A MRKOLLA-WAN -i lo -j RETURN",
        "-A MRKOLLA-WAN -s 192.0.2.9/32 -p tcp -m tcp --dport 22 -j RETURN",
        "-A MRKOLLA-WAN -d 192.0.2.9/32 -p tcp -m tcp --sport 22 -j RETURN",
        "-A MRKOLLA-WAN -s 192.0.2.1/32 -j NFQUEUE --queue-num 4900",
        "-A MRKOLLA-WAN -s 198.51.100.0/24 -j NFQUEUE --queue-num 4901",
    ]
