"""One connection of a client to a server of ours: it asks within a while, or it ends; one address has so many."""

import asyncio
import ipaddress
from collections import Counter
from typing import Any, ClassVar, TypeAlias

from stanch.store.host import is_loopback

Networks: TypeAlias = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

HEAD_SECONDS = 15.0
"""For how long a connection may carry no request: until the first one's head is whole, and after each answer."""
MOST_OF_ONE = 1024
"""So many connections one address may have; of IPv6, one network of 64 bits, which is one customer's."""


class Patient(asyncio.Protocol):
    """Stands before a protocol class of uvicorn's, which itself waits without end for a head that has begun.

    Attributes:
        loop: The loop that the connection belongs to.
        transport: The connection.
        client: Address and port of whoever connected.
        cycle: The request that is answered, or was answered last.
        spared: Whose connections are not counted, besides those from this machine: proxies, which are many clients.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    client: tuple[str, int] | None
    cycle: Any  # uvicorn's
    spared: ClassVar[Networks] = ()
    _open: ClassVar[Counter[str]] = Counter()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._place = self._counted()
        self._open[self._place] += 1
        self._wait()
        if self._place and self._open[self._place] > MOST_OF_ONE:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count one less."""
        super().connection_lost(exc)
        self._waiting.cancel()
        self._open[self._place] -= 1
        if not self._open[self._place]:
            del self._open[self._place]

    def on_response_complete(self) -> None:
        """Wait for the next request; what is left of this one's body counts as none."""
        super().on_response_complete()  # type: ignore[misc]  # uvicorn's
        self._waiting.cancel()
        self._wait()

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _counted(self) -> str:
        """Return under which name the connection is counted; empty if nobody minds how many there are."""
        try:
            address = ipaddress.ip_address(self.client[0] if self.client else "")
        except ValueError:
            return ""
        if is_loopback(str(address)) or any(address in network for network in self.spared):
            return ""
        return str(ipaddress.ip_network((address, 64), strict=False) if address.version == 6 else address)
