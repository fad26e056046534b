"""The normal user that load logs in as."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openstack
from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException

from mrkolla.base.errors import BenchError
from mrkolla.bench.base import API_TIMEOUT_S


def ensure_person(
    keystone_url: str,
    admin: Mapping[str, str],
    name: str,
    password: str,
    ca: Path | None = None,
    again: bool = False,
) -> dict[str, str]:
    """A user ``name`` with ``password`` who is a member of a project of the same name; made where missing.

    With ``again`` a user that exists is given its password once more, so that Keystone hashes it as it is set to now.
    Returns what such a user logs in with. ``ca`` is the certificate (PEM) by which https is trusted. Raises BenchError
    when Keystone refuses.
    """
    connection = openstack.connect(
        auth={"auth_url": f"{keystone_url}/v3", **admin},
        cacert=str(ca) if ca else None,
        load_yaml_config=False,
        load_envvars=False,
        app_name="mrkolla",
        api_timeout=API_TIMEOUT_S,
    )
    try:
        with connection:
            identity: Any = connection.identity
            project = identity.find_project(name) or identity.create_project(name=name, domain_id="default")
            user = identity.find_user(name)
            if user is None:
                user = identity.create_user(
                    name=name, password=password, domain_id="default", default_project_id=project.id
                )
            elif again:
                identity.update_user(user, password=password)
            role = identity.find_role("member") or identity.find_role("_member_")
            if role is None:
                raise BenchError("the admin region's Keystone has no role 'member'")
            identity.assign_project_role_to_user(project, user, role)
    except (SDKException, ClientException) as error:
        raise BenchError(f"Keystone refused to make the user '{name}': {str(error).splitlines()[0]}") from error
    domains = {"user_domain_name": "Default", "project_domain_name": "Default"}
    return {
        "auth_url": keystone_url,
        "username": name,
        "password": password,
        "project_name": name,
        **domains,
    }
