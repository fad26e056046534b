"""The plan: everything that the n+1 runs of Kolla are given, as files that one can read first.

    plan/passwords.yml          one for all runs, mode 0600
    plan/edits.yaml             the edits that the release's playbooks get
    plan/REGION/inventory.yml   the hosts of that region alone
    plan/REGION/globals.yml     its variables
    plan/REGION/config/         its node_custom_config

The AR's files name no OSR: an OSR that comes later changes nothing of what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from mrkolla.base import yamltext
from mrkolla.base.errors import InputError
from mrkolla.base.remote import Host, ssh_word
from mrkolla.config import Experiment, Kolla
from mrkolla.config.placement import AR, Region, region_names
from mrkolla.config.points import folder_files
from mrkolla.config.releases import release as release_of
from mrkolla.config.sections import Keystone
from mrkolla.kolla import addresses, dialect, httplog, inifiles, passwords, places, wiring
from mrkolla.kolla.edits import edits_for
from mrkolla.kolla.image_names import DISTRO, NAMESPACE, REGISTRY
from mrkolla.kolla.names import absent, names

#: What a testbed says of its hosts: variables of globals.yml, files of node_custom_config.
Globals = Callable[[Experiment, Region], dict[str, Any]]
Files = Callable[[Region], dict[str, str]]

#: The file by which a folder is known to be a plan: it lists the plan's files.
MARK = ".mrkolla-plan"


def expected_services(release_interfaces: tuple[str, ...], region: Region) -> dict[str, dict[str, str]]:
    """The endpoints that an OSR must have, without identity: service type -> interface -> URL."""
    return {
        kind: {interface: f"http://{region.vip}:{port}{path}" for interface in release_interfaces}
        for kind, (port, path) in wiring.OSR_SERVICES.items()
    }


def _ssh_options(host: Host) -> str:
    pinned = [f"UserKnownHostsFile={ssh_word(host.known_hosts)}"] if host.known_hosts else []
    return " ".join(f"-o {shlex.quote(option)}" for option in [*pinned, "StrictHostKeyChecking=yes", "BatchMode=yes"])


def inventory(region: Region, release: str) -> dict:
    """The inventory of one region's run, as Ansible's YAML plugin reads it."""
    groups: dict[str, dict] = {}
    hosts = {
        placed.host.name: {
            "ansible_host": placed.host.address,
            "ansible_user": placed.host.user,
            "ansible_port": placed.host.port,
            "ansible_ssh_private_key_file": str(placed.host.key),
            "ansible_ssh_common_args": _ssh_options(placed.host),
            "ansible_python_interpreter": release_of(release).host_python,
        }
        for placed in region.hosts
    }
    for group in ("control", "network", "compute"):
        groups[group] = {"hosts": {host.name: None for host in region.with_role(group)}}
    for group in ("monitoring", "storage"):
        groups[group] = {"hosts": {host.name: None for host in region.with_role("control")}}
    local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    groups["deployment"] = {"hosts": {"localhost": local}}
    for row in names(release)["groups"]:
        for group in row["are"]:
            groups[group] = {"children": {child: None for child in row["of"]}}
    for group in names(release).get("without_groups", []):
        del groups[group]
    return {"all": {"hosts": hosts, "children": groups}}


def derived_globals(experiment: Experiment, region: Region, admin: Region) -> dict:
    """The variables that make a region this region: they are what multi-region is, so none may be changed."""
    values: dict = {
        "openstack_region_name": region.name,
        "kolla_internal_vip_address": region.vip,
        "openstack_release": experiment.release,
        "enable_haproxy": True,
        "enable_mariadb": True,
        "enable_memcached": True,
    }
    values |= addresses.tls_globals(experiment, admin)
    if region.kind == AR:
        if admin.public_vip:
            values |= {"kolla_external_vip_address": admin.public_vip, "kolla_enable_tls_external": True}
        if experiment.keystone.workers is not None:
            values["keystone_api_workers"] = experiment.keystone.workers
        only = ("rabbitmq", "glance", "placement", "nova", "neutron", "openvswitch")
        values |= {"enable_keystone": True, "enable_horizon": True, **{f"enable_{name}": False for name in only}}
        return values
    url, public_url = places.urls(experiment, region, admin)
    values |= {
        "enable_keystone": False,
        "enable_horizon": False,
        "enable_rabbitmq": True,
        "enable_glance": True,
        "enable_placement": True,
        "enable_nova": True,
        "enable_neutron": True,
        "neutron_plugin_agent": "openvswitch",
        "keystone_internal_url": url,
        "keystone_public_url": public_url,
        "openstack_auth": {
            "auth_url": url,
            "username": "{{ keystone_admin_user }}",
            "password": "{{ keystone_admin_password }}",
            "user_domain_name": "{{ default_user_domain_name }}",
            "project_name": "{{ keystone_admin_project }}",
            "domain_name": "default",
        },
    }
    return values | places.variables(experiment, region, admin) | places.users(experiment, region.name)


def _images_globals(experiment: Experiment) -> dict:
    source = experiment.images
    if source.source == "public":
        return {}
    return {
        "kolla_base_distro": DISTRO[0],
        "kolla_base_distro_version": DISTRO[1],
        "docker_registry": source.registry or REGISTRY,
        "docker_registry_insecure": bool(source.registry),
        "docker_namespace": NAMESPACE,
        # Not among the images: HAProxy goes to MariaDB itself, services keep their own logs, and Heat is not needed.
        "enable_proxysql": False,
        "enable_fluentd": False,
        "enable_heat": False,
        # libvirt answers its own host alone; the mechanism that Kolla configures is not in the image.
        "libvirt_enable_sasl": False,
    }


def _compute_globals(experiment: Experiment, region: Region) -> dict:
    if region.kind == AR:
        return {}
    driver = next(r.compute_driver for r in experiment.regions if r.name == region.name)
    values: dict[str, Any] = {
        "nova_compute_virt_type": "kvm" if driver == "kvm" else "qemu",
        "enable_nova_libvirt_container": driver != "fake",
    }
    number = _fakes_per_host(experiment, region)
    if number:
        # Without the last, a run succeeds although some of them never registered.
        values |= {
            "enable_nova_fake": True,
            "num_nova_fake_per_node": number,
            "nova_compute_registration_fatal": True,
        }
    return values


def _fakes_per_host(experiment: Experiment, region: Region) -> int:
    """How many fake computes Kolla itself puts on each compute host; 0: each has one nova-compute, itself a fake."""
    shape = next(r for r in experiment.regions if r.name == region.name)
    if shape.compute_driver != "fake":
        return 0
    number = (shape.fake_computes or shape.compute) // shape.compute
    return number if number > 1 or "nova_compute_virt_type" in absent(experiment.release) else 0


def _haproxy_globals(experiment: Experiment, region: Region) -> dict:
    """HAProxy's access log, in every region; whether the AR's (Keystone and Horizon) keeps clients' connections."""
    keep_alive = region.kind != AR or experiment.keystone.keep_alive is not False
    lines = [*httplog.frontend_lines(keep_alive=keep_alive), *places.frontend_lines(experiment, region)]
    return {"haproxy_frontend_http_extra": lines}


