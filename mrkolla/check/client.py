"""openstacksdk connections that use what they are given and nothing of the machine's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openstack
import requests
from keystoneauth1 import session
from keystoneauth1.identity import v3
from openstack.config import cloud_region

from mrkolla.check.model import CloudView

REQUEST_TIMEOUT_S = 60


def connect(view: CloudView, auth: Mapping[str, str], region: str, keystone: str | None = None) -> Any:
    """A connection to ``region`` with ``auth`` (username, password, project_name and the two domain names).

    ``keystone`` is the URL (without /v3) of the Keystone to use; None: the AR's.
    """
    base = (keystone or view.identity_url(view.client_interface)).rstrip("/").removesuffix("/v3") + "/v3"
    plugin = v3.Password(
        auth_url=base,
        username=auth["username"],
        password=auth["password"],
        project_name=auth["project_name"],
        user_domain_name=auth["user_domain_name"],
        project_domain_name=auth["project_domain_name"],
    )
    http = requests.Session()
    # No proxy of the deployer stands between it and the regions.
    http.trust_env = False
    trusted = str(view.ca) if view.ca else True
    auth_session = session.Session(
        auth=plugin, session=http, timeout=REQUEST_TIMEOUT_S, app_name="mrkolla", verify=trusted
    )
    config = cloud_region.from_session(
        auth_session,
        name="mrkolla",
        region_name=region,
        interface=view.client_interface,
        identity_api_version="3",
        # Keystone is where the plan says, whatever the catalog has: the catalog is what is checked.
        identity_endpoint_override=base,
    )
    return openstack.connection.Connection(config=config)


def one_line(error: BaseException) -> str:
    """An exception as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
