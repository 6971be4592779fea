"""Connections, bounded where uvicorn would wait without end: for a request, and for who does not take a reply."""

from __future__ import annotations

import asyncio

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from sgft_edge.server.work import Limits

MOST = 512  # connections: fewer than a process may have files where nobody raised that (1,024)


class Connection(H11Protocol):
    """uvicorn's connection with two clocks.

    One runs while no request is under way, however much of the next has come: a head that drips in, or a body that goes
    on after its error, does not stop it. The other runs while something is written that the client does not take. A
    connection that comes to the end of either is dropped, and so is the one that waited longest where there are more
    than `MOST`.
    """

    patience: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._asking: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that whatever is not taken pauses the writing
        self._watch()
        if len(self.connections) > MOST:
            waiting = [other for other in self.connections if isinstance(other, Connection) and other._asking]
            min(waiting, key=lambda other: other._asking.when() if other._asking else 0.0).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._asking = _stopped(self._asking)
        self._taking = _stopped(self._taking)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking = self._taking or self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        self._taking = _stopped(self._taking)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None:  # whoever answers what came before must not write behind this
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # a reply has begun, or was sent before the body's end: there is no place for another
            self.transport.abort()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._asking = _stopped(self._asking)
        elif self._asking is None and not self.transport.is_closing():
            self._asking = self.loop.call_later(self.patience, self.transport.abort)


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """No timer any more."""
    if timer is not None:
        timer.cancel()
    return None


def server(app: ASGIApp, limits: Limits, log_level: str = "warning", grace: int = 5) -> uvicorn.Server:
    """A server of an application under its limits; at its end, running requests go on for `grace` seconds."""
    bounded = type("Bounded", (Connection,), {"patience": limits.patience})
    config = uvicorn.Config(
        app, http=bounded, ws="none", log_level=log_level, access_log=False, timeout_graceful_shutdown=grace
    )
    return uvicorn.Server(config)