def _own_config(experiment: Experiment, region: Region, admin: Region) -> dict[str, str]:
    """Files of node_custom_config that follow from the experiment file."""
    files = places.config(experiment, region, admin)
    keystone = experiment.keystone
    if keystone.hash_rounds is not None and (region.kind == AR or places.has_own(experiment, region)):
        hashing = f"[identity]\npassword_hash_rounds = {keystone.hash_rounds}\n"
        files["keystone.conf"] = hashing + files.get("keystone.conf", "")
    if region.kind == AR:
        return files
    if lines := _middleware(keystone):
        files["global.conf"] = "\n".join(["[keystone_authtoken]", *lines, ""])
    driver = next(r.compute_driver for r in experiment.regions if r.name == region.name)
    if driver == "qemu" and "nova_compute_virt_type" in absent(experiment.release):
        files["nova/nova-compute.conf"] = "[libvirt]\nvirt_type = qemu\n"
    if driver == "fake" and not _fakes_per_host(experiment, region):
        # The driver with predictable ids: the plain one comes back under a new one after a restart.
        files["nova/nova-compute.conf"] = "[DEFAULT]\ncompute_driver = fake.PredictableNodeUUIDDriver\n"
    return files


def _middleware(keystone: Keystone) -> list[str]:
    """How keystonemiddleware asks Keystone: lines of a service's ``[keystone_authtoken]``."""
    lines = []
    if keystone.retries is not None:
        lines.append(f"http_request_max_retries = {keystone.retries}")
    if keystone.connect_timeout:
        # The middleware's session takes it for the time limit of a connection and of each wait for an answer.
        lines.append(f"http_connect_timeout = {keystone.connect_timeout}")
    if keystone.token_cache is not None:
        # -1 turns the cache off.
        lines.append(f"token_cache_time = {keystone.token_cache or -1}")
    return lines


