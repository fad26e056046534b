"""The services of a cloud, those that a person added too, as Keystone's catalog lists them for the load's user."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from os_service_types import ServiceTypes

from mrkolla.base.errors import BenchError

_TIMEOUT_S = 60
_PERSON = ("username", "password", "project_name", "user_domain_name", "project_domain_name")


def endpoints(auth: Mapping[str, str], interface: str, ca: Path | None = None) -> dict[str, dict[str, str]]:
    """Region -> service type -> URL of ``interface``, for the user who logs in with ``auth`` (see BenchContext).

    ``ca`` is the certificate (PEM) by which https is trusted. Raises BenchError when Keystone refuses or is silent.
    """
    # Imported here: they take long to load, and reading an experiment file loads the tools.
    import requests
    from keystoneauth1 import session
    from keystoneauth1.exceptions import ClientException
    from keystoneauth1.identity import v3

    url = auth["auth_url"].rstrip("/").removesuffix("/v3") + "/v3"
    person: dict[str, Any] = {name: auth[name] for name in _PERSON}
    plugin = v3.Password(auth_url=url, **person)
    with requests.Session() as http:
        # No proxy of this machine stands between it and the cloud.
        http.trust_env = False
        auth_session = session.Session(auth=plugin, session=http, timeout=_TIMEOUT_S, verify=str(ca) if ca else True)
        try:
            services = plugin.get_access(auth_session).service_catalog.get_endpoints(interface=interface)
        except ClientException as error:
            why = " ".join(str(error).split())[:300]
            raise BenchError(f"Keystone's catalog cannot be read by '{auth['username']}': {why}") from error
    urls: dict[str, dict[str, str]] = {}
    for kind, entries in services.items():
        for entry in entries:
            if entry:
                urls.setdefault(entry["region"], {})[kind] = entry["url"]
    return urls


def has(services: Collection[str], kind: str) -> bool:
    """Whether ``kind`` is among the types of ``services``, by any of its names: volumev3 is block-storage too."""
    return bool({kind, *ServiceTypes().get_all_types(kind)} & set(services))
