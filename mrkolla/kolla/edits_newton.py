"""The edits that Kolla of Newton needs for regions around one Keystone.

They fit kolla 3.0.0, 3.0.1, 3.0.2 and 3.0.3. Later releases have them: :mod:`mrkolla.kolla.changes` says since when.
"""

from __future__ import annotations

from mrkolla.kolla.edit import Edit

_NEWTON = ("newton",)
_MAIL = "Cherrueau, 'multi-regions deployment with Kolla', openstack-dev, 2017"
_AUTH = (
    "the region's own address, where no Keystone is, instead of keystone_internal_url and keystone_admin_url, which an"
    f" OpenStack region's run takes from the admin region ({_MAIL}; kolla-ansible 2e4e605)"
)
#: Both lines, as they stand in the branch that is not for Kubernetes.
_OWN_ADDRESS = """{% else %}
auth_uri = {{ internal_protocol }}://{{ kolla_internal_fqdn }}:{{ keystone_public_port }}
auth_url = {{ admin_protocol }}://{{ kolla_internal_fqdn }}:{{ keystone_admin_port }}
"""
_SHARED_KEYSTONE = """{% else %}
auth_uri = {{ keystone_internal_url }}
auth_url = {{ keystone_admin_url }}
"""


def _authtoken(name: str, role: str, template: str) -> Edit:
    return Edit(
        name=f"newton-authtoken-{name}",
        releases=_NEWTON,
        file=f"ansible/roles/{role}/templates/{template}",
        anchor=_OWN_ADDRESS,
        text=_SHARED_KEYSTONE,
        where="replace",
        reason=f"[keystone_authtoken] of {template.removesuffix('.j2')} is made from {_AUTH}",
        change="authtoken",
    )


NEWTON: tuple[Edit, ...] = (
    Edit(
        name="newton-regions",
        releases=_NEWTON,
        file="ansible/group_vars/all.yml",
        anchor='openstack_region_name: "RegionOne"\n',
        text='openstack_regions: ["{{ openstack_region_name }}"]\n',
        where="after",
        reason="the list of regions that the admin region's run registers and offers; by default that region alone,"
        f" as without the edit ({_MAIL})",
        change="register",
    ),
    Edit(
        name="newton-register-regions",
        releases=_NEWTON,
        file="ansible/roles/keystone/tasks/register.yml",
        anchor="{{ openstack_region_name }}\n",
        text='{{ item }}\n  with_items: "{{ openstack_regions }}"\n',
        where="replace",
        reason="Keystone's own endpoints are registered in the one region that the run is for; every region that uses"
        f" this Keystone must have them ({_MAIL}; kolla-ansible dcdbe44)",
        change="register",
    ),
    Edit(
        name="newton-horizon-regions",
        releases=_NEWTON,
        file="ansible/roles/horizon/templates/local_settings.j2",
        into="multi-regions/horizon/local_settings",
        anchor="# For multiple regions uncomment this configuration, and add (endpoint, title).\n",
        text="""AVAILABLE_REGIONS = [
{% for region in openstack_regions %}
    ('{{ keystone_internal_url }}', '{{ region }}'),
{% endfor %}
]

""",
        where="before",
        reason="Horizon offers one region; this release takes the file whole from node_custom_config, so it is made"
        f" from the release's own template into multi-regions/ ({_MAIL}; kolla-ansible dcdbe44)",
        change="horizon",
    ),
    Edit(
        name="newton-endpoint-by-region",
        releases=_NEWTON,
        file="docker/kolla-toolbox/kolla_keystone_service.py",
        anchor="_endpoint.interface == interface:\n",
        text="_endpoint.interface == interface and \\\n                    _endpoint.region == endpoint_region:\n",
        where="replace",
        reason="an endpoint is looked for by service and interface alone, so that registering a service in a second"
        f" region overwrites the endpoint of the first ({_MAIL}; kolla fe3debc)",
        change="endpoint",
    ),
    _authtoken("nova", "nova", "nova.conf.j2"),
    _authtoken("glance-api", "glance", "glance-api.conf.j2"),
    _authtoken("glance-registry", "glance", "glance-registry.conf.j2"),
)