def region_globals(experiment: Experiment, region: Region, admin: Region, testbed: dict) -> dict:
    """All variables of a region's globals.yml.

    A person's own win over mrkolla's defaults (image, testbed), the region's over the cloud's. Raises
    InputError for one that contradicts what makes the region.
    """
    _refuse_unsupported(experiment)
    which, every = release_of(experiment.release), region_names(experiment)
    must = dialect.spoken(which, region, every, derived_globals(experiment, region, admin))
    counted_on = wiring.counted_on(region, admin, places.has_own(experiment, region))
    counted = dialect.spoken(which, region, every, counted_on)
    values = {
        **_images_globals(experiment),
        **_compute_globals(experiment, region),
        **_haproxy_globals(experiment, region),
        **testbed,
    }
    values = dialect.spoken(which, region, every, values)
    section = _region_section(experiment, region)
    secrets = {name for group in names(experiment.release)["passwords"].values() for name in group}
    where = "admin_region.kolla" if region.kind == AR else f"regions[{_index(experiment, region)}].kolla"
    for place, variables in (("kolla", experiment.kolla.globals), (where, section.globals)):
        for key, value in variables.items():
            if key in secrets:
                raise InputError(
                    f"{place}.globals.{key}: mrkolla makes this secret, and Kolla takes that of plan/passwords.yml;"
                    " remove it"
                )
            for fixed, does in ((must, "derives"), (counted, "counts on")):
                if key in fixed and wiring.contradicts(value, fixed[key]):
                    raise InputError(
                        f"{place}.globals.{key}: {value!r} clashes with {fixed[key]!r}, which mrkolla {does} for region"
                        f" {region.name}; remove it"
                    )
            if key not in must | counted and (why := wiring.moved_by(key, region, admin)):
                raise InputError(f"{place}.globals.{key}: {value!r} cannot be set: {why}; remove it")
        values |= variables
    if addresses.ROUTER_ID in experiment.kolla.globals:
        raise InputError(
            f"kolla.globals.{addresses.ROUTER_ID}: with one id for all, regions would fight for their VIPs; give it to"
            " a region (admin_region.kolla, regions[].kolla), or leave it out: each has its own"
        )
    extra = values.get("haproxy_frontend_http_extra", [])
    if not isinstance(extra, list):
        raise InputError(f"kolla.globals.haproxy_frontend_http_extra: must be a list of lines, not {extra!r}")
    closes = httplog.CLOSE in extra
    if region.kind == AR and experiment.keystone.keep_alive is False and not closes:
        raise InputError(
            f"keystone.keep_alive: false needs '{httplog.CLOSE}' in haproxy_frontend_http_extra, which kolla.globals"
            " sets without it; add it there"
        )
    return values | must


def own_variables(experiment: Experiment, folder: Path) -> set[str]:
    """The variables that mrkolla itself sets in the plan ``folder``: all but a person's own."""
    sections = [experiment.kolla, experiment.admin_region.kolla, *(region.kolla for region in experiment.regions)]
    exclusions = {name for section in sections for name in section.globals}
    plans = [yamltext.read(path.read_text()) for path in sorted(folder.glob("*/globals.yml"))]
    return {name for values in plans for name in values} - exclusions


def _refuse_unsupported(experiment: Experiment) -> None:
    """Keys that the file format has, and that no release here can be given yet."""
    for index, region in enumerate(experiment.regions):
        if region.fake_computes is not None and (region.compute < 1 or region.fake_computes % region.compute):
            raise InputError(
                f"regions[{index}].fake_computes: {region.fake_computes} cannot be shared evenly by {region.compute}"
                " compute hosts, and each gets as many; give a multiple of compute"
            )


