"""What a Kolla for regions around one Keystone must do, and where each release has it from: an edit, a variable, or
its own code since a version. The versions were read from the histories of openstack/kolla and openstack/kolla-ansible.
"""

from __future__ import annotations

from dataclasses import dataclass

from mrkolla.kolla.edits import edits_for


@dataclass(frozen=True)
class Change:
    """One property. ``without`` maps a release (or ``*``) to why it needs no edit for it."""

    key: str
    title: str
    without: dict[str, str]


CHANGES: tuple[Change, ...] = (
    Change(
        "register",
        "1. Keystone's endpoints for every region",
        {"*": "own since kolla-ansible 5.0.0 (Pike): multiple_regions_names, dcdbe44"},
    ),
    Change(
        "horizon",
        "2. Horizon offers every region",
        {"*": "own since kolla-ansible 5.0.0 (Pike): multiple_regions_names, dcdbe44"},
    ),
    Change(
        "endpoint",
        "3. An endpoint is told by its region too",
        {"*": "own since kolla 4.0.0 (Ocata), fe3debc; since 10.0.0 (Ussuri) by openstack.cloud.endpoint, 0fbb93c"},
    ),
    Change(
        "urls",
        "4. Keystone's URLs from the admin region",
        {
            "newton": "by variables: keystone_admin_url, _internal_url, _public_url and the whole of openstack_auth,"
            " whose auth_url is made from kolla_internal_fqdn until 8.0.0 (Stein), 2e4e605",
            "2026.1": "by variables: keystone_internal_url, keystone_public_url; since 22.0.0 openstack_auth holds no"
            " URL: clouds.yaml is made from keystone_internal_url, a80b14c",
            "*": "by variables: keystone_internal_url, keystone_public_url, openstack_auth; no admin URL since 15.0.0"
            " (Zed), 7ca9349, ee32736",
        },
    ),
    Change(
        "authtoken",
        "5. [keystone_authtoken] uses these URLs",
        {
            "*": "own since kolla-ansible 8.0.0 (Stein), 2e4e605; Neutron since Newton, 99a1662;"
            " www_authenticate_uri is the public URL since 20.0.0"
        },
    ),
    Change(
        "fake",
        "6. Many fake computes on a host",
        {
            "newton": "its computes want neither compute_id (since 20.5.0, 21.2.0 and 22.1.0; 3e4cfd4) nor hostnqn"
            " (since 18.0.0, 8b3e755)"
        },
    ),
    Change(
        "together",
        "Regions deployed at the same time",
        {"newton": "not offered: regions are deployed one after the other"},
    ),
    Change(
        "places",
        "A Keystone in each region",
        {"*": "not offered: the admin region's alone"},
    ),
    Change(
        "datapath",
        "Open vSwitch in user space",
        {"newton": "not offered: the kernel's data path alone"},
    ),
    Change(
        "accelerated",
        "Runs by Mitogen, and shorter waits",
        {"*": "not offered: not seen to give the same files"},
    ),
    Change(
        "private",
        "Passwords not among the arguments of processes",
        {"*": "not offered: no images of it are built here"},
    ),
)


def why_not(change: Change, release: str) -> str:
    """Why ``release`` needs no edit for ``change``; empty when it needs one."""
    if any(edit.change == change.key for edit in edits_for(release)):
        return ""
    return change.without.get(release) or change.without.get("*", "not offered")


def rows(release: str) -> list[tuple[str, str, str]]:
    """For each change: its title, the names of the edits that ``release`` needs for it, why it needs none."""
    return [
        (
            change.title,
            ", ".join(edit.name for edit in edits_for(release) if edit.change == change.key),
            why_not(change, release),
        )
        for change in CHANGES
    ]
