"""The testbed ``vagrant`` for an experiment: machines started by Vagrant through enoslib, prepared, linked, removed."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from mrkolla.base import cache, remote, shell
from mrkolla.base.errors import DeployError, InputError, LackError, MrkollaError
from mrkolla.base.remote import Host
from mrkolla.config import Experiment
from mrkolla.config.placement import Region
from mrkolla.config.vagrant import BUILD, VagrantTestbed
from mrkolla.providers import plain
from mrkolla.providers import prepare as hosts_of
from mrkolla.providers.plain import kolla_config
from mrkolla.providers.prepare import Seen
from mrkolla.providers.vagrant import box, checks, layout, libvirt, provider
from mrkolla.providers.vagrant.checks import need
from mrkolla.wan import PlainLink, PlainRegion
from mrkolla.wan.plainhosts import need as need_driver

# fmt: off
__all__ = [
    "FEEDS", "destroy", "doctor", "foresee", "kolla_config", "kolla_globals", "links", "need", "power_off", "power_on",
    "refuse_save", "regions", "reserve", "running", "seen",
]
# fmt: on

Say = Callable[[str], None]
#: Built images reach these machines through a registry in each region.
FEEDS = True
_VERSION = 1
_RUN = Path(__file__).with_name("run.py")
#: Seconds for everything around the boots, for each machine.
_EACH_S = 600.0
# Vagrant sets a machine's interfaces up anew whenever it starts it, and what else is on them goes; networkd does so
# some time after Vagrant has finished.
_ADDRESSES_AGAIN = """
test -e /etc/systemd/system/mrkolla-net.service || exit 0
if systemctl -q is-active systemd-networkd; then
    /lib/systemd/systemd-networkd-wait-online --interface="$1" --timeout=120
fi
systemctl reload-or-restart mrkolla-net
"""


# -- looking -----------------------------------------------------------------------------------------------------------


def foresee(experiment: Experiment, results: Path) -> None:
    """Raise one clear error for all that stops the experiment on this machine, before anything is started."""
    need()
    if state := _load(experiment.name):
        _refuse_other_hosts(experiment, state)
        return
    _refuse_unrecorded(experiment)
    if error := hosts_of.lacking(checks.look(experiment.testbed_as(VagrantTestbed), experiment)):
        raise error


def doctor(testbed: VagrantTestbed) -> list[Seen]:
    """What this machine has and lacks for the section ``testbed``; changes nothing."""
    return checks.look(testbed)


def regions(experiment: Experiment) -> list[Region]:
    """The regions with their machines. Addresses follow from the file, so no machine has to run."""
    state = _load(experiment.name)
    return layout.regions(experiment, {name: Path(key) for name, key in state["keys"].items()} if state else None)


def _hosts(experiment: Experiment) -> list[Host]:
    return [placed.host for region in regions(experiment) for placed in region.hosts]


def running(experiment: Experiment) -> dict[str, bool]:
    """Each machine's name, and whether it answers by SSH with its Docker up; empty when there are none."""
    return plain.answering(_hosts(experiment)) if _load(experiment.name) else {}


def seen(name: str) -> dict[str, bool] | None:
    """Each machine of the cloud ``name``, and whether it answers by SSH with its Docker up; None: not of Vagrant's."""
    state = _load(name)
    if state is None:
        return None
    return dict.fromkeys((row["name"] for row in state["machines"]), False) | plain.answering(_reached(name, state))


def _reached(cloud: str, state: Mapping) -> list[Host]:
    """The machines on record that have a key made by Vagrant: a start that was cut off leaves some without."""
    rows, keys = state["machines"], {name: Path(key) for name, key in state["keys"].items()}
    known_hosts = plain.known_hosts(cloud)
    return [
        Host(r["name"], r["address"], key=keys[r["name"]], known_hosts=known_hosts) for r in rows if r["name"] in keys
    ]


# -- machines, from first to last --------------------------------------------------------------------------------------


