"""What images are called that are built here: Kolla's names, in a registry of which nothing is ever asked."""

REGISTRY, NAMESPACE = "mrkolla.local", "openstack.kolla"
#: The distribution that they are made of: Kolla's name of it, and that of its release.
DISTRO = ("debian", "trixie")
