"""The plan: everything that the n+1 runs of Kolla are given, as files that one can read first.

    plan/passwords.yml          one for all runs, mode 0600
    plan/edits.yaml             the edits that the release's playbooks get
    plan/REGION/inventory.yml   the hosts of that region alone
    plan/REGION/globals.yml     its variables
    plan/REGION/config/         its node_custom_config

The AR's files name no OSR: an OSR that comes later changes nothing of what is there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from mrkolla.config import Experiment
from mrkolla.errors import InputError
from mrkolla.images.build import REGISTRY
from mrkolla.images.recipe import DISTRO, NAMESPACE
from mrkolla.kolla import addresses, dialect, httplog, passwords
from mrkolla.kolla.edits import edits_for
from mrkolla.kolla.names import absent, names
from mrkolla.kolla.releases import release as release_of
from mrkolla.placement import AR, Region, region_names

#: What an OSR registers: service type -> (port, path). Kolla's own defaults.
OSR_SERVICES = {
    "image": (9292, ""),
    "compute": (8774, "/v2.1"),
    "placement": (8780, ""),
    "network": (9696, ""),
}
#: The file by which a folder is known to be a plan.
_MARK = "edits.yaml"


def expected_services(release_interfaces: tuple[str, ...], region: Region) -> dict[str, dict[str, str]]:
    """The endpoints that an OSR must have, without identity: service type -> interface -> URL."""
    return {
        kind: {interface: f"http://{region.vip}:{port}{path}" for interface in release_interfaces}
        for kind, (port, path) in OSR_SERVICES.items()
    }


def inventory(region: Region, release: str) -> dict:
    """The inventory of one region's run, as Ansible's YAML plugin reads it."""
    groups: dict[str, dict] = {}
    hosts = {
        placed.host.name: {
            "ansible_host": placed.host.address,
            "ansible_user": placed.host.user,
            "ansible_port": placed.host.port,
            "ansible_ssh_private_key_file": str(placed.host.key),
            "ansible_ssh_common_args": (
                f"-o UserKnownHostsFile={placed.host.known_hosts} -o StrictHostKeyChecking=yes -o BatchMode=yes"
            ),
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
    url = addresses.keystone_url(admin)
    return values | {
        "enable_keystone": False,
        "enable_horizon": False,
        "enable_rabbitmq": True,
        "enable_glance": True,
        "enable_placement": True,
        "enable_nova": True,
        "enable_neutron": True,
        "neutron_plugin_agent": "openvswitch",
        "keystone_internal_url": url,
        "keystone_public_url": addresses.keystone_public_url(admin),
        "openstack_auth": {
            "auth_url": url,
            "username": "{{ keystone_admin_user }}",
            "password": "{{ keystone_admin_password }}",
            "user_domain_name": "{{ default_user_domain_name }}",
            "project_name": "{{ keystone_admin_project }}",
            "domain_name": "default",
        },
    }


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
    values = {
        "nova_compute_virt_type": "kvm" if driver == "kvm" else "qemu",
        "enable_nova_libvirt_container": driver != "fake",
    }
    number = _fakes_per_host(experiment, region)
    if number:
        # Without the last, a run ends well although some of them never came.
        values |= {
            "enable_nova_fake": True,
            "num_nova_fake_per_node": number,
            "nova_compute_registration_fatal": True,
        }
    return values


def _fakes_per_host(experiment: Experiment, region: Region) -> int:
    """How many fake computes Kolla itself puts on each compute host; 0: the one service of each is configured so."""
    asked = next(r for r in experiment.regions if r.name == region.name)
    if asked.compute_driver != "fake":
        return 0
    number = (asked.fake_computes or asked.compute) // asked.compute
    return number if number > 1 or "nova_compute_virt_type" in absent(experiment.release) else 0


def _haproxy_globals(experiment: Experiment, region: Region) -> dict:
    """HAProxy's access log, in every region; whether the AR's (Keystone and Horizon) keeps clients' connections."""
    keep_alive = region.kind != AR or experiment.keystone.keep_alive is not False
    return {"haproxy_frontend_http_extra": httplog.frontend_lines(keep_alive=keep_alive)}


def _own_config(experiment: Experiment, region: Region) -> dict[str, str]:
    """Files of node_custom_config that follow from the experiment file."""
    files: dict[str, str] = {}
    keystone = experiment.keystone
    if region.kind == AR:
        if keystone.hash_rounds is not None:
            files["keystone.conf"] = f"[identity]\npassword_hash_rounds = {keystone.hash_rounds}\n"
        return files
    if keystone.token_cache is not None:
        # -1 turns the cache off (keystonemiddleware).
        seconds = keystone.token_cache or -1
        files["global.conf"] = f"[keystone_authtoken]\ntoken_cache_time = {seconds}\n"
    driver = next(r.compute_driver for r in experiment.regions if r.name == region.name)
    if driver == "qemu" and "nova_compute_virt_type" in absent(experiment.release):
        files["nova/nova-compute.conf"] = "[libvirt]\nvirt_type = qemu\n"
    if driver == "fake" and not _fakes_per_host(experiment, region):
        # The driver with predictable ids: the plain one comes back under a new one after a restart.
        files["nova/nova-compute.conf"] = "[DEFAULT]\ncompute_driver = fake.PredictableNodeUUIDDriver\n"
    return files