def reserve(experiment: Experiment, images: Path | None, log: Path, say: Say) -> None:
    """Start and prepare the machines of ``experiment``; what runs and is as it must be is left alone.

    Raises LackError, InputError (another cloud of that name has other machines) and DeployError; what a first start
    that failed has left is removed.
    """
    fresh = _load(experiment.name) is None
    foresee(experiment, log.parent)
    if fresh or not all(running(experiment).values()):
        try:
            _start(experiment, log, say)
        except BaseException as error:
            if fresh:
                _undo(experiment.name, error)
            raise
    hosts = _hosts(experiment)
    record = cache.cloud(experiment.name) / "prepared.json"
    hosts_of.prepare(hosts, layout.needs(experiment, _need_state(experiment)["interfaces"]), record, say)
    need_driver(_plain(experiment), experiment.wan.driver)


def _undo(cloud: str, failed: BaseException) -> None:
    """Remove what a first start left; what cannot be removed is told beside why the start failed."""
    try:
        destroy(cloud)
    except MrkollaError as error:
        raise LackError(f"{failed}; and then: {error}") from failed


def _start(experiment: Experiment, log: Path, say: Say) -> None:
    """Have all machines up, reached by their own keys, with their host keys pinned; and record all that."""
    testbed = experiment.testbed_as(VagrantTestbed)
    emulated = checks.emulated(testbed)
    record = _load(experiment.name)
    state = record or _begin(experiment, emulated)
    if state["box"] == box.name():
        _have_box(log, say)
    if record is None:
        _refuse_unrecorded(experiment)  # once more: a box takes minutes
    # A region may have joined. On record before anything is started: a crash must not lose who they are.
    state["machines"] = [machine.as_dict() for machine in layout.machines(experiment)]
    plain.save(_file(experiment.name), state)
    folder = layout.folder(experiment.name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    plain.save(folder / "conf.json", provider.dictionary(experiment, state["box"], state["emulated"]))
    say(f"starting {len(state['machines'])} machines{' in emulation' if emulated else ''}")
    _call("up", experiment.name, len(state["machines"]) * (testbed.boot_s + _EACH_S), testbed.backend, log, say)
    rows = json.loads((folder / "hosts.json").read_text())
    state["keys"] = {name: row["key"] for name, row in rows.items()}
    plain.save(_file(experiment.name), state)
    hosts = _hosts(experiment)
    _wait(hosts, say)
    # Asked once, over a network that does not leave this machine.
    hosts_of.pin(hosts, plain.known_hosts(experiment.name), trusted=None, scan=True)
    state["interfaces"] = {host.name: _interface(host) for host in hosts}
    plain.save(_file(experiment.name), state)
    for host in hosts:
        argv = ["sh", "-ec", _ADDRESSES_AGAIN, "sh", state["interfaces"][host.name]]
        remote.run(host, argv, timeout=_EACH_S)


def _begin(experiment: Experiment, emulated: bool) -> dict:
    testbed = experiment.testbed_as(VagrantTestbed)
    # Keys of machines that are gone tell nothing of new ones.
    plain.known_hosts(experiment.name).unlink(missing_ok=True)
    name = box.name() if testbed.box == BUILD else testbed.box
    libvirts = testbed.backend == "libvirt"
    return {
        "version": _VERSION,
        "backend": testbed.backend,
        "box": name,
        "emulated": emulated,
        "machines": [],
        "keys": {},
        "interfaces": {},
        # Vagrant makes a pool and volumes of the box in libvirt, and does not remove them. These were there before.
        "before": {
            "pool": libvirts and libvirt.POOL in libvirt.pools(),
            "volumes": sorted(libvirt.box_volumes(name)) if libvirts else [],
        },
    }


def _have_box(log: Path, say: Say) -> None:
    if box.name() in checks.boxes("libvirt"):
        return
    say("building a box")
    file = box.ensure(box.vagrant_public_key(checks.environment("libvirt"), checks.home()), log, say)
    say("adding the box")
    checks.vagrant("box", "add", "--name", box.name(), "--provider", "libvirt", str(file))


def _call(verb: str, cloud: str, timeout: float, backend: str, log: Path, say: Say) -> None:
    """Have enoslib's provider do ``verb`` in a process of its own; raises DeployError with Vagrant's own words."""
    folder = layout.folder(cloud)
    last: deque[str] = deque(maxlen=60)

    def line(text: str) -> None:
        if text.strip():
            last.append(text)
            say(text.removeprefix("==> ").strip()[:80])

    # -P: the files beside that program are not for import.
    argv = [sys.executable, "-P", str(_RUN), verb, str(folder)]
    pidfile = folder / "vagrant.pid"
    shell.end_leftover(pidfile)
    status = shell.stream(argv, log, timeout=timeout, line=line, env=checks.environment(backend), pidfile=pidfile)
    if status != 0:
        raise DeployError(f"vagrant {verb} failed: {words(last)}; log: {log}")


def words(lines: deque[str]) -> str:
    """What Vagrant says of its failure: the lines that are no progress, without its standing phrases."""
    drop = r"^(==>|\s+[\w.-]+: |An error occurred while executing|Any errors that occurred|machine\. Please handle)"
    plainly = [" ".join(text.split()) for text in lines if not re.match(drop, text)]
    return " ".join(plainly)[-400:] or (lines[-1].strip() if lines else "no reason given")


def _wait(hosts: list[Host], say: Say, patience_s: float = 120.0) -> None:
    """Wait until every machine's SSH answers at its own address; raises LackError naming those that do not."""
    end = time.monotonic() + patience_s
    silent = list(hosts)
    while silent:
        say(f"{len(hosts) - len(silent)} of {len(hosts)} machines answer")
        silent = [host for host in silent if not _answers(host)]
        if silent and time.monotonic() > end:
            named = ", ".join(f"{host.name} ({host.address})" for host in silent)
            raise LackError(f"no answer by SSH within {patience_s:.0f} s from {named}, though Vagrant reached them")
        if silent:
            time.sleep(1)


def _answers(host: Host) -> bool:
    try:
        with socket.create_connection((host.address, host.port), 3):
            return True
    except OSError:
        return False


def _interface(host: Host) -> str:
    for link in hosts_of.read_json(host, remote.run(host, ["ip", "-j", "-4", "addr", "show"])):
        if host.address in [address["local"] for address in link["addr_info"]]:
            return link["ifname"]
    raise LackError(
        f"{host.name}: no interface has its address {host.address}: its box does not take Vagrant's networks"
    )


def power_off(experiment: Experiment) -> list[str]:
    """Shut all machines down; their disks stay. Vagrant itself ends those that do not: none is named."""
    state = _need_state(experiment)
    log = layout.folder(experiment.name) / "vagrant.log"
    _call("halt", experiment.name, len(state["machines"]) * _EACH_S, state["backend"], log, lambda text: None)
    for host in _hosts(experiment):
        remote.forget(host)
    return []


def power_on(experiment: Experiment, log: Path, say: Say) -> None:
    """Start all machines again as they were left."""
    _need_state(experiment)
    if not all(running(experiment).values()):
        _start(experiment, log, say)


def refuse_save(experiment: Experiment) -> None:
    """The disks are libvirt's or VirtualBox's, not in the cloud's folder: a copy of that would be of no use."""
    raise InputError("a cloud of the testbed vagrant cannot be saved: 'mrkolla stop' and 'start' keep it over a pause")


def _need_state(experiment: Experiment) -> dict:
    state = _load(experiment.name)
    if state is None:
        raise InputError(f"there is no cloud '{experiment.name}' of Vagrant's: 'mrkolla up' deploys one")
    return state


def destroy(name: str) -> None:
    """Remove all machines of the cloud ``name``, their disks, networks and box. Raises LackError for what is left."""
    state = _load(name)
    if state is None:
        return
    folder, backend = layout.folder(name), state["backend"]
    for host in _reached(name, state):
        remote.forget(host)
    shell.end_leftover(folder / "vagrant.pid")
    failed = None
    if (folder / "Vagrantfile").exists():
        log = cache.cloud(name) / "vagrant-destroy.log"
        try:
            _call("destroy", name, len(state["machines"]) * _EACH_S, backend, log, lambda text: None)
        except DeployError as error:
            failed = error
    if backend == "libvirt":
        # What Vagrant did not know of, or could not do.
        libvirt.clear(name, [row["name"] for row in state["machines"]])
        _drop_box(name, state)
    elif failed:
        raise LackError(f"{failed}; see 'vagrant status' in {folder}, then run this again")
    cache.remove(folder)
    _file(name).unlink(missing_ok=True)


def _uses(record: Path, box: str) -> bool:
    """Whether the cloud with that record has hosts of ``box``; one whose record cannot be read may have."""
    try:
        return json.loads(record.read_text()).get("box") == box
    except (OSError, ValueError, AttributeError):
        return True


def _drop_box(name: str, state: Mapping) -> None:
    """Remove what of the box was not there before, unless another cloud of mrkolla's uses it."""
    if sum(_uses(path, state["box"]) for path in cache.root().glob("cloud-*/vagrant.json")) <= 1:
        for volume in libvirt.box_volumes(state["box"]) - set(state["before"]["volumes"]):
            libvirt.drop_volume(volume)
        if state["box"].startswith("mrkolla/") and state["box"] in checks.boxes("libvirt"):
            checks.vagrant("box", "remove", state["box"], "--provider", "libvirt", "--all", "--force")
    if not state["before"]["pool"]:
        libvirt.drop_pool()


# -- what others must know ---------------------------------------------------------------------------------------------


def kolla_globals(experiment: Experiment, region: Region) -> dict:
    """What Kolla's run for ``region`` must know of such machines."""
    state = _load(experiment.name)
    interface = (state["interfaces"] if state else {}).get(region.control.name, layout.INTERFACE)
    return plain.kolla_globals(experiment, experiment.testbed_as(VagrantTestbed), region, interface)


def _plain(experiment: Experiment) -> tuple[PlainRegion, ...]:
    """The regions as links between hosts see them: each has a network of its own, VIP and all."""
    return tuple(
        PlainRegion(region.name, tuple(placed.host for placed in region.hosts), (region.subnet,))
        for region in regions(experiment)
    )


def links(experiment: Experiment) -> list[PlainLink]:
    """The links between each OSR and the AR, on the machines themselves."""
    return plain.links(experiment.admin_region.name, _plain(experiment))


# -- state -------------------------------------------------------------------------------------------------------------


def _file(name: str) -> Path:
    return cache.cloud(name) / "vagrant.json"


def _load(name: str) -> dict | None:
    """What is recorded of the cloud ``name``; None when there is none of Vagrant's."""
    file = _file(name)
    try:
        state = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        where = layout.folder(name)
        raise InputError(f"{file} is not readable ({error}): 'vagrant destroy' in {where}, then remove it") from error
    if not isinstance(state, dict) or state.get("version") != _VERSION:
        raise InputError(f"{file} was written by another version: destroy the cloud with that version")
    return state


def _refuse_unrecorded(experiment: Experiment) -> None:
    """Raise LackError when libvirt has something by a name of this cloud's: it is another's, and stays as it is."""
    if experiment.testbed_as(VagrantTestbed).backend != "libvirt":
        return  # VirtualBox gets a name of its own for each machine
    try:
        leftovers = libvirt.remains(experiment.name, [machine.name for machine in layout.machines(experiment)])
    except LackError:
        return  # of what is wrong with libvirt itself, doctor's look tells more
    if leftovers:
        raise LackError(
            f"libvirt has {', '.join(leftovers)}, and this cache has no record of such a cloud: give this experiment"
            " another name, or destroy that cloud with the cache that it was made with (MRKOLLA_CACHE)"
        )


def _refuse_other_hosts(experiment: Experiment, state: Mapping) -> None:
    before = {row["name"]: row for row in state["machines"]}
    plain.refuse_other_hosts(
        experiment.name, before, {machine.name: machine.as_dict() for machine in layout.machines(experiment)}
    )
