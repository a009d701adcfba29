"""A small images server in a thread of this process, which answers as a test tells it to."""

import base64
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (64, 48), form: str = "PNG") -> str:
    """A picture of noise, encoded as a server sends it; `size` is width and height."""
    held = io.BytesIO()
    Image.fromarray(pixels(seed, size)).save(held, format=form)
    return base64.b64encode(held.getvalue()).decode()


def pixels(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Any:
    """Those of `picture`."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)


class Call:
    """One request that came, and ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self.path = handler.path
        self.headers = handler.headers
        length = int(handler.headers.get("content-length", 0))
        self.body: dict[str, Any] = json.loads(handler.rfile.read(length) or b"{}")

    def answer(self, status: int, content: Any, **headers: str) -> None:
        """JSON, or bytes as they are."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.head(status, **({"content_length": str(len(raw))} | headers))
        self._handler.wfile.write(raw)

    def images(self, *images: str, **fields: Any) -> None:
        """A good answer."""
        self.answer(200, {"created": 1, "data": [{"b64_json": image} for image in images], **fields})

    def head(self, status: int, **headers: str) -> None:
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def write(self, raw: bytes) -> None:
        self._handler.wfile.write(raw)
        self._handler.wfile.flush()

    def hang_up(self, *, reset: bool = False) -> None:
        """End the connection; with `reset` as a process does that is killed with bytes unread."""
        sock = self._handler.connection
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._handler.rfile.close()
            sock.close()
        else:
            sock.shutdown(socket.SHUT_RDWR)


Script = Callable[[Call], None]


class ScriptedServer:
    """Where it is, and what was asked of it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                call = Call(self)
                outer.calls.append(call)
                with suppress(OSError, ValueError):  # the client left, or the script hung up
                    outer.script(call)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                """Nothing."""

            def handle(self) -> None:
                with suppress(OSError, ValueError):
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """It takes no more connections."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)


@contextmanager
def images_server(script: Script) -> Iterator[ScriptedServer]:
    """One that answers by `script`, called with each request."""
    server = ScriptedServer(script)
    try:
        yield server
    finally:
        server.stop()