def _index(experiment: Experiment, region: Region) -> int:
    return [r.name for r in experiment.regions].index(region.name)


def _region_section(experiment: Experiment, region: Region) -> Kolla:
    return experiment.admin_region.kolla if region.kind == AR else experiment.regions[_index(experiment, region)].kolla


def write(
    folder: Path,
    experiment: Experiment,
    regions: list[Region],
    testbed_globals: Globals,
    testbed_config: Files,
    secrets: Path,
    *,
    ours: bool = False,
) -> None:
    """Write the plan into ``folder``; an earlier plan there is replaced whole.

    ``testbed_globals(experiment, region)`` and ``testbed_config(region)`` say what Kolla must know of the testbed;
    ``secrets`` is where the cloud's passwords are kept between plans, so that the same file gives the same plan.
    With ``ours`` the folder is known as a plan by its place, and needs no mark. Raises
    InputError for a clash, or a folder that holds anything but a plan, before anything is
    written.
    """
    if not ours:
        folder = _free(folder)

    def planned(one: Experiment) -> tuple[dict[str, str], dict[str, bytes]]:
        return _contents(one, regions, testbed_globals, testbed_config, addresses.certificates(secrets.parent))

    for variant in experiment.variants():
        planned(variant)
    contents, copied = planned(experiment)
    passwords.ensure(secrets, experiment.release)
    links = [f"{region.name}/passwords.yml" for region in regions]
    if not ours:
        names = [*contents, *copied, "passwords.yml", *links]
        contents[MARK] = json.dumps(sorted(names), indent=0)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mrkolla-plan-", dir=folder.parent) as place:
            new = Path(place) / "new"
            _fill(new, contents, copied, secrets, links)
            if os.path.lexists(folder):
                folder.rename(Path(place) / "old")
            new.rename(folder)
    except OSError as refused:
        what = refused.filename or folder
        raise InputError(f"the plan cannot be written to {folder}: {what}: {refused.strerror}") from refused


def digests(folder: Path, cloud: Path) -> dict[str, str]:
    """File -> digest of the plan in ``folder``, its secrets left out, the same wherever the folder ``cloud`` is."""
    here = os.fsencode(cloud)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]  # passwords.yml
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes().replace(here, b"")).hexdigest()
        for path in files
    }


def _fill(new: Path, contents: dict[str, str], copied: dict[str, bytes], secrets: Path, links: list[str]) -> None:
    new.mkdir(mode=0o700)
    for name, text in contents.items():
        path = new / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
    for name, data in copied.items():
        path = new / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)
    shutil.copy(secrets, new / "passwords.yml")
    (new / "passwords.yml").chmod(0o600)
    for name in links:
        # kolla-ansible looks beside globals.yml, whatever its option --passwords says.
        (new / name).symlink_to("../passwords.yml")


def _free(folder: Path) -> Path:
    """The folder, links followed, once it is seen that a plan may replace it whole: it has nothing but an earlier one.

    Raises InputError where it may not.
    """
    try:
        folder = folder.resolve()
    except RuntimeError:
        raise InputError(f"{folder} is a symbolic link that leads to itself: give a folder for the plan") from None
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder for the plan")
    if Path.cwd().is_relative_to(folder):
        # The folder is replaced whole: who works in it would be nowhere.
        raise InputError(f"{folder} is the working directory, or above it: give another folder for the plan")
    if not folder.is_dir() or not any(folder.iterdir()):
        return folder
    try:
        held = _held(folder)
    except OSError as refused:
        raise InputError(f"{refused.filename} cannot be read: {refused.strerror}; give a new folder") from refused
    if held.get(MARK) != stat.S_IFREG:  # a pipe would be waited for without end, and a link leads elsewhere
        raise InputError(f"{folder} is there and holds something else than a plan: give a new or an empty folder")
    listing = _marked(folder / MARK)
    if stranger := next((name for name, kind in sorted(held.items()) if listing.get(name) != kind), None):
        raise InputError(
            f"{folder / stranger} is not of the plan that {folder} holds: move it, or give a new folder for this plan"
        )
    return folder


