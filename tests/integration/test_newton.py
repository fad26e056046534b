"""Newton's edits, each against the real thing, before and after: its own playbooks run by an Ansible of its time, its
own module, and a real Keystone (what stands in for containers is in :mod:`tests.integration.newton_lab`)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import openstack
import pytest
import yaml

from mrkolla.base.errors import LackError
from mrkolla.kolla import python27
from tests.integration import newton_lab
from tests.integration.newton_lab import Keystone, Lab, assigned, settings

AR, OSR1 = "198.18.1.10", "198.18.2.10"
REGIONS = ("AR", "OSR1", "OSR2")
PASSWORD = "adminpassword"


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Lab:
    try:
        python27.find("2.7")
    except LackError as missing:
        pytest.skip(str(missing))
    return newton_lab.make(tmp_path_factory.mktemp("newton"))


def endpoints(url: str, password: str) -> set[tuple[str, str, str, str]]:
    """All endpoints in Keystone: region, service, interface, URL."""
    domain = {"user_domain_id": "default", "project_domain_id": "default"}
    auth = {"auth_url": f"{url}/v3", "username": "admin", "password": password, "project_name": "admin", **domain}
    # Endpoints name addresses that nobody answers at: ask the one that is known.
    identity = openstack.connect(auth=auth, identity_endpoint_override=f"{url}/v3").identity
    services = {service.id: service.name for service in identity.services()}
    return {(e.region_id, services[e.service_id], e.interface, e.url) for e in identity.endpoints()}


# -- 1. Keystone's endpoints for every region --------------------------------------------------------------------


@pytest.fixture(scope="module")
def registered(lab, tmp_path_factory):
    """``registered("plain" | "patched")``: Keystone's endpoints after the tree's own tasks, and a second run's words"""
    done = {}

    def run(which: str):
        if which not in done:
            tree = getattr(lab, which)
            keystone = Keystone(tmp_path_factory.mktemp(which) / "keystone")
            book = tree / "ansible" / "register-only.yml"
            task = {"include": "roles/keystone/tasks/register.yml"}
            book.write_text(yaml.safe_dump([{"hosts": "keystone", "gather_facts": False, "tasks": [task]}]))
            said = [lab.playbook(tree, "AR", [], {}, keystone.docker(tree), book) for _ in range(2)]
            password = yaml.safe_load((lab.plan / "passwords.yml").read_text())["keystone_admin_password"]
            with keystone.serving() as url:
                done[which] = endpoints(url, password), said
        return done[which]

    return run


def rows_of(*regions: str) -> set[tuple[str, str, str, str]]:
    ports = {"public": 5000, "internal": 5000, "admin": 35357}
    return {
        (region, "keystone", interface, f"http://{AR}:{port}/v3")
        for region in regions
        for interface, port in ports.items()
    }


def test_without_the_edit_keystone_is_registered_in_the_admin_region_alone(registered):
    assert registered("plain")[0] == rows_of("AR")


def test_with_it_the_mails_nine_rows_stand_after_one_run_and_after_two(registered):
    rows, said = registered("patched")
    assert len(rows) == 9
    assert rows == rows_of(*REGIONS)
    assert all(f"(item={region})" in text for region in REGIONS for text in said)


# -- 2. Horizon offers every region ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def horizon(lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("horizon")
    made = {}
    for which, custom in (("plain", folder / "none"), ("patched", lab.patched / "multi-regions")):
        told = {"node_custom_config": str(custom)}
        made[which] = lab.rendered(getattr(lab, which), "AR", "horizon", folder / which, **told) / "horizon"
    return made


def test_horizons_settings_differ_by_the_list_of_regions_alone(horizon):
    plain, patched = (assigned(horizon[which] / "local_settings") for which in ("plain", "patched"))
    assert "AVAILABLE_REGIONS" not in plain
    assert {key: value for key, value in patched.items() if key != "AVAILABLE_REGIONS"} == plain
    wanted = [(f"http://{AR}:5000/v3", region) for region in REGIONS]
    assert patched["AVAILABLE_REGIONS"] == repr(wanted)


# -- 3. an endpoint is told by its region too --------------------------------------------------------------------


@pytest.fixture(scope="module")
def glance(lab, tmp_path_factory):
    """``glance("plain" | "patched")``: Glance's endpoints after OSR1 and after OSR2; whether OSR1 again changes any."""
    done = {}
    programs = newton_lab.toolbox()

    def run(which: str):
        if which in done:
            return done[which]
        keystone = Keystone(tmp_path_factory.mktemp(which) / "keystone")
        with keystone.serving() as url:
            for region in REGIONS:
                keystone.manage(
                    *("bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", region),
                    *(
                        part
                        for kind in ("admin", "internal", "public")
                        for part in (f"--bootstrap-{kind}-url", f"{url}/v3")
                    ),
                )

            def register(region: str) -> bool:
                return any(
                    [
                        _register(programs, getattr(lab, which), url, region, kind, keystone.folder)
                        for kind in INTERFACES
                    ]
                )

            def seen():
                return {row for row in endpoints(url, PASSWORD) if row[1] == "glance"}

            register("OSR1")
            first = seen()
            register("OSR2")
            done[which] = first, seen(), register("OSR1")
        return done[which]

    return run


INTERFACES = ("admin", "internal", "public")


