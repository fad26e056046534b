"""The arrangement of the tests knows every file, and no file that is not there."""

from __future__ import annotations

import fcntl
import queue
import re
import threading
import time
from ipaddress import IPv4Network
from pathlib import Path, PurePath

import yaml

from tests import arrangement

TESTS = Path(__file__).parents[1]


def files(*folders: str) -> set[str]:
    return {path.stem for folder in folders for path in (TESTS / folder).glob("test_*.py")}


def test_every_file_that_needs_the_machine_has_its_place():
    assert {*arrangement._CLOUD, *arrangement._HOSTS, *arrangement._LINKS} == files("e2e", "integration")
    assert {*arrangement._INSTALLED, *arrangement._UNIT} <= files("unit")
    assert not arrangement.alone(TESTS / "unit/test_faults.py"), "unit tests of these names are others"


def test_the_cloud_the_hosts_and_each_file_of_unit_tests_are_a_group():
    names = ["tests/e2e/test_destroy.py::a", "tests/integration/test_oar.py::b[x::y]", "tests/unit/test_edits.py::c"]
    names += ["tests/integration/test_oar_two_regions.py::d", "tests/unit/test_cli.py::e"]
    names += ["tests/integration/test_links.py::f", "tests/unit/test_links.py::g"]
    assert list(arrangement.groups(names).values()) == [
        "cloud",
        "hosts",
        "hosts",
        "cloud",
        "test_cli",
        "links",
        "test_links",
    ]
    last = max(names, key=lambda name: arrangement.place(PurePath(name.partition("::")[0]), True))
    assert last == "tests/integration/test_links.py::f"
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


def test_who_is_alone_waits_for_the_others_and_these_for_it(tmp_path):
    cores, told = arrangement.Cores(tmp_path), queue.SimpleQueue()
    ends = {name: threading.Event() for name in ("beside", "alone", "after")}

    def test(name: str) -> None:
        with cores.had(alone=name == "alone"):
            told.put(name)
            ends[name].wait(60)
            told.put(f"{name} ended")

    threads = [threading.Thread(target=test, args=(name,)) for name in ends]
    threads[0].start()
    assert told.get(timeout=60) == "beside"
    threads[1].start()
    until(lambda: is_locked(tmp_path / "gate.lock"))
    threads[2].start()
    with cores._cores.open("a") as lock:  # another one beside would be let in, were it not for who waits
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert told.empty()
    for end in ends.values():
        end.set()
    for thread in threads:
        thread.join(60)
    order = ["beside ended", "alone", "alone ended", "after", "after ended"]
    assert [told.get(timeout=60) for _ in order] == order


def is_locked(path: Path) -> bool:
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def until(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
