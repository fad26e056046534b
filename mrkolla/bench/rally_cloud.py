"""What stock tasks boot: an image and a flavor of one name in every region, made once by the administrator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openstack
from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException

from mrkolla.base.errors import BenchError
from mrkolla.bench.base import API_TIMEOUT_S

NAME = "mrkolla-bench"
#: The open names of task files that are answered with these: argument -> what it names.
ARGUMENTS = {"image_name": "image", "flavor_name": "flavor"}
_RAM_MB, _DISK_GB = 256, 1


def ensure(platform: Mapping[str, Any], wanted: Sequence[str], disk: Path, ca: Path | None = None) -> dict[str, str]:
    """Make the ``wanted`` of :data:`ARGUMENTS` in the region of ``platform`` where missing; returns the arguments.

    ``platform`` is Rally's specification with an administrator; ``disk`` (raw) is what the image holds. They stay
    for the next run. ``ca`` is the certificate (PEM) by which https is trusted. Raises BenchError when the region
    refuses.
    """
    region = platform["region_name"]
    try:
        with openstack.connect(
            auth={"auth_url": platform["auth_url"], **platform["admin"]},
            region_name=region,
            interface=platform["endpoint_type"],
            cacert=str(ca) if ca else None,
            load_yaml_config=False,
            load_envvars=False,
            app_name="mrkolla",
            api_timeout=API_TIMEOUT_S,
        ) as cloud:
            images: Any = cloud.image
            image = images.find_image(NAME) if "image_name" in wanted else None
            if image is not None and image.status != "active":
                # Whoever made it was ended before all of it was uploaded: nothing can be booted from it.
                images.delete_image(image)
                image = None
            if "image_name" in wanted and image is None:
                with disk.open("rb") as data:
                    images.create_image(
                        name=NAME, data=data, disk_format="raw", container_format="bare", visibility="public"
                    )
            if "flavor_name" in wanted and cloud.compute.find_flavor(NAME) is None:
                cloud.compute.create_flavor(name=NAME, ram=_RAM_MB, vcpus=1, disk=_DISK_GB, is_public=True)
    except (SDKException, ClientException) as error:
        why = " ".join(str(error).split())[:300]
        raise BenchError(f"{region}: the image and flavor that Rally's tasks boot could not be made: {why}") from None
    return dict.fromkeys(wanted, NAME)