def region_globals(experiment: Experiment, region: Region, admin: Region, testbed: dict) -> dict:
    """All variables of a region's globals.yml.

    A person's own win over mrkolla's defaults (image, testbed), the region's over the cloud's. Raises
    :class:`~mrkolla.errors.InputError` for one that contradicts what makes the region.
    """
    _refuse_unsupported(experiment)
    which, every = release_of(experiment.release), region_names(experiment)
    must = dialect.spoken(which, region, every, derived_globals(experiment, region, admin))
    values = {
        **_images_globals(experiment),
        **_compute_globals(experiment, region),
        **_haproxy_globals(experiment, region),
        **testbed,
    }
    values = dialect.spoken(which, region, every, values)
    own = _region_section(experiment, region)
    where = "admin_region.kolla" if region.kind == AR else f"regions[{_index(experiment, region)}].kolla"
    for place, given in (("kolla", experiment.kolla.globals), (where, own.globals)):
        for key, value in given.items():
            if key in must and must[key] != value:
                raise InputError(
                    f"{place}.globals.{key}: {value!r} clashes with {must[key]!r}, which mrkolla derives for region"
                    f" {region.name}; remove it"
                )
        values |= given
    if addresses.ROUTER_ID in experiment.kolla.globals:
        raise InputError(
            f"kolla.globals.{addresses.ROUTER_ID}: with one id for all, regions would fight for their VIPs; give it to"
            " a region (admin_region.kolla, regions[].kolla), or leave it out: each has its own"
        )
    closes = httplog.CLOSE in values.get("haproxy_frontend_http_extra", [])
    if region.kind == AR and experiment.keystone.keep_alive is False and not closes:
        raise InputError(
            f"keystone.keep_alive: false needs '{httplog.CLOSE}' in haproxy_frontend_http_extra, which kolla.globals"
            " sets without it; add it there"
        )
    return values | must


def own_variables(experiment: Experiment, folder: Path) -> set[str]:
    """The variables that mrkolla itself sets in the plan ``folder``: all but a person's own."""
    sections = [experiment.kolla, experiment.admin_region.kolla, *(region.kolla for region in experiment.regions)]
    given = {name for section in sections for name in section.globals}
    plans = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*/globals.yml"))]
    return {name for values in plans for name in values} - given


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


def _region_section(experiment: Experiment, region: Region):
    return experiment.admin_region.kolla if region.kind == AR else experiment.regions[_index(experiment, region)].kolla


def write(
    folder: Path, experiment: Experiment, regions: list[Region], testbed_globals, testbed_config, secrets: Path
) -> None:
    """Write the plan into ``folder`` (what was there is replaced whole).

    ``testbed_globals(experiment, region)`` and ``testbed_config(region)`` say what Kolla must know of the testbed;
    ``secrets`` is where the cloud's passwords are kept between plans, so that the same file gives the same plan.
    Raises :class:`~mrkolla.errors.InputError` for a clash, or a folder that is something else than a plan, before
    anything is written.
    """
    folder = folder.resolve()
    _refuse_other_folder(folder)
    admin = next(region for region in regions if region.kind == AR)
    addresses.refuse_tls(experiment, admin)
    ids, own = addresses.router_ids(regions), {"kolla_certificates_dir": str(addresses.certificates(secrets.parent))}
    contents: dict[str, str] = {}
    for region in regions:
        given = {addresses.ROUTER_ID: ids[region.name], **testbed_globals(experiment, region)}
        values = region_globals(experiment, region, admin, given | (own if admin.public_vip else {}))
        contents[f"{region.name}/globals.yml"] = _yaml(values, f"globals of region {region.name}")
        contents[f"{region.name}/inventory.yml"] = _yaml(
            inventory(region, experiment.release), f"hosts of region {region.name}"
        )
        for name, text in {**testbed_config(region), **_own_config(experiment, region)}.items():
            contents[f"{region.name}/config/{name}"] = text
    edits = edits_for(experiment.release)
    listed = [edit.listed() for edit in edits]
    contents["edits.yaml"] = _yaml(listed, f"edits of Kolla for release {experiment.release}")
    copied = _user_config(experiment, regions, contents)
    passwords.ensure(secrets, experiment.release)
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(mode=0o700, parents=True)
        for name, text in contents.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o600)
        for source, name in copied:
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path)
        shutil.copy(secrets, new / "passwords.yml")
        (new / "passwords.yml").chmod(0o600)
        for region in regions:
            # kolla-ansible looks beside globals.yml, whatever its option --passwords says.
            (new / region.name / "passwords.yml").symlink_to("../passwords.yml")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    except OSError as refused:
        shutil.rmtree(new, ignore_errors=True)
        raise InputError(f"the plan cannot be written to {folder}: {refused.strerror}") from refused


def _refuse_other_folder(folder: Path) -> None:
    """A plan replaces what is in its folder, so that must be nothing, or a plan."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise InputError(f"{folder} is there and holds something else than a plan: give a new or an empty folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder for the plan")


def _user_config(experiment: Experiment, regions: list[Region], contents: dict) -> list[tuple[Path, str]]:
    """A person's node_custom_config files: (source, path in the plan); one that mrkolla writes too is refused."""
    copied: dict[str, Path] = {}
    for region in regions:
        for given in (experiment.kolla.config, _region_section(experiment, region).config):
            for source in sorted(Path(given).rglob("*")) if given else []:
                if source.is_file():
                    name = f"{region.name}/config/{source.relative_to(given)}"
                    if name in contents:
                        raise InputError(f"kolla.config: {source} clashes with plan/{name}, which mrkolla writes")
                    copied[name] = source
    return [(source, name) for name, source in copied.items()]


def _yaml(value: object, title: str) -> str:
    return f"# {title}; made by mrkolla plan\n" + yaml.safe_dump(value, sort_keys=False, width=120)