def _register(programs: Path, tree: Path, url: str, region: str, interface: str, home: Path) -> bool:
    """Register Glance as the role glance does: by the tree's own module; returns whether it changed something."""
    domain = {"user_domain_id": "default", "project_domain_id": "default"}
    auth = {"auth_url": f"{url}/v3", "username": "admin", "password": PASSWORD, "project_name": "admin", **domain}
    told = {"auth_of_admin": auth, "ansible_python_interpreter": str(programs / "python")}
    words = f"service_name=glance service_type=image description='Openstack Image' endpoint_region={region}"
    words += f" url={glance_url(region)} interface={interface} region_name={region} auth={{{{ auth_of_admin }}}}"
    argv = [str(programs / "ansible"), "localhost", "-i", "localhost,", "-c", "local"]
    argv += ["-M", str(tree / "docker" / "kolla-toolbox"), "-m", "kolla_keystone_service", "-e", json.dumps(told)]
    # Today's Keystone has the v3 API alone.
    environ = os.environ | newton_lab.QUIET | {"OS_IDENTITY_API_VERSION": "3", "HOME": str(home)}
    done = subprocess.run([*argv, "-a", words], capture_output=True, text=True, timeout=180, env=environ)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return json.loads(done.stdout.split("SUCCESS => ")[1])["changed"]


def glance_url(region: str) -> str:
    return f"http://198.18.{2 + int(region == 'OSR2')}.10:9292"


def glance_rows(where: str, *regions: str) -> set[tuple[str, str, str, str]]:
    return {(region, "glance", kind, glance_url(where or region)) for region in regions for kind in INTERFACES}


def test_without_the_edit_registering_osr2_takes_osr1s_endpoints(glance):
    first, second, _ = glance("plain")
    assert first == glance_rows("", "OSR1")
    # OSR1's rows now name OSR2's address, and OSR2 has none.
    assert second == glance_rows("OSR2", "OSR1")


def test_with_it_both_stand_and_a_second_run_changes_nothing(glance):
    first, second, changed = glance("patched")
    assert first == glance_rows("", "OSR1")
    assert second == glance_rows("", "OSR1", "OSR2")
    assert changed is False


# -- 4. and 5. Keystone's URLs, and [keystone_authtoken] ---------------------------------------------------------

FILES = {
    "nova": [f"nova-{name}/nova.conf" for name in ("api", "conductor", "scheduler", "compute", "novncproxy")],
    "glance": ["glance-api/glance-api.conf", "glance-registry/glance-registry.conf"],
    "neutron": [f"neutron-{name}/neutron.conf" for name in ("server", "l3-agent", "dhcp-agent", "metadata-agent")],
}
OWN = {"auth_uri": f"http://{OSR1}:5000", "auth_url": f"http://{OSR1}:35357"}
SHARED = {"auth_uri": f"http://{AR}:5000/v3", "auth_url": f"http://{AR}:35357/v3"}


@pytest.fixture(scope="module")
def services(lab, tmp_path_factory):
    """The services' configuration of OSR1 by both trees: which -> file -> settings."""
    folder = tmp_path_factory.mktemp("services")
    custom = {"node_custom_config": str(lab.plan / "OSR1" / "config")}
    made = {}
    for which in ("plain", "patched"):
        lab.rendered(getattr(lab, which), "OSR1", "nova,glance,neutron", folder / which, **custom)
        made[which] = {name: settings(folder / which / name) for names in FILES.values() for name in names}
    return made


def authtoken(found: dict) -> dict[str, str]:
    return {key: found["keystone_authtoken", key] for key in OWN}


def test_without_the_edit_nova_and_glance_ask_their_own_region_which_has_no_keystone(services):
    for service, names in FILES.items():
        for name in names:
            assert authtoken(services["plain"][name]) == (SHARED if service == "neutron" else OWN), name


def test_with_it_all_ask_the_admin_region_and_nothing_else_has_changed(services):
    for service, names in FILES.items():
        for name in names:
            plain, patched = services["plain"][name], services["patched"][name]
            assert authtoken(patched) == SHARED, name
            changed = {key for key in plain | patched if plain.get(key) != patched.get(key)}
            wanted = set() if service == "neutron" else {("keystone_authtoken", key) for key in OWN}
            assert changed == wanted, name


def test_other_sections_that_name_keystone_name_the_admin_regions(services):
    for found in services["patched"].values():
        named = {value for (_, key), value in found.items() if key in ("auth_url", "auth_uri")}
        assert named <= set(SHARED.values())


def test_the_whole_of_openstack_auth_must_be_told(lab, tmp_path):
    """What services register themselves with, from the release's own group_vars and role defaults."""
    book = lab.patched / "ansible" / "auth-only.yml"
    show = {"debug": {"msg": "{{ openstack_nova_auth }}"}}
    book.write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "nova-api",
                    "gather_facts": False,
                    "vars_files": ["roles/nova/defaults/main.yml"],
                    "tasks": [show],
                }
            ]
        )
    )
    told = yaml.safe_load((lab.plan / "OSR1" / "globals.yml").read_text())
    assert f"http://{AR}:35357" in lab.playbook(lab.patched, "OSR1", [], {}, book=book)
    # With the three URLs alone, services would look for Keystone in their own region.
    (tmp_path / "OSR1").mkdir()
    (tmp_path / "OSR1" / "inventory.yml").symlink_to(lab.plan / "OSR1" / "inventory.yml")
    (tmp_path / "passwords.yml").symlink_to(lab.plan / "passwords.yml")
    without = {key: value for key, value in told.items() if key != "openstack_auth"}
    (tmp_path / "OSR1" / "globals.yml").write_text(yaml.safe_dump(without))
    urls_alone = Lab(lab.env, lab.plain, lab.patched, tmp_path)
    assert f"http://{OSR1}:35357" in urls_alone.playbook(lab.patched, "OSR1", [], {}, book=book)
