"""Connections before their requests: how long one may stay silent, and how many a host may hold."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""Seconds from the connection, or from the first byte of a later request, to the end of the request's headers."""
_REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"


class Connection(H11Protocol):
    """A connection that is closed when its headers take too long, or when its host has too many already.

    Neither needs a token, so that nobody without one can take every place.
    """

    per_host: int
    """The most connections of one host."""
    header_seconds = HEADER_SECONDS
    _alarm: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless its host has all its places."""
        host = _host(transport)
        if sum(_host(each.transport) == host for each in self.connections) >= self.per_host:
            self._is_refused = True
            transport.write(_REFUSAL)
            transport.close()
            return
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read; the clock runs until the headers are complete, however slowly they come."""
        if self._is_refused:
            return
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        if self._is_refused:
            return
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._alarm is None:
            self._alarm = self.loop.call_later(self.header_seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


def connections(per_host: int) -> type[Connection]:
    """Return the class of a server's connections, of which a host may hold `per_host`."""
    return type("BoundedConnection", (Connection,), {"per_host": per_host})


def _host(transport: asyncio.Transport) -> str:
    return str((transport.get_extra_info("peername") or ("",))[0])
