"""Configuration of the local testbed, in enoslib's form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network

from enoslib.infra.configuration import BaseConfiguration
from jsonschema.validators import validator_for

from mrkolla.base.errors import InputError
from mrkolla.providers.local.constants import DEFAULT_NETWORK, FIRST_HOST, GATEWAY
from mrkolla.providers.local.schema import SCHEMA

_ALLOWED = IPv4Network("198.18.0.0/15")


@dataclass
class MachineConfiguration:
    """One machine: its name and roles, the id of its network, its address (the next free one when not given).

    ``extra_addresses`` (a VIP) are on the same interface, eth0; ``external`` gives it a second one without address,
    eth1, on a bridge that it shares with the external interfaces of its network.
    """

    name: str
    roles: list[str]
    network: str
    address: str | None = None
    extra_addresses: list[str] = field(default_factory=list)
    external: bool = False

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass
class NetworkConfiguration:
    """One subnet behind the testbed's router: its id and roles, its addresses (the next free /24 when not given)."""

    id: str
    roles: list[str]
    cidr: str | None = None

    def to_dict(self) -> dict:
        return asdict(self)

    @property
    def subnet(self) -> IPv4Network:
        return IPv4Network(self.cidr)

    @property
    def gateway(self) -> IPv4Address:
        return self.subnet[GATEWAY]


class LocalConf(BaseConfiguration):
    """What to start: ``name`` tells one set of machines from another, ``network`` holds all their subnets,
    ``images`` is a folder of built images (see :mod:`mrkolla.images`) that every machine's Docker has from the start,
    ``registries`` are HOST:PORT reached without TLS."""

    _SCHEMA = SCHEMA
    # Without it the base class also checks the schema itself each time, which takes a quarter of a second.
    _VALIDATOR_FUNC = validator_for(SCHEMA)

    def __init__(self) -> None:
        super().__init__()
        self.name = "mrkolla"
        self.network = DEFAULT_NETWORK
        self.images: str | None = None
        self.registries: list[str] = []
        self._machine_cls = MachineConfiguration
        self._network_cls = NetworkConfiguration

    @classmethod
    def from_dictionary(cls, dictionary: Mapping, validate: bool = True) -> LocalConf:
        """Make a configuration from a plain dict (see ``schema.py``)."""
        if validate:
            cls.validate(dictionary)
        self = cls()
        for key in ("name", "network", "images", "registries"):
            if key in dictionary:
                setattr(self, key, dictionary[key])
        resources = dictionary["resources"]
        self.machines = [MachineConfiguration(**machine) for machine in resources["machines"]]
        self.networks = [NetworkConfiguration(**network) for network in resources["networks"]]
        return self.finalize()

    def to_dict(self) -> dict:
        return {
            "name": self.name,
            "network": self.network,
            "images": self.images,
            "registries": self.registries,
            "resources": {
                "machines": [machine.to_dict() for machine in self.machines],
                "networks": [network.to_dict() for network in self.networks],
            },
        }

    def finalize(self) -> LocalConf:
        """Validate, and give addresses to networks and machines that have none."""
        self.validate(self.to_dict())
        try:
            whole = IPv4Network(self.network)
        except ValueError as error:
            raise InputError(f"network: {self.network}: {error}") from error
        if not whole.subnet_of(_ALLOWED) or whole.prefixlen > 22:
            raise InputError(f"network: {whole} must be a part of {_ALLOWED}, a /22 or larger")
        subnets = whole.subnets(new_prefix=24)
        next(subnets)  # the first one is between the machine and the router
        used = {network.cidr for network in self.networks if network.cidr}
        for network in self.networks:
            while network.cidr is None:
                candidate = next(subnets, None)
                if candidate is None:
                    raise InputError(f"network: {whole} has no /24 left for network '{network.id}'")
                network.cidr = None if str(candidate) in used else str(candidate)
        self._refuse_clashes(whole)
        self._give_addresses()
        return self

    def number(self, network: NetworkConfiguration) -> int:
        """The number of ``network``, from 0: by its place among the addresses, so it stays when others come and go."""
        whole = IPv4Network(self.network)
        return (int(network.subnet.network_address) - int(whole.network_address)) // 256 - 1

    def _refuse_clashes(self, whole: IPv4Network) -> None:
        taken = [("the router", next(whole.subnets(new_prefix=24)))]
        for network in self.networks:
            try:
                subnet = network.subnet
            except ValueError as error:
                raise InputError(f"network '{network.id}': {network.cidr}: {error}") from error
            if not subnet.subnet_of(whole) or subnet.prefixlen > 24:
                raise InputError(f"network '{network.id}': {subnet} must be a part of {whole}, a /24 or larger")
            for name, taken_subnet in taken:
                if subnet.overlaps(taken_subnet):
                    raise InputError(f"network '{network.id}': {subnet} overlaps that of {name}, {taken_subnet}")
            taken.append((f"network '{network.id}'", subnet))

    def _give_addresses(self) -> None:
        by_id = {network.id: network for network in self.networks}
        names = [machine.name for machine in self.machines]
        if duplicates := {name for name in names if names.count(name) > 1}:
            raise InputError(f"resources.machines: two machines are called '{sorted(duplicates)[0]}'")
        addresses = [a for machine in self.machines for a in (machine.address, *machine.extra_addresses) if a]
        if duplicates := {address for address in addresses if addresses.count(address) > 1}:
            raise InputError(f"resources.machines: two machines have the address {sorted(duplicates)[0]}")
        taken = set(addresses)
        for machine in self.machines:
            if machine.network not in by_id:
                raise InputError(f"machine '{machine.name}': no network '{machine.network}'")
            self._refuse_address(machine, by_id[machine.network])
            free = (str(by_id[machine.network].subnet[number]) for number in range(FIRST_HOST, GATEWAY))
            while machine.address is None:
                candidate = next(free, None)
                if candidate is None:
                    raise InputError(f"network '{machine.network}' has no address left for machine '{machine.name}'")
                if candidate not in taken:
                    machine.address = candidate
                    taken.add(candidate)

    @staticmethod
    def _refuse_address(machine: MachineConfiguration, network: NetworkConfiguration) -> None:
        for address in (machine.address, *machine.extra_addresses):
            if address is None:
                continue
            try:
                inside = IPv4Address(address) in network.subnet and IPv4Address(address) != network.gateway
            except ValueError as error:
                raise InputError(f"machine '{machine.name}': {error}") from error
            if not inside:
                raise InputError(
                    f"machine '{machine.name}': {address} is not free in network '{network.id}' ({network.subnet})"
                )
