"""The server's process: its port, its signals and its end.

The first SIGINT, SIGTERM or SIGHUP stops it in order: it takes no more, requests that wait get 503, the one that is
painted is answered, and the exit code is 0. A second one ends it at once.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import uvicorn

from zbench.errors import Exit, ZbenchError
from zbench.executors.client import LEAVES_NO_GAPS
from zbench.serving.app import make_app, make_desk, say
from zbench.serving.line import Line, QueueClosed
from zbench.serving.orders import Menu
from zbench.serving.studio import Studio
from zbench.serving.wire import TimelyProtocol

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

BACKLOG = 2048
"""Connections that may wait to be taken up."""

LAST_BYTES_S = 10.0
"""How long clients may take to read their answers once nothing is painted any more."""


class _QuietServer(uvicorn.Server):
    """uvicorn's, without its handlers of signals, which raise them again at the end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


class ImageServer:
    """One trial's pipeline on one port."""

    def __init__(self, menu: Menu, listening: socket.socket, *, queue: int) -> None:
        """`listening` is bound; `queue` is how many requests may wait."""
        self.url = url_of(listening)
        self._socket = listening
        self._line = Line(queue)
        self._studio = Studio(
            menu, self._line, talk=say, on_ready=self._ready, on_failed=lambda: self._in_loop(self._end)
        )
        app = make_app(make_desk(menu, self._line, self._studio))
        self._server = _QuietServer(
            uvicorn.Config(app, http=TimelyProtocol, ws="none", lifespan="off", log_config=None, access_log=False)
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops = 0

    def run(self) -> None:
        """Serve until a signal. Raises what the engine failed with; a second signal ends the process."""
        for name, value in (LEAVES_NO_GAPS | {"CACHE_DIT_LOG_LEVEL": "error"}).items():
            os.environ.setdefault(name, value)
        asyncio.run(self._serve())
        if self._studio.error is not None:
            raise self._studio.error
        if not self._studio.join(0.0 if self._studio.is_loading else None):
            say("stopped while it was loading")
            leave(Exit.DONE)  # native code that loads cannot be interrupted
        say("stopped")

    def stop(self) -> None:
        """What the first signal does; any thread may ask for it."""
        self._in_loop(self._stop)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        numbers = [n for n in SIGNALS if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
        if threading.current_thread() is not threading.main_thread():
            numbers = []  # they are the main thread's, which calls `stop`
        for number in numbers:
            self._loop.add_signal_handler(number, self._stop)
        say(f"listening on {self.url}; it answers once the pipeline is warmed up")
        self._studio.start()
        watching = self._loop.create_task(self._end_slow_readers())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            watching.cancel()
            for number in numbers:
                self._loop.remove_signal_handler(number)

    def _ready(self) -> None:
        say(f"ready: {self.url}")
        print(self.url, flush=True)

    def _stop(self) -> None:
        self._stops += 1
        if self._stops > 1:
            say("stopped at once")
            leave(Exit.INTERRUPTED)
        waited = self._line.close()
        for job in waited:
            job.settle(QueueClosed())
        painting = "; what is painted is answered first" if self._studio.serving else ""
        say(f"stopping; {len(waited)} waiting requests get 503{painting}")
        self._server.should_exit = True

    def _end(self) -> None:
        self._server.should_exit = True

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is over
                self._loop.call_soon_threadsafe(call)

    async def _end_slow_readers(self) -> None:
        """A client that does not read its answer holds no stop up."""
        while not self._server.should_exit or self._studio.serving:
            await asyncio.sleep(0.1)
        await asyncio.sleep(LAST_BYTES_S)
        self._server.force_exit = True


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens on that address. Raises ZbenchError that names the flag."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ZbenchError(f"--host {host}: {said}; give an address of this machine, such as 127.0.0.1") from error
    listening = socket.socket(family, kind)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ZbenchError(
            f"--host {host} --port {port}: {error.strerror}; give another, --port 0 takes one that is free"
        ) from error
    return listening


def url_of(listening: socket.socket) -> str:
    """Where clients find it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def leave(code: Exit) -> NoReturn:
    """End now; threads of the engine are not waited for."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
