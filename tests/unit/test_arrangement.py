"""The arrangement of the tests knows every file, and no file that is not there."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from pathlib import Path

import yaml

from tests import arrangement

TESTS = Path(__file__).parents[1]


def files(*folders: str) -> set[str]:
    return {path.stem for folder in folders for path in (TESTS / folder).glob("test_*.py")}


def test_every_file_that_needs_the_machine_has_its_place():
    assert {*arrangement._CLOUD, *arrangement._HOSTS} == files("e2e", "integration")
    assert {*arrangement._INSTALLED, *arrangement._UNIT} <= files("unit")


def test_the_cloud_the_hosts_and_each_file_of_unit_tests_are_a_group():
    names = ["tests/e2e/test_destroy.py::a", "tests/integration/test_oar.py::b[x::y]", "tests/unit/test_edits.py::c"]
    names += ["tests/integration/test_oar_two_regions.py::d", "tests/unit/test_cli.py::e"]
    assert list(arrangement.groups(names).values()) == ["cloud", "hosts", "hosts", "cloud", "test_cli"]
    # Alone, what compares with the installed release waits for nobody.
    assert list(arrangement.groups(names[2:3]).values()) == ["test_edits"]


def test_no_hosts_of_a_test_have_addresses_of_the_cloud_that_is_up_beside_them():
    def networks(folder: str) -> set[IPv4Network]:
        texts = [path.read_text() for path in (TESTS / folder).iterdir() if path.suffix in (".py", ".yaml")]
        return {
            IPv4Network(net, strict=False) for text in texts for net in re.findall(r"198\.1[89]\.\d+\.\d+/\d+", text)
        }

    cloud = IPv4Network(yaml.safe_load((TESTS / "e2e/two_regions.yaml").read_text())["testbed"]["network"])
    assert not [str(net) for net in networks("integration") if net.overlaps(cloud)]
