"""Two guests on a network of their own in one region, one of which asks the other (:mod:`mrkolla.images.pair`)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mrkolla.base.errors import CheckError
from mrkolla.check.guest import CIDR, Trial

_NETWORK = CIDR.rpartition(".")[0]


@dataclass
class Pair(Trial):
    """As :class:`Trial`, with two servers whose addresses end with ``asks`` and ``answers``.

    After :meth:`run`, ``server_id`` and ``host`` (a name, as Nova has it) are those of the one that asks, and
    ``neighbour_host`` that of the one that answers.
    """

    asks: int = 201
    answers: int = 202
    server_id: str = ""
    host: str = ""
    neighbour_host: str = ""

    def run(self) -> None:
        """Boot both, and see that each says that it is up, with its address. Raises CheckError, a line, otherwise.

        Raises one of API_ERRORS too, when a service refuses.
        """
        self._be_patient()
        self.say("uploading the guests' image")
        image = self._upload()
        flavor, network = self._flavor(), self._network()
        server_ids, started = [], time.monotonic()
        for number in (self.answers, self.asks):
            card = {"uuid": network.id, "fixed_ip": f"{_NETWORK}.{number}"}
            server_ids.append(self._server(f"{self.name}-{number}", image, flavor, card))
        for server in [self._active(server_id, started) for server_id in server_ids]:
            if server is not None and not self.findings:
                self._read_guest(server)
        if self.findings:
            raise CheckError(str(self.findings[0]))
        self.server_id = server_ids[1]
        self.neighbour_host, self.host = (
            self.admin.compute.get_server(server_id).compute_host for server_id in server_ids
        )
