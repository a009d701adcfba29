"""What comes over a connection: a body in time and within its size, heads in time, and the news that a client left."""

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from zbench.serving.refusal import RequestRefused

LARGEST_BODY = 2**19
"""Bytes: room for the longest prompt and its negative, each character written as an escape."""

BODY_S = 10.0
"""How long a client may take to send a body."""

HEAD_S = 10.0
"""How long a client may take to send the head of a request."""


async def read_body(request: Request, largest: int = LARGEST_BODY, wait_s: float = BODY_S) -> bytes:
    """The body. Raises RequestRefused where it is too large or too slow, ClientDisconnect where the client left."""
    too_large = RequestRefused(
        413, f"the body is larger than {largest:,} bytes; send less", code="body_too_large", headers=CLOSE
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > largest:
        raise too_large
    read = bytearray()
    try:
        async with asyncio.timeout(wait_s):
            async for chunk in request.stream():
                read += chunk
                if len(read) > largest:
                    raise too_large
    except TimeoutError as error:
        message = f"the body took longer than {wait_s:g} s; send it at once"
        raise RequestRefused(408, message, code="body_too_slow", headers=CLOSE) from error
    return bytes(read)


CLOSE = {"connection": "close"}
"""Headers of an answer after which nothing more is read."""


async def client_left(request: Request) -> None:
    """Return once the client is gone; the body must be read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class TimelyProtocol(H11Protocol):
    """uvicorn's, but a connection on which a head does not come to its end in time is closed."""

    head_s = HEAD_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is due."""
        super().connection_made(transport)
        self._head_due: asyncio.TimerHandle | None = self.loop.call_later(self.head_s, self._close_slow)

    def data_received(self, data: bytes) -> None:
        """Of a further request, the head is due once it has begun."""
        if self._head_due is None and self._is_idle:
            self._head_due = self.loop.call_later(self.head_s, self._close_slow)
        super().data_received(data)

    def handle_events(self) -> None:
        """A head that came ends the wait for it."""
        super().handle_events()
        if not self._is_idle:
            self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._forget()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def _forget(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _close_slow(self) -> None:
        self._head_due = None
        if self._is_idle and not self.transport.is_closing():
            self.transport.close()


__all__ = ["BODY_S", "HEAD_S", "LARGEST_BODY", "ClientDisconnect", "TimelyProtocol", "client_left", "read_body"]