def _held(folder: Path) -> dict[str, int]:
    """All below ``folder`` but folders: name -> kind, as in a mode. Raises OSError where one cannot be looked at."""

    def refuse(error: OSError) -> None:
        raise error

    paths = (Path(at, name) for at, folders, files in os.walk(folder, onerror=refuse) for name in (*folders, *files))
    kinds = {str(path.relative_to(folder)): stat.S_IFMT(path.lstat().st_mode) for path in paths}
    return {name: kind for name, kind in kinds.items() if kind != stat.S_IFDIR}


def _marked(mark: Path) -> dict[str, int]:
    """What the plan of this mark has, as :func:`_held`; a mark may be anybody's, and names only what a plan has."""
    try:
        names = json.loads(mark.read_text())
        if not isinstance(names, list):
            raise ValueError
        return {MARK: stat.S_IFREG, **{name: _kind(name) for name in names}}
    except (OSError, ValueError, TypeError, RecursionError):
        raise InputError(
            f"{mark} is damaged, or none that mrkolla wrote: move {mark.parent} elsewhere, or give a new folder"
        ) from None


def _kind(name: str) -> int:
    """The kind of a plan's file ``name``. Raises ValueError for a name, TypeError for a value, that no plan has."""
    path = PurePosixPath(name)
    if str(path) == name and not path.is_absolute() and ".." not in path.parts:
        match path.parts:
            case (_, "passwords.yml"):
                return stat.S_IFLNK
            case ("passwords.yml" | "edits.yaml",) | (_, "globals.yml" | "inventory.yml") | (_, "config", _, *_):
                return stat.S_IFREG
    raise ValueError


def _contents(
    experiment: Experiment, regions: list[Region], testbed_globals: Globals, testbed_config: Files, certificates: Path
) -> tuple[dict[str, str], dict[str, bytes]]:
    """The files of the plan, by name: texts, and a person's files that are copied as they are."""
    admin = next(region for region in regions if region.kind == AR)
    addresses.refuse_tls(experiment, admin)
    places.refuse(experiment, admin)
    ids, tls = addresses.router_ids(regions), {"kolla_certificates_dir": str(certificates)}
    contents: dict[str, str] = {}
    copied: dict[str, bytes] = {}
    for region in regions:
        testbed = {addresses.ROUTER_ID: ids[region.name], **testbed_globals(experiment, region)}
        values = region_globals(experiment, region, admin, testbed | (tls if admin.public_vip else {}))
        # Paths stand in them, so that a line folded by its length would not be the same wherever the cloud is.
        hosts = inventory(region, experiment.release)
        contents[f"{region.name}/globals.yml"] = _yaml(values, f"globals of region {region.name}", width=10_000)
        contents[f"{region.name}/inventory.yml"] = _yaml(hosts, f"hosts of region {region.name}", width=10_000)
        user_files = _user_config(experiment, region)
        files = dict(testbed_config(region))
        for name, text in _own_config(experiment, region, admin).items():
            files[name] = files.get(name, "") + text  # a section may come twice
        files = inifiles.merged(files, user_files, f"plan/{region.name}/config")
        contents |= {f"{region.name}/config/{name}": text for name, text in files.items()}
        copied |= {f"{region.name}/config/{name}": data for name, (_, data) in user_files.items() if name not in files}
    listed = [edit.listed() for edit in edits_for(experiment.release)]
    contents["edits.yaml"] = _yaml(listed, f"edits of Kolla for release {experiment.release}")
    return contents, copied


def _user_config(experiment: Experiment, region: Region) -> dict[str, tuple[Path, bytes]]:
    """A person's files for the node_custom_config of ``region``, by name in it; the region's win over the cloud's."""
    config: dict[str, tuple[Path, bytes]] = {}
    for folder in (experiment.kolla.config, _region_section(experiment, region).config):
        if folder:
            files = folder_files(Path(folder)).items()
            config |= {str(name): (Path(folder) / name, data) for name, data in files}
    return config


def _yaml(value: object, title: str, width: int = 120) -> str:
    return f"# {title}; made by mrkolla plan\n" + yamltext.write(value, sort_keys=False, width=width)
